"""In-context tasks: pairs of a kind, one after the other, until the next can be told."""

from __future__ import annotations

from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.filling import capitalised
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12
SHOTS = 5
# Pairs from here on are told by those before them.
CLEAR = 2


class InContext(Behaviour):
    """Held out are items of a task, whose answers are told elsewhere, and ways of writing the pairs."""

    name = "in context"

    def __init__(self, lexicon: dict[str, Any], tables: dict[str, Any]) -> None:
        self.lexicon = lexicon
        self.pairs = {task: pairs_of(entry, tables) for task, entry in lexicon["tasks"].items()}
        self.seen = {
            task: [item for item in pairs if self.split(task, item) == "train"] for task, pairs in self.pairs.items()
        }

    def concepts(self) -> list[Concept]:
        """The tasks, and the answers of each."""
        return [
            Concept("task", "class", tuple(self.pairs), self.name),
            *(
                Concept(f"task.{task}", "value", tuple(dict.fromkeys(pairs.values())), self.name, is_paired=False)
                for task, pairs in self.pairs.items()
            ),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """Five pairs and a sixth that is asked."""
        task = pick(rng, list(self.pairs), force.get("task"))
        form = pick(rng, templates_for(self.lexicon["forms"], split))
        shots = self.items(rng, task, SHOTS, "train")
        asked = self.items(rng, task, 1, split)
        return self.told(task, shots + [item for item in asked if item not in shots], form)

    def items(self, rng: Random, task: str, count: int, split: Split) -> list[str]:
        """Items of a task, of the split."""
        items = list(self.pairs[task]) if split == "held_out" else self.seen[task]
        return rng.sample(items, min(count, len(items)))

    def split(self, task: str, item: str) -> Split:
        """Where an item of a task belongs."""
        return split_of(task, item, share=HELD_OUT_SHARE)

    def told(self, task: str, items: list[str], form: dict[str, str]) -> Sentence:
        """The pairs of the items, written in one form; the last is asked."""
        text, labels = "", []
        for item in items:
            text += (form["between"] if text else "") + item + form["arrow"]
            answer = self.pairs[task][item]
            labels.append(Label(f"task.{task}", answer, len(text), len(text) + len(answer)))
            text += answer
        is_new = form in self.lexicon["forms"]["held_out"]
        homes: list[Split] = [self.split(task, item) for item in items]
        split = either(held_out_if(is_new), *homes)
        whole = Label("task", task, 0, len(text))
        known = tuple(labels[CLEAR:])
        return Sentence(text, self.name, (whole, *labels), split, labels[-1], known, group=task)

    def document(self, rng: Random) -> Sentence:
        """Four to eight pairs."""
        task = rng.choice(list(self.pairs))
        items = self.items(rng, task, rng.randint(4, 8), "train")
        return self.told(task, items, rng.choice(self.lexicon["forms"]["templates"]))


def pairs_of(entry: dict[str, Any], tables: dict[str, Any]) -> dict[str, str]:
    """A task's items and answers: a relation of a table, or a rule over words or numbers.

    Raises:
        ValueError: The rule is unknown.
    """
    if "table" in entry:
        return {name: facts[entry["relation"]] for name, facts in tables[entry["table"]]["entities"].items()}
    if entry["rule"] == "capital letter":
        return {word: capitalised(word) for word in entry["words"]}
    if entry["rule"] == "next number":
        return {str(number): str(number + 1) for number in range(entry["below"])}
    raise ValueError(f"unknown rule {entry['rule']!r} of a task; the rules are 'capital letter' and 'next number'")
