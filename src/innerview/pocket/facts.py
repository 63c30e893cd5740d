"""Facts: tables of entities and their relations, told in many templates."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, pick_zipf, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1


class Facts(Behaviour):
    """Every relation of an entity is told; held out are whole templates, and pairs of entity and template."""

    name = "facts"

    def __init__(self, tables: dict[str, Any]) -> None:
        self.tables = tables
        self.kinds = list(tables)
        self.sizes = [len(tables[kind]["entities"]) for kind in tables]

    def concepts(self) -> list[Concept]:
        """A concept of entities for each table, and one of values for each of its relations."""
        found = []
        for kind, table in self.tables.items():
            found.append(Concept(kind, "entity", tuple(table["entities"]), self.name))
            for relation in table["relations"]:
                values = dict.fromkeys(facts[relation] for facts in table["entities"].values())
                found.append(Concept(f"{kind}.{relation}", "value", tuple(values), self.name))
        return found

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A fact in a template; entities that stand early in their table are told of oftener."""
        kind = self.kind(rng, force)
        table = self.tables[kind]
        entity = pick_zipf(rng, self.entities(kind, force), table.get("zipf", 0.0), force.get(kind))
        asked = next((name.split(".")[1] for name in force if name.startswith(f"{kind}.")), None)
        relation = pick(rng, list(table["relations"]), asked)
        return self.told(kind, entity, relation, pick(rng, templates_for(table["relations"][relation], split)))

    def kind(self, rng: Random, force: Force = FREE) -> str:
        """A table, drawn by its size, or the one that is forced."""
        forced = next((name.split(".")[0] for name in force if name.split(".")[0] in self.tables), None)
        kind = rng.choices(self.kinds, self.sizes)[0]
        return forced or kind

    def entities(self, kind: str, force: Force) -> list[str]:
        """The entities with the forced values of relations."""
        wanted = {name.split(".")[1]: value for name, value in force.items() if name.startswith(f"{kind}.")}
        facts = self.tables[kind]["entities"]
        return [name for name, known in facts.items() if all(known[r] == value for r, value in wanted.items())]

    def told(self, kind: str, entity: str, relation: str, template: str) -> Sentence:
        """One fact in one template; where the answer stands before the entity, nothing is asked."""
        value = self.tables[kind]["entities"][entity][relation]
        filled = fill(template, {"entity": entity, "answer": value})
        fact = Label(f"{kind}.{relation}", value, *filled.spans["answer"][0])
        subject = Label(kind, entity, *filled.spans["entity"][0])
        asked = fact if subject.end <= fact.start else None
        split = self.split(kind, entity, relation, template)
        return Sentence(filled.text, self.name, (subject, fact), split, asked, group=kind)

    def split(self, kind: str, entity: str, relation: str, template: str) -> Split:
        """Where a fact in a template belongs."""
        held = template in self.tables[kind]["relations"][relation]["held_out"]
        return either(held_out_if(held), split_of(kind, entity, template, share=HELD_OUT_SHARE))

    def document(self, rng: Random) -> Sentence:
        """One to five facts about one entity."""
        kind = self.kind(rng)
        table = self.tables[kind]
        entity = pick_zipf(rng, list(table["entities"]), table.get("zipf", 0.0))
        chosen = rng.sample(list(table["relations"]), rng.randint(1, len(table["relations"])))
        facts = [self.told_in_training(rng, kind, entity, relation) for relation in chosen]
        return joined([fact for fact in facts if fact] or [self.sentence(rng, "train")])

    def told_in_training(self, rng: Random, kind: str, entity: str, relation: str) -> Sentence | None:
        """One fact in a template that training may see for this entity; None where there is none."""
        templates = self.tables[kind]["relations"][relation]["templates"]
        seen = [t for t in templates if self.split(kind, entity, relation, t) == "train"]
        return self.told(kind, entity, relation, rng.choice(seen)) if seen else None

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The one answer, where the prompt is a template up to its answer."""
        for table in self.tables.values():
            for relation, entry in table["relations"].items():
                for template in templates_for(entry, "held_out"):
                    match = matched(template, prompt)
                    if match and match["entity"] in table["entities"]:
                        return {table["entities"][match["entity"]][relation]: 1.0}
        return None


class WordFacts(Facts):
    """Facts about words: opposites, plurals, translations, kinds, first letters."""

    name = "words"
