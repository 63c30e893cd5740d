"""How vectors meet activations: widths, heads, number formats, and what is given for each token."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from innerview.errors import EditError


def fit(vector: Tensor, x: Tensor) -> Tensor:
    """The vector in the shape of the last axis of `x`, or of its last two (heads).

    Raises:
        EditError: The widths differ.
    """
    if flat(x, vector.numel()) is x:
        return vector
    return vector.view(x.shape[-2], x.shape[-1])


def flat(x: Tensor, width: int) -> Tensor:
    """`x` with a last axis of `width`: as it is, or with its last two axes (heads) joined.

    Raises:
        EditError: Neither is that wide.
    """
    if width == x.shape[-1]:
        return x
    if x.ndim >= 4 and width == x.shape[-1] * x.shape[-2]:
        return x.flatten(-2)
    raise EditError(
        f"a direction {width} wide does not fit an activation of shape {list(x.shape)}; find it at the same site"
    )


def wide(x: Tensor) -> Tensor:
    """`x` in float32 where it is of half precision, which loses the small projection of a large activation."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def per_token(share: Tensor, x: Tensor) -> Tensor:
    """`share` [rows, q] with axes of one behind, so that it multiplies `x` [rows, q, ...]; one that lies along `x` already stays."""
    return share if share.ndim == x.ndim else share.view(*share.shape, *(1,) * (x.ndim - 2))


def times(share: Tensor | None, x: Tensor) -> Tensor | float:
    """What multiplies the change of each token of `x`: its share, or 1."""
    return 1.0 if share is None else per_token(share.to(x.dtype), x)


def per_row(numbers: Tensor, x: Tensor, what: str) -> Tensor:
    """One number for each row of `x`, shape [rows]; beams and several returned sequences come as repeated rows.

    Raises:
        EditError: The rows are not a multiple of the numbers.
    """
    rows, told = x.shape[0], numbers.shape[0]
    if told == 0 or rows % told:
        raise EditError(f"{what} are {told} numbers, and the activation has {rows} rows; give one number, or one a row")
    return numbers.repeat_interleave(rows // told)


def rows_among(told: int, rows: Sequence[int], of: int, what: str) -> list[int]:
    """Which of `told` values, one a row of a batch of `of` (or of rows that come repeated), belong to some of its rows.

    Raises:
        EditError: The rows are not a multiple of the values.
    """
    if told == 0 or of % told:
        raise EditError(f"{what} are {told}, and the batch has {of} rows; give one, or one a row")
    return [row // (of // told) for row in rows]


def numbers(given: Any, what: str) -> Tensor:
    """A copy of real, finite numbers in any container.

    Raises:
        EditError: It is something else, or holds NaN or infinity.
    """
    try:
        tensor = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise EditError(f"{what} is a tensor of numbers, not {str(given)[:40]!r}: {error}") from error
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise EditError(f"{what} is a tensor of real numbers, not of {tensor.dtype}")
    if not torch.isfinite(tensor).all():
        raise EditError(f"{what} holds NaN or infinity; look at where it came from")
    # A copy: what becomes of the caller's tensor later is no part of the edit.
    return tensor.clone()
