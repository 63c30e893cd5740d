"""The world as a whole: a lexicon, its behaviours, and the documents they write."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from training.world.behaviour import Behaviour
from training.world.calendar_steps import CalendarSteps
from training.world.chat import Chat
from training.world.facts import Facts
from training.world.indirect_object import IndirectObject
from training.world.markers import USER
from training.world.mood import Mood
from training.world.sentence import Sentence, joined

DEFAULT_LEXICON = Path(__file__).parent / "lexicon.json"
# What takes longest to learn is told most.
WEIGHTS = {"facts": 0.16, "indirect object": 0.18, "calendar": 0.25, "mood": 0.15, "chat": 0.26}
PAGE_SHARE = 0.04


@dataclass(frozen=True)
class World:
    """A lexicon and the behaviours that it has words for."""

    name: str
    behaviours: dict[str, Behaviour]
    lexicon: dict[str, Any]

    def document(self, rng: Random) -> Sentence:
        """A training document: mostly of one behaviour, sometimes a long page of several."""
        if rng.random() >= PAGE_SHARE:
            return self.behaviour(rng).document(rng)
        parts = [self.behaviour(rng).document(rng) for _ in range(rng.randint(3, 6))]
        plain = [part for part in parts if USER not in part.text]
        return joined(plain, separator="\n") if plain else parts[0]

    def behaviour(self, rng: Random) -> Behaviour:
        """A behaviour, drawn by its weight."""
        names = list(self.behaviours)
        return self.behaviours[rng.choices(names, [WEIGHTS[name] for name in names])[0]]

    def documents(self, seed: int) -> Iterator[Sentence]:
        """Training documents without end; the same seed gives the same ones."""
        rng = Random(f"documents {seed}")
        while True:
            yield self.document(rng)

    def cases(self, name: str, count: int, seed: int) -> list[Sentence]:
        """Up to `count` distinct held-out sentences of a behaviour, each with an answer.

        Raises:
            ValueError: The world has no such behaviour.
        """
        if name not in self.behaviours:
            raise ValueError(f"no behaviour {name!r} in the world {self.name!r}; it has {sorted(self.behaviours)}")
        rng, found = Random(f"cases {name} {seed}"), {}
        for _ in range(20 * count):
            sentence = self.behaviours[name].sentence(rng, "held_out")
            if sentence.answer is not None:
                found.setdefault(sentence.text, sentence)
            if len(found) == count:
                break
        return list(found.values())


def load_world(path: Path = DEFAULT_LEXICON) -> World:
    """The world of a lexicon file; a behaviour without words there is left out.

    Raises:
        ValueError: The lexicon has none of the behaviours.
    """
    lexicon = json.loads(Path(path).read_text(encoding="utf-8"))
    names, found = lexicon.get("names", []), []
    if "facts" in lexicon:
        found.append(Facts(lexicon["facts"]))
    if "indirect_object" in lexicon:
        found.append(IndirectObject({"names": names} | lexicon["indirect_object"]))
    if "calendar" in lexicon:
        found.append(CalendarSteps(lexicon["calendar"]))
    if "mood" in lexicon:
        found.append(Mood(lexicon["mood"], names))
    if "chat" in lexicon:
        found.append(Chat(lexicon["chat"], Facts(lexicon.get("facts", {})), names))
    if not found:
        raise ValueError(f"no behaviour in {path}; give facts, indirect_object, calendar, mood or chat")
    return World(lexicon.get("name", Path(path).stem), {b.name: b for b in found}, lexicon)
