"""Matryoshka dictionaries: each of several nested prefixes of the features reconstructs by itself."""

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Losses, Step
from innerview.dictionaries.architectures.batch_top_k import BatchTopK, InBatch
from innerview.dictionaries.architectures.training import (
    active,
    auxiliary,
    picked_with_bias,
    products,
    squared_error,
)
from innerview.dictionaries.entries import summed
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class Matryoshka(BatchTopK):
    """A BatchTopK dictionary whose first features reconstruct without the later ones, so that general features stay whole.

    Attributes:
        prefixes: Sizes of the prefixes, each a number of features, or a share of them below 1; all features are one too.
    Reference: arXiv:2503.17547; the shares, arXiv:2503.09532
    """

    prefixes: tuple[int | float, ...] = (1 / 32, 3 / 32, 7 / 32, 15 / 32)

    def __post_init__(self) -> None:
        super().__post_init__()
        for size in self.prefixes:
            if isinstance(size, bool) or not (0 < size < 1 or (isinstance(size, int) and size >= 1)):
                raise DictionaryError(f"a prefix is a number of features, or a share of them below 1, not {size!r}")

    def check(self, weights: Weights) -> None:
        super().check(weights)
        self.sizes(weights.n_features)

    def of_some(self, n_features: int) -> "Matryoshka":
        # Prefixes are of training: some features by themselves have none.
        return replace(self, prefixes=(n_features,))

    def sizes(self, n_features: int) -> tuple[int, ...]:
        """How many features each prefix has, all of them last.

        Raises:
            DictionaryError: They do not grow, or one has more than there are.
        """
        found = [size if isinstance(size, int) else max(1, int(size * n_features)) for size in self.prefixes]
        sizes = tuple(found) if found and found[-1] == n_features else (*found, n_features)
        if any(smaller >= larger for smaller, larger in pairwise(sizes)):
            raise DictionaryError(
                f"prefixes grow up to the {n_features} features, and these are {list(sizes)}; give fewer or others"
            )
        return sizes

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        batch = InBatch(self.k, self.auxiliary_k, self.auxiliary_weight, self.threshold_rate)
        with torch.no_grad():
            pre = products(weights, x) + weights.encoder_bias
            entries = batch.kept(weights, pre, step)
        values = picked_with_bias(weights, x, pre, entries).relu()
        decoded = weights.decoder_bias.expand_as(target)
        decoded = decoded if weights.skip is None else decoded + x @ weights.skip.T
        parts: dict[str, Tensor] = {}
        for start, end in pairwise((0, *self.sizes(weights.n_features))):
            inside = (entries.features >= start) & (entries.features < end)
            decoded = decoded + summed(values[inside], weights.decoder, entries.kept(inside))
            name = "reconstruction" if end == weights.n_features else f"reconstruction by {end}"
            parts[name] = squared_error(decoded, target)
        k = self.auxiliary_k or max(1, weights.d_out // 2)
        found = auxiliary(weights, x, pre, (target - decoded).detach(), step, k) if self.auxiliary_weight else None
        if found is not None:
            parts["auxiliary"] = self.auxiliary_weight * found
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, active(entries, values), decoded.detach())
