"""Slots: a fixed room for the codes of each token, filled by tiles in any order and read out in the order of features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from innerview.kernels.program import Program
from innerview.kernels.rules import Sparse

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]

# Sorts behind every word: no feature has this number.
NONE = 0x7FFFFFFFFFFFFFFF


@dataclass(frozen=True, eq=False)
class Slots:
    """Codes by token, each one word: the feature in the upper half, the bits of a float32 from 0 in the lower.

    Attributes:
        words: int64, shape [n_tokens, capacity]; what lies behind a token's count is no code,
            and a word of value 0 is none either.
        counts: Codes of each token, also of those that had more than `capacity`, whose rest was not kept; int32, shape [n_tokens].
    """

    words: Int[Tensor, "n_tokens capacity"] = field(repr=False)
    counts: Int[Tensor, "n_tokens"] = field(repr=False)

    @classmethod
    def empty(cls, n_tokens: int, capacity: int, device: torch.device) -> Slots:
        """Room for `capacity` codes of each token, a power of two."""
        words = torch.empty(n_tokens, capacity, dtype=torch.int64, device=device)
        return cls(words, torch.zeros(n_tokens, dtype=torch.int32, device=device))

    @property
    def capacity(self) -> int:
        """Words of a token."""
        return self.words.shape[1]

    def ordered(self) -> Slots:
        """The same with each token's words in the order of features, and `NONE` behind them."""
        places = torch.arange(self.capacity, device=self.words.device)
        filled = self.words.masked_fill(places >= self.counts[:, None], NONE)
        return Slots(filled.sort(dim=1).values, self.counts)


def room(wanted: int, n_features: int | None = None) -> int:
    """A power of two, from 16: slots for `wanted` codes of a token, or for all features where there are fewer."""
    return 1 << max(4, (min(wanted, n_features or wanted) - 1).bit_length())


@dataclass(frozen=True, eq=False)
class Part:
    """Slots of some tokens: `rows` says which, None where they are all."""

    slots: Slots
    rows: Tensor | None = None


# Words of a token that are put in order by counting, for each, those before it; more are sorted by torch first.
COUNTED = 2048


def read_out(parts: list[Part], counts: Int[Tensor, "n_tokens"], total: int, dtype: torch.dtype) -> Sparse:
    """Codes in the order of tokens and features, of parts that hold every token's codes once.

    Args:
        parts: Slots; tokens that had too many codes for them are passed over.
        counts: Codes of each token.
        total: Their sum.
        dtype: Format of the values.
    """
    device = counts.device
    ends = counts.cumsum(0)
    starts = ends - counts
    made = Sparse(
        torch.empty(total, dtype=torch.int64, device=device),
        torch.empty(total, dtype=torch.int64, device=device),
        torch.empty(total, dtype=torch.float32, device=device),
    )
    for part in parts:
        n, capacity = part.slots.words.shape
        if not n or not total:
            continue
        is_ordered = capacity > COUNTED
        slots = part.slots.ordered() if is_ordered else part.slots
        rows = torch.arange(n, device=device) if part.rows is None else part.rows
        reading[(n,)](
            slots.words, slots.counts, rows, starts, made.tokens, made.features, made.values,
            CAPACITY=capacity, CHUNK=min(capacity, 32), IS_ORDERED=is_ordered, num_warps=4,
        )  # fmt: skip
    return Sparse(made.tokens, made.features, made.values.to(dtype))


@Program
def reading(
    words,
    counts,
    rows,
    starts,
    tokens,
    features,
    values,
    CAPACITY: tl.constexpr,
    CHUNK: tl.constexpr,
    IS_ORDERED: tl.constexpr,
):
    """One token's codes, written in the order of features behind those of the tokens before it."""
    number = tl.program_id(0)
    count = tl.load(counts + number)
    if count <= CAPACITY:
        own = words + number.to(tl.int64) * CAPACITY
        place = tl.arange(0, CAPACITY)
        is_code = place < count
        word = tl.load(own + place, mask=is_code, other=0)
        # A candidate that turned out to be none has a value of 0.
        is_code = is_code & ((word & 0x7FFFFFFF) > 0)
        if IS_ORDERED:
            rank = tl.cumsum(is_code.to(tl.int32), axis=0) - 1
        else:
            rank = tl.zeros_like(place)
            chunk = tl.arange(0, CHUNK)
            for start in range(0, count, CHUNK):
                other = tl.load(own + start + chunk, mask=chunk < count - start, other=0)
                is_before = ((other & 0x7FFFFFFF) > 0)[None, :] & (other[None, :] < word[:, None])
                rank += tl.sum(is_before.to(tl.int32), axis=1)
        row = tl.load(rows + number)
        to = tl.load(starts + row) + rank
        value = (word & 0x7FFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)
        tl.store(tokens + to, row + tl.zeros_like(word), mask=is_code)
        tl.store(features + to, word >> 32, mask=is_code)
        tl.store(values + to, value, mask=is_code)
