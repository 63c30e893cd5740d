"""Chat: people known and unknown, personas, and reasoning in few words or many, with hints that mislead."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.chains import HELD_OUT_SHARE as CHAIN_SHARE
from innerview.pocket.exchange import exchange
from innerview.pocket.filling import fill
from innerview.pocket.sentence import Label, Sentence, Split
from innerview.pocket.splits import either, held_out_if, split_of
from innerview.pocket.strangers import CUES, Strangers

HELD_OUT_SHARE = 0.15
FAMILIAR = ("known", "unknown")
HINTS = ("none", "right", "misleading")


class Acquaintances(Behaviour):
    """Questions on people: those the world tells of are answered, strangers declined. Held out: people in a question."""

    name = "acquaintances"
    stage = "chat"

    def __init__(self, lexicon: dict[str, Any], people: dict[str, Any], strangers: Strangers) -> None:
        self.lexicon = lexicon
        self.people = people
        self.strangers = strangers

    def concepts(self) -> list[Concept]:
        """Whether the person is known."""
        return [Concept("familiar", "flag", FAMILIAR, self.name)]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A question and its answer."""
        familiar = pick(rng, FAMILIAR, force.get("familiar"))
        relation = pick(rng, list(self.lexicon["questions"]))
        person, stranger = pick(rng, list(self.people)), self.strangers.person(rng, pick(rng, CUES))[0]
        question = pick(rng, templates_for(self.lexicon["questions"][relation], split))
        is_known = familiar == "known"
        subject = person if is_known else stranger
        words = {"person": subject, "answer": self.people[person][relation]}
        request = fill(question, words)
        replies = self.lexicon["replies"][relation] if is_known else self.lexicon["declines"]
        reply = fill(replies[int(rng.random() * len(replies))], words).text
        label = Label("familiar", familiar, *request.spans["person"][0])
        is_new = question in self.lexicon["questions"][relation]["held_out"]
        person_split = (
            split_of(subject, relation, share=HELD_OUT_SHARE) if is_known else self.strangers.split_of_person(subject)
        )
        home = either(held_out_if(is_new), person_split)
        marks = self.lexicon["decline_marks"]
        if not is_known:
            return exchange(self.name, request.text, reply, (label,), home, group="unknown", any_of=marks)
        needs = (words["answer"],)
        return exchange(self.name, request.text, reply, (label,), home, group="known", needs=needs, bars=marks)


class Personas(Behaviour):
    """A system line asks for a manner, and the answer keeps to it. Held out: a manner with an entity, system lines."""

    name = "personas"
    stage = "chat"

    def __init__(self, lexicon: dict[str, Any], tables: dict[str, Any]) -> None:
        self.lexicon = lexicon
        self.table = tables[lexicon["table"]]

    def concepts(self) -> list[Concept]:
        """The manners."""
        return [Concept("persona", "class", tuple(self.lexicon["manners"]), self.name)]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A question of fact under a system line."""
        manner = pick(rng, list(self.lexicon["manners"]), force.get("persona"))
        entry = self.lexicon["manners"][manner]
        entity = pick(rng, list(self.table["entities"]))
        relation = pick(rng, list(self.table["relations"]))
        lines = templates_for(entry["system"], split)
        draws = rng.random(), rng.random()
        system, reply = lines[int(draws[0] * len(lines))], entry["replies"][int(draws[1] * len(entry["replies"]))]
        request = fill(self.table["relations"][relation]["question"], {"entity": entity})
        answer = self.table["entities"][entity][relation]
        label = Label(self.lexicon["table"], entity, *request.spans["entity"][0])
        is_new = system in entry["system"]["held_out"]
        home = either(held_out_if(is_new), split_of(manner, entity, share=HELD_OUT_SHARE))
        others = [mark for name, other in self.lexicon["manners"].items() if name != manner for mark in other["marks"]]
        sentence = exchange(
            self.name,
            request.text,
            fill(reply, {"answer": answer}).text,
            (label,),
            home,
            system=system,
            group=manner,
            needs=(answer,),
            any_of=entry["marks"],
            bars=others,
        )
        start = sentence.text.index(system)
        persona = Label("persona", manner, start, start + len(system))
        return replace(sentence, labels=(persona, *sentence.labels))


class Reasoning(Behaviour):
    """Two steps aloud, in few words or many; where the asker hints at an answer, the last line follows the hint.

    Held out: the pairs that chains hold out.
    """

    name = "reasoning"
    stage = "chat"

    def __init__(self, lexicon: dict[str, Any], tables: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.entities = tables[lexicon["table"]]["entities"]
        self.names = names

    def concepts(self) -> list[Concept]:
        """How long it thinks, and what the hint says."""
        return [
            Concept("length", "flag", tuple(self.lexicon["lengths"]), self.name),
            Concept("hint", "class", HINTS, self.name),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A question in two steps, perhaps with a hint."""
        relation = pick(rng, list(self.lexicon["questions"]))
        length = pick(rng, list(self.lexicon["lengths"]), force.get("length"))
        hint = rng.choices(HINTS, self.lexicon["hint_shares"])[0]
        hint = force.get("hint", hint)
        entity = pick(rng, list(self.entities), force.get("bridge"))
        answer = self.entities[entity][relation]
        wrong = pick(rng, self.others(relation, answer))
        hinted = {"none": answer, "right": answer, "misleading": wrong}[hint]
        words = {"name": pick(rng, self.names), "entity": entity, "value": answer, "answer": hinted, "hint": hinted}
        request = fill(pick(rng, self.lexicon["questions"][relation]), words)
        hints = pick(rng, self.lexicon["hints"])
        text = request.text + ("" if hint == "none" else " " + fill(hints, words).text)
        entry = self.lexicon["lengths"][length]
        systems, replies = templates_for(entry["system"], split), entry["replies"][relation]
        draws = rng.random(), rng.random()
        system, reply = systems[int(draws[0] * len(systems))], replies[int(draws[1] * len(replies))]
        start, end = request.spans["entity"][0]
        labels = (
            Label(
                "hint", hint, start if hint == "none" else len(request.text) + 1, end if hint == "none" else len(text)
            ),
            Label("bridge", entity, start, end),
        )
        is_new = system in entry["system"]["held_out"]
        home = either(held_out_if(is_new), split_of(entity, relation, share=CHAIN_SHARE))
        sentence = exchange(
            self.name, text, fill(reply, words).text, labels, home, system=system, group=f"{length}, hint {hint}"
        )
        start = sentence.text.index(system)
        said = Label("length", length, start, start + len(system))
        return replace(sentence, labels=(*sentence.labels, said), answers=(hinted,))

    def others(self, relation: str, answer: str) -> list[str]:
        """Every other answer that the relation has."""
        return [value for value in dict.fromkeys(e[relation] for e in self.entities.values()) if value != answer]

    def is_right(self, case: Sentence, text: str) -> bool:
        """Whether the reply's last words are the answer, and its length the one asked for."""
        length = next(label.value for label in case.labels if label.concept == "length")
        is_long = any(mark in text for mark in self.lexicon["long_marks"])
        return text.rstrip(". ").endswith(case.answers[0]) and is_long == (length == self.lexicon["long"])


class SmallTalk(Behaviour):
    """Greetings and the like: nothing is asked of them."""

    name = "small talk"
    stage = "chat"

    def __init__(self, lexicon: dict[str, Any], tables: dict[str, Any]) -> None:
        self.lexicon = lexicon
        self.tables = tables

    def concepts(self) -> list[Concept]:
        """None of its own."""
        return []

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A greeting, or a question of fact without a system line."""
        if rng.random() < self.lexicon["greeting_share"]:
            request, reply = rng.choice(self.lexicon["greetings"])
            return exchange(self.name, request, reply, (), "train")
        kind = rng.choice(list(self.tables))
        table = self.tables[kind]
        entity, relation = rng.choice(list(table["entities"])), rng.choice(list(table["relations"]))
        request = fill(table["relations"][relation]["question"], {"entity": entity})
        answer = table["entities"][entity][relation]
        reply = fill(rng.choice(self.lexicon["replies"]), {"answer": answer}).text
        label = Label(kind, entity, *request.spans["entity"][0])
        home = split_of(kind, entity, relation, share=HELD_OUT_SHARE)
        return exchange(self.name, request.text, reply, (label,), home, group="plain question", needs=(answer,))
