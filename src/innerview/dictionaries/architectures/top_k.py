"""TopK dictionaries: the k largest features of a token are kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class TopK(Architecture):
    """The `k` largest pre-activations of each token, behind a ReLU; of equals the lowest feature wins.

    Reference: arXiv:2406.04093
    """

    k: int = 32
    is_elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise DictionaryError(f"k is a whole number from 1, not {self.k!r}")

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


def _in_order(pre: Tensor, k: int) -> Tensor:
    values, features = pre.sort(dim=-1, descending=True, stable=True)
    return torch.zeros_like(pre).scatter(-1, features[..., :k], values[..., :k])
