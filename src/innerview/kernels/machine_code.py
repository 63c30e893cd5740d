"""The loops, compiled by numba where it is installed; in plain Python, for the tests of small sizes, where it is not."""

import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import torch

from innerview.kernels import loops, selection

# In the order in which they call one another.
NAMES = {
    loops: (
        "dot", "whole_dot", "wide_dot", "round_whole", "round_again", "halves", "add_massive", "roughly", "gather", "by_column", "is_worth", "sharpened",
        "above", "by_token",
    ),
    selection: ("push", "thin", "guess", "probably", "list_largest", "joined_floor", "compute", "kept", "decided", "choose_largest"),
}  # fmt: skip


@cache
def has_numba() -> bool:
    """Whether numba is installed; it is not imported."""
    return importlib.util.find_spec("numba") is not None


def is_awake() -> bool:
    """Whether the loops were called in this process, so that numba is loaded and no call waits for it."""
    return bool(_awake)


_awake: list[bool] = []


@cache
def compiled() -> SimpleNamespace:
    """The loops by name, each compiled at its first call, and kept on disk for the next process."""
    if not has_numba():
        return SimpleNamespace(**{name: getattr(home, name) for home, names in NAMES.items() for name in names})
    import numba

    _awake.append(True)
    # Sums in any order, which the bounds allow for; NaN and infinity keep their meaning. Python's lock is let go, so that threads share the rows.
    options: dict[str, Any] = {
        "nogil": True,
        "cache": True,
        "fastmath": {"reassoc", "contract", "nsz"},
        "error_model": "numpy",
    }
    compiled: Any = numba.njit
    made: dict[str, Any] = {}
    for home, name in [(home, name) for home, names in NAMES.items() for name in names]:
        plain = getattr(home, name)
        # The same function, but calling what is compiled already: numba compiles no call of plain Python.
        near = FunctionType(plain.__code__, {**vars(home), **made}, name, plain.__defaults__)
        near.__module__ = plain.__module__
        try:
            made[name] = compiled(**options)(near)
        except RuntimeError:
            # Neither beside this file nor in the user's cache can be written: compiled anew in each process.
            made[name] = compiled(**{**options, "cache": False})(near)
    return SimpleNamespace(**made)


def shared(look: Callable[[np.ndarray], Any], n: int, few: int) -> list[Any]:
    """What a function gives of spans of n rows or columns, `[first, behind the last]`, one a thread of torch's; `few` are worth one.

    In a thread of a span torch computes alone. One span is looked at by the caller, and torch takes its threads as ever.
    """
    threads = min(torch.get_num_threads(), max(1, n // few))
    edges = np.linspace(0, n, threads + 1).astype(np.int64)
    spans = [edges[i : i + 2] for i in range(threads)]
    return [look(spans[0])] if threads == 1 else list(_threads(threads, os.getpid()).map(look, spans))


@cache
def _threads(count: int, _process: int) -> ThreadPoolExecutor:
    """Threads in which torch takes none of its own: those would wait on a core, busily, while the loops look at what they made."""
    wanted, begun = torch.get_num_threads(), Barrier(count + 1)

    def begin() -> None:
        torch.set_num_threads(1)
        begun.wait()

    made = ThreadPoolExecutor(count, thread_name_prefix="innerview-codes", initializer=begin)
    for _ in range(count):
        made.submit(int)
    begun.wait()
    # The number is a thread's own, but what a thread begins with is shared.
    torch.set_num_threads(wanted)
    return made
