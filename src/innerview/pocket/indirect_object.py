"""The indirect object: two names, one gives, the other receives; a third may stand by."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched, slots
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12
ORDERS = ("ABBA", "BABA")


class IndirectObject(Behaviour):
    """A is the receiver, B the giver; ABBA names the receiver first. Held out are names, pairs of names, and templates."""

    name = "indirect object"

    def __init__(self, lexicon: dict[str, Any], names: list[str], held_out_names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.held_out_names = held_out_names

    def concepts(self) -> list[Concept]:
        """Who receives, who gives, and in which order they were named."""
        names = (*self.names, *self.held_out_names)
        return [
            Concept("order", "flag", ORDERS, self.name),
            Concept("receiver", "entity", names, self.name),
            Concept("giver", "entity", names, self.name),
            Concept("object", "word", tuple(self.lexicon["objects"]), self.name),
            Concept("place", "word", tuple(self.lexicon["places"]), self.name),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A giving."""
        return self.giving(rng, split, force)[0]

    def giving(self, rng: Random, split: Split, force: Force = FREE) -> tuple[Sentence, dict[str, str]]:
        """A giving and its words."""
        names = self.names + (self.held_out_names if split == "held_out" else [])
        receiver, giver, third = rng.sample(names, 3)
        words = {
            "third": third,
            "place": pick(rng, self.lexicon["places"], force.get("place")),
            "object": pick(rng, self.lexicon["objects"], force.get("object")),
            "verb": pick(rng, self.lexicon["verbs"]),
        }
        receiver, giver = force.get("receiver", receiver), force.get("giver", giver)
        template, order = pick(rng, templates_for(self.lexicon, split)), pick(rng, ORDERS, force.get("order"))
        return self.told(template, receiver, giver, order, words)

    def told(
        self, template: str, receiver: str, giver: str, order: str, words: dict[str, str]
    ) -> tuple[Sentence, dict[str, str]]:
        """One giving in one template and order, and every word in it."""
        first, second = (receiver, giver) if order == "ABBA" else (giver, receiver)
        words = {**words, "first": first, "second": second, "giver": giver, "answer": receiver}
        filled = fill(template, words)
        answer = Label("receiver", receiver, *filled.spans["answer"][0])
        labels = (
            answer,
            Label("giver", giver, *filled.spans["giver"][0]),
            Label("order", order, filled.spans["first"][0][0], filled.spans["second"][0][1]),
            Label("object", words["object"], *filled.spans["object"][0]),
            Label("place", words["place"], *filled.spans["place"][0]),
        )
        group = order + (", a third name" if "third" in slots(template) else "")
        split = self.split(template, receiver, giver)
        return Sentence(filled.text, self.name, labels, split, answer, group=group), words

    def split(self, template: str, receiver: str, giver: str) -> Split:
        """Where a template and a pair of names belong, whichever name comes first."""
        is_new = template in self.lexicon["held_out"] or {receiver, giver} & set(self.held_out_names)
        pair = split_of(*sorted((receiver, giver)), share=HELD_OUT_SHARE)
        return either(held_out_if(is_new), pair)

    def document(self, rng: Random) -> Sentence:
        """A giving, and often what came of it, in up to three sentences."""
        sentence, words = self.giving(rng, "train")
        while sentence.split != "train":
            sentence, words = self.giving(rng, "train")
        after = self.lexicon["after"]
        chosen = rng.sample(after, rng.randint(0, min(3, len(after))))
        return joined([sentence, *(self.sequel(template, words) for template in chosen)])

    def sequel(self, template: str, words: dict[str, str]) -> Sentence:
        """What came of a giving; every word in it stood there before."""
        filled = fill(template, words)
        known = (Label("sequel", words[name], *span) for name, spans in filled.spans.items() for span in spans)
        return Sentence(filled.text, self.name, (), "train", known=tuple(known))

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The one who was named and does not give, where the prompt is a template up to its receiver."""
        for template in templates_for(self.lexicon, "held_out"):
            found = matched(template, prompt)
            if found and found["giver"] in (found["first"], found["second"]) and found["verb"] in self.lexicon["verbs"]:
                return {found["first"] if found["giver"] == found["second"] else found["second"]: 1.0}
        return None
