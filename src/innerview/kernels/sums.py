"""Decoding on a GPU: each token's few rows of the decoder, gathered and summed."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels.program import Program, is_interpreted, why_not
from innerview.kernels.rules import Sparse

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]

FORMATS = (torch.float32, torch.bfloat16, torch.float16)
# Numbers of a row of the decoder that one program sums, and rows that it has under way at once.
WIDTH, AT_ONCE = 1024, 8


def can_sum(decoder: Tensor, values: Tensor) -> bool:
    """Whether `summed` does it: on a GPU whose trial it passed, where no gradients are asked for."""
    if decoder.device.type != "cuda" or decoder.dtype not in FORMATS or is_interpreted() or why_not("cuda") is not None:
        return False
    has_gradients = torch.is_grad_enabled() and (decoder.requires_grad or values.requires_grad)
    return not has_gradients and is_right(decoder.dtype)


@cache
def is_right(dtype: torch.dtype, device: str = "cuda") -> bool:
    """Whether sums of small whole numbers, which are exact, are right on this device; tried once a format."""
    drawn = torch.Generator().manual_seed(0)
    dense = torch.randint(-2, 3, (9, 40), generator=drawn) * torch.randint(0, 2, (9, 1), generator=drawn)
    decoder = torch.randint(-2, 3, (40, 130), generator=drawn)
    dense, decoder = dense.to(device, dtype), decoder.to(device, dtype)
    tokens, features = dense.nonzero(as_tuple=True)
    try:
        made = summed(Sparse(tokens, features, dense[tokens, features]), len(dense), decoder)
    except Exception:
        # Triton, its assembler and the driver each raise their own; torch's own sums are there.
        return False
    return torch.equal(made.double(), dense.double() @ decoder.double())


def summed(codes: Sparse, n_tokens: int, decoder: Float[Tensor, "n_features d_out"]) -> Float[Tensor, "n_tokens d_out"]:
    """Sums of the decoder's rows by token, times the codes, in float32, rounded to the decoder's format at the end.

    Args:
        codes: Ordered by token.
        n_tokens: How many tokens there are, those without codes too.
        decoder: A row a feature, float32 or less.
    """
    edges = torch.arange(n_tokens + 1, device=decoder.device)
    starts = torch.searchsorted(codes.tokens, edges)
    d = decoder.shape[1]
    made = torch.empty(n_tokens, d, dtype=torch.float32, device=decoder.device)
    width = min(64 if is_interpreted() else WIDTH, 1 << max(4, (d - 1).bit_length()))
    if made.numel():
        sums[(n_tokens, -(-d // width))](
            starts, codes.features, codes.values, decoder.contiguous(), made, d, WIDTH=width, AT_ONCE=AT_ONCE, num_warps=4
        )  # fmt: skip
    return made.to(decoder.dtype)


@Program
def sums(
    starts,
    features,
    values,
    decoder,
    made,
    d,
    WIDTH: tl.constexpr,
    AT_ONCE: tl.constexpr,
):
    """A stretch of one token's sum."""
    token = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    is_column = column < d
    first = tl.load(starts + token)
    last = tl.load(starts + token + 1)
    total = tl.zeros((WIDTH,), dtype=tl.float32)
    at_once = tl.arange(0, AT_ONCE)
    for start in range(first, last, AT_ONCE):
        is_code = start + at_once < last
        feature = tl.load(features + start + at_once, mask=is_code, other=0)
        value = tl.load(values + start + at_once, mask=is_code, other=0.0).to(tl.float32)
        rows = tl.load(
            decoder + (feature * d)[:, None] + column[None, :], mask=is_code[:, None] & is_column[None, :], other=0.0
        )
        total += tl.sum(rows.to(tl.float32) * value[:, None], axis=0)
    tl.store(made + token.to(tl.int64) * d + column, total, mask=is_column)
