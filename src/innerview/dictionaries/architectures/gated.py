"""Gated dictionaries: one product says whether a feature is active, another how much; they share their directions."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Architecture, Gating, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real
from innerview.dictionaries.architectures.training import (
    active,
    products,
    reconstructed,
    remove_parallel_gradients,
    squared_error,
    unit_rows,
)
from innerview.dictionaries.entries import Entries, picked, summed
from innerview.dictionaries.weights import Weights
from innerview.readings import Gate


@dataclass(frozen=True)
class Gated(Architecture):
    """Features behind gates: `(x·w + gate_bias > 0) · ReLU(exp(log_magnitude) x·w + magnitude_bias)`; `encoder_bias` is not used, and is 0.

    Attributes:
        l1: Weight of the penalty on the gates' pre-activations above 0, for inputs of mean squared length 1.
        l1_warmup: Share of the training in which the penalty climbs from 0.
    Reference: arXiv:2404.16014
    """

    l1: float = 0.05
    l1_warmup: float = 0.05
    extras: ClassVar[tuple[str, ...]] = ("gate_bias", "log_magnitude", "magnitude_bias")

    def __post_init__(self) -> None:
        real("l1", self.l1)
        real("l1_warmup", self.l1_warmup)

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        own = weights.extras
        magnitude = pre * own["log_magnitude"].exp() + own["magnitude_bias"]
        return torch.where(pre + own["gate_bias"] > 0, magnitude.relu(), torch.zeros_like(pre))

    def gating(self, weights: Weights, feature: int) -> Gating:
        own = {name: weights.extras[name][feature] for name in self.extras}
        shared, factor = float(weights.encoder_bias[feature]), float(own["log_magnitude"].exp())
        gate = Gate(weights.encoder[feature], float(own["gate_bias"]) + shared)
        return Gating(float(own["magnitude_bias"]) + shared * factor, 0.0, gate, factor=factor)

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(3e-4, betas=(0.0, 0.999), steps=LONG)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        return {name: torch.zeros(n_features) for name in self.extras}

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        own = weights.extras
        with torch.no_grad():
            whole = products(weights, x)
            entries = Entries.where_or_all(whole + own["gate_bias"] > 0)
        product = picked(x, weights.encoder, whole, entries)
        gate = product + entries.each(own["gate_bias"])
        scale, bias = entries.each(own["log_magnitude"].exp()), entries.each(own["magnitude_bias"])
        values = (product * scale + bias).relu() * (gate.detach() > 0)
        gate = gate.relu()
        decoded = reconstructed(weights, values, entries, x)
        skipped = 0.0 if weights.skip is None else x @ weights.skip.detach().T
        # The gate learns what to let through by a reconstruction of its own, in which the decoder does not move.
        through_gate = summed(gate, weights.decoder.detach(), entries) + weights.decoder_bias.detach() + skipped
        parts = {
            "reconstruction": squared_error(decoded, target),
            "sparsity": self.l1 * step.ramp(self.l1_warmup) * gate.sum() / len(x),
            "auxiliary": squared_error(through_gate, target),
        }
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, active(entries, values), decoded.detach())

    def constrain_gradients(self, weights: Weights) -> None:
        remove_parallel_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        unit_rows(weights)
        # The gate's and the magnitude's biases do its work.
        weights.encoder_bias.data.zero_()
