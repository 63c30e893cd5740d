"""Threads that take the dictionaries' steps side by side: each is small, and two cores share one badly."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Thing = TypeVar("Thing")
# Does something with each, in whatever order.
Each = Callable[[Callable[[Thing], None], Iterable[Thing]], None]


@contextmanager
def side_by_side(count: int) -> Iterator[Each]:
    """What does something with each of several things, in as many threads as torch would take for one.

    Args:
        count: Things; one is dealt with here, by all of torch's threads.
    """
    threads = torch.get_num_threads()
    if min(count, threads) < 2:
        yield _in_turn
        return
    with ThreadPoolExecutor(min(count, threads), "innerview-training", torch.set_num_threads, (1,)) as pool:

        def each(act: Callable[[Thing], None], things: Iterable[Thing]) -> None:
            for _ in pool.map(act, things):
                pass

        try:
            yield each
        finally:
            # What a worker says of itself, torch takes as every later thread's number.
            torch.set_num_threads(threads)


def _in_turn(act: Callable[[Thing], None], things: Iterable[Thing]) -> None:
    for thing in things:
        act(thing)
