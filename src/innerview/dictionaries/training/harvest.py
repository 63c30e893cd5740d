"""Activations that are harvested while a dictionary trains: the network reads texts, one window of tokens ahead."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.manifest import Bos
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.windows import Batch, Chunk, mixed
from innerview.errors import DictionaryError
from innerview.models.model import Model

# Tokens of one forward.
CHUNK_TOKENS = 8192
LONGEST = 1024
# Tokens on each side of a token that its example shows, and the name under which they travel with activations.
AROUND = 8
CONTEXT = "tokens around"


@dataclass(eq=False)
class Harvest:
    """Activations of texts.

    Attributes:
        network: What reads them.
        texts: Texts, or rows of ids: a list, which is shuffled, or anything that gives them one after the other.
        buffer_tokens: Tokens that are mixed at once.
        keeps_bos: Whether BOS tokens are kept.
        context: Tokens of a row.
        processes: Those that harvest together.
    """

    network: Model
    texts: Iterable[Any]
    buffer_tokens: int
    keeps_bos: bool
    context: int
    processes: Processes
    n_tokens: int | None = None
    _with_bos: set[bool] = field(default_factory=set)

    @property
    def model(self) -> str:
        """Name of the network."""
        return self.network.name

    @property
    def bos(self) -> Bos:
        """What became of BOS tokens, as far as texts were read."""
        if self._with_bos == {False}:
            return "absent"
        if self._with_bos == {True}:
            return "prepended" if self.keeps_bos else "excluded"
        return "unknown"

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        return mixed(self._chunks(sites, seed), self.buffer_tokens, batch_tokens, seed, first=first, fill=self._fill)

    def counted(self) -> int | None:
        """Tokens of one pass; None where texts come only once."""
        if not isinstance(self.texts, (Sequence, Tensor)):
            return None
        return sum(len(row) - self._dropped(row) for row in self._rows(0))

    def _chunks(self, sites: Sequence[str], seed: int) -> Iterator[Chunk]:
        of = torch.Generator().manual_seed(seed)
        for pool in _pools(self._rows(seed), self.buffer_tokens):
            # Rows of one forward are padded to its longest: of texts in any order most of it would be padding.
            made = list(_pools(sorted(pool, key=len), CHUNK_TOKENS))
            for nth in torch.randperm(len(made), generator=of).tolist():
                yield self._chunk(made[nth], sites)

    def _chunk(self, rows: list[list[int]], sites: Sequence[str]) -> Chunk:
        kept = sum(len(row) - self._dropped(row) for row in rows)
        return Chunk(kept, lambda: self._harvested(rows, sites))

    def _dropped(self, row: list[int]) -> int:
        """Tokens at the front of a row that are not trained on."""
        bos = getattr(self.network.tokenizer, "bos_token_id", None)
        has_bos = bos is not None and row[0] == bos
        self._with_bos.add(has_bos)
        return int(has_bos and not self.keeps_bos)

    def _harvested(self, rows: list[list[int]], sites: Sequence[str]) -> Batch:
        with torch.no_grad():
            found = capture(self.network, rows, list(sites), hermetic=True, progress=False)
        mask = found.mask
        if mask is None:
            raise DictionaryError(
                f"{self.network.name} reads no token ids; capture its activations and give the tensor"
            )
        mask = mask.clone()
        for nth, row in enumerate(rows):
            mask[nth, : self._dropped(row)] = False
        made = {site: found[site][mask.to(found[site].device)].flatten(1) for site in sites}
        return made | {CONTEXT: self._contexts(rows)}

    def _contexts(self, rows: list[list[int]]) -> Tensor:
        """The ids around each kept token, -1 beyond the row, shape [n, 2 · AROUND + 1]."""
        parts = []
        for row in rows:
            ids = torch.nn.functional.pad(torch.tensor(row, dtype=torch.int32), (AROUND, AROUND), value=-1)
            parts.append(ids.unfold(0, 2 * AROUND + 1, 1)[self._dropped(row) :])
        return torch.cat(parts)

    def _fill(self, chunks: list[Chunk]) -> None:
        """Each process harvests its share of a window's chunks, and sends it to the others."""
        missing = [chunk for chunk in chunks if chunk.loaded is None]
        for nth, chunk in enumerate(missing):
            if nth % self.processes.count == self.processes.rank:
                chunk.loaded = chunk.load()
        if self.processes.count > 1:
            self._exchange(missing)

    def _exchange(self, chunks: list[Chunk]) -> None:
        for nth, chunk in enumerate(chunks):
            owner = nth % self.processes.count
            # Names and widths are the same everywhere; only the owner has the numbers.
            example = chunk.loaded or chunks[self.processes.rank].loaded if len(chunks) > self.processes.rank else None
            if example is None:
                example = chunk.load()
            blank = {
                name: t.new_empty(chunk.n_tokens, *t.shape[1:]) for name, t in example.items()
            } if chunk.loaded is None else chunk.loaded  # fmt: skip
            chunk.loaded = {name: self.processes.sent(tensor, owner) for name, tensor in blank.items()}

    # Rows of ids.

    def _rows(self, seed: int) -> Iterator[list[int]]:
        for given in self._ordered(seed):
            yield from self._cut(self._ids(given))

    def _ordered(self, seed: int) -> Iterator[Any]:
        if not isinstance(self.texts, (Sequence, Tensor)):
            yield from self.texts
            return
        order = torch.randperm(len(self.texts), generator=torch.Generator().manual_seed(seed))
        yield from (self.texts[place] for place in order.tolist())

    def _ids(self, given: Any) -> list[int]:
        if isinstance(given, str):
            if self.network.tokenizer is None:
                raise DictionaryError(f"{self.network.name} has no tokenizer to read {given[:40]!r}; give rows of ids")
            return list(self.network.tokenizer(given, verbose=False)["input_ids"])
        ids = given.tolist() if hasattr(given, "tolist") else list(given)
        if not ids or not all(isinstance(one, int) for one in ids):
            raise DictionaryError(f"a text to train on is a string or a row of ids, not {given!r}")
        return ids

    def _cut(self, ids: list[int]) -> Iterator[list[int]]:
        """A row in pieces that the network can read, each with the BOS token that the whole has."""
        bos = getattr(self.network.tokenizer, "bos_token_id", None)
        front = ids[:1] if ids and ids[0] == bos else []
        size = self.context - len(front)
        for start in range(len(front), len(ids), size):
            yield front + ids[start : start + size]


def _pools(rows: Iterable[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    """Rows together that have so many tokens at most, or are one row."""
    held: list[list[int]] = []
    size = 0
    for row in rows:
        if held and size + len(row) > tokens:
            yield held
            held, size = [], 0
        held.append(row)
        size += len(row)
    if held:
        yield held


def context_of(model: Model, given: int | None) -> int:
    """Tokens of a row, for a network."""
    limit = model.context or LONGEST
    return min(given or min(limit, LONGEST), limit)
