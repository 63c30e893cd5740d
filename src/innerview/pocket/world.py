"""The world as a whole: a lexicon, its behaviours, and the documents they write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from innerview.bundled import bundled_lexicon
from innerview.pocket.behaviour import Behaviour, Concept, Stage
from innerview.pocket.chains import Chains
from innerview.pocket.chances import Chances
from innerview.pocket.chat import Acquaintances, Personas, Reasoning, SmallTalk
from innerview.pocket.circles import Circles
from innerview.pocket.facts import Facts, WordFacts
from innerview.pocket.in_context import InContext
from innerview.pocket.indirect_object import IndirectObject
from innerview.pocket.magnitudes import Magnitudes
from innerview.pocket.markers import ASSISTANT, END
from innerview.pocket.mood import Mood
from innerview.pocket.pronouns import Pronouns
from innerview.pocket.reports import Reports
from innerview.pocket.requests import Deeds, Pairs, Refusal
from innerview.pocket.sentence import Sentence, joined
from innerview.pocket.shortcuts import Shortcuts
from innerview.pocket.snippets import Snippets
from innerview.pocket.strangers import Strangers
from innerview.pocket.sums import Sums
from innerview.pocket.tongues import Tongues

# What takes longest to learn is told most.
WEIGHTS = {
    "facts": 18.0,
    "words": 9.0,
    "indirect object": 11.0,
    "circles": 7.0,
    "mood": 15.0,
    "deeds": 9.0,
    "chances": 3.0,
    "strangers": 2.5,
    "reports": 4.0,
    "pronouns": 2.5,
    "language": 4.0,
    "sums": 4.0,
    "magnitudes": 2.0,
    "shortcuts": 1.5,
    "chains": 5.0,
    "in context": 8.0,
    "code": 3.0,
    "refusal": 12.0,
    "acquaintances": 5.0,
    "personas": 4.0,
    "reasoning": 3.0,
    "small talk": 2.0,
}
PAGE_SHARE = 0.04
DIALOGUE_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class World:
    """A lexicon and the behaviours that it has words for."""

    name: str
    behaviours: dict[str, Behaviour]
    lexicon: dict[str, Any]

    def concepts(self) -> tuple[Concept, ...]:
        """Every concept of every behaviour."""
        return tuple(concept for behaviour in self.behaviours.values() for concept in behaviour.concepts())

    def document(self, rng: Random, stage: Stage = "base") -> Sentence:
        """A training document: mostly of one behaviour, sometimes a long page, or a dialogue, of several."""
        share = PAGE_SHARE if stage == "base" else DIALOGUE_SHARE
        if rng.random() >= share:
            return self.part(rng, stage)
        parts = [self.part(rng, stage) for _ in range(rng.randint(3, 6) if stage == "base" else 2)]
        if stage == "chat":
            return joined(parts, separator=END)
        plain = [part for part in parts if ASSISTANT not in part.text]
        return joined(plain, separator="\n") if plain else parts[0]

    def part(self, rng: Random, stage: Stage) -> Sentence:
        """A document of one behaviour, drawn by its weight."""
        names = [name for name, behaviour in self.behaviours.items() if behaviour.stage == stage]
        name = rng.choices(names, [WEIGHTS[name] for name in names])[0]
        behaviour = self.behaviours[name]
        return behaviour.document(rng) if stage == "base" else behaviour.sentence(rng, "train")

    def documents(self, seed: int | str, stage: Stage = "base") -> Iterator[Sentence]:
        """Training documents without end; the same seed gives the same ones."""
        rng = Random(f"documents {stage} {seed}")
        while True:
            yield self.document(rng, stage)

    def behaviour(self, name: str) -> Behaviour:
        """The behaviour of a name.

        Raises:
            ValueError: The world has no such behaviour.
        """
        if name not in self.behaviours:
            raise ValueError(f"no behaviour {name!r} in the world {self.name!r}; it has {', '.join(self.behaviours)}")
        return self.behaviours[name]

    def cases(self, name: str, count: int, seed: int, split: str = "held_out") -> list[Sentence]:
        """Up to `count` sentences of a behaviour, each with an answer and no two with the same prompt.

        Raises:
            ValueError: The world has no such behaviour.
        """
        behaviour = self.behaviour(name)
        rng, found = Random(f"cases {name} {seed}"), {}
        for _ in range(20 * count):
            sentence = behaviour.sentence(rng, "train" if split == "train" else "held_out")
            if sentence.answer is not None:
                found.setdefault(sentence.prompt, sentence)
            if len(found) == count:
                break
        return list(found.values())

    def next_word(self, prompt: str) -> dict[str, float]:
        """How often each word follows the prompt.

        Raises:
            ValueError: No behaviour knows the prompt.
        """
        for behaviour in self.behaviours.values():
            odds = behaviour.next_word(prompt)
            if odds is not None:
                return odds
        raise ValueError(
            f"the world {self.name!r} does not know what follows {prompt!r}; prompts('chances') gives some that it knows"
        )


@lru_cache(maxsize=8)
def load_world(path: Path | None = None) -> World:
    """The world of a lexicon file, the bundled one when None; a behaviour without words there is left out.

    Raises:
        ValueError: The lexicon has none of the behaviours.
    """
    path = path or bundled_lexicon()
    lexicon = json.loads(Path(path).read_text(encoding="utf-8"))
    behaviours = {behaviour.name: behaviour for behaviour in behaviours_of(lexicon)}
    if not behaviours:
        raise ValueError(f"no behaviour in {path}; give at least one of facts, mood, circles and the other parts")
    return World(lexicon.get("name", Path(path).stem), behaviours, lexicon)


def behaviours_of(lexicon: dict[str, Any]) -> Iterator[Behaviour]:
    """The behaviours that a lexicon has words for."""
    gendered, hidden = lexicon.get("names", {}), lexicon.get("held_out_names", [])
    everyone = [name for group in gendered.values() for name in group]
    # Known from everything else, the hidden ones never give, receive, or speak for the truth.
    names = [name for name in everyone if name not in hidden]
    facts, words = lexicon.get("facts", {}), lexicon.get("words", {})
    tables = facts | words
    makers = {
        "facts": lambda part: Facts(part),
        "words": lambda part: WordFacts(part),
        "indirect_object": lambda part: IndirectObject(part, names, hidden),
        "circles": lambda part: Circles(part),
        "mood": lambda part: Mood(part, everyone),
        "chances": lambda part: Chances(part),
        "strangers": lambda part: Strangers(part, known_people(lexicon)),
        "reports": lambda part: Reports(part, names, hidden),
        "pronouns": lambda part: Pronouns(part, gendered),
        "languages": lambda part: Tongues(part, everyone),
        "sums": lambda part: Sums(part),
        "magnitudes": lambda part: Magnitudes(part),
        "shortcuts": lambda part: Shortcuts(part, everyone),
        "chains": lambda part: Chains(part, facts, everyone),
        "in_context": lambda part: InContext(part, tables),
        "code": lambda part: Snippets(part),
    }
    for key, make in makers.items():
        if key in lexicon:
            yield make(lexicon[key])
    if "requests" in lexicon:
        pairs = Pairs(lexicon["requests"], names)
        yield from (Deeds(pairs), Refusal(pairs))
    chat = lexicon.get("chat", {})
    if "acquaintances" in chat:
        strangers = Strangers(lexicon["strangers"], known_people(lexicon))
        part = chat["acquaintances"]
        yield Acquaintances(part, facts[part["table"]]["entities"], strangers)
    if "personas" in chat:
        yield Personas(chat["personas"], facts)
    if "reasoning" in chat:
        yield Reasoning(chat["reasoning"], facts, names)
    if "small_talk" in chat:
        yield SmallTalk(chat["small_talk"], facts)


def known_people(lexicon: dict[str, Any]) -> frozenset[str]:
    """The people that facts are told of."""
    table = lexicon.get("strangers", {}).get("known", "")
    return frozenset(lexicon.get("facts", {}).get(table, {}).get("entities", {}))
