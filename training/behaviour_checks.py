"""How often the network does right on held-out cases, a row for each kind of case."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from innerview.pocket.sentence import Sentence
from innerview.pocket.world import World
from training.baselines import BagOfWords, Ngram
from training.greedy import Loaded, continuations
from training.odds import divergences

CASES = 400
LEARNED_FROM = 4000
NEW_TOKENS = {"language": 16, "mood": 8, "code": 8}
BASE_TOKENS, CHAT_TOKENS = 12, 56
BARS = {
    "facts": 0.95,
    "indirect object": 0.95,
    "pronouns": 0.95,
    "language": 0.95,
    "circles": 0.95,
    "in context": 0.85,
    "mood": 0.90,
    "refusal": 0.95,
    "acquaintances": 0.95,
    "personas": 0.95,
    "sums": 0.90,
    "code": 0.90,
    "chains": 0.90,
}
MUST = ("facts", "indirect object", "mood", "refusal", "language")
KL_BAR = 0.05
UNDECIDED = ("chances", "strangers")
# What the columns without a network guess, where it is not the very answer.
ASKED: dict[str, Callable[[Sentence], str]] = {
    "mood": lambda case: next(label.value for label in case.labels if label.concept == "mood"),
    "language": lambda case: case.group,
    "refusal": lambda case: case.group,
    "acquaintances": lambda case: case.group,
    "personas": lambda case: case.group,
}


@dataclass(frozen=True)
class Outcome:
    """A case, what the network wrote, whether that is right, and whether the guesses without a network are."""

    case: Sentence
    written: str
    is_right: bool
    is_ngram_right: bool
    is_bag_right: bool


@dataclass(frozen=True)
class Row:
    """One line of the table: how many of the cases are right, and the bar they must reach, if there is one."""

    behaviour: str
    cases: str
    total: int
    share: float
    ngram: float
    bag: float
    bar: float | None

    @property
    def is_met(self) -> bool:
        """Whether the bar is reached, where there is one."""
        return self.bar is None or self.share >= self.bar


def outcomes(loaded: Loaded, world: World, name: str, seed: int) -> list[Outcome]:
    """What the network writes on the held-out cases of a behaviour."""
    behaviour, asked = world.behaviour(name), ASKED.get(name, answer_of)
    cases, seen = world.cases(name, CASES, seed), world.cases(name, LEARNED_FROM, seed, "train")
    length = NEW_TOKENS.get(name, BASE_TOKENS if behaviour.stage == "base" else CHAT_TOKENS)
    written = continuations(loaded, [case.prompt for case in cases], length)
    ngram, bag = Ngram.learned(seen, asked), BagOfWords.learned(seen, asked)
    return [
        Outcome(
            case,
            text,
            behaviour.is_right(case, text),
            ngram.guess(case.prompt) == asked(case),
            bag.guess(case.prompt) == asked(case),
        )
        for case, text in zip(cases, written, strict=True)
    ]


def answer_of(case: Sentence) -> str:
    """The case's own answer."""
    return case.continuation


def rows_of(name: str, found: Sequence[Outcome]) -> list[Row]:
    """The outcomes counted: all of them, which the bar is for, and each group."""
    groups: dict[str, list[Outcome]] = {"all": list(found)}
    for outcome in found:
        groups.setdefault(outcome.case.group or "all", []).append(outcome)
    return [
        row_of(name, group, members, BARS.get(name) if group == "all" else None) for group, members in ordered(groups)
    ]


def ordered(groups: dict[str, list[Outcome]]) -> Iterator[tuple[str, list[Outcome]]]:
    """The whole first, the groups by name; a single group is the whole."""
    yield "all", groups["all"]
    names = sorted(name for name in groups if name != "all")
    if len(names) > 1:
        yield from ((name, groups[name]) for name in names)


def row_of(name: str, group: str, members: Sequence[Outcome], bar: float | None) -> Row:
    """The members counted."""
    total = len(members)
    return Row(
        name,
        group,
        total,
        sum(outcome.is_right for outcome in members) / total,
        sum(outcome.is_ngram_right for outcome in members) / total,
        sum(outcome.is_bag_right for outcome in members) / total,
        bar,
    )


def divergence_of(loaded: Loaded, world: World, name: str, seed: int) -> dict[str, float]:
    """The mean KL of an undecided behaviour's held-out cases, a group at a time."""
    cases = world.cases(name, CASES // 2, seed)
    found: dict[str, list[float]] = {}
    for case, divergence in zip(cases, divergences(loaded, cases), strict=True):
        found.setdefault(case.group, []).append(divergence)
    return {group: sum(values) / len(values) for group, values in sorted(found.items())}
