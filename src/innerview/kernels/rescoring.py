"""What surrounds the screen on a GPU: inputs rounded to bfloat16 with what that cost, and candidates computed again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from innerview.kernels.bounds import RANGE, SLACK, summing
from innerview.kernels.program import Program, is_interpreted
from innerview.kernels.rules import Above, Behind, Encoder
from innerview.kernels.slots import Slots

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]

# Candidates of a token that one program computes, and numbers of the width at a time.
CANDIDATES, DEPTH = 16, 128
# Added to what a length is bounded by, so that it is never 0, and times infinity never no number.
ABOVE_0 = 2.0**-100


def rounded(x: Tensor, is_massive: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Inputs in bfloat16, 0 at massive coordinates, and what the bound takes of each row, shape [2, rows].

    Args:
        x: Shape [rows, d].
        is_massive: uint8, shape [d].
        width: Columns that are made: those behind d are left to the caller, which puts massive coordinates there, in parts.
    """
    n, d = x.shape
    numbers, by_row = x.new_empty(n, width, dtype=torch.bfloat16), x.new_zeros(2, n, dtype=torch.float32)
    # Parts of the massive coordinates are some hundredths longer than these are.
    summed = (1.0 if width == d else 1.05) * summing("bfloat16", width) + SLACK
    if n:
        rounding[(n,)](
            x, is_massive, numbers, by_row, n, d, width, summed, *RANGE,
            ABOVE_0=ABOVE_0, UP=1 + SLACK, DEPTH=_depth(d, 1024), num_warps=4,
        )  # fmt: skip
    return numbers, by_row


def rescore(encoder: Encoder, x: Tensor, slots: Slots) -> Tensor:
    """Put each candidate's value into its word, 0 where it is no code; sums are of float64. Returns the number of codes by token."""
    found = torch.zeros_like(slots.counts)
    match encoder.rule:
        case Above(threshold=Tensor() as threshold):
            name, extras = "above", (threshold.clamp(min=0),) * 3
        case Behind(gate=gate, scale=scale, shift=shift):
            name, extras = "behind", (gate, scale, shift)
        case _:
            name, extras = "relu", (encoder.bias,) * 3
    n, d = x.shape
    if n:
        rescoring[(n, -(-slots.capacity // CANDIDATES))](
            x, encoder.weight.contiguous(), encoder.bias, *extras, slots.words, slots.counts, found, d, slots.capacity,
            RULE=name, CANDIDATES=CANDIDATES, DEPTH=_depth(d, DEPTH), num_warps=4,
        )  # fmt: skip
    return found


def _depth(d: int, most: int) -> int:
    return min(32 if is_interpreted() else most, 1 << max(4, (d - 1).bit_length()))


@Program
def rounding(
    x,
    is_massive,
    numbers,
    by_row,
    n_rows,
    d,
    width,
    summed,
    shortest,
    longest,
    ABOVE_0: tl.constexpr,
    UP: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """One row, rounded, and the lengths of which its bound is made."""
    row = tl.program_id(0)
    own = row.to(tl.int64) * d
    depth = tl.arange(0, DEPTH)
    whole = tl.zeros((DEPTH,), dtype=tl.float64)
    near = tl.zeros((DEPTH,), dtype=tl.float64)
    rest = tl.zeros((DEPTH,), dtype=tl.float64)
    lost = tl.zeros((DEPTH,), dtype=tl.float64)
    for start in range(0, d, DEPTH):
        inside = depth < d - start
        number = tl.load(x + own + start + depth, mask=inside, other=0.0)
        wide = number.to(tl.float64)
        whole += wide * wide
        apart = tl.load(is_massive + start + depth, mask=inside, other=0)
        number = tl.where(apart != 0, 0.0, number)
        wide = number.to(tl.float64)
        half = number.to(tl.bfloat16)
        rounded = half.to(tl.float32).to(tl.float64)
        rest += wide * wide
        near += rounded * rounded
        lost += (wide - rounded) * (wide - rounded)
        tl.store(numbers + row.to(tl.int64) * width + start + depth, half, mask=inside)
    length = tl.sqrt(tl.sum(whole, axis=0))
    kept = tl.sqrt(tl.maximum(tl.sum(rest, axis=0), tl.sum(near, axis=0)))
    of_length = tl.sqrt(tl.sum(lost, axis=0)) + summed * tl.maximum(length, kept)
    # Beyond the range in which the bound's own rounding was looked at, everything is a candidate.
    fits = (length == 0) | ((length > shortest) & (length < longest))
    tl.store(by_row + row, tl.where(fits, of_length * UP + ABOVE_0, float("inf")).to(tl.float32))
    tl.store(by_row + n_rows + row, tl.where(fits, kept * UP + ABOVE_0, float("inf")).to(tl.float32))


@Program
def rescoring(
    x,
    weight,
    bias,
    first,
    second,
    third,
    words,
    counts,
    found,
    d,
    capacity,
    RULE: tl.constexpr,
    CANDIDATES: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Some candidates of one token, each its float32 numbers' product in float64.

    Programs that run at one time stand at the same place in the lists of many tokens, which are near to the order of features: so
    they read the same rows of the weight, and these come from the cache.
    """
    row = tl.program_id(0)
    place = tl.program_id(1) * CANDIDATES + tl.arange(0, CANDIDATES)
    count = tl.load(counts + row)
    if (tl.program_id(1) * CANDIDATES < count) & (count <= capacity):
        is_one = place < count
        at = words + row.to(tl.int64) * capacity + place
        word = tl.load(at, mask=is_one, other=0)
        feature = word >> 32
        depth = tl.arange(0, DEPTH)
        total = tl.zeros((CANDIDATES, DEPTH), dtype=tl.float64)
        for start in range(0, d, DEPTH):
            inside = depth < d - start
            left = tl.load(x + row.to(tl.int64) * d + start + depth, mask=inside, other=0.0)
            right = tl.load(
                weight + (feature * d)[:, None] + (start + depth)[None, :],
                mask=is_one[:, None] & inside[None, :],
                other=0.0,
            )
            total += left.to(tl.float64)[None, :] * right.to(tl.float64)
        pre = tl.sum(total, axis=1) + tl.load(bias + feature, mask=is_one, other=0.0).to(tl.float64)
        value = pre
        keep = pre > 0
        if RULE == "above":
            keep = keep & (pre > tl.load(first + feature, mask=is_one, other=0.0).to(tl.float64))
        if RULE == "behind":
            keep = pre + tl.load(first + feature, mask=is_one, other=0.0).to(tl.float64) > 0
            value = pre * tl.load(second + feature, mask=is_one, other=0.0).to(tl.float64)
            value += tl.load(third + feature, mask=is_one, other=0.0).to(tl.float64)
        single = tl.where(keep & is_one & (value > 0), value, 0.0).to(tl.float32)
        tl.store(at, (feature << 32) | single.to(tl.int32, bitcast=True).to(tl.int64), mask=is_one)
        tl.atomic_add(found + row, tl.sum((single > 0).to(tl.int32), axis=0))
