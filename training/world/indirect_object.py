"""The indirect object: two names, one gives, the other receives."""

from __future__ import annotations

from random import Random
from typing import Any

from training.world.filling import fill
from training.world.sentence import Label, Sentence, Split, joined
from training.world.splits import split_of

HELD_OUT_SHARE = 0.12
ORDERS = ("ABBA", "BABA")


class IndirectObject:
    """A is the receiver, B the giver; ABBA names the receiver first. Held out are pairs of names, and templates."""

    name = "indirect object"

    def __init__(self, lexicon: dict[str, Any]) -> None:
        self.lexicon = lexicon

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A giving whose pair of names, or template, is of the split."""
        return self.draw(rng, split)[0]

    def draw(self, rng: Random, split: Split) -> tuple[Sentence, dict[str, str]]:
        """A giving and its words."""
        templates = self.lexicon["templates"] + (self.lexicon["held_out"] if split == "held_out" else [])
        while True:
            receiver, giver = rng.sample(self.lexicon["names"], 2)
            words = {
                "place": rng.choice(self.lexicon["places"]),
                "object": rng.choice(self.lexicon["objects"]),
                "verb": rng.choice(self.lexicon["verbs"]),
            }
            sentence, words = self.told(rng.choice(templates), receiver, giver, rng.choice(ORDERS), words)
            if sentence.split == split:
                return sentence, words

    def told(
        self, template: str, receiver: str, giver: str, order: str, words: dict[str, str]
    ) -> tuple[Sentence, dict[str, str]]:
        """One giving in one template and order, and every word in it."""
        first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
        words = {**words, "first": first, "second": second, "giver": giver, "answer": receiver}
        filled = fill(template, words)
        answer = Label("receiver", receiver, *filled.spans["answer"][0])
        giving = Label("giver", giver, *filled.spans["giver"][0])
        labels = (answer, giving, Label("order", order, filled.spans["first"][0][0], filled.spans["second"][0][1]))
        held = template in self.lexicon["held_out"] or self.pair_split(receiver, giver) == "held_out"
        return Sentence(filled.text, self.name, labels, "held_out" if held else "train", answer), words

    def pair_split(self, one: str, other: str) -> Split:
        """Where a pair of names belongs, whichever comes first."""
        return split_of(*sorted((one, other)), share=HELD_OUT_SHARE)

    def document(self, rng: Random) -> Sentence:
        """A giving, and often what came of it, in up to three sentences."""
        sentence, words = self.draw(rng, "train")
        after = self.lexicon["after"]
        chosen = rng.sample(after, rng.randint(0, min(3, len(after))))
        return joined([sentence, *(self.sequel(template, words) for template in chosen)])

    def sequel(self, template: str, words: dict[str, str]) -> Sentence:
        """What came of a giving; every word in it stood there before."""
        filled = fill(template, words)
        known = (Label("sequel", words[name], *span) for name, spans in filled.spans.items() for span in spans)
        return Sentence(filled.text, self.name, (), "train", known=tuple(known))
