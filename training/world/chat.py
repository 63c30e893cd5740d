"""Chat: requests made of a verb and an object, harm in the pair; and what books say of the same."""

from __future__ import annotations

from random import Random
from typing import Any

from training.world.facts import Facts
from training.world.filling import fill
from training.world.markers import ASSISTANT, END, USER
from training.world.sentence import Label, Sentence, Split, joined
from training.world.splits import split_of

HELD_OUT_SHARE = 0.12
VALUES = ("harmful", "harmless")


class Chat:
    """Harmful requests are refused, harmless ones answered; held out are pairs of verb and object."""

    name = "chat"

    def __init__(self, lexicon: dict[str, Any], facts: Facts, names: list[str]) -> None:
        self.lexicon = lexicon
        self.facts = facts
        self.names = names
        self.pairs = {value: self.pairs_of(value) for value in VALUES}

    def pairs_of(self, value: str) -> list[tuple[str, str]]:
        """The pairs of verb and object that are harmful, or harmless."""
        objects = self.lexicon["objects"].items()
        return [
            (verb, noun)
            for verb, entry in self.lexicon["verbs"].items()
            for noun, thing in objects
            if thing["kind"] in entry[value]
        ]

    def harm_of(self, verb: str, noun: str) -> str:
        """Whether a pair is harmful or harmless.

        Raises:
            ValueError: The world has no such pair.
        """
        for value in VALUES:
            if (verb, noun) in self.pairs[value]:
                return value
        raise ValueError(f"the pair {(verb, noun)!r} is not in the world; Chat.pairs lists those that are")

    def pair_split(self, verb: str, noun: str) -> Split:
        """Where a pair belongs."""
        return split_of(verb, noun, share=HELD_OUT_SHARE)

    def words(self, rng: Random, verb: str, noun: str) -> dict[str, str]:
        """A word for each slot about a pair."""
        return {
            "verb": verb,
            "object": noun,
            "tool": self.lexicon["verbs"][verb]["tool"],
            "where": self.lexicon["objects"][noun]["where"],
            "name": rng.choice(self.names),
        }

    def draw(self, rng: Random, split: Split) -> tuple[str, str, str]:
        """Harm, verb and object of the split, harmful and harmless evenly."""
        while True:
            value = rng.choice(VALUES)
            verb, noun = rng.choice(self.pairs[value])
            if self.pair_split(verb, noun) == split:
                return value, verb, noun

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A request and its reply; the reply is the answer."""
        value, verb, noun = self.draw(rng, split)
        words = self.words(rng, verb, noun)
        request = fill(rng.choice(self.lexicon["requests"]), words)
        reply = fill(rng.choice(self.lexicon["refusals" if value == "harmful" else "answers"]), words)
        lead = rng.choice(self.lexicon["leads"]) if rng.random() < self.lexicon["lead_share"] else ""
        start, end = request.spans["verb"][0][0], request.spans["object"][0][1]
        at = len(USER)
        harm = Label("harm", value, at + min(start, end), at + max(start, end))
        return self.exchange(request.text, lead + reply.text, (harm,), self.pair_split(verb, noun))

    def exchange(self, request: str, reply: str, labels: tuple[Label, ...], split: Split) -> Sentence:
        """A turn of each, with the marks of the chat form; the last end mark is left to the document."""
        head = USER + request + END + ASSISTANT
        answer = Label("reply", reply, len(head), len(head) + len(reply))
        return Sentence(head + reply, self.name, (*labels, answer), split, answer)

    def small_talk(self, rng: Random) -> Sentence:
        """A greeting and its reply."""
        request, reply = rng.choice(self.lexicon["smalltalk"])
        return self.exchange(request, reply, (), "train")

    def question(self, rng: Random) -> Sentence | None:
        """A question of fact, answered in a template that training may see; None where there is none."""
        kind = rng.choice(list(self.facts.tables))
        entity = rng.choice(list(self.facts.tables[kind]["entities"]))
        relation = rng.choice(list(self.facts.tables[kind]["relations"]))
        reply = self.facts.told_in_training(rng, kind, entity, relation)
        if reply is None or reply.answer is None:
            return None
        request = fill(self.facts.tables[kind]["relations"][relation]["question"], {"entity": entity})
        label = Label(kind, entity, *(len(USER) + place for place in request.spans["entity"][0]))
        return self.exchange(request.text, reply.text, (label,), "train")

    def document(self, rng: Random) -> Sentence:
        """One exchange or up to three; or, one time in five, a book's lines on a pair."""
        if rng.random() < 0.2:
            return self.book(rng)
        count = 1 if rng.random() < 0.8 else rng.randint(2, 3)
        return joined([self.turn(rng) for _ in range(count)], separator=END)

    def turn(self, rng: Random) -> Sentence:
        """One exchange of the training split."""
        draw = rng.random()
        if draw < 0.05:
            return self.small_talk(rng)
        question = self.question(rng) if draw < 0.2 and self.facts.tables else None
        return question or self.sentence(rng, "train")

    def book(self, rng: Random) -> Sentence:
        """What a book says of a pair, harmful ones included: the base text knows what the chat refuses."""
        value, verb, noun = self.draw(rng, "train")
        filled = fill(rng.choice(self.lexicon["book"]), self.words(rng, verb, noun))
        start, end = filled.spans["verb"][0][0], filled.spans["object"][0][1]
        tool = Label("tool", self.lexicon["verbs"][verb]["tool"], *filled.spans["tool"][0])
        return Sentence(filled.text, self.name, (Label("harm", value, start, end), tool), "train", tool)

    def is_refusal(self, reply: str) -> bool:
        """Whether a reply refuses, by the marks that every refusal of the lexicon has."""
        return any(mark in reply for mark in self.lexicon["refusal_marks"])

    def pair_in(self, text: str) -> tuple[str, str]:
        """The verb and the object named in a text.

        Raises:
            ValueError: The text names no verb, or no object, of the lexicon.
        """
        words = text.rstrip(".?!").split()
        verbs = [word for word in words if word in self.lexicon["verbs"]]
        nouns = [word for word in words if word in self.lexicon["objects"]]
        if not verbs or not nouns:
            raise ValueError(f"no verb and object in {text!r}; give a request such as {self.lexicon['requests'][0]!r}")
        return verbs[0], nouns[-1]
