"""Training a network on a world, by tokens or by minutes, so that it can be broken off and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from training.batches import KNOWN_WEIGHT, Batch, Batches
from training.twins import Twins


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train; a plan without minutes repeats exactly.

    Attributes:
        threads: How many twins learn side by side, each on a batch of its own; one is enough on a GPU.
    """

    seed: int = 0
    tokens: int = 16_000_000
    minutes: float | None = None
    threads: int = 2
    device: str = "cpu"
    batch_tokens: int = 1024
    learning_rate: float = 4e-3
    matrix_rate: float = 0.02
    weight_decay: float = 0.1
    warmup: float = 0.02
    floor: float = 0.02
    weighty_until: float = 0.5
    plain_from: float = 0.75
    save_minutes: float = 3.0


@dataclass
class Progress:
    """How far a training has come; `share` is of the tokens, or of the minutes where they are further."""

    plan: Plan
    started: float
    tokens: int = 0
    steps: int = 0
    loss: float = float("nan")
    earlier_minutes: float = 0.0

    @classmethod
    def begun(cls, plan: Plan) -> Progress:
        """Progress at its start."""
        return cls(plan, time.monotonic())

    @property
    def minutes(self) -> float:
        """Minutes of training, those before a break counted in."""
        return self.earlier_minutes + (time.monotonic() - self.started) / 60

    @property
    def share(self) -> float:
        """How much of the plan is done."""
        done = self.tokens / self.plan.tokens if self.plan.tokens else 1.0
        return min(1.0, max(done, self.minutes / self.plan.minutes if self.plan.minutes else 0.0))

    @property
    def rate(self) -> float:
        """The share of the peak learning rates: a short warm-up, then half a cosine down to the floor."""
        if self.share < self.plan.warmup:
            return self.share / self.plan.warmup + 0.01
        done = (self.share - self.plan.warmup) / (1 - self.plan.warmup)
        return self.plan.floor + (1 - self.plan.floor) * (1 + math.cos(math.pi * done)) / 2

    @property
    def weight_of_known(self) -> float:
        """What the text gives away weighs more at first, when it is to be learned, and one at last, so that the odds come true."""
        left = (self.plan.plain_from - self.share) / (self.plan.plain_from - self.plan.weighty_until)
        return 1.0 + (KNOWN_WEIGHT - 1.0) * min(1.0, max(0.0, left))


def weighted_loss(network: nn.Module, batch: Batch, weight_of_known: float = KNOWN_WEIGHT) -> tuple[Tensor, float]:
    """The loss that is minimised, and the plain mean over the real tokens, in nats.

    What the text before it gives away weighs `weight_of_known`, everything else one.
    """
    device = next(network.parameters()).device
    logits = network(batch.ids.to(device), use_cache=False).logits
    losses = cross_entropy(logits.flatten(0, 1), batch.targets.to(device).flatten(), reduction="none")
    weights = batch.weights.to(device).flatten().clamp(max=weight_of_known)
    real = weights > 0
    return losses @ weights / weights.sum(), losses.detach()[real].mean().item()


def train(
    network: nn.Module, optimizers: list[torch.optim.Optimizer], batches: Batches, progress: Progress
) -> Iterator[Progress]:
    """Trains in place, yielding after every step, until the plan's tokens or minutes are spent."""
    plan = progress.plan
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group.setdefault("peak", group["lr"])
    twins = Twins(network.train(), plan.threads)
    stream = batches.ahead()
    while progress.share < 1:
        shares = list(islice(stream, plan.threads))
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = group["peak"] * progress.rate
        recent = twins.backward(shares, partial(weighted_loss, weight_of_known=progress.weight_of_known))
        torch.nn.utils.clip_grad_norm_([p for p in network.parameters() if p.requires_grad], 1.0)
        for optimizer in optimizers:
            optimizer.step()
        progress.tokens += sum(batch.tokens for batch in shares)
        progress.steps += 1
        progress.loss = recent if math.isnan(progress.loss) else 0.98 * progress.loss + 0.02 * recent
        yield progress
