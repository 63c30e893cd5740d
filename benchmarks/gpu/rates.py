"""What the card itself does: bytes that a copy moves and products that a matrix product takes, measured beside the rows."""

import time
from collections.abc import Callable

import torch

SIZE = 8192


def rates(device: str, size: int = SIZE) -> dict[str, float]:
    """Copies in terabytes a second, read and written, and products in TFLOP/s (two operations a product) by format."""
    source = torch.empty(size * size * 4, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    found = {"copy, TB/s": 2 * source.nbytes / shortest(lambda: target.copy_(source), device) / 1e12}
    formats = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
    for name, dtype in formats.items():
        found[f"product of {name}, TFLOP/s"] = _product(size, dtype, device)
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
        found["product of float32 as TF32, TFLOP/s"] = _product(size, torch.float32, device)
        torch.backends.cuda.matmul.allow_tf32 = False
    return {name: float(f"{value:.4g}") for name, value in found.items()}


def shortest(call: Callable[[], object], device: str, tries: int = 10) -> float:
    """Seconds of the fastest of some calls, behind two that are not counted."""
    times: list[float] = []
    for _ in range(tries + 2):
        wait(device)
        start = time.perf_counter()
        call()
        wait(device)
        times.append(time.perf_counter() - start)
    return min(times[2:])


def wait(device: str) -> None:
    """Wait until the device has done what it was told."""
    if device == "cuda":
        torch.cuda.synchronize()


def _product(size: int, dtype: torch.dtype, device: str) -> float:
    # Random numbers: products of zeros draw less power, and run faster than any real one.
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return 2 * size**3 / shortest(lambda: left @ right.T, device) / 1e12
