"""Rows rounded to a low precision, with what that cost: the bound on what a screening product may be wrong by.

For a row x and a feature's w, rounded to x̂ and ŵ, `x·w − x̂·ŵ = (x − x̂)·ŵ + x·(w − ŵ)`, so it is at most
`‖x − x̂‖‖ŵ‖ + ‖x‖‖w − ŵ‖`, and the sum of the product itself adds `γ‖x̂‖‖ŵ‖`. Lengths are measured in float64 and rounded up.
`docs/explanation/exact-codes.md` derives the whole.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerview.kernels import loops
from innerview.kernels.machine_code import compiled, shared

Kind = Literal["int8", "bfloat16", "float32"]
# Rounding of the few float32 operations that evaluate a bound, of bounds themselves to float32, and denormals that are flushed: 2⁻²⁰
# of the lengths is above them all where lengths lie between 2⁻⁴⁰ and 2⁴⁰.
SLACK = 2.0**-20
RANGE = (2.0**-40, 2.0**40)
LEAST = 2.0**-110
# Largest whole number of int8 that is used, so that rows are symmetric, and 2³¹ holds sums of this many products.
WHOLE = loops.WHOLE
WIDEST: dict[Kind, int] = {"int8": (2**31 - 1) // WHOLE**2, "bfloat16": 1 << 17, "float32": 1 << 17}
# Rows that are measured at once, in float64; and that are worth a thread.
CHUNK = 2048
ROUNDED = 16


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rows in a low precision.

    Attributes:
        numbers: What the screening product takes, int8, bfloat16 or float32, shape [rows, d].
        scale: What each row's numbers are times, float32, shape [rows].
        length: At least the length of each row, and of what it was rounded to, float64, shape [rows].
        residual: At least the length of what rounding left, float64, shape [rows].
    """

    numbers: Tensor = field(repr=False)
    scale: Float[Tensor, "rows"] = field(repr=False)
    length: Float[Tensor, "rows"] = field(repr=False)
    residual: Float[Tensor, "rows"] = field(repr=False)

    def is_in_range(self) -> Bool[Tensor, "rows"]:
        """Where lengths are 0, or lie in the range in which the bound's own rounding was looked at."""
        return (self.length == 0) | ((self.length > RANGE[0]) & (self.length < RANGE[1]))


def rounded(rows: Float[Tensor, "rows d"], kind: Kind) -> Rounded:
    """Rows, rounded, and how far from themselves they are, a chunk at a time."""
    if kind == "int8":
        return _whole(rows)
    parts = [_rounded(part, kind) for part in rows.split(CHUNK)] or [_rounded(rows, kind)]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    return Rounded(**joined)


def _rounded(rows: Tensor, kind: Kind) -> Rounded:
    wide = rows.double()
    if kind == "float32":
        length = _up(torch.linalg.vector_norm(wide, dim=1))
        return Rounded(rows, torch.ones(len(rows)), length, torch.zeros_like(length))
    numbers, scale = rows.to(torch.bfloat16), torch.ones(len(rows))
    near = numbers.double()
    length = torch.maximum(torch.linalg.vector_norm(wide, dim=1), torch.linalg.vector_norm(near, dim=1))
    return Rounded(numbers, scale, _up(length), _up(torch.linalg.vector_norm(wide - near, dim=1)))


def _whole(rows: Tensor) -> Rounded:
    """Rows as whole numbers times a scale of each."""
    n = len(rows)
    numbers, scale = torch.empty(rows.shape, dtype=torch.int8), torch.empty(n)
    length, residual = torch.empty(n, dtype=torch.float64), torch.empty(n, dtype=torch.float64)
    given = [one.numpy() for one in (rows.contiguous(), numbers, scale, length, residual)]
    shared(lambda span: compiled().round_whole(span, *given), n, ROUNDED)
    return Rounded(numbers, scale, _up(length), _up(residual))


def sharper(rows: Float[Tensor, "rows d"], first: Rounded) -> tuple[Tensor, Tensor]:
    """Second numbers of rows that were rounded to int8, and at least the length of what both leave: int16 [rows, d], float64 [rows].

    A row is about `scale · (first + second / STEPS)`. They are numbers up to 127, in 16 bits because those are multiplied faster.
    """
    again, residual = torch.empty(rows.shape, dtype=torch.int16), torch.empty(len(rows), dtype=torch.float64)
    given = [one.numpy() for one in (rows.contiguous(), first.numbers, first.scale, again, residual)]
    shared(lambda span: compiled().round_again(span, *given), len(rows), ROUNDED)
    return again, _up(residual)


def _up(lengths: Tensor) -> Tensor:
    # Sums of squares in float64 are right to some 2⁻⁴⁰; the rest is room.
    return lengths * (1 + 2.0**-30)


def summing(kind: Kind, d: int) -> float:
    """γ: how far a sum of d products may be from the true one, as a share of the two lengths.

    Whole numbers sum exactly. float32 rounds each addition by at most 2⁻²⁴, in any order; units that multiply bfloat16 may cut
    instead of rounding, for which 2⁻²² is room.
    """
    if kind == "int8":
        return 0.0
    each = (d + 2) * (2.0**-22 if kind == "bfloat16" else 2.0**-24)
    return each / (1 - each)


def half(kind: Kind) -> float:
    """How far its own format rounds a product, as a share of it: half of bfloat16's last place."""
    return 2.0**-8 * (1 + SLACK) if kind == "bfloat16" else 0.0


def single(lengths: Float[Tensor, "rows"]) -> Float[Tensor, "rows"]:
    """Bounds as float32, rounded up."""
    return (lengths * (1 + SLACK)).float()
