"""TopK dictionaries: the k largest features of a token are kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.architectures.training import (
    active,
    auxiliary,
    largest,
    picked_with_bias,
    products,
    reconstructed,
    remove_parallel_gradients,
    squared_error,
    unit_rows,
)
from innerview.dictionaries.entries import Entries
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class TopK(Architecture):
    """The `k` largest pre-activations of each token, behind a ReLU; of equals the lowest feature wins.

    Attributes:
        k: Features that are kept.
        auxiliary_k: Dead features that reconstruct the error in training; half of the output's width when None.
        auxiliary_weight: Weight of that reconstruction's squared error.
    Reference: arXiv:2406.04093
    """

    k: int = 32
    auxiliary_k: int | None = None
    auxiliary_weight: float = 1 / 32
    is_elementwise: ClassVar[bool] = False
    starts_at_median: ClassVar[bool] = True
    # Rows of length 1 start with more than the input: what is left then is their own noise, and more features die.
    initial_encoder: ClassVar[float] = 0.3

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise DictionaryError(f"k is a whole number from 1, not {self.k!r}")
        if self.auxiliary_k is not None:
            whole("auxiliary_k", self.auxiliary_k)
        real("auxiliary_weight", self.auxiliary_weight)

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        if self.k >= pre.shape[-1]:
            return pre.relu()
        # A stable sort would keep ties in order at several times the cost; only rows with a tie at the cut need it.
        found = pre.topk(self.k + 1, dim=-1)
        kept = torch.zeros_like(pre).scatter(-1, found.indices[..., :-1], found.values[..., :-1])
        tied = (found.values[..., -1] == found.values[..., -2]) & (found.values[..., -1] > 0)
        if tied.any():
            kept = kept.clone()
            kept[tied] = _in_order(pre[tied], self.k)
        return kept.relu()

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(2e-4 / (n_features / 2**14) ** 0.5, epsilon=6.25e-10, steps=LONG)

    def kept(self, weights: Weights, pre: Tensor, step: Step) -> Entries:
        """Which pre-activations of a batch are kept; their ReLU are the codes."""
        return Entries.of_rows(largest(pre, self.k), weights.n_features)

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        with torch.no_grad():
            pre = products(weights, x) + weights.encoder_bias
            entries = self.kept(weights, pre, step)
        values = picked_with_bias(weights, x, pre, entries).relu()
        decoded = reconstructed(weights, values, entries, x)
        parts = {"reconstruction": squared_error(decoded, target)}
        k = self.auxiliary_k or max(1, weights.d_out // 2)
        found = auxiliary(weights, x, pre, (target - decoded).detach(), step, k) if self.auxiliary_weight else None
        if found is not None:
            parts["auxiliary"] = self.auxiliary_weight * found
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, active(entries, values), decoded.detach())

    def constrain_gradients(self, weights: Weights) -> None:
        remove_parallel_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        unit_rows(weights)


def _in_order(pre: Tensor, k: int) -> Tensor:
    values, features = pre.sort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(pre).scatter(-1, features[..., :k], values[..., :k])
