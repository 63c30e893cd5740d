"""A batch in chunks: which rows go together, how the pieces become one result, and what an interrupt leaves."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from innerview.activations import Activations
from innerview.errors import CaptureError
from innerview.inputs import Call
from innerview.models.model import Model

# Tokens of one forward, unless told: what a forward keeps beside its result stays small then.
CHUNK_TOKENS = 8192
# Seconds before progress is shown.
PATIENCE_S = 2.0


class CaptureInterrupt(KeyboardInterrupt):
    """A capture was interrupted between its first row and its last.

    Attributes:
        partial: Activations of the rows that were done, in the given order; `partial.rows` says which. In a notebook, behind the
            interrupt: `import sys; sys.last_value.partial`.
    """

    def __init__(self, partial: Activations, total: int) -> None:
        done = 0 if partial.rows is None else len(partial.rows)
        super().__init__(
            f"stopped behind {done} of {total} rows; they are kept: catch iv.CaptureInterrupt as stop and take stop.partial, "
            "or take sys.last_value.partial in a notebook"
        )
        self.partial = partial


@dataclass(eq=False)
class Piece:
    """What one chunk leaves.

    Attributes:
        rows: Its rows in the given batch.
        values: Activations by site.
        gradients: Gradients by site, empty when none were asked for.
        tokens: Ids of the tokens kept, shape [batch, pos]; None without tokens.
        mask: True where they are real.
        positions: Their places in their rows; None when every token is kept.
        axes: By site, the axes that are as long as the tokens, and must be padded where chunks differ.
    """

    rows: list[int]
    values: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    tokens: Tensor | None = None
    mask: Tensor | None = None
    positions: Tensor | None = None
    axes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def activations(self, model: Model, *, is_part: bool) -> Activations:
        """The piece as a result of its own."""
        rows = torch.tensor(self.rows) if is_part else None
        return Activations(self.values, self.tokens, self.mask, model, self.positions, self.gradients or None, rows)


def parts(call: Call, batch_size: int | None, *, is_sorted: bool, first: int = 0) -> list[list[int]]:
    """Rows of each chunk. Rows of like length go together, the longest first, so that a batch too large fails at once.

    A network that takes no mask is given rows of one length.

    Args:
        call: What is run.
        batch_size: Rows of a chunk.
        is_sorted: Whether rows may change their order.
        first: Rows that are left out at the front.
    Raises:
        CaptureError: `batch_size` is no whole number from 1, or the inputs have no rows.
    """
    if batch_size is not None and (isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1):
        raise CaptureError(f"batch_size is a number of rows from 1, not {batch_size!r}")
    count, is_even = call.count, _must_be_even(call)
    if (
        batch_size is None
        and not is_even
        and (call.tokens is None or call.has_cache or call.tokens.ids.numel() <= CHUNK_TOKENS)
    ):
        return [list(range(first, count or 0))] if first < (count or 0) or not first else []
    if count is None:
        raise CaptureError("batch_size= takes rows apart, and no tensor of these inputs has rows; drop it")
    lengths = call.tokens.mask.sum(dim=1).tolist() if call.tokens is not None else None
    order = list(range(first, count))
    if is_sorted and lengths is not None:
        order.sort(key=lambda row: -lengths[row])
    if batch_size is not None:
        made = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    else:
        made = list(_by_tokens(order, call))
    if not is_even or lengths is None:
        return made
    return [list(rows) for chunk in made for _, rows in groupby(chunk, key=lengths.__getitem__)]


def _must_be_even(call: Call) -> bool:
    """Whether rows of several lengths go to a network that takes no mask: it would read pads as text."""
    is_told = call.tokens is None or not call.is_encoded or "attention_mask" in call.kwargs
    return not is_told and call.tokens is not None and not bool(call.tokens.mask.all())


def _by_tokens(order: list[int], call: Call) -> Iterator[list[int]]:
    assert call.tokens is not None
    widths = (
        [int(n) for n in call.tokens.mask.sum(dim=1)] if call.is_encoded else [call.tokens.ids.shape[1]] * len(order)
    )
    chunk: list[int] = []
    width = 0
    for row in order:
        width = max(width, widths[row])
        if chunk and width * (len(chunk) + 1) > CHUNK_TOKENS:
            yield chunk
            chunk, width = [], widths[row]
        chunk.append(row)
    if chunk:
        yield chunk


def run_chunks(
    model: Model, listed: list[list[int]], run: Callable[[list[int]], Piece], *, taker: Any, progress: bool | None
) -> Activations:
    """What the chunks give together, rows in the given order, padded right to the longest.

    Args:
        listed: Rows of each chunk.
        run: Runs one chunk.
        taker: Takes each piece with `append`; None collects them.
        progress: Whether to show how far it is; after two seconds when None.
    Raises:
        CaptureInterrupt: An interrupt came; what was done by then is in it.
    """
    total = sum(map(len, listed))
    done: list[Piece] = []
    is_silent = progress is False or (progress is None and len(listed) == 1)
    bar = tqdm(
        total=total, unit="row", desc="capture", leave=False, disable=is_silent, delay=0.0 if progress else PATIENCE_S
    )
    try:
        for rows in listed:
            piece = run(rows)
            if taker is not None:
                taker.append(piece.activations(model, is_part=True))
                piece = Piece(piece.rows, {}, {}, piece.tokens, piece.mask, piece.positions)
            done.append(piece)
            bar.update(len(rows))
    except KeyboardInterrupt as interrupt:
        raise CaptureInterrupt(joined(model, done, is_part=True), total) from interrupt
    finally:
        bar.close()
    return joined(model, done, is_part=False)


def joined(model: Model, pieces: list[Piece], *, is_part: bool) -> Activations:
    """The pieces as one result; pads between chunks of several lengths are zero."""
    rows = [row for piece in pieces for row in piece.rows]
    order = torch.tensor(sorted(range(len(rows)), key=rows.__getitem__), dtype=torch.long)
    kept = torch.tensor(sorted(rows)) if is_part else None
    if not pieces:
        return Activations({}, None, None, model, rows=torch.zeros(0, dtype=torch.long))
    first = pieces[0]
    values = {
        name: _one([(p.values.pop(name), p.axes.get(name, ())) for p in pieces], order, name)
        for name in list(first.values)
    }
    gradients = {
        name: _one([(p.gradients.pop(name), p.axes.get(name, ())) for p in pieces], order, name)
        for name in list(first.gradients)
    }
    tokens, mask, positions = (
        None if getattr(first, name) is None else _one([(getattr(p, name), (1,)) for p in pieces], order, name)
        for name in ("tokens", "mask", "positions")
    )
    return Activations(values, tokens, mask, model, positions, gradients or None, kept)


def _one(parts: list[tuple[Tensor, tuple[int, ...]]], order: Tensor, name: str) -> Tensor:
    """Pieces of one site behind one another, in the given order of rows."""
    first, axes = parts[0]
    shape = list(first.shape)
    for axis in axes:
        shape[axis] = max(value.shape[axis] for value, _ in parts)
    odd = next(
        (
            v
            for v, _ in parts
            if [n for i, n in enumerate(v.shape[1:], 1) if i not in axes]
            != [n for i, n in enumerate(shape[1:], 1) if i not in axes]
        ),
        None,
    )
    if odd is not None or sum(len(value) for value, _ in parts) != len(order):
        wrong = first if odd is None else odd
        raise CaptureError(
            f"chunks of {name!r} do not fit together: shapes {list(first.shape)} and {list(wrong.shape)}; drop batch_size=, or take pieces with to=[]"
        )
    shape[0] = len(order)
    whole = first.new_zeros(shape)
    place = order.argsort()
    start = 0
    while parts:
        value, _ = parts.pop(0)
        index = place[start : start + len(value)].to(whole.device)
        start += len(value)
        target: tuple[Any, ...] = (index, *(slice(0, n) for n in value.shape[1:]))
        whole[target] = value
    return whole
