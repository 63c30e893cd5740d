"""Gradients from several threads: each has a twin of the network, and all share its weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from training.batches import Batch

Loss = Callable[[nn.Module, Batch], tuple[Tensor, float]]


class Twins:
    """A network and its twins, one to a thread.

    The threads meet once a step instead of once an operation, which keeps both cores at work when something else
    runs beside the training. The sum of the gradients is taken in a fixed order, so a run repeats.
    """

    def __init__(self, network: nn.Module, count: int) -> None:
        torch.set_num_threads(1)
        self.networks = [network, *(twin(network) for _ in range(count - 1))]
        self.pool = ThreadPoolExecutor(count)

    def backward(self, batches: Sequence[Batch], loss: Loss) -> float:
        """Leaves the mean gradient over the batches on the network, and returns the mean of the plain losses."""

        def run(network: nn.Module, batch: Batch) -> float:
            network.zero_grad(set_to_none=True)
            minimised, plain = loss(network, batch)
            minimised.backward()
            return plain

        plain = list(self.pool.map(run, self.networks, batches))
        for parameter, *others in zip(*(network.parameters() for network in self.networks), strict=True):
            if parameter.grad is None:
                continue
            for other in others:
                parameter.grad.add_(other.grad)
            parameter.grad.div_(len(self.networks))
        return sum(plain) / len(plain)


def twin(network: nn.Module) -> nn.Module:
    """A copy of the network whose parameters are the same memory, with gradients of their own."""
    other = copy.deepcopy(network)
    for theirs, ours in zip(other.parameters(), network.parameters(), strict=True):
        theirs.data = ours.data
    return other
