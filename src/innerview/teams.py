"""OpenMP's threads of a thread: a team that waits elsewhere makes the one that works slow.

GNU's OpenMP keeps a team of threads for every thread that computed something. While there are more of them than cores, a team no longer waits busily between
two operations but sleeps, and each of the hundred small operations of a decoded token wakes it: a third of the time on two cores.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

# `omp_pause_soft` of OpenMP 5: the threads end, what was set stays.
_SOFT = 1


def let_go() -> None:
    """End the calling thread's own team, before it hands work to another thread. Its next operation makes one anew, in some 0.1 ms.

    Does nothing where torch brings no OpenMP of GNU's along, and where torch takes one thread.
    """
    pause = _pause()
    if pause is not None and torch.get_num_threads() > 1:
        pause(_SOFT)


@cache
def _pause() -> Callable[[int], int] | None:
    # The very file that torch has loaded, so that it is not loaded a second time.
    found = sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*"))
    try:
        return ctypes.CDLL(str(found[0])).omp_pause_resource_all if found else None
    except (OSError, AttributeError):
        return None
