"""Neurons of the same layer whose activation goes with a feature's, by Pearson's correlation."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.features.seen import Seen
from innerview.features.together import Partners
from innerview.models.model import Model

# Features × neurons that are correlated without being asked for: 64 MiB of float32.
MOST_UNASKED = 1 << 24


def neuron_site(model: Model, site: str) -> str | None:
    """The neurons of the layer of a site; None where there are none."""
    layer = model.site(site).layer
    name = f"blocks.{layer}.mlp.hidden"
    return name if layer is not None and name in model.table else None


@dataclass(eq=False)
class Correlating:
    """Sums that correlations are made of.

    Attributes:
        both: Sum of products, float32, shape [n_features, d_mlp].
        own: Sums of the features' values and of their squares, float64, shape [2, n_features].
        theirs: Sums of the neurons' values and of their squares, float64, shape [2, d_mlp].
        shift: What was taken from each neuron, its mean in the first chunk, so that the sums lose no digits, shape [d_mlp].
        n_tokens: Tokens that were read.
    """

    both: Float[Tensor, "n_features d_mlp"]
    own: Float[Tensor, "2 n_features"]
    theirs: Float[Tensor, "2 d_mlp"]
    shift: Float[Tensor, "d_mlp"]
    n_tokens: int = 0

    @classmethod
    def empty(cls, n_features: int, device: torch.device) -> "Correlating":
        """Nothing was read yet; the first chunk says how many neurons there are."""
        wide = torch.float32 if device.type == "mps" else torch.float64
        own, theirs = (torch.zeros(2, n, dtype=wide, device=device) for n in (n_features, 0))
        return cls(torch.zeros(n_features, 0, device=device), own, theirs, torch.zeros(0, device=device))

    def add(self, seen: Seen, at: Tensor, neurons: Float[Tensor, "tokens d_mlp"]) -> None:
        """Sum a chunk.

        Args:
            seen: Its codes.
            at: Row of `neurons` of each code's token, shape [codes].
            neurons: The neurons at each token that counts.
        """
        if not len(neurons):
            return
        if not self.n_tokens:
            self.shift = neurons.mean(dim=0)
            self.both = neurons.new_zeros(self.own.shape[1], neurons.shape[1])
            self.theirs = self.own.new_zeros(2, neurons.shape[1])
        shifted = neurons - self.shift
        self.n_tokens += len(shifted)
        self.theirs += torch.stack([shifted.to(self.theirs).sum(dim=0), shifted.to(self.theirs).square().sum(dim=0)])
        n = self.own.shape[1]
        values = seen.values.to(self.own)
        for row, what in enumerate((values, values.square())):
            self.own[row].index_add_(0, seen.features, what)
        counts = torch.bincount(seen.features, minlength=n)
        self.both += torch.nn.functional.embedding_bag(
            at, shifted, counts.cumsum(0) - counts, mode="sum", per_sample_weights=seen.values
        )

    def partners(self, k: int) -> Partners:
        """For each feature the `k` neurons with the largest correlation, positive or negative."""
        n = max(1, self.n_tokens)
        if not self.both.shape[1]:
            blank = torch.zeros(self.own.shape[1], k)
            return Partners(blank.int() - 1, blank, blank.int(), 0)
        most = min(k, self.both.shape[1])
        mean, spread = self.own[0] / n, (self.own[1] / n - (self.own[0] / n).square()).clamp(min=0).sqrt()
        their, theirs = self.theirs[0] / n, (self.theirs[1] / n - (self.theirs[0] / n).square()).clamp(min=0).sqrt()
        found = []
        for start in range(0, len(mean), 4096):
            part = slice(start, start + 4096)
            above = self.both[part].to(mean) / n - mean[part, None] * their
            below = (spread[part, None] * theirs).clamp(min=1e-30)
            correlation = above / below
            best = correlation.abs().topk(most, dim=1).indices
            found.append((best, correlation.gather(1, best)))
        indices, values = (torch.cat(list(column)).cpu() for column in zip(*found, strict=True))
        is_there = (spread > 0).cpu()[:, None]
        indices = torch.where(is_there, indices, -1).int()
        return Partners(indices, torch.where(is_there, values, 0.0).float(), torch.zeros_like(indices), self.n_tokens)
