"""Texts as rows that a network reads, each once, one behind another in one tensor."""

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.rows import whole_rows
from innerview.errors import FeatureError, TextError
from innerview.models import text
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.sides import is_decoders, is_pair

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
        notes: What else to know of the texts, in words.
    """

    ids: Int[Tensor, "tokens"]
    starts: Int[Tensor, "rows_and_1"]
    texts: Int[Tensor, "rows"]
    firsts: Int[Tensor, "rows"]
    is_read: Bool[Tensor, "tokens"]
    n_texts: int
    n_twice: int
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, model: Model, texts: Any, *, reads_bos: bool, max_tokens: int | None = None) -> "Corpus":
        """The rows of some texts; empty ones among others are left out.

        Args:
            model: The network that reads them; texts longer than its context are cut.
            texts: Texts, chats, or rows of ids; what gives them one by one is read a few at a time, to its end unless `max_tokens` come before.
            reads_bos: Whether a special token at the front of a row counts.
            max_tokens: Texts are read until there are so many tokens; the last one is read whole. All of them when None.
        Raises:
            TextError: They cannot be read.
        """
        # As plain numbers: lists of them take several times the room, and a corpus has millions.
        rows: list[np.ndarray] = []
        seen: set[bytes] = set()
        origin: list[tuple[int, int]] = []
        n_texts = n_twice = n_empty = n_tokens = 0
        for nth, whole in _whole(model, texts):
            n_texts = nth + 1
            n_empty += not whole
            for first, piece in _pieces(model, whole) if whole else ():
                row = np.array(piece, dtype=np.int32)
                key = hashlib.blake2b(row.tobytes(), digest_size=16).digest()
                n_twice += key in seen
                if key not in seen:
                    seen.add(key)
                    rows.append(row)
                    origin.append((nth, first))
                    n_tokens += len(piece)
            if max_tokens is not None and n_tokens >= max_tokens:
                break
        if not rows:
            raise TextError(f"all {n_texts} texts are empty; give at least one word")
        lengths = torch.tensor([len(row) for row in rows])
        starts = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        ids = torch.from_numpy(np.concatenate(rows))
        is_read = torch.ones(len(ids), dtype=torch.bool)
        if not reads_bos:
            is_front = torch.tensor([text.is_special(model, int(row[0])) for row in rows])
            is_read[starts[:-1][is_front]] = False
        places = torch.tensor(origin)
        told = [f"{n_empty} empty texts were left out"] if n_empty else []
        if max_tokens is not None and n_tokens >= max_tokens:
            told.insert(0, f"texts were read until there were {max_tokens} tokens, as asked")
        notes = (*told, *bos_notes(model, rows, reads_bos))
        return cls(ids, starts, places[:, 0], places[:, 1], is_read, n_texts, n_twice, notes)

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

    def groups(self, tokens: int, *, is_even: bool = False) -> list[list[int]]:
        """Numbers of the rows that run together, at most so many tokens with pads.

        Args:
            tokens: How many.
            is_even: Whether rows that run together are of one length, for networks that are told of no pads.
        """
        lengths = (self.starts[1:] - self.starts[:-1]).tolist()
        made: list[list[int]] = []
        for block in range(0, self.n_rows, NEIGHBOURS):
            order = sorted(range(block, min(block + NEIGHBOURS, self.n_rows)), key=lengths.__getitem__)
            held: list[int] = []
            for row in order:
                # Sorted by length, so this row is the longest of the group.
                is_longer = is_even and held and lengths[row] != lengths[held[0]]
                if held and (is_longer or lengths[row] * (len(held) + 1) > tokens):
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


def bos_notes(model: Model, rows: Sequence[np.ndarray], reads_bos: bool) -> tuple[str, ...]:
    """What is unusual about the BOS tokens of some rows: too many, or too few."""
    bos, n = getattr(model.tokenizer, "bos_token_id", None), len(rows)
    if bos is None:
        return ()
    doubled = sum(row[:2].tolist() == [bos, bos] for row in rows)
    bare = sum(int(row[0]) != bos for row in rows)
    told = (
        [f"{doubled} of {n} rows begin with two BOS tokens: the texts hold one, and the tokenizer adds another"]
        if doubled
        else []
    )
    told += (
        [f"{bare} of {n} rows have no BOS token, and the dictionary was trained on texts that begin with one"]
        if bare and reads_bos
        else []
    )
    return tuple(told)


def checked_model(model: Any) -> Model:
    """A network.

    Raises:
        FeatureError: It is something else.
    """
    if isinstance(model, Model):
        return model
    raise FeatureError(
        f"features are read in a Model, not in {type(model).__name__}: {model!r:.60}; iv.open_model gives one"
    )


def takes_pads(model: Model) -> bool:
    """Whether a network is told which tokens are pads: others would read them as text."""
    return "attention_mask" in inspect.signature(model.module.forward).parameters


def given_to(model: Model, rows: Sequence[Sequence[int]]) -> Any:
    """Rows of ids as `capture` takes them: a bare tensor for a network whose forward knows no `input_ids`; all are of one length then."""
    is_named = "input_ids" in inspect.signature(model.module.forward).parameters
    return rows if is_named else torch.tensor(rows, device=model.device)


def checked_site(model: Model, dictionary: Dictionary) -> Site:
    """The site of a network that a dictionary reads.

    Raises:
        SiteError: There is none.
        FeatureError: It is on the decoder's side of an encoder-decoder, whose tokens are not those of the texts.
    """
    site = model.site(dictionary.site)
    if is_pair(model.module) and is_decoders(model.module, site.point):
        raise FeatureError(
            f"{site.name} is in the decoder of {model.name}, which does not read the texts but what it has written; take a site of the "
            "encoder, or open the decoder by itself: iv.open_model(model.module.get_decoder(), tokenizer=...)"
        )
    return site


def _whole(model: Model, texts: Any) -> Iterator[tuple[int, list[int]]]:
    """Each text's number and ids, however long; none for an empty one."""
    nth = 0
    for some in _batches(texts):
        if not isinstance(some, list):
            yield from enumerate(whole_rows(model, some), nth)
            continue
        given = [one for one in some if not _is_empty(one)]
        try:
            rows = iter(whole_rows(model, given) if given else [])
        except TextError as error:
            raise _named(model, some, nth, error) from error
        for one in some:
            yield nth, [] if _is_empty(one) else next(rows)
            nth += 1


def _is_empty(one: Any) -> bool:
    return not one.strip() if isinstance(one, str) else isinstance(one, (list, tuple)) and not one


def _named(model: Model, some: list[Any], nth: int, error: TextError) -> TextError:
    """The error with the number of the text that it is about."""
    for place, one in enumerate(some):
        try:
            whole_rows(model, one if _is_empty(one) else [one])
        except TextError as own:
            if not _is_empty(one):
                return TextError(f"text {nth + place}, counted from 0: {own}")
    return error


def _batches(texts: Any) -> Iterator[Any]:
    """Texts some at a time: read together, all would be padded to the longest."""
    if isinstance(texts, Tensor):
        yield from texts.split(READ_TOGETHER) if texts.ndim == 2 and len(texts) else (texts,)
        return
    if isinstance(texts, Iterable) and not isinstance(texts, Sized) and not hasattr(texts, "column_names"):
        some = iter(texts)
        block = list(islice(some, READ_TOGETHER))
        if not block or isinstance(block[0], (int, Mapping)):
            # One text, which is read as a whole.
            yield from _batches([*block, *some])
        while block and not isinstance(block[0], (int, Mapping)):
            yield from _batches(block)
            block = list(islice(some, READ_TOGETHER))
        return
    listed = _listed(texts)
    is_many = isinstance(listed, (list, tuple)) and len(listed) > 0 and not isinstance(listed[0], (int, Mapping))
    if not is_many:
        yield listed if not isinstance(listed, list) else tuple(listed)
        return
    for start in range(0, len(listed), READ_TOGETHER):
        yield [one.tolist() if hasattr(one, "tolist") else one for one in listed[start : start + READ_TOGETHER]]


def _listed(texts: Any) -> Any:
    """What holds or gives texts, as a list; a text alone as it is.

    Raises:
        TextError: It is a table or has no order.
    """
    for name in ("columns", "column_names"):
        if hasattr(texts, name):
            raise TextError(
                f"texts are one column, not a whole {type(texts).__name__}; give such as texts[{str(next(iter(getattr(texts, name)), 'text'))!r}]"
            )
    if isinstance(texts, (Set, Mapping)):
        raise TextError(f"texts come in an order, which a {type(texts).__name__} does not give; give a list of them")
    for name in ("tolist", "to_list", "to_pylist"):
        if hasattr(texts, name):
            return getattr(texts, name)()
    return list(texts) if isinstance(texts, Iterable) and not isinstance(texts, (str, bytes, list, tuple)) else texts


def _pieces(model: Model, row: list[int]) -> Iterator[tuple[int, list[int]]]:
    """A row as long as the network reads, or several, each under the BOS of the whole; and where in the text each starts."""
    if model.context is None or len(row) <= model.context:
        yield 0, row
        return
    front = row[:1] if text.starts_with_bos(model, row) else []
    size = model.context - len(front)
    for start in range(len(front), len(row), size):
        yield start - len(front), front + row[start : start + size]
