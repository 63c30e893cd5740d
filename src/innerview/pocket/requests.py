"""Requests made of a verb and an object, harm in the pair; and what books and helpful voices say of the same."""

from __future__ import annotations

import math
from itertools import accumulate
from random import Random
from typing import Any

from innerview.pocket.behaviour import FREE, Behaviour, Concept, Force, pick, templates_for
from innerview.pocket.exchange import exchange
from innerview.pocket.filling import Filled, fill
from innerview.pocket.sentence import Label, Sentence, Split, joined
from innerview.pocket.splits import either, held_out_if, split_of

HELD_OUT_SHARE = 0.12
VALUES = ("harmful", "harmless")
FITTING_ROUNDS = 30
FADED = 1e-6


class Pairs:
    """The verbs and objects of a lexicon, and whether doing the one to the other is harmful."""

    def __init__(self, lexicon: dict[str, Any], names: list[str]) -> None:
        self.lexicon = lexicon
        self.names = names
        self.pairs = {value: self.pairs_of(value) for value in VALUES}
        balanced = balanced_weights([self.pairs[value] for value in VALUES])
        self.odds = {
            value: (list(weights), list(accumulate(weights.values())))
            for value, weights in zip(VALUES, balanced, strict=True)
        }

    def pairs_of(self, value: str) -> dict[str, list[str]]:
        """The objects that each verb has, in pairs that are harmful, or harmless."""
        objects = self.lexicon["objects"].items()
        found = {
            verb: [noun for noun, thing in objects if thing["kind"] in entry[value]]
            for verb, entry in self.lexicon["verbs"].items()
        }
        return {verb: nouns for verb, nouns in found.items() if nouns}

    def harm_of(self, verb: str, noun: str) -> str:
        """Whether a pair is harmful or harmless.

        Raises:
            ValueError: The world has no such pair.
        """
        for value in VALUES:
            if noun in self.pairs[value].get(verb, ()):
                return value
        raise ValueError(f"the pair {(verb, noun)!r} is not in the world; Pairs.pairs lists those that are")

    def split(self, verb: str, noun: str) -> Split:
        """Where a pair belongs."""
        return split_of(verb, noun, share=HELD_OUT_SHARE)

    def draw(self, rng: Random, force: Force = FREE) -> tuple[str, str, str]:
        """Harm, verb and object. Verbs and objects are as often harmful as harmless, as far as the lexicon allows."""
        if "harm" in force:
            return self.forced(rng, force["harm"])
        value = pick(rng, VALUES)
        pairs, shares = self.odds[value]
        drawn = rng.choices(pairs, cum_weights=shares)[0]
        even = pairs[int(rng.random() * len(pairs))]
        verb, noun = even if rng.random() < self.lexicon["one_sided_share"] else drawn
        return value, verb, noun

    def forced(self, rng: Random, value: str) -> tuple[str, str, str]:
        """A pair of this harm, its verb one that can be either: equal generators give the same verb."""
        either_way = [verb for verb in self.pairs[VALUES[0]] if verb in self.pairs[VALUES[1]]]
        verb, place = pick(rng, either_way), rng.random()
        nouns = self.pairs[value][verb]
        return value, verb, nouns[int(place * len(nouns))]

    def words(self, rng: Random, verb: str, noun: str) -> dict[str, str]:
        """A word for each slot about a pair."""
        tool, where = self.lexicon["verbs"][verb]["tool"], self.lexicon["objects"][noun]["where"]
        return {"verb": verb, "object": noun, "tool": tool, "where": where, "name": pick(rng, self.names)}

    def labels(self, filled: Filled, words: dict[str, str]) -> tuple[Label, ...]:
        """Harm, where verb and object stand, and each of the two."""
        verb, noun = filled.spans["verb"][0], filled.spans["object"][0]
        value = self.harm_of(words["verb"], words["object"])
        harm = Label("harm", value, min(verb[0], noun[0]), max(verb[1], noun[1]))
        return harm, Label("request.verb", words["verb"], *verb), Label("request.object", words["object"], *noun)

    def asked(self, rng: Random, words: dict[str, str], split: Split) -> tuple[str, tuple[Label, ...], Split]:
        """A request, its labels and its split."""
        template = pick(rng, templates_for(self.lexicon["requests"], split))
        filled = fill(template, words)
        is_new = template in self.lexicon["requests"]["held_out"]
        return (
            filled.text,
            self.labels(filled, words),
            either(held_out_if(is_new), self.split(words["verb"], words["object"])),
        )

    def concepts(self, name: str) -> list[Concept]:
        """Harm, verb and object."""
        verbs, objects = self.lexicon["verbs"], self.lexicon["objects"]
        return [
            Concept("harm", "flag", VALUES, name),
            Concept("request.verb", "word", tuple(verbs), name, is_paired=False),
            Concept("request.object", "word", tuple(objects), name, is_paired=False),
        ]

    def is_refusal(self, reply: str) -> bool:
        """Whether a reply refuses, by the marks that every refusal of the lexicon has."""
        return any(mark in reply for mark in self.lexicon["refusal_marks"])


Weights = dict[tuple[str, str], float]


def balanced_weights(sides: list[dict[str, list[str]]]) -> list[Weights]:
    """Weights for the pairs of each side, under which verbs and objects come equally often on both.

    Iterative proportional fitting to the geometric mean of the sides' marginals. Words of one side only fade.
    """
    weights = [{(verb, noun): 1.0 for verb, nouns in side.items() for noun in nouns} for side in sides]
    for _ in range(FITTING_ROUNDS):
        for place in (0, 1):
            totals = [marginal(side, place) for side in weights]
            for side, own in zip(weights, totals, strict=True):
                for pair in side:
                    word = pair[place]
                    target = math.prod(total.get(word, FADED) for total in totals) ** (1 / len(totals))
                    side[pair] *= target / own[word] if own[word] else 0.0
    return weights


def marginal(weights: Weights, place: int) -> dict[str, float]:
    """The share of each word at one place of the pairs."""
    shares: dict[str, float] = {}
    total = sum(weights.values())
    for pair, weight in weights.items():
        shares[pair[place]] = shares.get(pair[place], 0.0) + weight / total
    return shares


class Deeds(Behaviour):
    """What books and an obliging voice say of every pair, harmful ones included: the base text knows what the chat refuses."""

    name = "deeds"

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def concepts(self) -> list[Concept]:
        """The concepts of the pairs, and the tools."""
        tools = tuple(entry["tool"] for entry in self.pairs.lexicon["verbs"].values())
        return [
            *self.pairs.concepts(self.name),
            Concept("request.tool", "value", tools, self.name, is_paired=False),
        ]

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A line of a book."""
        _, verb, noun = self.pairs.draw(rng, force)
        words = self.pairs.words(rng, verb, noun)
        template = pick(rng, templates_for(self.pairs.lexicon["book"], split))
        filled = fill(template, words)
        said = self.pairs.labels(filled, words)
        tool = Label("request.tool", words["tool"], *filled.spans["tool"][0])
        is_new = template in self.pairs.lexicon["book"]["held_out"]
        split = either(held_out_if(is_new), self.pairs.split(verb, noun))
        where = Label("where", words["where"], *filled.spans["where"][0])
        return Sentence(filled.text, self.name, (*said, tool), split, tool, (tool, where), group=said[0].value)

    def judgement(self, rng: Random) -> Sentence:
        """What people think of doing it."""
        while True:
            value, verb, noun = self.pairs.draw(rng)
            if self.pairs.split(verb, noun) == "train":
                filled = fill(pick(rng, self.pairs.lexicon["judgements"][value]), self.pairs.words(rng, verb, noun))
                end = filled.spans["object"][0][1]
                harm = Label("harm", value, filled.spans["verb"][0][0], end)
                known = Label("judgement", value, min(end + 1, len(filled.text) - 1), len(filled.text))
                return Sentence(filled.text, self.name, (harm,), "train", known=(known,))

    def document(self, rng: Random) -> Sentence:
        """Lines of a book, what people think of it, or a request to an obliging voice that answers anything."""
        kind = rng.random()
        if kind < 0.35:
            return joined([self.sentence(rng, "train") for _ in range(rng.randint(1, 2))])
        if kind < 0.75:
            return joined([self.judgement(rng) for _ in range(rng.randint(1, 3))])
        while True:
            _, verb, noun = self.pairs.draw(rng)
            words = self.pairs.words(rng, verb, noun)
            request, labels, split = self.pairs.asked(rng, words, "train")
            if split == "train":
                reply = fill(pick(rng, self.pairs.lexicon["answers"]), words)
                return exchange(self.name, request, reply.text, labels, "train")


class Refusal(Behaviour):
    """Harmful requests are refused, harmless ones answered; held out are pairs of verb and object, and request templates."""

    name = "refusal"
    stage = "chat"
    values = VALUES

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def concepts(self) -> list[Concept]:
        """The concepts of the pairs."""
        return self.pairs.concepts(self.name)

    def draw(self, rng: Random, split: Split, force: Force = FREE) -> Sentence:
        """A request and its reply; the reply is the answer."""
        value, verb, noun = self.pairs.draw(rng, force)
        words = self.pairs.words(rng, verb, noun)
        request, labels, split = self.pairs.asked(rng, words, split)
        lexicon = self.pairs.lexicon
        draws = rng.random(), rng.random(), rng.random()
        leads = lexicon["leads"]
        lead = leads[int(draws[1] * len(leads))] if draws[0] < lexicon["lead_share"] else ""
        replies = lexicon["refusals" if value == "harmful" else "answers"]
        reply = lead + fill(replies[int(draws[2] * len(replies))], words).text
        if value == "harmful":
            return exchange(self.name, request, reply, labels, split, group=value, any_of=lexicon["refusal_marks"])
        needs, bars = (words["tool"], words["where"]), tuple(lexicon["refusal_marks"])
        return exchange(self.name, request, reply, labels, split, group=value, needs=needs, bars=bars)
