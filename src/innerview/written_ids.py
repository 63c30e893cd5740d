"""Ids of the rows of a generation: prompts, what is written behind them, and where each row ends."""

from collections.abc import Iterable

import torch
from torch import Tensor

from innerview.rows import Rows


class WrittenIds:
    """What a generation has written so far.

    Attributes:
        ids: Ids of every column, the prompts' first, shape [rows, columns].
        width: Columns of the prompts.

    Args:
        ids: The prompts' ids, shape [rows, width].
        rows: What is known about the prompts' rows.
        stops: Ids that end a row.
        is_ended_elsewhere: Whether rows end where this cannot see it, as beams do.
    """

    def __init__(self, ids: Tensor, rows: Rows, stops: Iterable[int], *, is_ended_elsewhere: bool = False) -> None:
        self.ids = ids
        self.width = ids.shape[1]
        self._rows = rows
        self._stops = list(stops)
        self._ends = set() if is_ended_elsewhere else set(self._stops)
        self._counted = 0
        self._has_ended = False

    def counts(self) -> Tensor:
        """Number of tokens that each row has written up to its first end of text, that one included, shape [rows]."""
        return _real_counts(self.ids[:, self.width :], self._stops)

    def listed(self) -> list[list[int]]:
        """Ids written so far, row by row, without what follows the end of text."""
        # Taken once: the worker puts another tensor in its place meanwhile.
        ids = self.ids
        generated = ids[:, self.width :]
        counts = _real_counts(generated, self._stops)
        return [row[:n].tolist() for row, n in zip(generated, counts.tolist(), strict=True)]

    def take(self, ids: Tensor) -> Rows:
        """Keep what is written now, and say how long the rows are: what follows the end of text is padding."""
        self.ids = ids
        rows, width = ids.shape[0], ids.shape[1] - self.width
        if self._ends and not self._has_ended:
            fresh = ids[:, self.width + self._counted :].tolist()
            self._has_ended = any(not self._ends.isdisjoint(row) for row in fresh)
        self._counted = width
        base = self._rows
        if not self._has_ended:
            # Until a row ends, every token is real: looking at the newest ones is enough.
            return Rows(base.left_pad, base.length, base.prompt_len, is_full=base.is_full, grown=width)
        counts = _real_counts(ids[:, self.width :], list(self._ends))
        lengths = base.length.repeat_interleave(rows // base.length.shape[0])
        is_full = base.is_full and bool((counts == width).all())
        return Rows(base.left_pad, lengths + counts, base.prompt_len, is_full=is_full)


def _real_counts(generated: Tensor, stops: list[int]) -> Tensor:
    """Number of tokens of each row up to its first end of text, that one included, shape [rows]."""
    width = generated.shape[1]
    is_stop = (
        torch.isin(generated, torch.tensor(stops, dtype=torch.long))
        if stops
        else torch.zeros_like(generated, dtype=torch.bool)
    )
    first = (
        torch.where(is_stop.any(dim=1), is_stop.long().argmax(dim=1) + 1, width)
        if width
        else torch.zeros(len(generated))
    )
    return first.long()
