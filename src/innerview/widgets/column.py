"""A column of Steer: one run's text as it is written, with its projections."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from innerview.direction import Direction
from innerview.generation import Generation
from innerview.models import text
from innerview.models.model import Model
from innerview.widgets import wire


class Column:
    """The text of a run, token by token.

    Attributes:
        run: The run; None before the first.
        prompt: The prompt as the widget holds it, for telling whether the text is stale.
        is_mixed: Whether the edits changed while it wrote.
    """

    def __init__(self, model: Model, directions: Sequence[Direction], prompt: dict[str, Any] | None = None) -> None:
        self.prompt = prompt
        self.is_mixed = False
        self.run: Generation | None = None
        self._model = model
        self._directions = directions
        self._words: list[str] = []

    @property
    def is_writing(self) -> bool:
        """Whether its run still writes."""
        return self.run is not None and not self.run.done

    @property
    def state(self) -> str:
        """empty, running, done, stopped or error."""
        if self.run is None:
            return "empty"
        if not self.run.done:
            return "running"
        if self.run.error is not None:
            return "error"
        return "stopped" if self.run.cancelled else "done"

    @property
    def text(self) -> str:
        """What is written so far."""
        return "" if self.run is None else self.run.texts_so_far[0]

    def to_dict(self) -> dict[str, Any]:
        """As the wire carries it."""
        base = {
            "prompt": self.prompt,
            "prompt_words": [],
            "words": [],
            "values": None,
            "state": self.state,
            "mixed": self.is_mixed,
        }
        if self.run is None:
            return base
        state = base["state"]
        prompt, written = self.run.prompt_tokens[0], self.run.tokens_so_far[0]
        if len(self._words) != len(prompt):
            self._words = text.words(self._model, prompt)
        values = self._values([*prompt, *written])
        return base | {
            "prompt_words": self._words,
            "words": text.words(self._model, written),
            "values": wire.pack(values, "float32"),
            "state": state,
        }

    def _values(self, ids: list[int]) -> np.ndarray:
        """Projections, shape [direction, token]; NaN for what is special or not read yet."""
        assert self.run is not None
        values = np.full((len(self._directions), len(ids)), np.nan, np.float32)
        read = self.run.projections
        for i, direction in enumerate(self._directions):
            row = (read[direction.name] or [[]])[0][: len(ids)]
            values[i, : len(row)] = row
        values[:, [i for i, token in enumerate(ids) if text.is_special(self._model, token)]] = np.nan
        return values
