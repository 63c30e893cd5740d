"""How the cost of JumpReLU and TopK codes grows on a GPU over tokens and over features: time and memory a token."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks.gpu.drawn import Drawn, Size
from benchmarks.gpu.rates import shortest
from benchmarks.gpu.row_6_memory import peak
from innerview.kernels import Sparse
from innerview.kernels.encode import encode

TOKENS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
FEATURES = (4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
FIXED = Size(4096, 16_384, 1024)
K = 64


def growth(
    device: str,
    tokens: tuple[int, ...] = TOKENS,
    features: tuple[int, ...] = FEATURES,
    fixed: Size = FIXED,
    *,
    rows: Sequence[str] = ("1", "4"),
    path: str | None = "fused",
    dtype: torch.dtype = torch.bfloat16,
    held: Callable[[Callable[[], Any]], int] | None = None,
) -> list[dict[str, Any]]:
    """One series of each row over each axis: microseconds and bytes a token at each size.

    Args:
        device: Kind of device.
        tokens: Sizes along the axis of tokens.
        features: Sizes along the axis of features.
        fixed: What the other axis is, and the width.
        rows: Of 1, JumpReLU, and 4, TopK.
        path: The kernel; the one that is chosen when None.
        dtype: Format of everything.
        held: Bytes that a call holds beyond what was held before; the device's own count when None.
    """
    count = held or (lambda call: peak(call, device))
    made: list[dict[str, Any]] = []
    for number, name, k in (("1", "JumpReLU", 0), ("4", f"TopK {K}", K)):
        if number not in rows:
            continue
        for axis, along in (("tokens", tokens), ("features", features)):
            sizes = [Size(one, fixed.m, fixed.d) if axis == "tokens" else Size(fixed.n, one, fixed.d) for one in along]
            other = f"{fixed.m:,} features" if axis == "tokens" else f"{fixed.n:,} tokens"
            title = f"{name} codes, {str(dtype).removeprefix('torch.')}, d {fixed.d}, {other}"
            points = [_point(one, k, device, dtype, path, count) for one in sizes]
            made.append({"row": number, "title": title, "axis": axis, "points": points})
    return made


def _point(
    size: Size, k: int, device: str, dtype: torch.dtype, path: str | None, held: Callable[[Callable[[], Any]], int]
) -> dict[str, float]:
    drawn = Drawn.of(size, dtype, device)
    one = drawn.encoder(min(k, size.m - 1))

    def call() -> Sparse:
        return encode(one, drawn.x, path)

    seconds = shortest(call, device, tries=5)
    return {
        "tokens": size.n,
        "features": size.m,
        "us_a_token": seconds / size.n * 1e6,
        "bytes_a_token": held(call) / size.n,
    }
