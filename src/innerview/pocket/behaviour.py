"""What each part of the world offers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from random import Random
from typing import Any, ClassVar, Literal, TypeVar

from innerview.pocket.sentence import Sentence, Split, joined

Kind = Literal["class", "entity", "value", "word", "circle", "line", "flag"]
Stage = Literal["base", "chat"]
Force = Mapping[str, str]
FREE: Force = {}
TRIES = 4000
Item = TypeVar("Item")


@dataclass(frozen=True)
class Concept:
    """Something that the world's labels say: its name, what kind of thing it is, and the values it takes.

    Attributes:
        kind: `class` (a few values that exclude one another), `flag` (two), `entity` (things that facts are told of), `value`
            (what facts say), `word` (words of a kind), `circle` and `line` (values in an order).
        behaviour: The part of the world whose sentences carry it.
        is_paired: Whether sentences come in pairs that differ in it alone.
    """

    name: str
    kind: Kind
    values: tuple[str, ...]
    behaviour: str
    is_paired: bool = True

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values)


class Behaviour(ABC):
    """A part of the world: it writes labelled sentences, and documents to train on."""

    name: ClassVar[str]
    stage: ClassVar[Stage] = "base"

    @abstractmethod
    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One try at a sentence of the split; it says itself which split it came out in.

        `force` sets the values of concepts. The draws are the same with and without it, so that two sentences from
        equal generators differ in what was forced and in what follows from it, and in nothing else.
        """

    @abstractmethod
    def concepts(self) -> list[Concept]:
        """The concepts that its labels speak of."""

    def sentence(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A random sentence of the split.

        Raises:
            ValueError: None came in many tries.
        """
        for _ in range(TRIES):
            sentence = self.draw(rng, split, force)
            if sentence.split == split:
                return sentence
        raise ValueError(f"no {split} sentence of {self.name!r} with {dict(force)} in {TRIES} tries; force less")

    def document(self, rng: Random) -> Sentence:
        """A random document of the training split: up to three sentences."""
        return joined([self.sentence(rng, "train") for _ in range(rng.randint(1, 3))])

    def is_right(self, case: Sentence, text: str) -> bool:
        """Whether a text written after the case's prompt answers it."""
        if case.needs or case.any_of or case.bars:
            has_any = not case.any_of or any(part in text for part in case.any_of)
            return has_any and all(part in text for part in case.needs) and not any(part in text for part in case.bars)
        answers = case.answers or (case.text[case.answer.start : case.answer.end] if case.answer else "",)
        return any(starts_with(text.lstrip(" "), answer) for answer in answers)

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """How often each word follows the prompt in this part of the world; None where it does not know the prompt."""
        return None


def starts_with(text: str, answer: str) -> bool:
    """Whether the text begins with the answer, as whole words where the answer ends in a letter or digit."""
    follows = text[len(answer) : len(answer) + 1]
    return text.startswith(answer) and not (answer[-1:].isalnum() and follows.isalnum())


def pick(rng: Random, items: Sequence[Item], forced: Any = None) -> Item:
    """One of the items, or the forced one; one draw either way."""
    item = items[rng.randrange(len(items))]
    return item if forced is None else forced


def templates_for(entry: Mapping[str, Any], split: Split) -> list[Any]:
    """Every template that a sentence of the split may use."""
    return [*entry["templates"], *entry["held_out"]] if split == "held_out" else entry["templates"]


@lru_cache(maxsize=256)
def zipf_shares(count: int, exponent: float) -> tuple[float, ...]:
    """Cumulative weights that fall as 1/rank^exponent."""
    return tuple(accumulate((rank + 1) ** -exponent for rank in range(count)))


def pick_zipf(rng: Random, items: Sequence[Item], exponent: float, forced: Any = None) -> Item:
    """One of the items, early ones oftener, or the forced one; one draw either way."""
    item = rng.choices(items, cum_weights=zipf_shares(len(items), exponent))[0]
    return item if forced is None else forced
