"""A sentence of the world, and the labels it carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

Split = Literal["train", "held_out"]
SPLITS: tuple[Split, ...] = ("train", "held_out")


@dataclass(frozen=True)
class Label:
    """What the sentence says about a concept, and the characters that say it: `text[start:end]`."""

    concept: str
    value: str
    start: int
    end: int

    def shifted(self, offset: int) -> Label:
        """The same label, `offset` characters further on."""
        return Label(self.concept, self.value, self.start + offset, self.end + offset) if offset else self


@dataclass(frozen=True)
class Sentence:
    """Text of the world with its labels; the first label is what the sentence is about.

    Attributes:
        behaviour: Which part of the world wrote it.
        answer: The label that a reader could know from the text before it; None where nothing is asked.
        split: Whether training may see it.
        known: Further parts that the text before them gives away.
        group: The kind of case, a row of the check.
        odds: How often each word stands in the answer's place, where several can.
        answers: Every right answer, where there are several; the answer alone otherwise.
        needs: What a right reply contains, all of it.
        any_of: What a right reply contains at least one of.
        bars: What no right reply contains.
    """

    text: str
    behaviour: str
    labels: tuple[Label, ...]
    split: Split
    answer: Label | None = None
    known: tuple[Label, ...] = ()
    group: str = ""
    odds: Mapping[str, float] = field(default_factory=dict)
    answers: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    bars: tuple[str, ...] = ()

    @property
    def predictable(self) -> tuple[Label, ...]:
        """Every part that a reader could know from the text before it, the answer among them."""
        return self.known if self.answer is None or self.answer in self.known else (*self.known, self.answer)

    @property
    def prompt(self) -> str:
        """The text before the answer, without the space that belongs to the answer's first token."""
        if self.answer is None:
            raise ValueError(f"no answer in {self.text!r}; only sentences with an answer have a prompt")
        return self.text[: self.answer.start].rstrip(" ")

    @property
    def continuation(self) -> str:
        """The answer as it follows the prompt, its leading space included."""
        if self.answer is None:
            raise ValueError(f"no answer in {self.text!r}; only sentences with an answer have a continuation")
        return self.text[len(self.prompt) : self.answer.end]

    def label(self, concept: str) -> Label | None:
        """The first label of a concept, None where there is none."""
        return next((label for label in self.labels if label.concept == concept), None)


def joined(sentences: Sequence[Sentence], separator: str = " ") -> Sentence:
    """One sentence made of several, labels moved along; the last one's answer is the whole's.

    Raises:
        ValueError: The list is empty.
    """
    if not sentences:
        raise ValueError("no sentences to join, received []; give at least one")
    text, labels, known, answer = "", [], [], None
    for sentence in sentences:
        offset = len(text) + len(separator) if text else 0
        text = text + separator + sentence.text if text else sentence.text
        labels += [label.shifted(offset) for label in sentence.labels]
        known += [label.shifted(offset) for label in sentence.predictable]
        answer = sentence.answer.shifted(offset) if sentence.answer else None
    split: Split = "held_out" if any(s.split == "held_out" for s in sentences) else "train"
    return replace(
        sentences[-1],
        text=text,
        behaviour=sentences[0].behaviour,
        labels=tuple(labels),
        split=split,
        answer=answer,
        known=tuple(known),
    )
