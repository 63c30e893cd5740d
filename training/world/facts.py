"""Facts: tables of entities and their relations, told in many templates."""

from __future__ import annotations

from random import Random
from typing import Any

from training.world.filling import fill
from training.world.sentence import Label, Sentence, Split, joined
from training.world.splits import split_of

HELD_OUT_SHARE = 0.1


class Facts:
    """Every relation of an entity is told; held out are whole templates, and pairs of entity and template."""

    name = "facts"

    def __init__(self, tables: dict[str, Any]) -> None:
        self.tables = tables

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A fact whose template, or whose pair of entity and template, is of the split."""
        while True:
            kind = rng.choice(list(self.tables))
            entity = rng.choice(list(self.tables[kind]["entities"]))
            relation = rng.choice(list(self.tables[kind]["relations"]))
            templates = self.tables[kind]["relations"][relation]
            choices = templates["templates"] + (templates["held_out"] if split == "held_out" else [])
            sentence = self.told(kind, entity, relation, rng.choice(choices))
            if sentence.split == split:
                return sentence

    def told(self, kind: str, entity: str, relation: str, template: str) -> Sentence:
        """One fact in one template; where the answer stands before the entity, nothing is asked."""
        value = self.tables[kind]["entities"][entity][relation]
        filled = fill(template, {"entity": entity, "answer": value})
        fact = Label(f"{kind}.{relation}", value, *filled.spans["answer"][0])
        subject = Label(kind, entity, *filled.spans["entity"][0])
        asked = fact if subject.end <= fact.start else None
        return Sentence(filled.text, self.name, (subject, fact), self.split(kind, entity, relation, template), asked)

    def split(self, kind: str, entity: str, relation: str, template: str) -> Split:
        """Where a fact in a template belongs."""
        if template in self.tables[kind]["relations"][relation]["held_out"]:
            return "held_out"
        return split_of(kind, entity, template, share=HELD_OUT_SHARE)

    def document(self, rng: Random) -> Sentence:
        """One to five facts about one entity."""
        kind = rng.choice(list(self.tables))
        entity = rng.choice(list(self.tables[kind]["entities"]))
        relations = list(self.tables[kind]["relations"])
        chosen = rng.sample(relations, rng.randint(1, len(relations)))
        facts = [self.told_in_training(rng, kind, entity, relation) for relation in chosen]
        return joined([fact for fact in facts if fact] or [self.sentence(rng, "train")])

    def told_in_training(self, rng: Random, kind: str, entity: str, relation: str) -> Sentence | None:
        """One fact in a template that training may see for this entity; None where there is none."""
        templates = self.tables[kind]["relations"][relation]["templates"]
        seen = [t for t in templates if self.split(kind, entity, relation, t) == "train"]
        return self.told(kind, entity, relation, rng.choice(seen)) if seen else None
