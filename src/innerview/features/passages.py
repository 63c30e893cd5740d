"""Passages of a corpus in which a feature was active, or silent: what a label is judged on."""

from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.corpus import Corpus
from innerview.features.fired import Fired

LONGEST = 24
# A token counts as one that the feature is active on above this share of the strongest in its stretch.
STRONG = 0.3


@dataclass(frozen=True)
class Passage:
    """A stretch of a corpus, and which of its tokens are pointed at.

    Attributes:
        start: Place of its first token, counted through the corpus.
        stop: Place behind its last.
        marked: Places that are pointed at; empty where the whole is meant.
    """

    start: int
    stop: int
    marked: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Windows:
    """A corpus in stretches, none longer than two dozen tokens.

    Attributes:
        corpus: The corpus.
        bounds: Where each starts and stops, shape [windows, 2].
        of_token: Which of them each token is in, shape [tokens].
    """

    corpus: Corpus
    bounds: Int[Tensor, "windows 2"] = field(repr=False)
    of_token: Int[Tensor, "tokens"] = field(repr=False)

    @classmethod
    def of(cls, corpus: Corpus, longest: int = LONGEST) -> "Windows":
        """The stretches of a corpus; rows are cut into parts of about the same length."""
        bounds: list[tuple[int, int]] = []
        for start, stop in zip(corpus.starts[:-1].tolist(), corpus.starts[1:].tolist(), strict=True):
            parts = -(-(stop - start) // longest)
            edges = [start + (stop - start) * part // parts for part in range(parts + 1)]
            bounds += [(low, high) for low, high in pairwise(edges) if corpus.is_read[low:high].any()]
        both = torch.tensor(bounds).view(-1, 2)
        of_token = torch.full((len(corpus.ids),), -1)
        for number, (low, high) in enumerate(bounds):
            of_token[low:high] = number
        return cls(corpus, both, of_token)

    def __len__(self) -> int:
        return len(self.bounds)

    def passage(self, number: int, marked: tuple[int, ...] = ()) -> Passage:
        """One of them as a passage."""
        return Passage(int(self.bounds[number, 0]), int(self.bounds[number, 1]), marked)


@dataclass(frozen=True, eq=False)
class Sample:
    """One feature in a corpus's stretches, to draw passages from.

    Attributes:
        windows: The stretches.
        places: Tokens at which it was active, shape [n].
        values: How active, shape [n].
    """

    windows: Windows
    places: Int[Tensor, "n"] = field(repr=False)
    values: Float[Tensor, "n"] = field(repr=False)

    @classmethod
    def of(cls, windows: Windows, fired: Fired, feature: int) -> "Sample":
        """The sample of a feature."""
        return cls(windows, *fired.of_feature(feature))

    @cached_property
    def largest(self) -> Float[Tensor, "windows"]:
        """Its strongest activation in each stretch, 0 where it was silent."""
        blank = torch.zeros(len(self.windows))
        return blank.scatter_reduce(0, self.windows.of_token[self.places], self.values, "amax")

    @property
    def active(self) -> Int[Tensor, "n"]:
        """Stretches in which it was active, the strongest first."""
        order = self.largest.argsort(descending=True, stable=True)
        return order[: int((self.largest > 0).sum())]

    @property
    def silent(self) -> Int[Tensor, "n"]:
        """Stretches in which it was silent."""
        return (self.largest == 0).nonzero()[:, 0]

    def inside(self, number: int) -> tuple[list[int], list[int]]:
        """Places of a stretch at which it was strongly active, and at which it was silent."""
        low, high = self.windows.bounds[number].tolist()
        # Places rise, so that those inside lie side by side.
        first, last = torch.searchsorted(self.places, torch.tensor([low, high])).tolist()
        values, places = self.values[first:last], self.places[first:last]
        strong = places[values > STRONG * float(values.max())].tolist() if len(values) else []
        quiet = self.windows.corpus.is_read[low:high].clone()
        quiet[places - low] = False
        return strong, (quiet.nonzero()[:, 0] + low).tolist()
