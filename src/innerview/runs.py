"""Runs: one job's forwards, with its edits, its taps and its own count of positions."""

import math
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.edits import Context, Edit, checked
from innerview.errors import EditError
from innerview.models.model import Model
from innerview.models.site import Point, Site

Tap = Callable[[Site, Tensor], None]


@dataclass(frozen=True, eq=False)
class Planned:
    """An edit at one site. `since` and `until` bound the columns it covers, for runs that recompute old tokens."""

    edit: Edit
    site: Site
    since: int = 0
    until: int | None = None


@dataclass(frozen=True, eq=False)
class Plan:
    """Edits by the point at which a hook applies them, in their order."""

    edits: tuple[Edit, ...]
    by_point: dict[Point, tuple[Planned, ...]]

    @classmethod
    def of(cls, model: Model, edits: Any) -> "Plan":
        """The plan of some edits on a network.

        Raises:
            EditError: An edit does not fit its site.
        """
        listed = checked(edits)
        return cls.joined(
            listed, [Planned(edit, site) for edit in listed for site in model.expand(edit.site) if _fits(edit, site)]
        )

    @classmethod
    def joined(cls, edits: tuple[Edit, ...], planned: Iterable[Planned]) -> "Plan":
        """A plan of ready parts."""
        by_point: dict[Point, list[Planned]] = {}
        for one in planned:
            by_point.setdefault(one.site.point, []).append(one)
        return cls(edits, {point: tuple(parts) for point, parts in by_point.items()})

    def __add__(self, other: "Plan") -> "Plan":
        if not other.by_point:
            return self
        if not self.by_point:
            return other
        parts = [p for plan in (self, other) for planned in plan.by_point.values() for p in planned]
        return Plan.joined(self.edits + other.edits, parts)

    def between(self, since: int, until: int | None) -> list[Planned]:
        """The same edits, bounded to columns from `since` up to `until`."""
        bounded = []
        for planned in self.by_point.values():
            for p in planned:
                last = until if p.until is None else p.until
                bounded.append(Planned(p.edit, p.site, max(since, p.since), last))
        return bounded

    @property
    def points(self) -> set[Point]:
        """Where hooks are needed."""
        return set(self.by_point)


EMPTY = Plan((), {})


def _fits(edit: Edit, site: Site) -> bool:
    """True, or the reason why not.

    Raises:
        EditError: The site cannot be edited, or the widths differ.
    """
    if not site.is_editable:
        raise EditError(f"a change at {site.name!r} would not reach all that reads it; edit {site.instead!r} instead")
    if edit.width is not None:
        check_width(edit.width, site)
    edit.check(site)
    return True


def check_width(width: int, site: Site) -> None:
    """Refuse a direction that does not fit a site of known sizes.

    Raises:
        EditError: The widths differ.
    """
    if site.sizes and width not in (site.sizes[-1], math.prod(site.sizes)):
        raise EditError(
            f"a direction {width} wide does not fit {site.name!r}, which is {site.shape}; find it at that site"
        )


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
    """

    left_pad: Tensor
    length: Tensor
    prompt_len: Tensor | None
    why_unknown: str = ""
    has_positions: bool = True
    is_full: bool = False
    real: Tensor | None = None

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
        return Rows(pads, length, prompt, self.why_unknown, self.has_positions, self.is_full, real)


class Forward:
    """One call of the root module: how many tokens it carries, and which ones they are."""

    def __init__(self, rows: Rows | None, shape: tuple[int, int] | None, col0: int, device: Any) -> None:
        self.shape = shape
        self.col0 = col0
        self.rows = rows
        self._device = device
        self._pos: Tensor | None = None
        self._real: Tensor | bool | None = False
        self._masks: dict[Any, Tensor | None] = {}
        self._idle: set[Any] = set()

    @property
    def q(self) -> int:
        """Tokens of each row in this forward."""
        return self.shape[1] if self.shape else 0

    @property
    def pos(self) -> Tensor:
        """Position of each token in its row, negative for left pads, shape [rows, q]."""
        if self._pos is None and self._of_rows().real is not None:
            # Pads between tokens, as behind a prompt that was padded right, count for nothing.
            counted = self._of_rows().real.long().cumsum(dim=1) - 1  # type: ignore[union-attr]
            self._pos = counted[:, self.col0 : self.col0 + self.q].to(self._device)
        if self._pos is None:
            column = self.col0 + torch.arange(self.q, device=self._device)
            self._pos = column[None, :] - self._of_rows().left_pad.to(self._device)[:, None]
        return self._pos

    @property
    def real(self) -> Tensor | None:
        """True for real tokens, shape [rows, q]; None when all are."""
        if self._real is False:
            self._real = None
            if self.rows is not None and self.shape is not None and not self.rows.is_full:
                real = self._real_tokens()
                self._real = None if bool(real.all()) else real
        return self._real  # type: ignore[return-value]

    def _real_tokens(self) -> Tensor:
        rows = self._of_rows()
        if rows.real is not None:
            return rows.real[:, self.col0 : self.col0 + self.q].to(self._device)
        return (self.pos >= 0) & (self.pos < rows.length.to(self._device)[:, None])

    def _of_rows(self) -> Rows:
        if self.rows is None or self.shape is None:
            raise EditError(
                "this network was not called with token ids, so positions and scopes mean nothing; drop where="
            )
        self.rows = self.rows.expanded(self.shape[0])
        return self.rows

    def prompt_len(self) -> Tensor:
        """Length of each row's prompt, shape [rows, 1].

        Raises:
            EditError: It is unknown.
        """
        rows = self._of_rows()
        if rows.prompt_len is None:
            raise EditError(rows.why_unknown)
        return rows.prompt_len.to(self._device)[:, None]

    def mask(self, planned: Planned) -> Tensor | None:
        """True where an edit applies, shape [rows, q]; None for everywhere."""
        where = planned.edit.where
        key = (where, planned.since, planned.until)
        if key not in self._masks:
            mask = self._masks[key] = self._mask(where, planned.since, planned.until)
            if mask is not None and not bool(mask.any()):
                self._idle.add(key)
        return self._masks[key]

    def is_idle(self, planned: Planned) -> bool:
        """Whether an edit applies to no token of this forward; asked behind its mask."""
        return (planned.edit.where, planned.since, planned.until) in self._idle

    def _mask(self, where: Any, since: int, until: int | None) -> Tensor | None:
        chosen = self.real
        if not where.is_everywhere:
            if not self._of_rows().has_positions:
                raise EditError(self._of_rows().why_unknown)
            wanted = where.mask(self.pos, self.prompt_len)
            chosen = wanted if chosen is None else chosen & wanted
        if since > self.col0 or (until is not None and until < self.col0 + self.q):
            column = self.col0 + torch.arange(self.q, device=self._device)
            inside = (column >= since) & (column < (until if until is not None else self.col0 + self.q))
            chosen = inside.expand_as(self.pos) if chosen is None else chosen & inside
        return chosen

    def share(self, planned: Planned) -> Tensor | None:
        """Share of the coefficient for each token, shape [rows, q]; None for one."""
        schedule = planned.edit.where.schedule
        return None if schedule is None else schedule.factor(self.pos - self.prompt_len())


def check_positions(plan: Plan, length: Tensor, room: int) -> None:
    """Refuse positions that no token of a run will have.

    Args:
        plan: The run's edits.
        length: Real tokens of each row's prompt, shape [rows].
        room: Tokens that the run will feed behind the prompt.
    Raises:
        EditError: A position is past the end, or before the start.
    """
    shortest = int(length.min())
    for edit in plan.edits:
        for position in edit.where.positions or ():
            if position >= shortest + room:
                to_come = f" and {room} to come" if room else ""
                raise EditError(
                    f"position {position} is past the end: the shortest row has {shortest} tokens{to_come}; use 0 to {shortest + room - 1}"
                )
            if position < -shortest:
                raise EditError(
                    f"position {position} is before the start of a prompt of {shortest} tokens; use {-shortest} to -1"
                )


NO_TAPS: dict[Point, list[tuple[Site, Tap]]] = {}


class Run:
    """One job's forwards: its edits, frozen when it starts, its taps, and its rows."""

    def __init__(
        self, plan: Plan, rows: Rows | None, *, taps: dict[Point, list[tuple[Site, Tap]]] | None = None
    ) -> None:
        self.plan = plan
        self.rows = rows
        self.taps = taps or NO_TAPS
        self.forward: Forward | None = None
        self.fired: set[Point] = set()
        self.columns = 0

    @property
    def points(self) -> set[Point]:
        """Where this run needs hooks."""
        return self.plan.points | set(self.taps)

    def begin(self, shape: tuple[int, int] | None, cache_length: int | None, device: Any) -> None:
        """A forward of this run starts: count its tokens.

        Args:
            shape: Rows and tokens a row; None when the network reads no ids.
            cache_length: Tokens in the cache before it; None when the network does not say.
        """
        col0 = self.columns if cache_length is None else cache_length
        self.forward = Forward(self.rows, shape, col0, device)
        self.columns = col0 + self.forward.q

    def visit(self, point: Point, value: Any) -> Any:
        """Apply edits and taps to what a module handles; None when nothing changed."""
        self.fired.add(point)
        changed = apply(self.plan.by_point.get(point, ()), self.forward, value)
        for site, tap in self.taps.get(point, ()):
            tap(site, site.read(value if changed is None else changed))
        return changed

    def never_fired(self) -> list[str]:
        """Edited sites that no forward of this run has reached."""
        return [
            p.site.name for point, planned in self.plan.by_point.items() if point not in self.fired for p in planned[:1]
        ]


def apply(planned: tuple[Planned, ...], forward: Forward | None, value: Any) -> Any:
    """A copy of `value` with edits applied in order; None when there are none."""
    if not planned:
        return None
    for one in planned:
        x = one.site.read(value)
        mask, share = _tokens_of(one, forward, x)
        if forward is not None and forward.is_idle(one):
            continue
        new = one.edit.apply(x, share, Context(one.site, x.shape[1] if x.ndim > 1 else 0, mask, forward))
        if mask is not None:
            new = torch.where(mask.view(*mask.shape, *(1,) * (x.ndim - 2)), new, x)
        value = one.site.write(value, new)
    return value


def _tokens_of(planned: Planned, forward: Forward | None, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """Mask and share of an edit for an activation.

    Raises:
        EditError: The edit asks for positions, which are unknown here.
    """
    where = planned.edit.where
    if forward is None or forward.shape is None:
        if not where.is_everywhere or where.schedule is not None:
            raise EditError(
                f"{planned.edit.label} asks for certain tokens, but the network was not called with ids through its root module; drop where="
            )
        return None, None
    mask, share = forward.mask(planned), forward.share(planned)
    if planned.site.name == "logits":
        # Transformers computes logits for the last tokens only, where no more are asked for.
        mask, share = (None if told is None else told[:, -x.shape[1] :] for told in (mask, share))
    if mask is not None and tuple(x.shape[:2]) != tuple(mask.shape):
        raise EditError(
            f"site {planned.site.name!r} of shape {list(x.shape)} does not have the tokens {list(mask.shape)} of this forward"
        )
    return mask, share


current: ContextVar[Any] = ContextVar("innerview_run", default=None)
