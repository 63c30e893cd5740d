"""ReLU dictionaries: an L1 penalty keeps codes sparse."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Architecture, Gating, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real
from innerview.dictionaries.architectures.training import (
    active,
    picked_with_bias,
    products,
    reconstructed,
    remove_parallel_gradients,
    squared_error,
    unit_rows,
)
from innerview.dictionaries.entries import Entries
from innerview.dictionaries.weights import Weights


@dataclass(frozen=True)
class ReLU(Architecture):
    """A ReLU of the pre-activations.

    Attributes:
        l1: Weight of the penalty on codes times the lengths of their rows, for inputs of mean squared length d, as published. Training
            scales inputs to 1, and the penalty by 1/√d, which is the same.
        l1_warmup: Share of the training in which the penalty climbs from 0.
        has_unit_rows: Keep the decoder's rows at length 1, as in the first paper, instead of weighing codes with their lengths.
    Reference: arXiv:2309.08600; the penalty, Transformer Circuits Thread, April 2024
    """

    l1: float = 5.0
    l1_warmup: float = 0.05
    has_unit_rows: bool = False
    subtracts_decoder_bias: ClassVar[bool] = False

    def __post_init__(self) -> None:
        real("l1", self.l1)
        real("l1_warmup", self.l1_warmup)

    def activate(self, weights: Weights, pre: Tensor) -> Tensor:
        return pre.relu()

    def gating(self, weights: Weights, feature: int) -> Gating:
        return Gating(float(weights.encoder_bias[feature]), 0.0)

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(5e-5, steps=LONG)

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        with torch.no_grad():
            pre = products(weights, x) + weights.encoder_bias
            entries = Entries.where_or_all(pre > 0)
        values = picked_with_bias(weights, x, pre, entries).relu()
        decoded = reconstructed(weights, values, entries, x)
        weighed = values if self.has_unit_rows else values * entries.each(weights.decoder.norm(dim=-1))
        weight = self.l1 * step.ramp(self.l1_warmup) / weights.d_in**0.5
        parts = {"reconstruction": squared_error(decoded, target), "sparsity": weight * weighed.sum() / len(x)}
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, active(entries, values), decoded.detach())

    def constrain_gradients(self, weights: Weights) -> None:
        if self.has_unit_rows:
            remove_parallel_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        if self.has_unit_rows:
            unit_rows(weights)
