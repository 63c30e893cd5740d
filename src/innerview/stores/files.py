"""Files that are written whole or not at all, read with their sizes checked, and locks that a kill lets go of."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np

from innerview.errors import StoreError

BLOCK_BYTES = 1 << 22


def write_all(fd: int, data: memoryview) -> None:
    """Write every byte; a write may take only some of them."""
    while data:
        data = data[os.write(fd, data) :]


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def written_whole(folder: Path, parts: Iterable[memoryview], name_of: str) -> tuple[str, str, int]:
    """Write a file under a passing name, wait for the disk, and give it its own: name, sha256 and bytes.

    Args:
        folder: Where.
        parts: What is written, in order.
        name_of: Its name, with `{sha256}` for the first digits of its hash, so that no other content can ever have it.
    """
    passing, hashed, size = folder / "shard.tmp", hashlib.sha256(), 0
    fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        for part in parts:
            write_all(fd, part)
            hashed.update(part)
            size += part.nbytes
        os.fsync(fd)
    except BaseException:
        # A full disk is given back what was taken; on a disk that fails, the name is written over next time.
        with suppress(OSError):
            os.unlink(passing)
        raise
    finally:
        os.close(fd)
    name = name_of.format(sha256=hashed.hexdigest()[:16])
    os.rename(passing, folder / name)
    sync_folder(folder)
    return name, hashed.hexdigest(), size


def opened(path: Path, size: int) -> int:
    """A descriptor of a regular file of this size.

    Raises:
        StoreError: It is gone, is a link or no file, or has another size.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise StoreError(f"{path} is listed and cannot be read ({error.strerror}); {WAY_OUT}") from error
    found = os.fstat(fd)
    if stat.S_ISREG(found.st_mode) and found.st_size == size:
        return fd
    os.close(fd)
    raise StoreError(f"{path} has {found.st_size} bytes, and {size} are listed; {WAY_OUT}")


def sha256_of(fd: int) -> str:
    """Hash of a whole file."""
    hashed, place = hashlib.sha256(), 0
    while block := os.pread(fd, BLOCK_BYTES, place):
        hashed.update(block)
        place += len(block)
    return hashed.hexdigest()


def read_into(fd: int, target: np.ndarray, place: int) -> None:
    """Fill an array of bytes from a place of a file.

    Raises:
        StoreError: The file ends before.
    """
    view = target.data
    while view:
        count = os.preadv(fd, [view], place)
        if count == 0:
            raise StoreError(f"a shard ends at byte {place}, while it is read; {WAY_OUT}")
        view, place = view[count:], place + count


def locked(path: Path, *, is_shared: bool) -> int | None:
    """A descriptor that holds a file's lock until it is closed or the process ends; None when somebody else has it.

    A shared one is waited for: it is only refused for the moment in which somebody removes files.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


WAY_OUT = "store.drop_damaged() keeps what stands before the damage, and the same capture goes on from there"
