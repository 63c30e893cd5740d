"""What this machine does a second: measured once, when a choice first needs it."""

import time
from collections.abc import Callable
from functools import cache

import torch

from innerview.kernels.machine_code import is_awake
from innerview.kernels.path import Task

# Rows, width and columns of the product that is timed: milliseconds each.
SIZES = {"cpu": (256, 512, 1024), "cuda": (4096, 4096, 4096)}
# Passes of plain torch over the matrix [tokens, n_features]: the product is written, biases, comparison, nonzero.
PASSES = {"Above": 8, "Behind": 10, "Largest": 12}


# What the loops take, from trials: a place of the scan, a product of two numbers in a candidate's sum, rounding a number of the weight.
PLACE_S, TERM_S, ROUND_S = 0.6e-9, 0.12e-9, 2e-9
# Share of the features that a screen lets through, from trials on normal numbers.
CANDIDATES = {"int8": 0.02, "bfloat16": 0.01, "float32": 0.005}
# Loading numba and the loops, or compiling them where no process before did.
WAKE_S = 4.0
# Calls among which the cost of what is made once is shared out.
CALLS = 16


@cache
def products_a_second(device: str, dtype: torch.dtype) -> float:
    """Products of two numbers that a matrix product takes a second, on a kind of device and in a format; int8 sums in int32."""
    n, d, m = SIZES.get(device, SIZES["cpu"])
    left, right = torch.ones(n, d, device=device, dtype=dtype), torch.ones(m, d, device=device, dtype=dtype)
    multiply = torch._int_mm if dtype == torch.int8 else torch.mm
    return n * d * m / _shortest(lambda: multiply(left, right.T), device)


@cache
def bytes_a_second(device: str) -> float:
    """Bytes that a copy moves a second, read and written."""
    source = torch.ones(1 << 23, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / _shortest(lambda: target.copy_(source), device)


def product_seconds(task: Task, dtype: torch.dtype) -> float:
    """How long the product takes in a format: its sums, or reading the weight."""
    reading = task.n_features * task.d * dtype.itemsize / bytes_a_second(task.device)
    return max(task.products / products_a_second(task.device, dtype), reading)


class Patience:
    """How long calls have gone without the loops that could have been shorter: when it comes to what waking them takes, they are woken."""

    def __init__(self) -> None:
        self.waited_s = 0.0

    def waking_s(self) -> float:
        """What is left of the cost of waking the loops."""
        return 0.0 if is_awake() else max(0.0, WAKE_S - self.waited_s)

    def wait(self, taken_s: float, with_loops_s: float) -> None:
        """A call that takes another way, and how long it would have been with the loops, waking them included."""
        self.waited_s += max(0.0, taken_s - (with_loops_s - self.waking_s()))


PATIENCE = Patience()


def screened_seconds(task: Task, kind: str) -> float:
    """How long a screen takes: a rough product, a scan of it, and the candidates again; preparing the weight shared out, waking the loops."""
    places = task.n_tokens * task.n_features
    largest = task.k * task.n_tokens * 8 if task.k else 0
    candidates = max(CANDIDATES[kind] * places, largest) * task.d
    preparing = ROUND_S * task.n_features * task.d / CALLS
    loops = (PLACE_S * places + TERM_S * candidates + preparing) / torch.get_num_threads()
    return product_seconds(task, getattr(torch, kind)) + loops + PATIENCE.waking_s()


def dense_seconds(task: Task) -> float:
    """How long plain torch takes: the product, and passes over tokens × features."""
    wide = torch.float64 if task.dtype == torch.float64 else torch.float32
    passes = PASSES.get(task.rule, 10) * task.n_tokens * task.n_features * wide.itemsize
    return product_seconds(task, wide) + passes / bytes_a_second(task.device)


def _shortest(call: Callable[[], object], device: str, tries: int = 3) -> float:
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
