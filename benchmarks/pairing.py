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
    """One way to do the work: its name, its role, the call that is timed, and what comes before each call without being timed."""

    name: str
    role: Role
    call: Callable[[], Any]
    before: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Span:
    """A median of rounds.

    Attributes:
        median: The median.
        low: The first quartile.
        high: The third quartile.
        least: What the true median is above, at 95 % (order statistics: no shape of the noise is assumed).
        most: What the true median is below, at 95 %.
    """

    median: float
    low: float
    high: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float], scale: float = 1.0) -> "Span":
        """The span of some values, each times `scale`."""
        ordered = sorted(value * scale for value in values)
        low, middle, high = statistics.quantiles(ordered, n=4, method="inclusive")
        n, reach = len(ordered), 0.98 * len(ordered) ** 0.5
        return cls(
            middle, low, high, ordered[max(0, round(n / 2 - reach) - 1)], ordered[min(n - 1, round(n / 2 + reach))]
        )


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

    def difference(self, above: str, below: str, scale: float = 1.0) -> Span:
        """Seconds, times `scale`, that `above` took longer than `below`, taken within each round."""
        return Span.of([a - b for a, b in zip(self.seconds[above], self.seconds[below], strict=True)], scale)


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
            _prepare(contender)
            contender.call()
    seconds: dict[str, list[float]] = {c.name: [] for c in contenders}
    for turn in range(rounds):
        gc.collect()
        gc.disable()
        try:
            for contender in _order(contenders, turn):
                _prepare(contender)
                start = time.perf_counter()
                contender.call()
                seconds[contender.name].append(time.perf_counter() - start)
        finally:
            gc.enable()
    return Timings(tuple(contenders), seconds)


def _prepare(contender: Contender) -> None:
    if contender.before is not None:
        contender.before()


def _order(contenders: Sequence[Contender], turn: int) -> list[Contender]:
    first = (turn // 2) % len(contenders)
    order = [*contenders[first:], *contenders[:first]]
    return order[::-1] if turn % 2 else order
