"""An activation store: a folder that captures write to, and that dictionaries and probes read from."""

import hashlib
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.errors import StoreError
from innerview.interrupts import Uninterrupted
from innerview.models.model import Model
from innerview.stores import shuffling
from innerview.stores.files import locked
from innerview.stores.layout import IDS, PLACES, ROWS, Kept, Layout
from innerview.stores.ledger import NAME, SHARD, Ledger, Line
from innerview.stores.pieces import Entries, chain_of
from innerview.stores.shards import Shards, write_shard

SHARD_BYTES = 64 << 20
BUFFER_BYTES = 256 << 20
BOS_SHARDS = 64
READERS, WRITER = "readers.lock", "writer.lock"


def open_store(
    folder: str | os.PathLike[str], *, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES
) -> "Store":
    """The activation store in a folder; an empty one where there is none yet.

    What is listed when it is opened is what it shows, whatever is written meanwhile; `.refresh()` opens it anew. The first write makes
    it the one writer.

    Args:
        folder: The folder; made at the first write.
        dtype: Number format that activations are stored in; theirs when None.
        shard_bytes: Size at which a shard is written. What waits for it is lost by a kill, and is not counted in `n_tokens`.
    Raises:
        StoreError: The folder is damaged, or is no store.
    """
    return Store(folder, dtype=dtype, shard_bytes=shard_bytes)


class Store:
    """Activations on disk, token behind token: `iv.capture(model, texts, sites, to=store)` writes, `.batches` reads.

    The same capture again goes on behind the last row that is stored, so that a cell which was killed is run again, and one that was
    done adds nothing.
    """

    def __init__(self, folder: Any, *, dtype: torch.dtype | None = None, shard_bytes: int = SHARD_BYTES) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"{self.folder} is no folder; a store is one")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise StoreError(f"dtype= is a floating-point format such as torch.float16, not {dtype!r}")
        if isinstance(shard_bytes, bool) or not isinstance(shard_bytes, int) or shard_bytes < 1:
            raise StoreError(f"shard_bytes is a number of bytes from 1, not {shard_bytes!r}")
        self._dtype, self._shard_bytes = dtype, shard_bytes
        self._shards = Shards(self.folder)
        self._lock = threading.RLock()
        self._writer: weakref.finalize | None = None
        self._pin = self._pinned()
        self._ledger = Ledger.read(self.folder)
        self._waiting: list[Entries] = []
        self._chain: list[str] = []

    # What it holds.

    @property
    def n_tokens(self) -> int:
        """Tokens that are on the disk."""
        return self._ledger.stop

    def __len__(self) -> int:
        return self.n_tokens

    @property
    def n_rows(self) -> int:
        """Rows of text that are on the disk."""
        return self._ledger.rows

    @property
    def generation(self) -> int:
        """Number of shards that are listed: each write begins another generation."""
        return len(self._ledger.lines)

    @property
    def sites(self) -> list[str]:
        """Names of the stored sites."""
        return self._ledger.lines[0].layout.sites if self._ledger.lines else []

    @property
    def model(self) -> str:
        """Name of the network."""
        return self._listed()[0].model

    @property
    def bos(self) -> str:
        """Whether rows begin with a BOS token: `prepended` or `absent`; `unknown` where nothing tells it, or rows differ.

        Looked up in as many as 64 shards from the first to the last.
        """
        lines = self._listed()
        if not {IDS, PLACES} <= {one.name for one in lines[0].layout.kept}:
            return "unknown"
        found: set[bool] = set()
        for line in lines[:: max(1, len(lines) // BOS_SHARDS)] + lines[-1:]:
            if line.bos is None:
                return "unknown"
            ids, places = self.ids(line.start, line.stop), self.places(line.start, line.stop)[1]
            found |= set((ids[places == 0] == line.bos).tolist())
        if len(found) != 1:
            return "unknown"
        return "prepended" if found.pop() else "absent"

    def shape(self, site: str) -> tuple[int, ...]:
        """Shape of one token's activation."""
        return self._kept(site).shape

    def dtype(self, site: str) -> torch.dtype:
        """Number format of a site."""
        return self._kept(site).dtype

    @property
    def sha256(self) -> str:
        """Hash of the hashes of all shards: equal where the same was written in the same shards."""
        return hashlib.sha256("".join(line.sha256 for line in self._ledger.lines).encode()).hexdigest()

    def frame(self) -> pd.DataFrame:
        """One row a shard: its file, tokens, rows behind it, bytes and hash."""
        columns = ["file", "start", "stop", "rows", "bytes", "sha256"]
        listed = [(n.file, n.start, n.stop, n.rows, n.layout.size(n.n_tokens), n.sha256) for n in self._ledger.lines]
        return pd.DataFrame(listed, columns=columns)

    def refresh(self) -> "Store":
        """The store as it is now, opened anew."""
        return Store(self.folder, dtype=self._dtype, shard_bytes=self._shard_bytes)

    # Reading.

    def read(self, site: str, start: int = 0, stop: int | None = None) -> Tensor:
        """Activations of the tokens from `start` up to, and without, `stop`, shape [tokens, ...].

        Raises:
            StoreError: The range is not stored, or a shard is damaged.
        """
        kept = self._kept(site)
        parts = [self._shards.read(line, kept.name, [span]) for line, span in self._spans(start, stop)]
        return torch.cat(parts) if parts else torch.empty(0, *kept.shape, dtype=kept.dtype)

    def ids(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Ids of the tokens, shape [tokens]."""
        return self.read(IDS, start, stop).long()

    def places(self, start: int = 0, stop: int | None = None) -> tuple[Tensor, Tensor]:
        """Row of each token, counted through the store, and its position in its row; each of shape [tokens]."""
        return self.read(ROWS, start, stop), self.read(PLACES, start, stop).long()

    def batches(
        self,
        site: str | Sequence[str],
        batch_tokens: int,
        seed: int = 0,
        *,
        first: int = 0,
        buffer_tokens: int | None = None,
    ) -> Iterator[Any]:
        """Every token once, shuffled, in batches [batch_tokens, ...]; the last may be smaller.

        Args:
            site: One site, for tensors; several, for the same tokens of each, by site.
            batch_tokens: Tokens of a batch.
            seed: Of the order; the same seed gives the same batches.
            first: Batches to leave out at the front, without reading them: to go on behind a stop.
            buffer_tokens: Tokens that are held and shuffled at once; 256 MiB of them when None.
        Raises:
            StoreError: Nothing is stored, a number is below its least, or a shard is damaged.
        """
        names = [site] if isinstance(site, str) else list(site)
        width = sum(self._kept(name).token_bytes for name in names)
        for name, given, least in (
            ("batch_tokens", batch_tokens, 1), ("first", first, 0), ("buffer_tokens", buffer_tokens or 1, 1),
        ):  # fmt: skip
            if isinstance(given, bool) or not isinstance(given, int) or given < least:
                raise StoreError(f"{name} is a whole number from {least}, not {given!r}")
        size = buffer_tokens or max(batch_tokens, BUFFER_BYTES // max(1, width))
        found = self._batches(self._listed(), names, batch_tokens, seed, first, size)
        return (batch[site] for batch in found) if isinstance(site, str) else found

    def _batches(
        self, lines: tuple[Line, ...], names: list[str], batch_tokens: int, seed: int, first: int, size: int
    ) -> Iterator[dict[str, Tensor]]:
        filled = (
            (len(order), lambda held=held, order=order: self._filled(lines, names, held, order))
            for held, order in shuffling.buffers([line.n_tokens for line in lines], size, seed)
        )
        return shuffling.batches(filled, batch_tokens, first)

    def _filled(
        self, lines: tuple[Line, ...], names: list[str], held: list[shuffling.Block], order: Tensor
    ) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for name in names:
            spans: dict[int, list[tuple[int, int]]] = {}
            for block in held:
                spans.setdefault(block.shard, []).append((block.start, block.stop))
            parts = [self._shards.read(lines[shard], name, listed) for shard, listed in spans.items()]
            made[name] = torch.cat(parts)[order]
        return made

    def verify(self) -> None:
        """Hash every shard.

        Raises:
            StoreError: Some are damaged; each is named.
        """
        wrong = [told for told in map(self._damage, self._ledger.lines) if told]
        if wrong:
            raise StoreError(f"{len(wrong)} of {self.generation} shards are damaged: {' · '.join(wrong)}")

    def _damage(self, line: Line) -> str:
        try:
            self._shards.check(line)
        except StoreError as error:
            return str(error)
        return ""

    def _listed(self) -> tuple[Line, ...]:
        if not self._ledger.lines:
            raise StoreError(f"the store at {self.folder} holds nothing yet; iv.capture(model, texts, sites, to=store)")
        return self._ledger.lines

    def _kept(self, site: str) -> Kept:
        layout = self._listed()[0].layout
        kept = layout.named(site)
        if kept is None:
            raise StoreError(f"{site!r} is not stored; stored are {', '.join(layout.sites)}")
        return kept

    def _spans(self, start: int, stop: int | None) -> Iterator[tuple[Line, tuple[int, int]]]:
        end = self.n_tokens if stop is None else stop
        if not 0 <= start <= end <= self.n_tokens:
            raise StoreError(f"tokens {start} to {end} are not stored; {self.n_tokens} are")
        for line in self._ledger.lines:
            low, high = max(start, line.start), min(end, line.stop)
            if low < high:
                yield line, (low - line.start, high - line.start)

    # Writing.

    def append(self, piece: Activations) -> int:
        """Take a piece of a capture, real tokens only; the number of tokens that are on the disk by then.

        Raises:
            StoreError: It does not fit what is stored, somebody else writes, or the disk did not take it.
        """
        entries = Entries.of(piece, self._dtype)
        with self._lock:
            self._write_access()
            self._check(entries)
            self._waiting.append(entries)
            if sum(one.n_bytes for one in self._waiting) >= self._shard_bytes:
                self.flush()
            return self.n_tokens

    def flush(self) -> int:
        """Write what waits; the number of tokens that are on the disk then.

        Raises:
            StoreError: The disk did not take it. What waits still waits, so that it can be tried again.
        """
        with self._lock:
            if any(one.n_tokens for one in self._waiting):
                with Uninterrupted():
                    self._commit()
            return self.n_tokens

    def begin(self, model: Model, asked: str | None, rows: Sequence[bytes] = ()) -> int:
        """A capture begins; how many of its rows are stored already, which it leaves out.

        Args:
            model: The network.
            asked: Everything that the capture asks for, as text; None where it cannot be told, so that nothing is left out.
            rows: What each row is.
        """
        with self._lock:
            self._write_access()
            self.flush()
            self._chain = [] if asked is None else chain_of(model, f"{asked}\x1f{self._dtype}", rows)
            known = {line.asked for line in self._ledger.lines if line.asked}
            return next((n for n in range(len(self._chain), 0, -1) if self._chain[n - 1] in known), 0)

    def drop_damaged(self) -> int:
        """Keep what stands before the first damage, and forget the rest; the number of tokens that are kept.

        Raises:
            StoreError: Somebody else writes.
        """
        with self._lock:
            if self._writer is None:
                self._write_access(is_mending=True)
            whole = Ledger.read(self.folder, until_damage=True)
            kept = 0
            while kept < len(whole.lines) and not self._damage(whole.lines[kept]):
                kept += 1
            self._ledger = whole.cut(self.folder, kept)
            self._collect()
            return self.n_tokens

    def close(self) -> None:
        """Write what waits, and let others write."""
        with self._lock:
            try:
                self.flush()
            finally:
                if self._writer is not None:
                    self._writer()
                    self._writer = None

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _commit(self) -> None:
        """Shard first, then its line: what is listed is there."""
        first, tensors = self._waiting[0], self._joined()
        try:
            name, sha256, layout, n_tokens = write_shard(self.folder, tensors, self.n_tokens)
            rows = self.n_rows + sum(one.n_rows for one in self._waiting)
            line = Line(
                name,
                sha256,
                self.n_tokens,
                self.n_tokens + n_tokens,
                rows,
                first.model,
                layout,
                self._asked(),
                first.bos,
            )
            self._ledger = self._ledger.with_line(self.folder, line)
        except OSError as error:
            waiting = sum(one.n_tokens for one in self._waiting)
            raise StoreError(
                f"{self.folder} took no shard of {sum(t.nbytes for t in tensors.values())} bytes: {error.strerror}; {self.n_tokens} tokens "
                f"are safe, {waiting} wait: make room, then store.flush()"
            ) from error
        self._waiting = []

    def _asked(self) -> str:
        given = self._waiting[-1].given
        return self._chain[given[-1]] if given and given[-1] < len(self._chain) else ""

    def _joined(self) -> dict[str, Tensor]:
        made: dict[str, list[Tensor]] = {}
        rows = self.n_rows
        for entries in self._waiting:
            for name, tensor in entries.tensors.items():
                made.setdefault(name, []).append(tensor + rows if name == ROWS else tensor)
            rows += entries.n_rows
        return {name: torch.cat(parts) for name, parts in made.items()}

    def _check(self, entries: Entries) -> None:
        layout = Layout.of(entries.tensors)
        before = self._ledger.lines[0].layout if self._ledger.lines else None
        model = self._ledger.lines[0].model if self._ledger.lines else entries.model
        if self._waiting:
            before, model = Layout.of(self._waiting[0].tensors), self._waiting[0].model
        if model != entries.model:
            raise StoreError(
                f"{self.folder} holds activations of {model!r}, not of {entries.model!r}; open another folder"
            )
        if before is not None and before != layout:
            told = (", ".join(f"{n.name} {n.dtype} {list(n.shape)}" for n in one.kept) for one in (before, layout))
            raise StoreError(f"{self.folder} holds {next(told)}; this piece has {next(told)}; open another folder")

    def _write_access(self, *, is_mending: bool = False) -> None:
        """Become the one writer: what others wrote is read, and what no line names is removed.

        Raises:
            StoreError: Somebody else writes, or the folder cannot be written to.
        """
        if self._writer is not None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            fd = locked(self.folder / WRITER, is_shared=False)
        except OSError as error:
            raise StoreError(f"{self.folder} cannot be written to: {error.strerror}") from error
        if fd is None:
            raise StoreError(f"somebody else writes to {self.folder}; close that store, or end that kernel")
        self._writer = weakref.finalize(self, os.close, fd)
        try:
            self._ledger = Ledger.read(self.folder, until_damage=is_mending)
            self._collect()
        except BaseException:
            self._writer()
            self._writer = None
            raise

    def _collect(self) -> None:
        """Remove shards that no line names, unless somebody reads: a reader may hold an older manifest."""
        if self._pin is not None:
            self._pin()
        fd = locked(self.folder / READERS, is_shared=False)
        if fd is not None:
            try:
                listed = {line.file for line in self._ledger.lines}
                for path in self.folder.iterdir():
                    if (SHARD.fullmatch(path.name) and path.name not in listed) or path.name in (
                        "shard.tmp",
                        f"{NAME}.tmp",
                    ):
                        path.unlink()
            finally:
                os.close(fd)
        self._pin = self._pinned()

    def _pinned(self) -> weakref.finalize | None:
        """Holds off whoever would remove shards, until this store is gone."""
        if not self.folder.is_dir() or not os.access(self.folder, os.W_OK):
            return None
        fd = locked(self.folder / READERS, is_shared=True)
        return None if fd is None else weakref.finalize(self, os.close, fd)

    def __repr__(self) -> str:
        held = f"{self.n_tokens} tokens of {', '.join(self.sites)}" if self._ledger.lines else "empty"
        waits = sum(one.n_tokens for one in self._waiting)
        return f"Store({str(self.folder)!r}, {held}{f', {waits} waiting' if waits else ''})"
