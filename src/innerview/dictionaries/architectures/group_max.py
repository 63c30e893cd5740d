"""GroupMax dictionaries: features lie in k groups, and the largest of each group is kept."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.architectures.top_k import TopK
from innerview.dictionaries.entries import Entries
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class GroupMax(Architecture):
    """The largest pre-activation of each of `k` groups of neighbouring features, behind a ReLU; of equals the lowest feature wins.

    Attributes:
        k: Groups.
        auxiliary_k: Dead features that reconstruct the error in training; half of the output's width when None.
        auxiliary_weight: Weight of that reconstruction's squared error.
    Reference: the activation `groupmax` of EleutherAI's sparsify.
    """

    k: int = 32
    auxiliary_k: int | None = None
    auxiliary_weight: float = 1 / 32
    is_elementwise: ClassVar[bool] = False
    starts_at_median: ClassVar[bool] = True

    def __post_init__(self) -> None:
        whole("k", self.k)
        if self.auxiliary_k is not None:
            whole("auxiliary_k", self.auxiliary_k)
        real("auxiliary_weight", self.auxiliary_weight)

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

    def optimization(self, n_features: int) -> Optimization:
        return self._training.optimization(n_features)

    @property
    def _training(self) -> TopK:
        return _InGroups(self.k, self.auxiliary_k, self.auxiliary_weight)

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        return self._training.losses(weights, x, target, step)

    def constrain_gradients(self, weights: Weights) -> None:
        self._training.constrain_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        self._training.constrain(weights)


@dataclass(frozen=True)
class _InGroups(TopK):
    """What it is while it trains: TopK's losses, where the features of a group compete."""

    def kept(self, weights: Weights, pre: Tensor, step: Step) -> Entries:
        size = pre.shape[-1] // self.k
        best = pre.unflatten(-1, (self.k, size)).argmax(dim=-1)
        return Entries.of_rows(best + size * torch.arange(self.k, device=pre.device), weights.n_features)
