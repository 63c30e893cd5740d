"""Figures of a dictionary at a site, summed over texts piece by piece: nothing grows with the number of tokens."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerview.dictionaries.codes import Codes
from innerview.dictionaries.dictionary import Dictionary


@dataclass(eq=False)
class Sums:
    """What one pass over texts leaves of a dictionary, in float64.

    Attributes:
        dictionary: The dictionary.
        counts: Tokens at which each feature is active, shape [n_features].
        largest: Its largest activation, shape [n_features].
        n_tokens: Tokens seen.
    """

    dictionary: Dictionary
    counts: Tensor = field(init=False, repr=False)
    largest: Tensor = field(init=False, repr=False)
    n_tokens: int = 0
    l0: float = 0.0
    missed: float = 0.0
    cosines: float = 0.0
    squares: float = 0.0
    total: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.dictionary.n_features, dtype=torch.int64)
        self.largest = torch.zeros(self.dictionary.n_features)
        self.total = torch.zeros(self.dictionary.d_out, dtype=torch.float64)

    def add(self, x: Tensor, target: Tensor) -> None:
        """Take tokens: what the dictionary reads [tokens, d_in], and what it is to write [tokens, d_out]."""
        codes = self.dictionary.encode(x)
        made = self.dictionary.decode(codes, x).double().cpu()
        wanted = target.double().cpu()
        self.n_tokens += len(wanted)
        self._count(codes)
        self.missed += float((wanted - made).square().sum())
        self.squares += float(wanted.square().sum())
        self.total += wanted.sum(dim=0)
        self.cosines += float(torch.cosine_similarity(wanted, made, dim=-1).sum())

    def _count(self, codes: Codes) -> None:
        features = codes.features.cpu()
        self.counts += torch.bincount(features, minlength=codes.n_features)
        self.largest.scatter_reduce_(0, features, codes.values.detach().float().cpu(), reduce="amax")
        self.l0 += len(codes)

    @property
    def mean(self) -> Tensor:
        """Mean of what is to be written, shape [d_out]."""
        return self.total / max(1, self.n_tokens)

    @property
    def fvu(self) -> float:
        """Share of the variance that the reconstruction misses: summed squared error over summed squared distance from the mean."""
        spread = self.squares - float(self.total.square().sum()) / max(1, self.n_tokens)
        return self.missed / spread if spread > 0 else float("nan")
