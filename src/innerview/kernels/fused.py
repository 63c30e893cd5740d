"""Codes in one pass on a GPU: Triton's tiles compare in the product's epilogue and write codes alone, never tokens × features."""

from dataclasses import dataclass
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels.path import Path, Task
from innerview.kernels.program import is_interpreted, why_not
from innerview.kernels.rules import Above, Behind, Encoder, Sparse
from innerview.kernels.slots import Part, Slots, read_out
from innerview.kernels.tiles import tiles
from innerview.kernels.work import products_a_second

# Tokens of one launch: the slots of more would grow with the tokens.
BLOCK = 16384
FIRST_CAPACITY = 256
# The largest number that rounds to 0: half of the smallest above it.
ROUNDS_TO_0 = {torch.float32: 0.0, torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}
# What some launches and one wait for the device take.
LAUNCHES_S = 1e-4


@dataclass(frozen=True)
class Tiling:
    """Shape of a tile and how it is computed: rows, features, numbers of the width at a time, tiles of rows in a group, warps, stages."""

    rows: int
    features: int
    depth: int
    group: int = 8
    warps: int = 8
    stages: int = 3

    @classmethod
    def of(cls, n_rows: int, dtype: torch.dtype) -> "Tiling":
        """What is taken for some rows."""
        if is_interpreted():
            return cls(16, 32, 16, 2)
        if n_rows <= 16:
            return cls(16, 64, 128 if dtype.itemsize == 2 else 64, 1, 4, 4)
        if n_rows <= 64:
            return cls(64, 128, 64 if dtype.itemsize == 2 else 32, 1, 4, 4)
        # float32 products without TF32 run on the ordinary units: their tile lives in registers alone.
        return cls(128, 256, 64) if dtype.itemsize == 2 else cls(128, 128, 32, 8, 8, 3)


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Sparse:
    """Codes, as `reference.encode` gives them."""
    starts = list(range(0, max(len(x), 1), BLOCK))
    return Sparse.joined([_block(encoder, x[start : start + BLOCK].contiguous()) for start in starts], starts)


def refusal(task: Task) -> str | None:
    """Why this cannot do a task; None where it can."""
    if task.dtype == torch.float64:
        return "its products are of float32 at most"
    return why_not(task.device)


def seconds(task: Task) -> float:
    """How long a task takes by the rate of products; the epilogue, and what follows it, cost a part of them."""
    if is_interpreted():
        return inf
    return LAUNCHES_S + 1.25 * task.products / products_a_second(task.device, task.dtype)


FUSED = Path("fused", encode, refusal, seconds, "one pass on the GPU, which never writes tokens × features")


def _block(encoder: Encoder, x: Tensor) -> Sparse:
    slots = Slots.empty(len(x), capacity(encoder.n_features), x.device)
    fill(encoder, x, slots)
    return completed(encoder, x, slots)


def capacity(n_features: int, wanted: int = FIRST_CAPACITY) -> int:
    """A power of two, from 16: room for `wanted` codes of a token, or for all features where there are fewer."""
    return 1 << max(4, (min(wanted, n_features) - 1).bit_length())


def fill(encoder: Encoder, x: Float[Tensor, "tokens d"], slots: Slots) -> None:
    """Write the codes of tokens into slots that are empty; nothing waits for the device, so a CUDA graph can hold it.

    Args:
        encoder: What encodes, by a rule under which features do not compete.
        x: Contiguous.
        slots: Room, its counts 0.
    """
    n, m = len(x), encoder.n_features
    tiling = Tiling.of(n, x.dtype)
    match encoder.rule:
        case Above(threshold=threshold):
            name, by_feature = "above", [encoder.bias.new_zeros(m) if threshold is None else threshold.clamp(min=0)] * 3
        case Behind(gate=gate, scale=scale, shift=shift):
            name, by_feature = "behind", [gate, scale, shift]
    launch(name, encoder, x, [one.float() for one in by_feature], None, slots, tiling)


def launch(
    rule: str,
    encoder: Encoder,
    x: Tensor,
    by_feature: list[Tensor],
    by_row: Tensor | None,
    slots: Slots,
    tiling: Tiling,
) -> None:
    """Run the tiles of a rule; the names are those of `tiles`."""
    n, m = len(x), encoder.n_features
    if not n or not m:
        return
    grid = (-(-n // tiling.rows) * -(-m // tiling.features),)
    first, second, third = by_feature
    tiles[grid](
        x, encoder.weight, encoder.bias.float(), first, second, third, x if by_row is None else by_row, slots.words, slots.counts,
        n, m, encoder.d, slots.capacity,
        RULE=rule, BEST=0, LEAST=ROUNDS_TO_0[x.dtype], PRECISION="ieee", IS_WIDENED=is_interpreted(), IS_EVEN=encoder.d % tiling.depth == 0,
        ROWS=tiling.rows, FEATURES=tiling.features, DEPTH=tiling.depth, GROUP=tiling.group,
        num_warps=tiling.warps, num_stages=tiling.stages,
    )  # fmt: skip


def completed(encoder: Encoder, x: Tensor, slots: Slots) -> Sparse:
    """The codes in slots, those of tokens that had no room computed again with more of it."""
    counts = slots.counts.to(torch.int64)
    parts = [Part(slots)]
    most, total = (int(one) for one in torch.stack([counts.max(), counts.sum()]).tolist()) if len(x) else (0, 0)
    if most > slots.capacity:
        rows = (counts > slots.capacity).nonzero()[:, 0]
        more = Slots.empty(len(rows), capacity(encoder.n_features, most), x.device)
        fill(encoder, x[rows], more)
        parts.append(Part(more, rows))
    return read_out(parts, counts, total, encoder.weight.dtype)
