"""What each part of the world offers."""

from __future__ import annotations

from random import Random
from typing import Protocol

from training.world.sentence import Sentence, Split


class Behaviour(Protocol):
    """A part of the world: it writes labelled sentences, and documents to train on."""

    name: str

    def sentence(self, rng: Random, split: Split) -> Sentence:
        """A random sentence of the split."""
        ...

    def document(self, rng: Random) -> Sentence:
        """A random document of the training split, of one sentence or several."""
        ...
