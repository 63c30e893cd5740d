"""The rows of a job: where each begins and ends, and what is remembered of their prompts."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from innerview.errors import EditError
from innerview.readings import OverPrompt


@dataclass(eq=False)
class Rows:
    """What is known about the rows of a job.

    Attributes:
        left_pad: Pads before each row's first token, shape [rows].
        length: Real tokens of each row so far, shape [rows].
        prompt_len: Real tokens of each row's prompt, shape [rows]; None when unknown.
        why_unknown: What to say when `prompt_len` is asked for and unknown.
        has_positions: Whether positions in the rows are known at all.
        is_full: Whether every token of every row is known to be real, so that no mask is needed.
        real: True for real tokens, shape [rows, columns]; None where `left_pad` and `length` say it all.
        grown: Real tokens of every row behind its `length`.
    """

    left_pad: Tensor
    length: Tensor
    prompt_len: Tensor | None
    why_unknown: str = ""
    has_positions: bool = True
    is_full: bool = False
    real: Tensor | None = None
    grown: int = 0

    def expanded(self, rows: int) -> "Rows":
        """The same, for a forward with more rows: beams and several sequences come repeat-interleaved."""
        base = self.left_pad.shape[0]
        if rows == base:
            return self
        if base == 0 or rows % base:
            raise EditError(f"a forward of {rows} rows does not belong to a run of {base}")
        each = rows // base
        length = self.length if self.length.shape[0] == rows else self.length.repeat_interleave(each)
        prompt = None if self.prompt_len is None else self.prompt_len.repeat_interleave(each)
        real = None if self.real is None else self.real.repeat_interleave(each, dim=0)
        pads = self.left_pad.repeat_interleave(each)
        return Rows(pads, length, prompt, self.why_unknown, self.has_positions, self.is_full, real, self.grown)

    def pos(self, since: int, until: int, device: Any) -> Tensor:
        """Position of each token of some columns in its row, negative for left pads, shape [rows, until − since]."""
        if self.real is not None:
            # Pads between tokens, as behind a prompt that was padded right, count for nothing.
            counted = self.real[:, :until].long().cumsum(dim=1) - 1
            return counted[:, since:].to(device)
        return torch.arange(since, until, device=device)[None, :] - self.left_pad.to(device)[:, None]

    def real_tokens(self, since: int, until: int, device: Any) -> Tensor:
        """True for real tokens of some columns, shape [rows, until − since]."""
        if self.real is not None:
            return self.real[:, since:until].to(device)
        pos = self.pos(since, until, device)
        return (pos >= 0) & (pos < self.length.to(device)[:, None] + self.grown)


@dataclass(eq=False)
class Memory:
    """What is kept of a job's prompts from one forward to the next.

    Attributes:
        ids: Ids of the prompts, shape [rows, columns]; None while they are unknown.
        real: True for their real tokens, shape [rows, columns].
        prompt_len: Length of each prompt, shape [rows]; None when it is unknown, and all of `ids` counts.
        spans: Tokens of texts and roles, by what was asked.
        heard: Readings of the prompts' tokens, by reading, shape [rows, columns].
        numbers: Readings over the whole prompts, by what was asked, shape [rows, 1].
        has_passed: Whether the prompts are over, and only generated tokens come.
    """

    ids: Tensor | None = None
    real: Tensor | None = None
    prompt_len: Tensor | None = None
    spans: dict[Any, tuple[Tensor, Tensor]] = field(default_factory=dict)
    heard: dict[Any, Tensor] = field(default_factory=dict)
    numbers: dict[Any, Tensor] = field(default_factory=dict)
    has_passed: bool = False

    def span(self, where: Any, reader: Any) -> tuple[Tensor, Tensor]:
        """True for the prompts' tokens of a text or role, shape [rows, columns], and whether what follows belongs to it, shape [rows].

        Raises:
            EditError: It is not in a row.
        """
        key = (where.text, where.nth, where.role)
        if key not in self.spans:
            assert self.ids is not None
            real = torch.ones_like(self.ids, dtype=torch.bool) if self.real is None else self.real
            mask, behind = torch.zeros_like(real), torch.zeros(real.shape[0], dtype=torch.bool)
            for row in range(real.shape[0]):
                columns = real[row].nonzero().flatten()
                end = len(columns) if self.prompt_len is None else int(self.prompt_len[row])
                chosen, goes_on = _span_of_row(where, reader, self.ids[row, columns[:end]].tolist(), row)
                mask[row, columns[:end]] = torch.tensor(chosen, device=mask.device)
                # What was generated may stand among the columns, where everything is computed again.
                mask[row, columns[end:]], behind[row] = goes_on, goes_on
            self.spans[key] = (mask, behind)
        return self.spans[key]

    def hear(self, key: Any, values: Tensor, col0: int) -> None:
        """Keep a reading of the tokens that stand from column `col0` on, shape [rows, q]."""
        if col0 == 0:
            self.numbers = {asked: number for asked, number in self.numbers.items() if asked[0] != key}
            self.heard[key] = values.detach()
        elif key in self.heard and self.heard[key].shape[1] >= col0:
            before = repeated(self.heard[key][:, :col0], values.shape[0])
            self.heard[key] = torch.cat([before, values.detach()], dim=1)

    def number(self, key: Any, term: OverPrompt, rows: Rows, rows_now: int) -> Tensor:
        """A reading over each row's prompt, shape [rows, 1].

        Raises:
            EditError: The prompts' lengths are unknown, or part of a prompt has not been read.
        """
        asked = (key, term.how)
        if asked not in self.numbers:
            self.numbers[asked] = self._number(key, term, rows)
        return repeated(self.numbers[asked], rows_now)

    def _number(self, key: Any, term: OverPrompt, rows: Rows) -> Tensor:
        if rows.prompt_len is None:
            raise EditError(rows.why_unknown)
        values = self.heard.get(key)
        if values is None:
            raise EditError(
                f"reading {term.reading.name!r} is wanted over the prompt, which passed before this edit was there to read it; "
                "put the edit in place before the prompt"
            )
        values, length = repeated(values, len(rows.prompt_len)), rows.prompt_len.to(values.device)[:, None]
        pos, real = (made(0, values.shape[1], values.device) for made in (rows.pos, rows.real_tokens))
        is_prompt = real & (pos < length)
        if bool((is_prompt.sum(dim=1, keepdim=True) < length).any()):
            raise EditError(
                f"reading {term.reading.name!r} is wanted over the whole prompt, of which the last tokens are still to come (a prompt in "
                "chunks, or a read cut short); give the prompt in one piece, or where=iv.Where(scope='generated', ...)"
            )
        return term.of(values, is_prompt)


def _span_of_row(where: Any, reader: Any, ids: list[int], row: int) -> tuple[list[bool], bool]:
    chosen, goes_on = [True] * len(ids), True
    if where.role is not None:
        chosen, goes_on = reader.role_span(ids, where.role, row)
    if where.text is not None:
        found = reader.text_span(ids, where.text, where.nth, row)
        chosen, goes_on = [a and b for a, b in zip(chosen, found, strict=True)], False
    return chosen, goes_on


def repeated(values: Tensor, rows: int) -> Tensor:
    """The same for more rows: beams and several sequences come repeat-interleaved.

    Raises:
        EditError: The rows are not a multiple of what is known.
    """
    base = values.shape[0]
    if rows == base:
        return values
    if base == 0 or rows % base:
        raise EditError(f"a forward of {rows} rows does not belong to prompts of {base}")
    return values.repeat_interleave(rows // base, dim=0)
