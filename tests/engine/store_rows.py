"""Rows 23 to 25 of the reliability scoreboard: stores that are killed, that meet a failing disk, and that are read while written."""

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch

import innerview as iv
from innerview.errors import StoreError
from tests.engine.store_writer import CALLS, ENDLESS, SHARD_BYTES, SITE, expected, names, network, piece, wrapped

PIECES = 40
ROOT = Path(__file__).resolve().parent.parent.parent


class Writer:
    """Processes that write stores, one after another, and can be killed."""

    def __init__(self) -> None:
        given = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"}
        told = [sys.executable, "-m", "tests.engine.store_writer"]
        self._parent = subprocess.Popen(
            told, cwd=ROOT, env=given, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._process = 0

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: Any) -> None:
        self._parent.kill()
        self._parent.communicate()

    def start(self, folder: Path, pieces: int, kill_at: int = 0) -> None:
        """Begin to write."""
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{folder}\t{pieces}\t{kill_at}\n")
        self._parent.stdin.flush()
        self._process = int(self._told()[1])

    def kill(self) -> None:
        """kill −9."""
        os.kill(self._process, signal.SIGKILL)

    def rest(self, until: int = 0, wait_s: float = 0.0) -> tuple[int, bool]:
        """Let it write, or kill it behind a number of its answers: the last number of tokens acknowledged, and whether it was killed."""
        last = count = 0
        while (told := self._told())[0] != "ended":
            last, count = int(told[1]), count + 1
            if count == until:
                time.sleep(wait_s)
                with suppress(ProcessLookupError):
                    self.kill()
        assert told[1] in ("0", "-9")
        return last, told[1] == "-9"

    def _told(self) -> list[str]:
        assert self._parent.stdout is not None
        return self._parent.stdout.readline().split()


def written(folder: Path, pieces: int = PIECES) -> iv.Store:
    """A whole store, written here."""
    model = network()
    with iv.open_store(folder, shard_bytes=SHARD_BYTES) as store:
        for nth in range(store.begin(model, "all", names(pieces)) // 2, pieces):
            store.append(piece(nth, model))
    return store


def holds(store: iv.Store, whole: torch.Tensor) -> None:
    """Everything that is listed is there, and is what was written."""
    store.verify()
    if store.n_tokens:
        assert torch.equal(store.read(SITE), whole[: store.n_tokens])


def row_23(count: int) -> None:
    """kill −9 while a store is written: no acknowledged row is lost, and the resumed store has the same sha256."""
    drawn, whole, killed = random.Random(23), expected(PIECES), 0
    with tempfile.TemporaryDirectory() as root, Writer() as writer:
        wanted = written(Path(root) / "whole")
        folder = Path(root) / "killed"
        for nth in range(count):
            # By turns in the middle of a call to the system, and from outside at any moment.
            writer.start(folder, PIECES, kill_at=drawn.randrange(1, 60) if nth % 2 else 0)
            last, is_killed = writer.rest(0 if nth % 2 else drawn.randrange(1, 20), drawn.uniform(0, 0.004))
            killed += is_killed
            store = iv.open_store(folder)
            assert store.n_tokens >= last and (is_killed or store.n_tokens == len(whole))
            holds(store, whole)
            if store.n_tokens == len(whole) or nth == count - 1:
                del store
                resumed = written(folder)
                assert resumed.sha256 == wanted.sha256 and resumed.n_tokens == len(whole)
                assert sum(1 for _ in folder.glob("*.safetensors")) == resumed.generation
                assert list(folder.glob("*.tmp")) == []
                folder = Path(root) / f"killed_{nth}"
    assert killed >= count // 2


def row_24(count: int) -> None:
    """A full disk and I/O errors are a clear error that loses nothing; every flipped bit is found."""
    drawn = random.Random(24)
    with tempfile.TemporaryDirectory() as root:
        for nth in range(max(1, count // 10)):
            fails(Path(root) / f"failing_{nth}", drawn)
        folder = Path(root) / "flipped"
        written(folder)
        kept = sorted(path for path in folder.iterdir() if path.stat().st_size)
        for _ in range(count):
            path = drawn.choice(kept)
            before = path.read_bytes()
            place = drawn.randrange(len(before) * 8)
            changed = bytearray(before)
            changed[place // 8] ^= 1 << place % 8
            path.write_bytes(changed)
            assert "damaged" in found(folder), f"bit {place} of {path.name}"
            path.write_bytes(before)
        holds(iv.open_store(folder), expected(PIECES))


def found(folder: Path) -> str:
    """What is said of the damage in a folder."""
    try:
        store = iv.open_store(folder)
        for _ in store.batches(SITE, 32, seed=1):
            pass
        assert store.n_tokens == len(expected(PIECES)), "a shard is gone"
    except StoreError as error:
        return str(error)
    return ""


def fails(folder: Path, drawn: random.Random) -> None:
    """Write with one call to the system that fails, then go on."""
    code, seen = drawn.choice([errno.ENOSPC, errno.EIO]), [0]
    whole, model, at, told = expected(PIECES), network(), drawn.randrange(1, 70), ""

    def failing() -> Any:
        raise OSError(code, os.strerror(code))

    store = iv.open_store(folder, shard_bytes=SHARD_BYTES)
    with mock.patch.multiple(os, **{name: wrapped(getattr(os, name), at=at, seen=seen, act=failing) for name in CALLS}):
        store.begin(model, "all", names(PIECES))
        for nth in range(PIECES):
            try:
                store.append(piece(nth, model))
            except StoreError as error:
                told = str(error)
                assert os.strerror(code) in told and f"{store.n_tokens} tokens" in told
                holds(iv.open_store(folder), whole)
    # An unlinking that fails is no loss, and is not told.
    assert told or seen[0] < at
    store.close()
    holds(store, whole)
    assert store.n_tokens == len(whole)
    holds(iv.open_store(folder), whole)


def row_25(count: int) -> None:
    """Eight readers while a store is written, for so many seconds: each sees one complete generation."""
    whole, failures, reads = expected(400), [], [0] * 8
    with tempfile.TemporaryDirectory() as root, Writer() as writer:
        folder = Path(root) / "store"
        writer.start(folder, pieces=ENDLESS)
        ends = time.monotonic() + count

        def read(number: int) -> None:
            drawn = random.Random(number)
            try:
                while time.monotonic() < ends or not reads[number]:
                    reads[number] += reads_whole(folder, whole, drawn)
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
        drain = threading.Thread(target=writer.rest)
        [thread.start() for thread in (drain, *threads)]
        [thread.join() for thread in threads]
        assert drain.is_alive()
        writer.kill()
        drain.join()
    assert failures == [] and min(reads) > 0


def reads_whole(folder: Path, whole: torch.Tensor, drawn: random.Random) -> int:
    """Read somewhere in what is listed: 1 where there was something."""
    store = iv.open_store(folder)
    if not store.n_tokens:
        return 0
    seen = (store.generation, store.n_tokens, store.sha256)
    frame = store.frame()
    assert len(frame) == store.generation and frame["stop"].iloc[-1] == store.n_tokens
    stop = min(store.n_tokens, len(whole))
    start = drawn.randrange(stop)
    assert torch.equal(store.read(SITE, start, stop), whole[start:stop])
    assert len(store.read(SITE, max(0, store.n_tokens - 50))) == min(50, store.n_tokens)
    assert (store.generation, store.n_tokens, store.sha256) == seen
    return 1
