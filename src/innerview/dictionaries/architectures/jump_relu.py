"""JumpReLU dictionaries: each feature has a threshold of its own, trained on the number of active features."""

import dataclasses
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar

import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real
from innerview.dictionaries.architectures.thresholded import Thresholded
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

# For inputs of length 1, on which products with random rows of length 1 spread by 1/√d.
BANDWIDTH, FIRST_THRESHOLD = 1.4, 1.1


@dataclass(frozen=True)
class JumpReLU(Thresholded):
    """The pre-activation where it is above the feature's threshold (strictly), else 0.

    Attributes:
        l0: Weight of the number of active features a token, for inputs of mean squared length 1; with a target, of
            `(active / target - 1)²`, taken of the batch's mean.
        l0_target: Active features a token that training aims at; None penalises every one.
        l0_warmup: Share of the training in which the penalty climbs from 0.
        bandwidth: Width of the rectangle through which thresholds get their gradients; 1.4/√d when None.
        first_threshold: Threshold of every feature when training starts; 1.1/√d when None: what a seventh of random rows passes, so
            that codes are sparse from the first step. The published 0.001 for both is for trainings of a million steps.
    Reference: arXiv:2407.14435
    """

    l0: float = 1e-3
    l0_target: float | None = None
    l0_warmup: float = 0.1
    bandwidth: float | None = None
    first_threshold: float | None = None
    subtracts_decoder_bias: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("l0", "l0_warmup"):
            real(name, getattr(self, name))
        for name in ("bandwidth", "first_threshold", "l0_target"):
            if getattr(self, name) is not None:
                real(name, getattr(self, name), least=1e-12)

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(7e-5, betas=(0.0, 0.999), warmup=0.05, shape="cosine", steps=5 * LONG)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        first = self.first_threshold or FIRST_THRESHOLD / d_in**0.5
        return {"log_threshold": torch.full((n_features,), log(first))}

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        thresholds = weights.extras["log_threshold"].exp()
        bandwidth = self.bandwidth or BANDWIDTH / weights.d_in**0.5
        with torch.no_grad():
            pre = products(weights, x) + weights.encoder_bias
            # Above the threshold, and the stretch below it from which it gets gradients.
            entries = Entries.where_or_all(pre > (thresholds - bandwidth / 2).clamp_(min=0))
        values = picked_with_bias(weights, x, pre, entries)
        chosen = entries.each(thresholds)
        codes, is_active = _Jump.apply(values, chosen, bandwidth)  # type: ignore[misc]
        decoded = reconstructed(weights, codes, entries, x)
        parts = {
            "reconstruction": squared_error(decoded, target),
            "sparsity": step.ramp(self.l0_warmup) * self._penalty(is_active.sum() / len(x), step),
        }
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, active(entries, codes), decoded.detach())

    def _penalty(self, active_a_token: Tensor, step: Step) -> Tensor:
        if self.l0_target is None:
            return self.l0 * active_a_token
        # The square is of the mean over all processes; each has the gradient of its own part of it.
        excess = step.gathered(active_a_token.detach()[None]).mean() / self.l0_target - 1
        own = (active_a_token - active_a_token.detach()) / self.l0_target
        return self.l0 * (excess.square() + 2 * excess * own)

    def constrain_gradients(self, weights: Weights) -> None:
        remove_parallel_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        unit_rows(weights)

    def finished(self, weights: Weights, seen: int) -> tuple[Architecture, Weights]:
        return self, dataclasses.replace(weights, extras={"threshold": weights.extras["log_threshold"].exp()})


class _Jump(torch.autograd.Function):
    """The value above the threshold, else 0, and 1 above it, else 0; the threshold's gradient comes through a rectangle around it."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, thresholds: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        is_above = values > thresholds
        # What is not above 0 is behind the ReLU, and moves no threshold.
        is_near = ((values - thresholds).abs_() < bandwidth / 2).logical_and_(values > 0)
        ctx.save_for_backward(thresholds, is_above, is_near)
        ctx.bandwidth = bandwidth
        return values * is_above, is_above.to(values.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        thresholds, is_above, is_near = ctx.saved_tensors
        of_codes, of_active = grads
        of_thresholds = (thresholds * of_codes).add_(of_active).mul_(is_near).div_(-ctx.bandwidth)
        return of_codes * is_above, of_thresholds, None


def jump(values: Tensor, thresholds: Tensor, bandwidth: float) -> Tensor:
    """Values above their thresholds, else 0; thresholds get their gradients through a rectangle around them."""
    found: Any = _Jump.apply(values, thresholds, bandwidth)
    return found[0]
