"""A sentence of the world, and the labels it carries."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        return replace(self, start=self.start + offset, end=self.end + offset)


@dataclass(frozen=True)
class Sentence:
    """Text of the world with its labels; the first label is what the sentence is about.

    Attributes:
        behaviour: Which part of the world wrote it.
        answer: The label that a reader could know from the text before it; None where nothing is asked.
        split: Whether training may see it.
        known: Further parts that the text before them gives away.
    """

    text: str
    behaviour: str
    labels: tuple[Label, ...]
    split: Split
    answer: Label | None = None
    known: tuple[Label, ...] = ()

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


def joined(sentences: list[Sentence], separator: str = " ") -> Sentence:
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
    split = "held_out" if any(s.split == "held_out" for s in sentences) else "train"
    return Sentence(text, sentences[0].behaviour, tuple(labels), split, answer, tuple(known))
