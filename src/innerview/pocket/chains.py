"""Chains: two steps to the answer, the first told beside another person's, or both from memory."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12


class Chains(Behaviour):
    """Held out are pairs of entity and relation, told as facts but never as the end of a chain, and templates."""

    name = "chains"

    def __init__(self, lexicon: dict[str, Any], tables: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.entities = tables[lexicon["table"]]["entities"]
        self.people = {name: facts[lexicon["bridge"]] for name, facts in tables[lexicon["people"]]["entities"].items()}
        self.names = names

    def concepts(self) -> list[Concept]:
        """Where the chain bends, what it ends in, and where its steps come from."""
        return [
            Concept("bridge", "entity", tuple(self.entities), self.name),
            Concept("chain.relation", "class", tuple(self.lexicon["ends"]), self.name),
            Concept("route", "flag", ("told", "memory"), self.name),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """One chain."""
        route = "memory" if rng.random() < self.lexicon["memory_share"] else "told"
        route = force.get("route", route)
        relation = pick(rng, list(self.lexicon["ends"]), force.get("chain.relation"))
        name, other = rng.sample(self.names, 2)
        entity, distractor = rng.sample(list(self.entities), 2)
        person = pick(rng, list(self.people))
        entity = force.get("bridge", entity)
        end = pick(rng, templates_for(self.lexicon["ends"][relation], split))
        if route == "memory":
            return self.remembered(person, relation, end)
        context = pick(rng, templates_for(self.lexicon["contexts"], split))
        people = {"name": name, "other": other}
        asked_first = rng.random() < 0.5
        return self.told(people, entity, distractor, relation, context, end, asked_first)

    def told(
        self,
        people: dict[str, str],
        entity: str,
        distractor: str,
        relation: str,
        context: str,
        end: str,
        asked_first: bool,
    ) -> Sentence:
        """Two people and their countries, then the end of one's chain."""
        names = (people["name"], people["other"]) if asked_first else (people["other"], people["name"])
        places = (entity, distractor) if asked_first else (distractor, entity)
        value = self.entities[entity][relation]
        words = {"first": names[0], "second": names[1], "one": places[0], "two": places[1]}
        slot = "one" if asked_first else "two"
        filled = fill(f"{context} {end}", words | {"whose": people["name"] + "'s", "answer": value})
        is_new = context in self.lexicon["contexts"]["held_out"]
        bridge = Label("bridge", entity, *filled.spans[slot][0])
        return self.sentence_of(filled.text, filled.spans["answer"][0], value, bridge, relation, end, "told", is_new)

    def remembered(self, person: str, relation: str, end: str) -> Sentence:
        """A known person's country is not told."""
        entity = self.people[person]
        value = self.entities[entity][relation]
        filled = fill(end, {"whose": person + "'s", "answer": value})
        start, stop = filled.spans["whose"][0]
        bridge = Label("bridge", entity, start, stop - len("'s"))
        return self.sentence_of(filled.text, filled.spans["answer"][0], value, bridge, relation, end, "memory", False)

    def sentence_of(
        self,
        text: str,
        span: tuple[int, int],
        value: str,
        bridge: Label,
        relation: str,
        end: str,
        route: str,
        is_new: bool,
    ) -> Sentence:
        """The chain with its labels."""
        answer = Label("chain", value, *span)
        asked = Label("chain.relation", relation, bridge.end, answer.start)
        labels = (answer, bridge, asked, Label("route", route, 0, len(text)))
        held = is_new or end in self.lexicon["ends"][relation]["held_out"]
        pair = split_of(bridge.value, relation, share=HELD_OUT_SHARE)
        split = either(held_out_if(held), pair)
        return Sentence(text, self.name, labels, split, answer, group=route)
