"""Entries: the few places of a matrix [rows, n_features] that are not 0, and the products that training takes of them alone."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# Share of active places from which one dense product is faster than sums over entries.
DENSE_SHARE = {"cpu": 0.2, "cuda": 0.02}


@dataclass(frozen=True, eq=False)
class Entries:
    """Places of a matrix [rows, n_features], ordered by row.

    Attributes:
        rows: Row of each place, int64, shape [n]; empty where every place is one, since that needs no list.
        features: Its feature, int64, shape [n]; empty likewise.
        n_rows: Rows of the matrix.
        n_features: Its columns.
    """

    rows: Int[Tensor, "n"] = field(repr=False)
    features: Int[Tensor, "n"] = field(repr=False)
    n_rows: int
    n_features: int
    is_full: bool = False

    @classmethod
    def where(cls, mask: Bool[Tensor, "rows n_features"]) -> "Entries":
        """The places where a mask is True."""
        n_rows, n_features = mask.shape
        flat = mask.reshape(-1).nonzero().squeeze(1)
        rows = torch.div(flat, n_features, rounding_mode="floor")
        return cls(rows, flat - rows * n_features, n_rows, n_features)

    @classmethod
    def where_or_all(cls, mask: Bool[Tensor, "rows n_features"]) -> "Entries":
        """The places where a mask is True; all places where they are so many that dense products are faster."""
        if int(mask.sum()) <= _share(mask) * mask.numel():
            return cls.where(mask)
        none = torch.zeros(0, dtype=torch.int64, device=mask.device)
        return cls(none, none, *mask.shape, is_full=True)

    @classmethod
    def of_rows(cls, features: Int[Tensor, "rows k"], n_features: int) -> "Entries":
        """The same number of places in each row."""
        n_rows, k = features.shape
        rows = torch.arange(n_rows, device=features.device).repeat_interleave(k)
        return cls(rows, features.reshape(-1), n_rows, n_features)

    def __len__(self) -> int:
        return self.n_rows * self.n_features if self.is_full else self.rows.numel()

    @property
    def is_dense(self) -> bool:
        """Whether they are so many that dense products are faster."""
        return self.is_full or len(self) > _share(self.rows) * self.n_rows * self.n_features

    @cached_property
    def starts(self) -> Tensor:
        """Where each row's entries begin, shape [rows]."""
        return _starts(self.rows, self.n_rows)

    @cached_property
    def by_feature(self) -> tuple[Tensor, Tensor, Tensor]:
        """Order of the entries by feature, the row of each in that order, and where each feature's begin."""
        order = self.features.to(torch.int32).argsort(stable=True)
        return order, self.rows[order], _starts(self.features, self.n_features)

    def dense(self, values: Float[Tensor, "n"]) -> Float[Tensor, "rows n_features"]:
        """The whole matrix with these values in its places."""
        if self.is_full:
            return values.view(self.n_rows, self.n_features)
        made = values.new_zeros(self.n_rows * self.n_features)
        made[self.rows * self.n_features + self.features] = values
        return made.view(self.n_rows, self.n_features)

    def kept(self, mask: Bool[Tensor, "n"]) -> "Entries":
        """Some of the entries, of those that are listed."""
        return Entries(self.rows[mask], self.features[mask], self.n_rows, self.n_features)

    def of(self, matrix: Float[Tensor, "rows n_features"]) -> Float[Tensor, "n"]:
        """A matrix's numbers at the entries."""
        return matrix.reshape(-1) if self.is_full else matrix[self.rows, self.features]

    def each(self, by_feature: Float[Tensor, "n_features"]) -> Float[Tensor, "n"]:
        """What belongs to the feature of each entry."""
        return by_feature.repeat(self.n_rows) if self.is_full else by_feature[self.features]


@dataclass(frozen=True, eq=False)
class Active:
    """Codes of a batch by their entries, without gradients; values may be 0."""

    entries: Entries
    values: Float[Tensor, "n"] = field(repr=False)

    def dense(self) -> Float[Tensor, "rows n_features"]:
        """The codes, dense."""
        return self.entries.dense(self.values)

    def counts(self) -> Int[Tensor, "n_features"]:
        """Rows in which each feature is active."""
        if self.entries.is_full:
            return (self.dense() != 0).sum(dim=0)
        features = self.entries.features[self.values != 0]
        return torch.bincount(features, minlength=self.entries.n_features)


def picked(
    x: Float[Tensor, "rows d"], encoder: Float[Tensor, "n_features d"], products: Tensor, entries: Entries
) -> Float[Tensor, "n"]:
    """`x @ encoder.T` at entries, with gradients; `products` is the whole matrix, taken without them."""
    found: Any = _Picked.apply(x, encoder, products, entries)
    return found


def summed(
    values: Float[Tensor, "n"], decoder: Float[Tensor, "n_features d"], entries: Entries
) -> Float[Tensor, "rows d"]:
    """Rows of the decoder summed with the values of each row's entries, with gradients."""
    found: Any = _Summed.apply(values, decoder, entries)
    return found


def _share(tensor: Tensor) -> float:
    return DENSE_SHARE.get(tensor.device.type, 0.02)


def _starts(sorted_or_not: Tensor, n: int) -> Tensor:
    counts = torch.bincount(sorted_or_not, minlength=n)
    return counts.cumsum(0) - counts


def _over_rows(values: Tensor, table: Tensor, entries: Entries) -> Tensor:
    """Sums of the table's rows, by row of the matrix, shape [rows, d]."""
    if entries.is_dense:
        return entries.dense(values) @ table
    return torch.nn.functional.embedding_bag(
        entries.features, table, entries.starts, mode="sum", per_sample_weights=values
    )


def _over_features(values: Tensor, table: Tensor, entries: Entries) -> Tensor:
    """Sums of the table's rows, by column of the matrix, shape [n_features, d]."""
    if entries.is_dense:
        return entries.dense(values).T @ table
    order, rows, starts = entries.by_feature
    return torch.nn.functional.embedding_bag(rows, table, starts, mode="sum", per_sample_weights=values[order])


def _dots(left: Tensor, right: Tensor, entries: Entries) -> Tensor:
    """Products of a row of `left` [rows, d] and a row of `right` [n_features, d] at each entry, shape [n]."""
    if entries.is_dense:
        return entries.of(left @ right.T)
    # What the gradient of embedding_bag's weights is; gathering the rows of both first costs ten times as much.
    return torch.ops.aten._embedding_bag_per_sample_weights_backward(
        left, right, entries.features, entries.starts, entries.rows, 0
    )


class _Picked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, encoder: Tensor, products: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(x, encoder)
        ctx.entries = entries
        return entries.of(products).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, encoder = ctx.saved_tensors
        (grad,) = grads
        of_x = _over_rows(grad, encoder, ctx.entries) if ctx.needs_input_grad[0] else None
        of_encoder = _over_features(grad, x, ctx.entries) if ctx.needs_input_grad[1] else None
        return of_x, of_encoder, None, None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, decoder: Tensor, entries: Entries) -> Tensor:
        ctx.save_for_backward(values, decoder)
        ctx.entries = entries
        return _over_rows(values, decoder, entries)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        values, decoder = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_values = _dots(grad, decoder, ctx.entries) if ctx.needs_input_grad[0] else None
        of_decoder = _over_features(values, grad, ctx.entries) if ctx.needs_input_grad[1] else None
        return of_values, of_decoder, None
