"""Runs: one job's forwards, with its edits, its taps and its own count of positions."""

from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

from innerview.edits import Context, Edit
from innerview.errors import EditError
from innerview.forwards import Forward
from innerview.models.site import Point, Site
from innerview.plans import EMPTY, Plan, Planned, check_width
from innerview.rows import Memory, Rows

Tap = Callable[[Site, Tensor], None]

__all__ = [
    "EMPTY",
    "Forward",
    "Plan",
    "Planned",
    "Rows",
    "Run",
    "Tap",
    "apply",
    "check_positions",
    "check_prompts",
    "check_width",
    "current",
]


def check_positions(edits: Iterable[Edit], length: Tensor, room: int) -> None:
    """Refuse positions that no token of a run will have.

    Args:
        edits: The run's edits.
        length: Real tokens of each row's prompt, shape [rows].
        room: Tokens that the run will feed behind the prompt.
    Raises:
        EditError: A position is past the end, or before the start.
    """
    shortest = int(length.min())
    for edit in edits:
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


def check_prompts(plan: Plan, memory: Memory, room: int) -> None:
    """Refuse positions, texts and roles that the prompts of a run do not have.

    Args:
        plan: The run's edits.
        memory: The prompts' ids.
        room: Tokens that the run will feed behind the prompt.
    Raises:
        EditError: A position is past the end, or before the start; a text or a role is not in a row.
    """
    assert memory.prompt_len is not None
    check_positions(plan.edits, memory.prompt_len, room)
    for planned in plan.by_point.values():
        for one in planned:
            if one.edit.where.needs_prompt_ids:
                memory.span(one.edit.where, one.reader)


NO_TAPS: dict[Point, list[tuple[Site, Tap]]] = {}


class Run:
    """One job's forwards: its edits, frozen when it starts, its taps, and its rows."""

    def __init__(
        self, plan: Plan, rows: Rows | None, *, taps: dict[Point, list[tuple[Site, Tap]]] | None = None
    ) -> None:
        self.plan = plan
        self.rows = rows
        self.memory = Memory()
        self.taps = taps or NO_TAPS
        self.forward: Forward | None = None
        self.pair: Any = None
        self.fired: set[Point] = set()
        self.columns = 0

    @property
    def points(self) -> set[Point]:
        """Where this run needs hooks."""
        return self.plan.points | set(self.taps)

    def begin(
        self, shape: tuple[int, int] | None, cache_length: int | None, device: Any, ids: Tensor | None = None
    ) -> None:
        """A forward of this run starts: count its tokens.

        Args:
            shape: Rows and tokens a row; None when the network reads no ids.
            cache_length: Tokens in the cache before it; None when the network does not say.
            device: Where the tokens are.
            ids: The tokens' ids, where the network was called with them.
        """
        col0 = self.columns if cache_length is None else cache_length
        self.forward = Forward(self.rows, shape, col0, device, ids=ids, memory=self.memory)
        self.columns = col0 + self.forward.q

    def at(self, point: Point) -> Forward | None:
        """Where the tokens of a point stand in the forward under way."""
        return self.forward if self.pair is None else self.pair.at(point, self.forward)

    def visit(self, point: Point, value: Any) -> Any:
        """Apply edits and taps to what a module handles; None when nothing changed."""
        self.fired.add(point)
        plan, forward = self.plan, self.at(point)
        changed = apply(plan.by_point.get(point, ()), forward, value)
        if plan.reads:
            listen(plan, point, forward, value if changed is None else changed)
        for site, tap in self.taps.get(point, ()):
            tap(site, site.read(value if changed is None else changed, forward.shape if forward else None))
        return changed

    def never_fired(self) -> list[str]:
        """Edited sites that no forward of this run has reached."""
        return [
            p.site.name for point, planned in self.plan.by_point.items() if point not in self.fired for p in planned[:1]
        ]


def apply(planned: tuple[Planned, ...], forward: Forward | None, value: Any, owner: Any = None) -> Any:
    """A copy of `value` with edits applied in order; None when there are none.

    Args:
        planned: The edits at one point.
        forward: The forward that passes; None outside of the root module.
        value: What the module handles.
        owner: Whose plan it is, for conditions that remember the prompt.
    """
    if not planned:
        return None
    rows = forward.shape if forward is not None else None
    for one in planned:
        x = one.site.read_to_edit(value, rows)
        mask, share = _tokens_of(one, forward, x, value, owner)
        if forward is not None and forward.is_idle(one):
            continue
        new = _edited(one, x, share, Context(one.site, _width(one.site, x), mask, forward, one.sources, value))
        if mask is not None:
            new = torch.where(_along(one.site, mask.to(x.device), x), new, x)
        value = one.site.write(value, new, rows)
    return value


def _edited(planned: Planned, x: Tensor, share: Tensor | None, context: Context) -> Tensor:
    before = current.get()
    try:
        # A function of the user's own may call parts of the network, which are then no part of this forward.
        current.set(ASIDE)
        return planned.edit.apply(x, share, context)
    finally:
        current.set(before)


def listen(plan: Plan, point: Point, forward: Forward | None, value: Any, owner: Any = None) -> None:
    """Read what a point hands on, for the conditions of edits at later points."""
    reads = plan.reads.get(point)
    if reads and forward is not None:
        forward.hear(reads, value, owner)


def _tokens_of(
    planned: Planned, forward: Forward | None, x: Tensor, value: Any, owner: Any
) -> tuple[Tensor | None, Tensor | None]:
    """Mask and share of an edit for an activation.

    Raises:
        EditError: The edit asks for positions, which are unknown here.
    """
    where = planned.edit.where
    if forward is None or forward.shape is None:
        if not where.is_everywhere or where.schedule is not None or where.condition is not None:
            raise EditError(
                f"{planned.edit.label} asks for certain tokens, but the network was not called with ids through its root module; drop where= "
                "(an encoder-decoder takes decoder_input_ids for its decoder's tokens)"
            )
        return None, None
    mask, share = forward.mask(planned), None
    if not planned.is_plain:
        mask, share = forward.holds(planned, value, mask, owner), forward.share(planned)
    if planned.site.name == "logits":
        # Transformers computes logits for the last tokens only, where no more are asked for.
        mask, share = (None if told is None else told[:, -x.shape[1] :] for told in (mask, share))
    if mask is not None and (x.shape[0], x.shape[planned.site.pos_axis]) != tuple(mask.shape):
        raise EditError(
            f"site {planned.site.name!r} of shape {list(x.shape)} does not have the tokens {list(mask.shape)} of this forward"
        )
    if share is not None and planned.site.pos_axis != 1:
        share = _along(planned.site, share, x)
    return mask, share


def _width(site: Site, x: Tensor) -> int:
    return x.shape[site.pos_axis] if x.ndim > site.pos_axis else 0


def _along(site: Site, tokens: Tensor, x: Tensor) -> Tensor:
    """What is known of each token, [rows, q], with axes of one so that it lies along `x`."""
    before = (1,) * (site.pos_axis - 1)
    return tokens.view(tokens.shape[0], *before, tokens.shape[1], *(1,) * (x.ndim - 1 - site.pos_axis))


class _Aside:
    """Stands for no run of any network."""

    board = None


ASIDE = _Aside()
current: ContextVar[Any] = ContextVar("innerview_run", default=None)
