"""Chances: sentences with several right endings, whose odds are known."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import fill, matched
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.1


class Chances(Behaviour):
    """What a subject does varies from day to day, by odds of its own; held out are templates, and subjects in templates."""

    name = "chances"

    def __init__(self, tables: dict[str, Any]) -> None:
        self.tables = tables

    def concepts(self) -> list[Concept]:
        """The subjects of each table, and what they may do."""
        found = []
        for kind, table in self.tables.items():
            values = tuple(dict.fromkeys(value for odds in table["odds"].values() for value in odds))
            found.append(Concept(f"{kind}.subject", "entity", tuple(table["odds"]), self.name))
            found.append(Concept(kind, "value", values, self.name))
        return found

    def odds(self, kind: str, subject: str) -> dict[str, float]:
        """How often the subject does each, summing to one."""
        weights = self.tables[kind]["odds"][subject]
        return {value: weight / sum(weights.values()) for value, weight in weights.items()}

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A subject on one day."""
        forced = next((name.split(".")[0] for name in force if name.split(".")[0] in self.tables), None)
        kind = pick(rng, list(self.tables), forced)
        table = self.tables[kind]
        subject = pick(rng, list(table["odds"]), force.get(f"{kind}.subject"))
        odds = self.odds(kind, subject)
        value = rng.choices(list(odds), list(odds.values()))[0]
        return self.told(kind, subject, force.get(kind, value), pick(rng, templates_for(table, split)))

    def told(self, kind: str, subject: str, value: str, template: str) -> Sentence:
        """One day of a subject in one template."""
        filled = fill(template, {"subject": subject, "answer": value})
        answer = Label(kind, value, *filled.spans["answer"][0])
        labels = (answer, Label(f"{kind}.subject", subject, *filled.spans["subject"][0]))
        is_new = template in self.tables[kind]["held_out"]
        split = either(held_out_if(is_new), split_of(subject, template, share=HELD_OUT_SHARE))
        odds = self.odds(kind, subject)
        return Sentence(filled.text, self.name, labels, split, answer, group=kind, odds=odds)

    def next_word(self, prompt: str) -> dict[str, float] | None:
        """The subject's odds, where the prompt is a template up to its answer."""
        for kind, table in self.tables.items():
            for template in templates_for(table, "held_out"):
                match = matched(template, prompt)
                if match and match["subject"] in table["odds"]:
                    return self.odds(kind, match["subject"])
        return None
