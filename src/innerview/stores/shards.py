"""Shards of a store: written whole, verified when they are first read, read in parts."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from innerview.errors import StoreError
from innerview.stores.files import WAY_OUT, opened, read_into, sha256_of, written_whole
from innerview.stores.layout import Layout, blank, bytes_of
from innerview.stores.ledger import Line


def write_shard(folder: Path, tensors: dict[str, Tensor], start: int) -> tuple[str, str, Layout, int]:
    """Write tensors [tokens, ...] as the shard of the tokens from `start`: its name, sha256, layout and number of tokens."""
    layout = Layout.of(tensors)
    n_tokens = len(next(iter(tensors.values())))
    parts = [memoryview(layout.header(n_tokens)), *(bytes_of(tensors[one.name]) for one in layout.kept)]
    name, sha256, _ = written_whole(folder, parts, f"{start:012d}-{start + n_tokens:012d}-{{sha256}}.safetensors")
    return name, sha256, layout, n_tokens


@dataclass(eq=False)
class Shards:
    """The shards of one folder. Each is hashed as a whole before the first number is read from it."""

    folder: Path
    _verified: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def check(self, line: Line) -> None:
        """Hash a shard, whether it was before or not.

        Raises:
            StoreError: It is gone, or not what was written.
        """
        with self._opened(line) as fd:
            self._hash(fd, line)

    @contextmanager
    def _opened(self, line: Line) -> Iterator[int]:
        """A shard that is open for a while; a disk that fails says which shard it was."""
        path = self.folder / line.file
        fd = opened(path, line.layout.size(line.n_tokens))
        try:
            yield fd
        except OSError as error:
            raise StoreError(f"{path} cannot be read: {error.strerror}; try again, or {WAY_OUT}") from error
        finally:
            os.close(fd)

    def _hash(self, fd: int, line: Line) -> None:
        found = sha256_of(fd)
        if found != line.sha256:
            raise StoreError(
                f"{self.folder / line.file} is damaged: its sha256 is {found[:16]}…, and {line.sha256[:16]}… was written; {WAY_OUT}"
            )
        with self._lock:
            self._verified.add(line.file)

    def read(self, line: Line, name: str, spans: list[tuple[int, int]]) -> Tensor:
        """Tokens of one tensor, span behind span; spans are counted from the shard's first token.

        Raises:
            StoreError: The shard is damaged.
        """
        kept = line.layout.named(name)
        if kept is None:
            raise StoreError(f"{name!r} is not stored; stored are {', '.join(line.layout.sites)}")
        first, parts = line.layout.place(name, line.n_tokens), []
        with self._opened(line) as fd:
            if line.file not in self._verified:
                self._hash(fd, line)
            for start, stop in spans:
                made, raw = blank(kept, stop - start)
                read_into(fd, raw, first + start * kept.token_bytes)
                parts.append(made)
        return parts[0] if len(parts) == 1 else torch.cat(parts)
