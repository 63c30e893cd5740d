"""How the cost of JumpReLU and TopK codes grows on a GPU over tokens and over features: time and memory a token."""

import torch

from benchmarks.gpu.drawn import Drawn, Size
from benchmarks.gpu.rates import shortest
from benchmarks.gpu.row_6_memory import peak
from innerview.kernels.encode import encode

TOKENS = (512, 1024, 2048, 4096, 8192, 16_384, 32_768, 65_536)
FEATURES = (4096, 8192, 16_384, 32_768, 65_536, 131_072, 262_144, 524_288, 1_048_576)
FIXED = Size(4096, 16_384, 1024)
K = 64


def growth(
    device: str, tokens: tuple[int, ...] = TOKENS, features: tuple[int, ...] = FEATURES, fixed: Size = FIXED
) -> list[dict[str, object]]:
    """One series each of row 1 and row 4 over each axis: microseconds and bytes a token at each size."""
    made: list[dict[str, object]] = []
    for number, name, k in (("1", "JumpReLU", 0), ("4", f"TopK {K}", K)):
        for axis, along in (("tokens", tokens), ("features", features)):
            sizes = [Size(one, fixed.m, fixed.d) if axis == "tokens" else Size(fixed.n, one, fixed.d) for one in along]
            other = f"{fixed.m:,} features" if axis == "tokens" else f"{fixed.n:,} tokens"
            title = f"{name} codes, bfloat16, d {fixed.d}, {other}"
            made.append(
                {"row": number, "title": title, "axis": axis, "points": [_point(one, k, device) for one in sizes]}
            )
    return made


def _point(size: Size, k: int, device: str) -> dict[str, float]:
    drawn = Drawn.of(size, torch.bfloat16, device)
    one = drawn.encoder(min(k, size.m - 1))
    seconds = shortest(lambda: encode(one, drawn.x, "fused"), device)
    held = peak(lambda: encode(one, drawn.x, "fused"), device)
    return {"tokens": size.n, "features": size.m, "us_a_token": seconds / size.n * 1e6, "bytes_a_token": held / size.n}
