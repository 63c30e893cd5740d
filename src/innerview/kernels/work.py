"""What this machine does a second: measured once, when a choice first needs it."""

import time
from functools import cache

import torch

from innerview.kernels.path import Task

# 0.8 billion products: some ten milliseconds on two cores, some microseconds on a GPU.
SIZES = (512, 768, 2048)
# Passes of plain torch over the matrix [tokens, n_features]: the product is written, biases, comparison, nonzero.
PASSES = {"Above": 8, "Behind": 10, "Largest": 12}


@cache
def products_a_second(device: str, dtype: torch.dtype) -> float:
    """Products of two numbers that a matrix product takes a second, on a kind of device and in a format."""
    n, d, m = SIZES
    left, right = torch.ones(n, d, device=device, dtype=dtype), torch.ones(m, d, device=device, dtype=dtype)
    return n * d * m / _shortest(lambda: left @ right.T, device)


@cache
def bytes_a_second(device: str) -> float:
    """Bytes that a copy moves a second, read and written."""
    source = torch.ones(1 << 23, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest(lambda: target.copy_(source), device)


def dense_seconds(task: Task) -> float:
    """How long plain torch takes: the product, and passes over tokens × features."""
    wide = torch.float64 if task.dtype == torch.float64 else torch.float32
    passes = PASSES.get(task.rule, 10) * task.n_tokens * task.n_features * wide.itemsize
    return task.products / products_a_second(task.device, wide) + passes / bytes_a_second(task.device)


def _shortest(call, device: str, tries: int = 3) -> float:
    """Seconds of the fastest of some calls, behind one that is not counted."""
    call()
    best = float("inf")
    for _ in range(tries):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        best = min(best, time.perf_counter() - start)
    return best


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
