"""How a label is put to the test: in which passages is the feature active, which words is it active on, does it go with the activation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random
from typing import ClassVar, Protocol, TypeVar

import torch

from innerview.errors import FeatureError
from innerview.features.passages import Passage, Sample

Answer = bool | None
Item = TypeVar("Item")


@dataclass(frozen=True)
class Drawn:
    """Passages that a label is judged on, and what is known of each.

    Attributes:
        passages: The passages.
        truth: Whether the feature is active in each, or on the words that are pointed at.
        draws: Which passage each draw of an importance sample is; empty for the other tests.
        weights: What each draw counts, `1 / (n q)`.
        activations: The feature's strongest activation in each passage.
    """

    passages: tuple[Passage, ...]
    truth: tuple[bool, ...] = ()
    draws: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    activations: tuple[float, ...] = ()


class LabelTest(Protocol):
    """A test of labels."""

    name: ClassVar[str]
    is_pointing: ClassVar[bool]

    def drawn(self, sample: Sample, rng: Random) -> Drawn | None:
        """What is judged; None where the feature gives nothing to judge."""
        ...

    def score(self, drawn: Drawn, answers: Sequence[Answer]) -> float | None:
        """How well the answers fit; None where they do not suffice."""
        ...


def balanced(truth: Sequence[bool], answers: Sequence[Answer]) -> float | None:
    """Mean of the shares of yes that are rightly told and of no: 0.5 for any label that says nothing."""
    sides = []
    for side in (True, False):
        told = [
            answer == side for is_so, answer in zip(truth, answers, strict=True) if is_so == side and answer is not None
        ]
        if not told:
            return None
        sides.append(sum(told) / len(told))
    return sum(sides) / 2


@dataclass(frozen=True)
class Detection:
    """Whether a label tells passages in which the feature is active from silent ones; active ones come from all its quantiles.

    The score is balanced accuracy: 0.5 for a label that says nothing.

    Attributes:
        active: Passages in which it is active.
        silent: Passages in which it is silent.

    Reference: arXiv:2410.13928
    """

    active: int = 10
    silent: int = 10
    name: ClassVar[str] = "detection"
    is_pointing: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.active, "active")
        _check(self.silent, "silent")

    def drawn(self, sample: Sample, rng: Random) -> Drawn | None:
        active, silent = sample.active.tolist(), sample.silent.tolist()
        if not active or not silent:
            return None
        chosen = [(number, True) for number in _stratified(active, self.active, rng)]
        chosen += [(number, False) for number in rng.sample(silent, min(self.silent, len(silent)))]
        rng.shuffle(chosen)
        return Drawn(tuple(sample.windows.passage(number) for number, _ in chosen), tuple(is_so for _, is_so in chosen))

    def score(self, drawn: Drawn, answers: Sequence[Answer]) -> float | None:
        return balanced(drawn.truth, answers)


@dataclass(frozen=True)
class Fuzzing:
    """Whether a label tells the words that the feature is active on from other words of the same passages.

    The score is balanced accuracy: 0.5 for a label that says nothing.

    Attributes:
        passages: Passages with the right words pointed at, and as many with others.

    Reference: arXiv:2410.13928
    """

    passages: int = 10
    name: ClassVar[str] = "fuzzing"
    is_pointing: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check(self.passages, "passages")

    def drawn(self, sample: Sample, rng: Random) -> Drawn | None:
        chosen: list[tuple[Passage, bool]] = []
        # More than are needed: where a feature is active everywhere in a passage, there is nothing else to point at.
        tried = _stratified(sample.active.tolist(), 4 * self.passages, rng)
        usable = [(number, *inside) for number in tried if (inside := sample.inside(number))[1]]
        for nth, (number, strong, quiet) in enumerate(_stratified(usable, 2 * self.passages, rng)):
            is_right = nth % 2 == 0
            places = strong if is_right else rng.sample(quiet, min(len(strong), len(quiet)))
            chosen.append((sample.windows.passage(number, tuple(sorted(places))), is_right))
        if len(chosen) < 2:
            return None
        rng.shuffle(chosen)
        return Drawn(tuple(passage for passage, _ in chosen), tuple(is_right for _, is_right in chosen))

    def score(self, drawn: Drawn, answers: Sequence[Answer]) -> float | None:
        return balanced(drawn.truth, answers)


@dataclass(frozen=True)
class Correlation:
    """Correlation over the whole corpus of the feature's activation with whether the label fits, from few passages by importance sampling.

    Passages are drawn in part by their activation, in part evenly, and weighed by how likely they were drawn, so that all of the corpus
    counts as often as it comes, silent text included. A label that fits everywhere or nowhere has 0.

    Attributes:
        draws: Passages that are drawn, with replacement; one that comes twice is judged once.
        guided: Share that is drawn by activation.

    Reference: arXiv:2506.07985
    """

    draws: int = 40
    guided: float = 0.5
    name: ClassVar[str] = "correlation"
    is_pointing: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check(self.draws, "draws")
        if not 0 <= self.guided < 1:
            raise FeatureError(
                f"guided is a share from 0 to below 1, not {self.guided!r}; what is never drawn would not count"
            )

    def drawn(self, sample: Sample, rng: Random) -> Drawn | None:
        values = sample.largest.double()
        total, n = float(values.sum()), len(values)
        if not total or float(values.std(correction=0)) == 0:
            return None
        chances = self.guided * values / total + (1 - self.guided) / n
        picked = rng.choices(range(n), chances.tolist(), k=self.draws)
        order = {number: place for place, number in enumerate(dict.fromkeys(picked))}
        return Drawn(
            tuple(sample.windows.passage(number) for number in order), draws=tuple(order[number] for number in picked),
            weights=tuple(1 / (n * float(chances[number])) for number in picked),
            activations=tuple(float(values[number]) for number in order),
        )  # fmt: skip

    def score(self, drawn: Drawn, answers: Sequence[Answer]) -> float | None:
        told = [
            (answers[one], weight, drawn.activations[one])
            for one, weight in zip(drawn.draws, drawn.weights, strict=True)
        ]
        known = [(float(answer), weight, value) for answer, weight, value in told if answer is not None]
        if not known:
            return None
        fits, weights, values = torch.tensor(known, dtype=torch.float64).T
        # All moments from the same draws: what they share of chance goes out of the quotient.
        weights = weights / weights.sum()
        fits, values = fits - (weights * fits).sum(), values - (weights * values).sum()
        spread = float((weights * fits.square()).sum() * (weights * values.square()).sum())
        if spread <= 0:
            return 0.0
        return max(-1.0, min(1.0, float((weights * fits * values).sum()) / math.sqrt(spread)))


def _stratified(given: Sequence[Item], count: int, rng: Random) -> list[Item]:
    """One at random from each of `count` equal parts of what is sorted; all where there are fewer."""
    if len(given) <= count:
        return list(given)
    edges = [len(given) * part // count for part in range(count + 1)]
    return [given[rng.randrange(low, high)] for low, high in pairwise(edges)]


def _check(given: int, name: str) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise FeatureError(f"{name} is a whole number from 1, not {given!r}")
