"""Low-rank differences: what a fine-tune adds to the matrices of a network, as pairs of thin ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear


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


class LowRankEmbedding(nn.Module):
    """An embedding that stays as it is, and a difference B @ A of its rows: words that the base never wrote need vectors of their own."""

    def __init__(self, inner: nn.Embedding, rank: int) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.A = nn.Parameter(torch.randn(rank, inner.embedding_dim) * inner.embedding_dim**-0.5)
        self.B = nn.Parameter(torch.zeros(inner.num_embeddings, rank))
        self.register_buffer("learns", torch.ones(inner.num_embeddings, 1))

    @property
    def rows(self) -> Tensor:
        """The difference's rows; those of tokens that do not learn stay where they are, without a gradient."""
        return self.B * self.learns

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of the tokens, and what the difference adds to them."""
        return self.inner(ids) + linear(embedding(ids, self.rows), self.A.T)


class TiedHead(nn.Module):
    """The unembedding of the same matrix and the same difference."""

    def __init__(self, embedded: LowRankEmbedding) -> None:
        super().__init__()
        self.embedded = embedded

    def forward(self, x: Tensor) -> Tensor:
        """Logits of what leaves the final norm."""
        pair = self.embedded
        return linear(x, pair.inner.weight) + linear(linear(x, pair.A), pair.rows)


def with_low_rank(network: nn.Module, rank: int) -> nn.Module:
    """The network, frozen, with a low-rank difference beside each linear layer of its blocks and its tied embedding; changed in place."""
    network.requires_grad_(False)
    for block in network.model.layers:
        inner = [(name, module) for name, module in block.named_modules() if isinstance(module, nn.Linear)]
        for name, module in inner:
            parent, _, child = name.rpartition(".")
            setattr(block.get_submodule(parent), child, LowRank(module, rank))
    network.model.embed_tokens = LowRankEmbedding(network.model.embed_tokens, rank)
    network.lm_head = TiedHead(network.model.embed_tokens)
    return network


def pairs_of(network: nn.Module) -> Iterator[tuple[str, LowRank | LowRankEmbedding]]:
    """The differences, by the names of the layers they belong to."""
    for name, module in network.named_modules():
        if isinstance(module, (LowRank, LowRankEmbedding)):
            yield name, module
