"""The manifest of a store: one CRC-framed line a shard, appended when the shard is on the disk. It is the only truth."""

import json
import os
import re
import zlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from innerview.errors import StoreError
from innerview.stores.files import WAY_OUT, sync_folder, write_all
from innerview.stores.layout import Layout

NAME = "manifest"
VERSION = 1
SHARD = re.compile(r"\d{12}-\d{12}-[0-9a-f]{16}\.safetensors")


@dataclass(frozen=True)
class Line:
    """One shard.

    Attributes:
        file: Its name in the folder.
        sha256: Hash of the whole file.
        start: Number of its first token.
        stop: Number behind its last one.
        rows: Rows of text in the store, behind this shard.
        model: Name of the network.
        layout: What it holds.
        asked: Hash of the capture and of its rows up to here, by which the same capture goes on; empty when it cannot.
        bos: Id of the tokenizer's BOS token; None where it is not known.
    """

    file: str
    sha256: str
    start: int
    stop: int
    rows: int
    model: str
    layout: Layout
    asked: str = ""
    bos: int | None = None

    @property
    def n_tokens(self) -> int:
        """Tokens of the shard."""
        return self.stop - self.start

    def framed(self) -> bytes:
        """The line as it stands in the manifest."""
        told = {
            "version": VERSION, "file": self.file, "sha256": self.sha256, "tokens": [self.start, self.stop], "rows": self.rows,
            "model": self.model, "sites": self.layout.to_dict(), "asked": self.asked, "bos": self.bos,
        }  # fmt: skip
        body = json.dumps(told, separators=(",", ":")).encode()
        return b"%08x %b\n" % (zlib.crc32(body), body)

    @classmethod
    def of(cls, told: Any) -> "Line":
        """The line that some JSON says.

        Raises:
            StoreError: It was written by another version, or is none.
        """
        if not isinstance(told, dict) or told.get("version") != VERSION:
            raise StoreError(
                f"a line of the manifest is of version {told.get('version') if isinstance(told, dict) else None!r}, and {VERSION} is read here"
            )
        try:
            start, stop = map(int, told["tokens"])
            made = cls(
                str(told["file"]), str(told["sha256"]), start, stop, int(told["rows"]), str(told["model"]),
                Layout.from_dict(told["sites"]), str(told["asked"]), None if told.get("bos") is None else int(told["bos"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"a line of the manifest lacks what is needed: {error!r}") from error
        if not SHARD.fullmatch(made.file) or not 0 <= start < stop:
            raise StoreError(
                f"a line of the manifest names {made.file!r} for tokens {start} to {stop}, which is no shard"
            )
        return made


@dataclass(frozen=True)
class Ledger:
    """The lines of a manifest, and how many of its bytes they take."""

    lines: tuple[Line, ...] = ()
    n_bytes: int = 0

    @property
    def stop(self) -> int:
        """Number behind the last token."""
        return self.lines[-1].stop if self.lines else 0

    @property
    def rows(self) -> int:
        """Rows of text."""
        return self.lines[-1].rows if self.lines else 0

    @classmethod
    def read(cls, folder: Path, *, until_damage: bool = False) -> "Ledger":
        """What a folder's manifest says; a torn last line is not there.

        Args:
            folder: The folder of the store.
            until_damage: End at the first damaged line instead of refusing.
        Raises:
            StoreError: A line is damaged, or lines do not follow one another.
        """
        try:
            whole = (folder / NAME).read_bytes()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise StoreError(f"{folder / NAME} cannot be read: {error.strerror}") from error
        lines: list[Line] = []
        place = 0
        try:
            while (end := whole.find(b"\n", place)) >= 0:
                line = _line(whole[place:end], folder, len(lines))
                before = lines[-1] if lines else None
                if line.start != (before.stop if before else 0) or (before and before.layout != line.layout):
                    raise StoreError(f"line {len(lines)} of {folder / NAME} does not follow the one before; {WAY_OUT}")
                lines.append(line)
                place = end + 1
            _check_tail(whole[place:], folder, len(lines))
        except StoreError:
            if not until_damage:
                raise
        return cls(tuple(lines), place)

    def with_line(self, folder: Path, line: Line) -> "Ledger":
        """Append a line, and wait for the disk.

        Raises:
            OSError: The disk did not take it; the manifest is as it was.
        """
        is_new = not (folder / NAME).exists()
        fd = os.open(folder / NAME, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        framed = line.framed()
        try:
            # What a kill left of a line is cut off, so that none is ever joined to it.
            os.ftruncate(fd, self.n_bytes)
            os.lseek(fd, self.n_bytes, os.SEEK_SET)
            try:
                write_all(fd, memoryview(framed))
                os.fsync(fd)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(fd, self.n_bytes)
                raise
        finally:
            os.close(fd)
        if is_new:
            sync_folder(folder)
        return Ledger((*self.lines, line), self.n_bytes + len(framed))

    def cut(self, folder: Path, n_lines: int) -> "Ledger":
        """The manifest with its first lines only, put in the place of the old one in one step."""
        body = b"".join(line.framed() for line in self.lines[:n_lines])
        passing = folder / f"{NAME}.tmp"
        fd = os.open(passing, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        try:
            write_all(fd, memoryview(body))
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(passing, folder / NAME)
        sync_folder(folder)
        return Ledger(self.lines[:n_lines], len(body))


def _line(framed: bytes, folder: Path, nth: int) -> Line:
    crc, _, body = framed.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        raise StoreError(f"line {nth} of {folder / NAME} is damaged: its checksum does not hold; {WAY_OUT}")
    try:
        return Line.of(json.loads(body))
    except (ValueError, RecursionError) as error:
        raise StoreError(f"line {nth} of {folder / NAME} is no JSON ({error}); {WAY_OUT}") from error


def _check_tail(tail: bytes, folder: Path, nth: int) -> None:
    """Refuse a line that is whole and lost its end; what is left of a torn one is nothing.

    Raises:
        StoreError: The line was acknowledged, and its end was changed since.
    """
    crc, _, body = tail[:-1].partition(b" ")
    if tail and crc == b"%08x" % zlib.crc32(body):
        raise StoreError(f"line {nth} of {folder / NAME} is damaged: it is whole and does not end; {WAY_OUT}")
