"""Activations that were kept of each feature, with the text around them."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.best import Best
from innerview.features.corpus import Corpus


@dataclass(frozen=True, eq=False)
class Drawn:
    """One activation that was kept, and the text around it.

    Attributes:
        text: Number of its text.
        start: Position in its text of the first token shown.
        ids: Ids of the tokens shown.
        values: The feature at each, float32, shape [pos].
        at: Which of them was kept.
        place: That token, counted through the corpus.
    """

    text: int
    start: int
    ids: tuple[int, ...]
    values: np.ndarray
    at: int
    place: int

    @property
    def value(self) -> float:
        """Its value."""
        return float(self.values[self.at])

    @property
    def is_peak(self) -> bool:
        """Whether nothing around it is stronger."""
        return self.value >= float(self.values.max())


@dataclass(frozen=True, eq=False)
class Kept:
    """A few activations of each feature, the strongest first.

    Attributes:
        places: Token of each, counted through the corpus, −1 behind the last, int64, shape [n_features, k].
        values: The feature at the tokens around each, float32, shape [n_features, k, width].
        ids: Ids of those tokens, −1 outside the row, int32, shape [n_features, k, width].
        texts: Number of each one's text, int32, shape [n_features, k].
        starts: Position in its text of the first place of the window, shape [n_features, k]; below 0 where the row starts later.
        before: Places before the one that was kept.
    """

    places: Int[Tensor, "n_features k"] = field(repr=False)
    values: Float[Tensor, "n_features k width"] = field(repr=False)
    ids: Int[Tensor, "n_features k width"] = field(repr=False)
    texts: Int[Tensor, "n_features k"] = field(repr=False)
    starts: Int[Tensor, "n_features k"] = field(repr=False)
    before: int

    @classmethod
    def of(cls, best: Best, corpus: Corpus) -> "Kept":
        """What a pass holds, in order, with the ids around it."""
        is_held = (best.keys >= 0).cpu()
        order = best.values.cpu().masked_fill(~is_held, -torch.inf).argsort(dim=1, descending=True, stable=True)
        places, is_held = best.places.cpu().gather(1, order), is_held.gather(1, order)
        values = best.around.cpu()
        for part in range(0, len(values), 1024):
            block = slice(part, part + 1024)
            values[block] = values[block].gather(1, order[block, :, None].expand_as(values[block]))
        at = places.clamp(min=0)
        rows = torch.searchsorted(corpus.starts, at, right=True) - 1
        ids = torch.full(values.shape, -1, dtype=torch.int32)
        for step in range(values.shape[2]):
            there = at + step - best.before
            inside = is_held & (there >= corpus.starts[rows]) & (there < corpus.starts[rows + 1])
            ids[:, :, step][inside] = corpus.ids[there[inside]]
        starts = corpus.firsts[rows] + at - best.before - corpus.starts[rows]
        texts = corpus.texts[rows].int()
        return cls(torch.where(is_held, places, -1), values, ids, texts, starts.int(), best.before)

    @property
    def k(self) -> int:
        """Activations that are kept of each feature."""
        return self.places.shape[1]

    def drawn(self, feature: int) -> list[Drawn]:
        """Those of one feature, the strongest first."""
        made = []
        places = self.places[feature].tolist()
        for nth, place in enumerate(places):
            if place < 0:
                break
            ids, values = self.ids[feature, nth].tolist(), self.values[feature, nth].numpy()
            inside = [step for step, one in enumerate(ids) if one >= 0]
            first, last = inside[0], inside[-1] + 1
            start = max(0, int(self.starts[feature, nth]) + first)
            made.append(
                Drawn(
                    int(self.texts[feature, nth]), start, tuple(ids[first:last]), values[first:last].astype(np.float32),
                    self.before - first, place,
                )
            )  # fmt: skip
        return made

    def activations(self, feature: int) -> np.ndarray:
        """Values of those of one feature, the strongest first."""
        held = self.places[feature] >= 0
        return self.values[feature, held, self.before].double().numpy()
