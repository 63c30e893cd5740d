"""Sums of two numbers below a hundred, and which of two is more."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1
LIMIT = 100


class Sums(Behaviour):
    """Held out are pairs of numbers, and templates."""

    name = "sums"

    def __init__(self, lexicon: dict[str, Any]) -> None:
        self.lexicon = lexicon

    def concepts(self) -> list[Concept]:
        """The two numbers, their sum, and whether the ones carry."""
        numbers = tuple(str(number) for number in range(LIMIT))
        return [
            Concept("addend", "line", numbers, self.name),
            Concept("sum", "line", tuple(str(number) for number in range(2 * LIMIT - 1)), self.name, is_paired=False),
            Concept("carry", "flag", ("carry", "none"), self.name, is_paired=False),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One sum."""
        one, other = rng.randrange(LIMIT), rng.randrange(LIMIT)
        one = int(force.get("addend", one))
        return self.told(one, other, pick(rng, templates_for(self.lexicon, split)))

    def told(self, one: int, other: int, template: str) -> Sentence:
        """One sum in one template."""
        words = {"one": str(one), "other": str(other), "answer": str(one + other)}
        filled = fill(template, words)
        answer = Label("sum", words["answer"], *filled.spans["answer"][0])
        carry = Label("carry", "carry" if one % 10 + other % 10 >= 10 else "none", answer.start, answer.end)
        labels = (answer, Label("addend", words["one"], *filled.spans["one"][0]), carry)
        is_new = template in self.lexicon["held_out"]
        pair = split_of(*sorted((words["one"], words["other"])), share=HELD_OUT_SHARE)
        split = either(held_out_if(is_new), pair)
        digits = "two digits" if min(one, other) >= 10 else "one digit"
        return Sentence(filled.text, self.name, labels, split, answer, group=f"{digits}, {carry.value}")

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The sum, where the prompt is a template up to it."""
        for template in templates_for(self.lexicon, "held_out"):
            found = matched(template, prompt)
            if found and found["one"].isdecimal() and found["other"].isdecimal():
                return {str(int(found["one"]) + int(found["other"])): 1.0}
        return None
