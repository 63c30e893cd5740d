"""Gated dictionaries: one product says whether a feature is active, another how much; they share their directions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Gating
from innerview.dictionaries.weights import Weights
from innerview.readings import Gate


@dataclass(frozen=True)
class Gated(Architecture):
    """A magnitude behind a gate: `(x·w + gate_bias > 0) · ReLU(exp(log_magnitude) x·w + magnitude_bias)`; `encoder_bias` is not used, and is 0.

    Reference: arXiv:2404.16014
    """

    extras: ClassVar[tuple[str, ...]] = ("gate_bias", "log_magnitude", "magnitude_bias")

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        own = weights.extras
        magnitude = pre * own["log_magnitude"].exp() + own["magnitude_bias"]
        return torch.where(pre + own["gate_bias"] > 0, magnitude.relu(), torch.zeros_like(pre))

    def gating(self, weights: Weights, feature: int) -> Gating:
        own = {name: weights.extras[name][feature] for name in self.extras}
        gate = Gate(weights.encoder[feature], float(own["gate_bias"]))
        return Gating(float(own["magnitude_bias"]), 0.0, gate, factor=float(own["log_magnitude"].exp()))
