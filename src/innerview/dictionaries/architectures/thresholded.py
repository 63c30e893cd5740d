"""Architectures whose features each pass by a threshold of their own, however it was found."""

from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Gating
from innerview.dictionaries.weights import Weights


class Thresholded(Architecture):
    """The pre-activation where it is above the feature's threshold (strictly) and above 0."""

    extras: ClassVar[tuple[str, ...]] = ("threshold",)

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        # A threshold below 0 does not let negative numbers through: the published form is ReLU(pre) · (pre > θ).
        return torch.where(pre > weights.extras["threshold"], pre.relu(), torch.zeros_like(pre))

    def gating(self, weights: Weights, feature: int) -> Gating:
        return Gating(float(weights.encoder_bias[feature]), max(float(weights.extras["threshold"][feature]), 0.0))
