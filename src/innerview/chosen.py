"""Chosen sites, tokens and heads: which part of what passes is kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.errors import CaptureError
from innerview.inputs import Call
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import Forward
from innerview.where import Where
from innerview.where.spans import Reader

HEADS = ("head", "kv_head")


@dataclass(frozen=True, eq=False)
class Columns:
    """Tokens of a forward, row by row.

    Attributes:
        index: Columns of the forward, shape [batch, k]; 0 where a row has fewer.
        mask: True where a token was chosen, shape [batch, k].
    """

    index: Tensor
    mask: Tensor

    @classmethod
    def of_mask(cls, mask: Tensor) -> "Columns":
        """The columns where a mask [batch, pos] is True, in their order."""
        counts = mask.sum(dim=1)
        width = int(counts.max()) if len(counts) else 0
        order = (~mask).to(torch.uint8).argsort(dim=1, stable=True)[:, :width]
        kept = torch.arange(width, device=mask.device) < counts[:, None]
        return cls(order.masked_fill(~kept, 0), kept)

    def take(self, x: Tensor, axis: int) -> Tensor:
        """These tokens of an activation, shape as `x` with `k` tokens on its axis of tokens."""
        first = x.movedim(axis, 1)
        rows = torch.arange(first.shape[0], device=x.device)[:, None]
        return first[rows, self.index.to(x.device)].movedim(1, axis)


Positions = int | str | Sequence[int] | Sequence[Sequence[int]] | None


@dataclass(frozen=True, eq=False)
class Chosen:
    """Tokens to keep, by a Where or by positions in the order in which they are given; one of the two is None."""

    where: Where | None
    positions: tuple[int, ...] | tuple[tuple[int, ...], ...] | None

    @classmethod
    def of(cls, where: Any, positions: Positions) -> "Chosen | None":
        """What `where=` and `positions=` say; None for every token.

        Raises:
            CaptureError: Both are given, or one is of another kind.
        """
        if where is None and positions is None:
            return None
        if where is not None and positions is not None:
            raise CaptureError(
                f"where= and positions= both choose tokens; give one of the two (positions={positions!r})"
            )
        if where is None:
            return cls(None, _positions(positions))
        if not isinstance(where, Where):
            raise CaptureError(f"where= takes a Where such as iv.Where(positions=-1), not {where!r}")
        if where.condition is not None or where.schedule is not None:
            raise CaptureError(
                f"a capture keeps tokens whole and on no condition, and {where.to_code()} asks for more; choose from the result"
            )
        return cls(where, None)

    def columns(self, call: Call, forward: Forward | None) -> Columns:
        """The columns of this choice in one forward.

        Raises:
            CaptureError: The network was not called with ids, a position is past the end, or no token is chosen.
        """
        if call.tokens is None:
            raise CaptureError(
                "this network was not called with token ids, so its tokens cannot be chosen; choose from the result instead"
            )
        real = _real_columns(call.tokens.mask)
        if self.where is None:
            return self._at_positions(real)
        assert forward is not None
        mask = forward.chosen(self.where, Reader.of(call.model.tokenizer) if self.where.needs_reader else None)
        columns = real if mask is None else Columns.of_mask(mask.cpu() & call.tokens.mask.cpu())
        if not columns.mask.any():
            raise CaptureError(f"{self.where.to_code()} chooses no token of {call.count} rows; look at acts.words")
        return columns

    def _at_positions(self, real: Columns) -> Columns:
        assert self.positions is not None
        lengths = real.mask.sum(dim=1).tolist()
        per_row = self.positions if self.positions and isinstance(self.positions[0], tuple) else None
        if per_row is not None and len(per_row) != len(lengths):
            raise CaptureError(f"positions= lists {len(per_row)} rows for {len(lengths)} prompts; give one list a row")
        asked: Any = per_row if per_row is not None else [self.positions] * len(lengths)
        width = max(len(row) for row in asked)
        index = torch.zeros(len(lengths), width, dtype=torch.long)
        mask = torch.zeros(len(lengths), width, dtype=torch.bool)
        for i, (row, length) in enumerate(zip(asked, lengths, strict=True)):
            for j, position in enumerate(row):
                if not -length <= position < length:
                    raise CaptureError(
                        f"no position {position} in row {i}, which has {length} tokens; use {-length} to {length - 1}"
                    )
                index[i, j], mask[i, j] = real.index[i, position % length], True
        return Columns(index, mask)

    def part(self, rows: list[int]) -> "Chosen":
        """The same for some of the rows."""
        if self.positions and isinstance(self.positions[0], tuple):
            return Chosen(None, tuple(self.positions[i] for i in rows))  # type: ignore[arg-type]
        return self


def _real_columns(mask: Tensor) -> Columns:
    return Columns.of_mask(mask.bool().cpu())


def _positions(given: Any) -> tuple[Any, ...]:
    if isinstance(given, str):
        if given != "last":
            raise CaptureError(f"positions are whole numbers or 'last', not {given!r}")
        return (-1,)
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, int) and not isinstance(given, bool):
        return (given,)
    listed: list[Any] = list(given) if isinstance(given, (list, tuple, range)) else []
    if listed and all(isinstance(p, int) and not isinstance(p, bool) for p in listed):
        return tuple(listed)
    rows: list[Any] = [p.tolist() if hasattr(p, "tolist") else p for p in listed]  # type: ignore[union-attr]
    if rows and all(isinstance(row, (list, tuple, range)) and len(row) for row in rows):
        return tuple(_positions(list(row)) for row in rows)
    raise CaptureError(
        f"positions are whole numbers, 'last', or a list of numbers for each row, at least one each; not {given!r}"
    )


def wanted_sites(model: Model, sites: str | Sequence[str]) -> list[Site]:
    """The sites that names, wildcards, aliases and module paths stand for, each once.

    Raises:
        CaptureError: None was asked for.
    """
    names = [sites] if isinstance(sites, str) else list(sites)
    if not names:
        raise CaptureError("no site was asked for; name at least one, such as 'blocks.*.resid'")
    found: dict[str, Site] = {}
    for name in names:
        for site in model.expand(name):
            found.setdefault(site.name, site)
    return list(found.values())


def pos_axis(site: Site, x: Tensor, call: Call) -> int | None:
    """The axis of tokens of an activation, None where it has none."""
    if "pos" in site.axes:
        return site.pos_axis
    if site.axes:
        return None
    return 1 if call.tokens is not None and x.ndim > 1 and x.shape[:2] == call.tokens.ids.shape else None


def take_heads(site: Site, x: Tensor, heads: tuple[int, ...]) -> Tensor:
    """These heads of an activation, its axes as they were.

    Raises:
        CaptureError: The site has no heads, or too few.
    """
    axis = next((site.axes.index(name) for name in HEADS if name in site.axes), None)
    if axis is None:
        raise CaptureError(
            f"heads= chooses heads, and {site.name!r} is {site.shape} without any; capture a site such as attn.heads"
        )
    count = x.shape[axis]
    wrong = next((h for h in heads if not -count <= h < count), None)
    if wrong is not None:
        raise CaptureError(f"no head {wrong} at {site.name!r}, which has {count}; use 0 to {count - 1}")
    return x.index_select(axis, torch.tensor([h % count for h in heads], device=x.device))


def head_numbers(given: Any) -> tuple[int, ...] | None:
    """What `heads=` says.

    Raises:
        CaptureError: It is no whole number or list of them.
    """
    if given is None:
        return None
    listed = given.tolist() if hasattr(given, "tolist") else given
    listed = list(listed) if isinstance(listed, (list, tuple, range)) else [listed]
    if not listed or any(isinstance(h, bool) or not isinstance(h, int) for h in listed):
        raise CaptureError(f"heads are whole numbers, at least one, not {given!r}")
    return tuple(listed)
