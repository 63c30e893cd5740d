"""Low-rank differences: what a fine-tune adds to the matrices of a network, as pairs of thin ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


class LowRank(nn.Module):
    """A linear layer that stays as it is, and a difference B @ A beside it that learns; B starts at zero."""

    def __init__(self, inner: nn.Linear, rank: int) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, inner.in_features) * inner.in_features**-0.5)
        self.B = nn.Parameter(torch.zeros(inner.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output and the difference's."""
        return self.inner(x) + linear(linear(x, self.A), self.B)


def with_low_rank(network: nn.Module, rank: int) -> nn.Module:
    """The network, frozen, with a low-rank difference beside each linear layer of its blocks; changed in place."""
    network.requires_grad_(False)
    for block in network.model.layers:
        inner = [(name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        for name, module in inner:
            parent, _, child = name.rpartition(".")
            setattr(block.get_submodule(parent), child, LowRank(module, rank))
    return network


def pairs_of(network: nn.Module) -> Iterator[tuple[str, LowRank]]:
    """The differences, by the names of the layers they belong to."""
    for name, module in network.named_modules():
        if isinstance(module, LowRank):
            yield name, module
