"""BatchTopK dictionaries: k a token on average over the batch; one threshold for all when they are used."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from innerview.dictionaries.architectures.architecture import LONG, Losses, Optimization, Step
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.architectures.thresholded import Thresholded
from innerview.dictionaries.architectures.top_k import TopK
from innerview.dictionaries.entries import Entries
from innerview.dictionaries.weights import Weights


@dataclass(frozen=True)
class BatchTopK(Thresholded):
    """Pre-activations above the threshold that training measured, so that a token's codes do not hang on its batch.

    Attributes:
        k: Features that are kept of each token, on average over a batch.
        auxiliary_k: Dead features that reconstruct the error in training; half of the output's width when None.
        auxiliary_weight: Weight of that reconstruction's squared error.
        threshold_rate: Weight of a new batch in the running mean of the smallest code that was kept; ten steps' worth in short trainings.
    Reference: arXiv:2412.06410
    """

    k: int = 32
    auxiliary_k: int | None = None
    auxiliary_weight: float = 1 / 32
    threshold_rate: float = 0.01
    measured: ClassVar[tuple[str, ...]] = ("threshold",)
    starts_at_median: ClassVar[bool] = True
    # Rows of length 1 start with more than the input: what is left then is their own noise, and more features die.
    initial_encoder: ClassVar[float] = 0.3

    def __post_init__(self) -> None:
        whole("k", self.k)
        if self.auxiliary_k is not None:
            whole("auxiliary_k", self.auxiliary_k)
        real("auxiliary_weight", self.auxiliary_weight)
        real("threshold_rate", self.threshold_rate)

    def optimization(self, n_features: int) -> Optimization:
        return Optimization(3e-4, betas=(0.9, 0.99), steps=LONG)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        return {"threshold": torch.zeros(n_features)}

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        return InBatch(self.k, self.auxiliary_k, self.auxiliary_weight, self.threshold_rate).losses(
            weights, x, target, step
        )

    def constrain_gradients(self, weights: Weights) -> None:
        TopK(self.k).constrain_gradients(weights)

    def constrain(self, weights: Weights) -> None:
        TopK(self.k).constrain(weights)


@dataclass(frozen=True)
class InBatch(TopK):
    """What it is while it trains: TopK's losses, where the features of all tokens of a batch compete."""

    threshold_rate: float = 0.01

    def kept(self, weights: Weights, pre: Tensor, step: Step) -> Entries:
        cut = _cut(pre, self.k, step)
        threshold = weights.extras["threshold"]
        if cut > 0:
            # The mean of all batches at first, so that the zero it starts from does not count; and in a short training of its last
            # tenth at most, for the cut moves with the weights.
            rate = max(self.threshold_rate, 1 / (step.step + 1), min(1.0, 10 / step.n_steps))
            threshold.lerp_(cut.to(threshold), rate)
        return Entries.where((pre >= cut) & (pre > 0))


def _cut(pre: Tensor, k: int, step: Step) -> Tensor:
    """The smallest number that is kept of the batches of all processes together; 0 where fewer are above 0."""
    sizes = step.gathered(torch.tensor([len(pre)], device=pre.device))
    n = min(k * int(sizes.sum()), int(sizes.sum()) * pre.shape[-1])
    flat = pre.reshape(-1)
    if len(sizes) > 1:
        own = flat.topk(min(n, flat.numel()), sorted=False).values
        flat = step.gathered(torch.cat([own, own.new_full((n - own.numel(),), float("-inf"))]))
    if flat.device.type == "cpu" and flat.dtype != torch.bfloat16:
        # numpy's partition is ten times as fast on a CPU as torch's topk.
        place = flat.numel() - n
        cut = flat.new_tensor(np.partition(flat.numpy(), place)[place])
    else:
        cut = flat.topk(n, sorted=False).values.min()
    return cut.clamp(min=0)
