"""ReLU dictionaries: an L1 penalty keeps codes sparse."""

from dataclasses import dataclass

from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Gating
from innerview.dictionaries.weights import Weights


@dataclass(frozen=True)
class ReLU(Architecture):
    """A ReLU of the pre-activations.

    Reference: arXiv:2309.08600
    """

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        return pre.relu()

    def gating(self, weights: Weights, feature: int) -> Gating:
        return Gating(float(weights.encoder_bias[feature]), 0.0)
