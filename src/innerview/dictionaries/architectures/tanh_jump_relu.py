"""JumpReLU trained with a tanh penalty, and a push for features that stay below their threshold: as in circuit tracing."""

from dataclasses import dataclass
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.jump_relu import JumpReLU
from innerview.dictionaries.architectures.numbers import real
from innerview.dictionaries.architectures.training import squared_error
from innerview.dictionaries.weights import Weights


@dataclass(frozen=True)
class TanhJumpReLU(JumpReLU):
    """JumpReLU whose codes are penalised by `tanh(c · code · length of the row)`, in training; used, it is a JumpReLU.

    Every number is for inputs of mean squared length d, as published; training scales inputs to 1, and these numbers with them.

    Attributes:
        sparsity: Weight of the penalty's sum over features; it climbs from 0 over the share `l0_warmup` of the training.
        steepness: How soon a code costs as much as it can: the c above.
        below: Weight of how far pre-activations lie below their threshold, times the length of the row.
    Reference: transformer-circuits.pub/2025/january-update; transformer-circuits.pub/2025/attribution-graphs
    """

    l0_warmup: float = 1.0
    bandwidth: float = 2.0  # pyright: ignore[reportIncompatibleVariableOverride]
    first_threshold: float = 0.1  # pyright: ignore[reportIncompatibleVariableOverride]
    sparsity: float = 20.0
    steepness: float = 4.0
    below: float = 3e-6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("sparsity", "steepness", "below"):
            real(name, getattr(self, name))

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(2e-4, steps=LONG)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        return {"log_threshold": torch.full((n_features,), log(self.first_threshold / d_in**0.5))}

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        pre = self.pre(weights, x)
        codes = self.jumped(pre, weights.extras["log_threshold"], weights.d_in)
        decoded = codes @ weights.decoder + weights.decoder_bias
        decoded = decoded if weights.skip is None else decoded + x @ weights.skip.T
        lengths = weights.decoder.norm(dim=-1)
        parts = {"reconstruction": squared_error(decoded, target)}
        parts |= self.penalties(pre, codes, weights.extras["log_threshold"], lengths, weights.d_out, step)
        return Losses(sum(parts.values(), start=x.new_zeros(())), parts, codes.detach(), decoded.detach())

    def jumped(
        self, pre: Float[Tensor, "*rows n"], log_threshold: Float[Tensor, "*#rows n"], d_in: int
    ) -> Float[Tensor, "*rows n"]:
        """Codes, the thresholds with their gradients through a rectangle."""
        found: Any = _Jump.apply(pre, log_threshold.exp().expand_as(pre), self.bandwidth / d_in**0.5)
        return found

    def penalties(
        self, pre: Tensor, codes: Tensor, log_threshold: Tensor, lengths: Tensor, d_out: int, step: Step
    ) -> dict[str, Tensor]:
        """What codes cost, and what pre-activations below their threshold do, each summed over features, the mean over rows.

        Args:
            pre: Pre-activations, shape [..., rows, n]; what lies in front of the rows is summed.
            codes: Codes, shaped alike.
            log_threshold: Shape [n], or [..., 1, n].
            lengths: Lengths of the decoder's rows, shaped alike.
            d_out: Width of the output.
            step: Where training stands.
        """
        rows = pre.shape[-2]
        weight = self.sparsity * step.ramp(self.l0_warmup) / d_out
        steepness = self.steepness * d_out**0.5
        parts = {"sparsity": weight * torch.tanh(steepness * lengths * codes).sum() / rows}
        if self.below:
            missing = (log_threshold.exp() - pre).relu() * lengths
            parts["below"] = self.below / d_out**0.5 * missing.sum() / rows
        return parts

    def constrain_gradients(self, weights: Weights) -> None:
        """Rows have any length: the penalty weighs codes with it."""

    def constrain(self, weights: Weights) -> None:
        """Rows have any length: the penalty weighs codes with it."""

    def finished(self, weights: Weights, seen: int) -> tuple[Architecture, Weights]:
        return JumpReLU(), super().finished(weights, seen)[1]


class _Jump(torch.autograd.Function):
    """The value above the threshold, else 0; the threshold's gradient comes through a rectangle around it, wherever the value lies."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, thresholds: Tensor, bandwidth: float) -> Tensor:
        is_above, is_near = values > thresholds, (values - thresholds).abs() < bandwidth / 2
        ctx.save_for_backward(thresholds, is_above, is_near)
        ctx.bandwidth = bandwidth
        return values * is_above

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        thresholds, is_above, is_near = ctx.saved_tensors
        return grads[0] * is_above, -thresholds * is_near * grads[0] / ctx.bandwidth, None
