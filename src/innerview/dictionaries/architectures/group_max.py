"""GroupMax dictionaries: features lie in k groups, and the largest of each group is kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture
from innerview.dictionaries.architectures.numbers import whole
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class GroupMax(Architecture):
    """The largest pre-activation of each of `k` groups of neighbouring features, behind a ReLU; of equals the lowest feature wins.

    Reference: the activation `groupmax` of EleutherAI's sparsify.
    """

    k: int = 32
    is_elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole("k", self.k)

    def check(self, weights: Weights) -> None:
        super().check(weights)
        if weights.n_features % self.k:
            raise DictionaryError(
                f"{weights.n_features} features do not make {self.k} groups of one size; k divides the number of features"
            )

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        grouped = pre.unflatten(-1, (self.k, -1))
        largest = grouped.max(dim=-1, keepdim=True)
        return torch.zeros_like(grouped).scatter(-1, largest.indices, largest.values).flatten(-2).relu()
