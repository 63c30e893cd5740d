"""Texts as rows that a network reads, each once, one behind another in one tensor."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.rows import whole_rows
from innerview.errors import FeatureError
from innerview.models import text
from innerview.models.model import Model

# Rows of like length run together, but only among so many neighbours: a pass that is stopped has then read texts as they come.
NEIGHBOURS = 512
READ_TOGETHER = 64


@dataclass(frozen=True, eq=False)
class Corpus:
    """Rows of ids, no two alike.

    Attributes:
        ids: Every row behind the one before, int32.
        starts: Where each row starts in `ids`, and where the last ends, shape [rows + 1].
        texts: Number of the text that each row is of, shape [rows].
        firsts: Position in its text of each row's first token, shape [rows]; −1 under a BOS that was put before a later piece.
        is_read: Whether each token counts, shape of `ids`.
        n_texts: Texts that were given.
        n_twice: Rows that were left out because another is the same.
    """

    ids: Int[Tensor, "tokens"]
    starts: Int[Tensor, "rows_and_1"]
    texts: Int[Tensor, "rows"]
    firsts: Int[Tensor, "rows"]
    is_read: Bool[Tensor, "tokens"]
    n_texts: int
    n_twice: int

    @classmethod
    def of(cls, model: Model, texts: Any, *, reads_bos: bool) -> "Corpus":
        """The rows of some texts.

        Args:
            model: The network that reads them; texts longer than its context are cut.
            texts: Texts, chats, or rows of ids; what gives them one by one is read to its end.
            reads_bos: Whether a special token at the front of a row counts.
        Raises:
            TextError: They cannot be read.
        """
        rows: list[list[int]] = []
        seen: set[bytes] = set()
        origin: list[tuple[int, int]] = []
        n_texts = n_twice = 0
        for whole in (row for some in _batches(texts) for row in whole_rows(model, some)):
            nth, n_texts = n_texts, n_texts + 1
            for first, row in _pieces(model, whole):
                key = hashlib.blake2b(repr(row).encode(), digest_size=16).digest()
                n_twice += key in seen
                if key not in seen:
                    seen.add(key)
                    rows.append(row)
                    origin.append((nth, first))
        lengths = torch.tensor([len(row) for row in rows])
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        ids = torch.tensor([one for row in rows for one in row], dtype=torch.int32)
        is_read = torch.ones(len(ids), dtype=torch.bool)
        if not reads_bos:
            is_front = torch.tensor([text.is_special(model, row[0]) for row in rows])
            is_read[starts[:-1][is_front]] = False
        places = torch.tensor(origin)
        return cls(ids, starts, places[:, 0], places[:, 1], is_read, n_texts, n_twice)

    @property
    def n_rows(self) -> int:
        """Rows that are read."""
        return len(self.texts)

    def row(self, number: int) -> list[int]:
        """Ids of one row."""
        return self.ids[int(self.starts[number]) : int(self.starts[number + 1])].tolist()

    def row_of(self, place: int) -> int:
        """The row that a token stands in."""
        return int(torch.searchsorted(self.starts, torch.tensor(place), right=True)) - 1

    def groups(self, tokens: int) -> list[list[int]]:
        """Numbers of the rows that run together, at most so many tokens with pads."""
        lengths = (self.starts[1:] - self.starts[:-1]).tolist()
        made: list[list[int]] = []
        for block in range(0, self.n_rows, NEIGHBOURS):
            order = sorted(range(block, min(block + NEIGHBOURS, self.n_rows)), key=lengths.__getitem__)
            held: list[int] = []
            for row in order:
                # Sorted by length, so this row is the longest of the group.
                if held and lengths[row] * (len(held) + 1) > tokens:
                    made.append(held)
                    held = []
                held.append(row)
            made.append(held)
        return made

    @property
    def sha256(self) -> str:
        """Hash of the rows, and of which tokens count."""
        parts = (self.ids, self.starts, self.is_read)
        return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


def reads_bos(dictionary: Dictionary) -> bool:
    """Whether a dictionary was made of BOS tokens too: only where its manifest says so."""
    return dictionary.manifest.bos == "prepended"


def checked_dictionary(dictionary: Any) -> Dictionary:
    """A dictionary of one site.

    Raises:
        FeatureError: It is something else.
    """
    if isinstance(dictionary, Dictionary):
        return dictionary
    raise FeatureError(
        f"features are read from a Dictionary, not from {type(dictionary).__name__}: {dictionary!r:.60}; iv.load_dictionary gives one"
    )


def _batches(texts: Any) -> Iterator[Any]:
    """Texts some at a time: read together, all would be padded to the longest."""
    if isinstance(texts, Tensor):
        yield from texts.split(READ_TOGETHER) if texts.ndim == 2 and len(texts) else (texts,)
        return
    listed = texts.tolist() if hasattr(texts, "tolist") else list(texts) if isinstance(texts, Iterator) else texts
    is_many = isinstance(listed, (list, tuple)) and len(listed) > 0 and not isinstance(listed[0], (int, Mapping))
    if not is_many:
        yield listed
        return
    for start in range(0, len(listed), READ_TOGETHER):
        yield list(listed[start : start + READ_TOGETHER])


def _pieces(model: Model, row: list[int]) -> Iterator[tuple[int, list[int]]]:
    """A row as long as the network reads, or several, each under the BOS of the whole; and where in the text each starts."""
    if model.context is None or len(row) <= model.context:
        yield 0, row
        return
    front = row[:1] if text.starts_with_bos(model, row) else []
    size = model.context - len(front)
    for start in range(len(front), len(row), size):
        yield start - len(front), front + row[start : start + size]
