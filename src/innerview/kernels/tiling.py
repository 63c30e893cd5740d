"""How the product is cut into tiles, and their launch."""

from dataclasses import dataclass, field, replace
from functools import cache

import torch
from torch import Tensor

from innerview.kernels.derived import derived
from innerview.kernels.program import is_interpreted
from innerview.kernels.slots import Slots
from innerview.kernels.tiles import tiles

# The largest number that rounds to 0: half of the smallest above it.
ROUNDS_TO_0 = {torch.float64: 0.0, torch.float32: 0.0, torch.bfloat16: 2.0**-134, torch.float16: 2.0**-25}


# What the widest tile takes of the memory that a multiprocessor shares; cards for desktops have less.
WIDE_BYTES = 3 * (128 + 256) * 64 * 2


@cache
def shared_bytes() -> int:
    """Bytes that the programs of one block may share on the current GPU."""
    return getattr(torch.cuda.get_device_properties(), "shared_memory_per_block_optin", 0)


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
        is_half = dtype.itemsize == 2
        if n_rows <= 16:
            return cls(16, 64, 128 if is_half else 64, 1, 4, 4)
        if n_rows <= 64:
            return cls(64, 128, 64 if is_half else 32, 1, 4, 3)
        if not is_half or shared_bytes() < WIDE_BYTES:
            # float32 products without TF32 run on the ordinary units, from registers.
            return cls(128, 128, 32, 8, 8, 3)
        return cls(128, 256, 64)

    def along_features(self, n_features: int) -> int:
        """Tiles side by side."""
        return -(-n_features // self.features)


def single(numbers: Tensor) -> Tensor:
    """Numbers of each feature in float32; a conversion is kept beside them, since a token's encoding takes less time than many launches."""
    return numbers if numbers.dtype == torch.float32 else derived(numbers, "float32", lambda own: own.float())


@dataclass(frozen=True, eq=False)
class Product:
    """What tiles multiply, and what they know of each feature; the names are those of `tiles`.

    Attributes:
        x: Contiguous, shape [n_rows, d].
        weight: Contiguous, in the same format, shape [n_features, d].
        bias: float32, shape [n_features].
        by_feature: first, second and third, float32, shape [n_features].
        dtype: Format of the codes.
        by_row: float32, for rules that take it; else empty.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    by_feature: tuple[Tensor, Tensor, Tensor]
    dtype: torch.dtype
    by_row: Tensor = field(default_factory=lambda: torch.zeros(0))

    def of_rows(self, rows: Tensor) -> "Product":
        """The same of some rows of the input."""
        by_row = self.by_row[..., rows].contiguous() if self.by_row.numel() else self.by_row
        return replace(self, x=self.x[rows], by_row=by_row)

    def fill(self, rule: str, slots: Slots) -> None:
        """Append what passes a rule to the slots of its rows. Nothing waits for the device."""
        self._launch(rule, slots.words, slots.counts, slots.capacity, 0, Tiling.of(len(self.x), self.x.dtype))

    def best(self, rule: str, each: int, tiling: Tiling) -> Tensor:
        """Keys of the best of each row and tile, falling, 0 where there are fewer, int64, shape [n_rows, tiles, each]."""
        n_tiles = tiling.along_features(len(self.weight))
        keys = torch.empty(len(self.x), n_tiles, each, dtype=torch.int64, device=self.x.device)
        self._launch(rule, keys, keys, 0, each, tiling)
        return keys

    def _launch(self, rule: str, words: Tensor, counts: Tensor, capacity: int, best: int, tiling: Tiling) -> None:
        (n, d), m = self.x.shape, len(self.weight)
        if not n or not m:
            return
        grid = (-(-n // tiling.rows) * tiling.along_features(m),)
        tiles[grid](
            self.x, self.weight, self.bias, *self.by_feature, self.by_row if self.by_row.numel() else self.x, words, counts,
            n, m, d, capacity, RULE=rule, BEST=best, LEAST=ROUNDS_TO_0[self.dtype], PRECISION="ieee", IS_WIDENED=is_interpreted(),
            IS_EVEN=d % tiling.depth == 0, ROWS=tiling.rows, FEATURES=tiling.features, DEPTH=tiling.depth, GROUP=tiling.group, LANE=min(32, tiling.features // 4),
            num_warps=tiling.warps, num_stages=tiling.stages,
        )  # fmt: skip
