"""How each feature's activations are spread: counts, sums, and a histogram on a logarithmic axis."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.seen import Seen

# Bins of an octave: a quantile read from the histogram is off by less than one bin, 9 %.
PER_OCTAVE = 8
OCTAVES = 24
# Octaves above the largest value of the first chunk.
ROOM = 4
# A feature whose first values lie far from those has bins around its own.
HALF = OCTAVES // 2
# Of a feature that was never active.
UNSET = -2000
BINS = PER_OCTAVE * OCTAVES
# Features whose counts are summed up at once.
ROWS = 1 << 16


@dataclass(eq=False)
class Spread:
    """Counts of activations by size.

    Attributes:
        count: Tokens at which each feature was active, int64, shape [n_features].
        total: Sum of its values, float64, shape [n_features].
        most: Its largest value, shape [n_features].
        bins: Tokens by size, int32, shape [n_features, bins]; smaller and larger ones lie in the first and the last.
        floors: Binary logarithm of the lower border of each feature's first bin, int32, shape [n_features]; `UNSET` before it was active.
        floor: That of most features; None before the first chunk.
        n_tokens: Tokens that were read.
    """

    count: Int[Tensor, "n_features"]
    total: Float[Tensor, "n_features"]
    most: Float[Tensor, "n_features"]
    bins: Int[Tensor, "n_features bins"]
    floors: Int[Tensor, "n_features"]
    floor: int | None = None
    n_tokens: int = 0

    @classmethod
    def empty(cls, n_features: int, device: torch.device) -> "Spread":
        """Nothing was read yet."""
        count = torch.zeros(n_features, dtype=torch.int64, device=device)
        most = torch.full((n_features,), -torch.inf, device=device)
        # What has no float64 (Apple's GPUs) sums in float32.
        total = torch.zeros(n_features, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        bins = torch.zeros(n_features, BINS, dtype=torch.int32, device=device)
        return cls(count, total, most, bins, torch.full((n_features,), UNSET, dtype=torch.int32, device=device))

    def add(self, seen: Seen) -> None:
        """Count the codes of a chunk."""
        self.n_tokens += seen.n_tokens
        if not len(seen):
            return
        if self.floor is None:
            top = float(seen.values.abs().amax().log2().ceil())
            self.floor = int(top) + ROOM - OCTAVES
        self._set_floors(seen, self.floor)
        self.count += torch.bincount(seen.features, minlength=len(self.count))
        self.total.index_add_(0, seen.features, seen.values.to(self.total.dtype))
        self.most.scatter_reduce_(0, seen.features, seen.values, "amax")
        # A dictionary with negative codes has them counted by their size.
        size = (
            ((seen.values.abs().clamp(min=1e-30).log2() - self.floors[seen.features]) * PER_OCTAVE)
            .floor()
            .long()
            .clamp_(0, BINS - 1)
        )
        where = seen.features * BINS + size
        self.bins.view(-1).index_add_(0, where, torch.ones_like(where, dtype=torch.int32))

    def _set_floors(self, seen: Seen, usual: int) -> None:
        """Where the bins of features begin that are active for the first time."""
        is_new = self.floors[seen.features] == UNSET
        if not bool(is_new.any()):
            return
        features = seen.features[is_new]
        top = torch.full_like(self.most, -torch.inf).scatter_reduce_(0, features, seen.values[is_new].abs(), "amax")
        first = features.unique()
        octave = top[first].clamp(min=1e-30).log2().ceil().int()
        is_usual = (octave >= usual + HALF) & (octave <= usual + OCTAVES - ROOM)
        self.floors[first] = torch.where(is_usual, usual, octave - HALF)

    def edges(self, feature: int) -> Float[Tensor, "bins_and_1"]:
        """Borders of a feature's bins."""
        return 2.0 ** (int(self.floors[feature]) + torch.arange(BINS + 1, dtype=torch.float64) / PER_OCTAVE)

    def quantile(self, q: float, features: Tensor | None = None) -> Float[Tensor, "features"]:
        """A quantile of each feature's non-zero activations, read from the histogram, off by less than one bin; NaN where it never was active."""
        bins = self.bins if features is None else self.bins[features]
        most, floors = (one if features is None else one[features] for one in (self.most, self.floors))
        parts = zip(bins.split(ROWS), most.split(ROWS), floors.split(ROWS), strict=True)
        return torch.cat(
            [self._quantile(q, part.long().cpu(), top.double().cpu(), low.double().cpu()) for part, top, low in parts]
        )

    def _quantile(self, q: float, bins: Tensor, most: Tensor, floors: Tensor) -> Tensor:
        counted = bins.cumsum(1)
        count = counted[:, -1]
        # The rank of the quantile among values that lie in the middle of their part of the bin.
        target = q * (count - 1).clamp(min=0).double() + 0.5
        at = (counted.double() < target[:, None]).sum(dim=1).clamp(max=BINS - 1)[:, None]
        inside = bins.gather(1, at)[:, 0].double()
        below = counted.gather(1, at)[:, 0].double() - inside
        part = ((target - below) / inside.clamp(min=1)).clamp(0, 1)
        found = torch.minimum(2.0 ** (floors + (at[:, 0].double() + part) / PER_OCTAVE), most)
        return torch.where(count > 0, found, torch.full_like(found, torch.nan)).float()
