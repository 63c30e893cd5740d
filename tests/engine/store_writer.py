"""Writes stores, each in a process of its own that can be killed: `python -m tests.engine.store_writer`.

It reads lines `folder pieces kill_at`, and answers each with the process that writes, how many tokens it acknowledges, and how it ended.
Where `kill_at` is above 0 the process ends itself by SIGKILL in that call to the system, half of its bytes written.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import innerview as iv

ROWS, LENGTH, WIDTH, SITE = 2, 6, 8, "module:layer"
CALLS = ("write", "fsync", "rename", "ftruncate", "unlink")
SHARD_BYTES = 2000


def network() -> iv.Model:
    """A network that is never run."""
    return iv.Model(nn.Identity(), None, "toy", None, {})


def piece(nth: int, model: iv.Model) -> iv.Activations:
    """The nth piece of a capture: always the same, its rows of several lengths."""
    drawn = torch.Generator().manual_seed(nth)
    lengths = torch.randint(1, LENGTH + 1, (ROWS, 1), generator=drawn)
    mask = torch.arange(LENGTH) < lengths
    ids = torch.randint(0, 99, (ROWS, LENGTH), generator=drawn)
    rows = torch.arange(nth * ROWS, (nth + 1) * ROWS)
    return iv.Activations(
        {SITE: torch.randn(ROWS, LENGTH, WIDTH, generator=drawn)}, ids, mask, model, rows=rows
    )  # fmt: skip


def names(pieces: int) -> list[bytes]:
    """What each row is."""
    return [str(nth).encode() for nth in range(pieces * ROWS)]


def expected(pieces: int) -> torch.Tensor:
    """What a whole store holds, shape [tokens, WIDTH]."""
    model = network()
    made = [piece(nth, model) for nth in range(pieces)]
    return torch.cat([one[SITE][one.mask] for one in made])


def wrapped(inner: Callable[..., Any], *, at: int, seen: list[int], act: Callable[[], Any]) -> Callable[..., Any]:
    """A call to the system that does half of its work in the round `at`, and acts then."""

    def call(*given: Any) -> Any:
        seen[0] += 1
        if seen[0] != at:
            return inner(*given)
        if inner.__name__ == "write":
            inner(given[0], given[1][: len(given[1]) // 2])
        return act()

    return call


# A writer that is read beside, for longer than anybody reads: it paces itself, as a network does that makes what is stored.
ENDLESS, PACE_S = 20_000, 0.05


def write(folder: str, pieces: int, kill_at: int) -> None:
    """Write the pieces that are missing."""
    if kill_at:
        seen = [0]
        for name in CALLS:
            inner = getattr(os, name)
            setattr(os, name, wrapped(inner, at=kill_at, seen=seen, act=lambda: os.kill(os.getpid(), signal.SIGKILL)))
    model = network()
    with iv.open_store(folder, shard_bytes=SHARD_BYTES) as store:
        for nth in range(store.begin(model, "all", names(pieces)) // ROWS, pieces):
            # One string is one write, which a kill does not cut, however stdout is buffered.
            print(f"acknowledged {store.append(piece(nth, model))}\n", end="", flush=True)  # noqa: T201
            if pieces == ENDLESS:
                time.sleep(PACE_S)


def main() -> None:
    """Fork a writer for each line, and wait for its end. Imports cost seconds, and are done once."""
    torch.set_num_threads(1)
    network()
    for line in sys.stdin:
        folder, pieces, kill_at = line.split("\t")
        process = os.fork()
        if not process:
            print("writes", os.getpid(), flush=True)  # noqa: T201
            write(folder, int(pieces), int(kill_at))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
