"""BatchTopK dictionaries: k a token on average over the batch; one threshold for all when they are used."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Gating
from innerview.dictionaries.weights import Weights


@dataclass(frozen=True)
class BatchTopK(Architecture):
    """Pre-activations above the threshold that training measured, so that a token's codes do not hang on its batch.

    Reference: arXiv:2412.06410
    """

    k: int = 32
    extras: ClassVar[tuple[str, ...]] = ("threshold",)

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        return torch.where(pre > weights.extras["threshold"], pre.relu(), torch.zeros_like(pre))

    def gating(self, weights: Weights, feature: int) -> Gating:
        return Gating(float(weights.encoder_bias[feature]), max(float(weights.extras["threshold"][feature]), 0.0))
