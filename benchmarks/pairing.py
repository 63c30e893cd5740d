"""Timing several ways to do one thing, side by side: the correctness first, then rounds in alternating order."""

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Role = Literal["ours", "peer", "limit"]


@dataclass(frozen=True)
class Contender:
    """One way to do the work: its name, its role, and the call that is timed."""

    name: str
    role: Role
    call: Callable[[], Any]


@dataclass(frozen=True)
class Span:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        """The middle and the quartiles of some values."""
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high)


@dataclass(frozen=True)
class Timings:
    """Seconds of each contender, round by round."""

    contenders: tuple[Contender, ...]
    seconds: dict[str, list[float]]

    def span(self, name: str) -> Span:
        """How long a contender took."""
        return Span.of(self.seconds[name])

    def ratio(self, above: str, below: str) -> Span:
        """Time of `above` over time of `below`, taken within each round, so that a slow moment of the machine falls on both."""
        return Span.of([a / b for a, b in zip(self.seconds[above], self.seconds[below], strict=True)])

    def difference(self, above: str, below: str) -> Span:
        """Seconds that `above` took longer than `below`, taken within each round."""
        return Span.of([a - b for a, b in zip(self.seconds[above], self.seconds[below], strict=True)])


class DisagreementError(Exception):
    """Two contenders do not do the same work, so their times mean nothing beside each other."""


def measure(contenders: Sequence[Contender], *, rounds: int, warm_up: int = 3) -> Timings:
    """Seconds of each contender in each of `rounds` rounds.

    Every round begins with another contender and every second one runs backwards, so that nobody always follows the same
    neighbour. The collector of garbage runs between rounds, not inside a timed call.
    """
    if rounds < 20:
        raise ValueError(f"{rounds} rounds are too few for a median; take 20 or more")
    for contender in contenders:
        for _ in range(warm_up):
            contender.call()
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for turn in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for contender in _order(contenders, turn):
                start = time.perf_counter()
                contender.call()
                seconds[contender.name].append(time.perf_counter() - start)
        finally:
            gc.enable()
    return Timings(tuple(contenders), seconds)


def _order(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    first = (turn // 2) % len(contenders)
    order = [*contenders[first:], *contenders[:first]]
    return order[::-1] if turn % 2 else order
