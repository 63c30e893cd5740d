"""What a capture asks of each forward, and what one forward leaves."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from innerview.capture_runs import CaptureRun, Finish, Keeper
from innerview.chosen import Chosen, Columns, pos_axis, take_heads
from innerview.chunks import Piece
from innerview.errors import CaptureError, EditError
from innerview.hooks import Board, board_of, refuse_compiled
from innerview.inputs import Call
from innerview.models import text
from innerview.models.attention import eager_twin
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.reductions import OverTokens, Reduction
from innerview.rows import Memory
from innerview.runs import Plan, check_positions, check_prompts
from innerview.sides import decoder_tokens, is_decoders, is_pair
from innerview.sinks import Copies, Sink
from innerview.site_gradients import LiveKeeper, scalar_of


@dataclass(frozen=True, eq=False)
class Task:
    """What is asked of each forward of a capture."""

    model: Model
    board: Board
    plan: Plan
    sites: list[Site]
    chosen: Chosen | None
    heads: tuple[int, ...] | None
    reduction: Reduction | None
    objective: Any
    firing: int | None
    before_edits: bool
    grad: bool
    sink: Sink | None

    @property
    def is_whole(self) -> bool:
        """Whether values are kept as they come."""
        return self.chosen is None and self.heads is None and self.reduction is None and self.sink is None

    def seen_by(self, call: Call) -> Call:
        """The call as the sites of this capture see it: of an encoder–decoder its tokens are the encoder's or the decoder's.

        Raises:
            CaptureError: Tokens of both are to be chosen at once, or the decoder's are unknown.
        """
        if call.read is None or not is_pair(self.model.module):
            return call
        takes_tokens = self.chosen is not None or isinstance(self.reduction, OverTokens)
        if not takes_tokens and decoder_tokens(call.kwargs)[0] is None:
            return call
        try:
            sides = {site.name: is_decoders(self.model.module, site.point) for site in self.sites}
        except EditError as error:
            # What a module that both share does can be kept, but its tokens are not known.
            if not takes_tokens:
                return call
            raise CaptureError(str(error)) from error
        if len(set(sides.values())) > 1 and takes_tokens:
            one, other = (next(name for name, side in sides.items() if side is wanted) for wanted in (False, True))
            raise CaptureError(
                f"{one!r} sees the encoder's tokens and {other!r} the decoder's, so none can be chosen in both; capture each side by itself"
            )
        return call.for_decoder() if all(sides.values()) else call

    def check(self, call: Call) -> None:
        """Refuse what cannot be honoured, before anything runs.

        Raises:
            EditError: An edit asks for tokens that are not there.
            CaptureError: Two wishes exclude one another.
        """
        if self.plan.edits:
            self._check_edits(call)
        if self.chosen is not None and self.chosen.positions is not None:
            # Here and not chunk by chunk, so that a row is called by its number in the whole batch.
            self.chosen.columns(call, None)
        if self.objective is not None:
            self._check_gradients(call)
        if any(site.is_eager for site in self.sites):
            refuse_compiled(self.model.module, "")

    def _check_edits(self, call: Call) -> None:
        if call.has_cache and any(not edit.where.is_everywhere for edit in self.plan.edits):
            raise EditError(
                "a capture that goes on from a cache does not know where its tokens stand; drop where=, or give the whole text"
            )
        if is_pair(self.model.module):
            self._check_sides(call)
        elif call.tokens is not None:
            check_prompts(self.plan, Memory(call.tokens.ids, call.tokens.mask, call.tokens.lengths), 0)

    def _check_sides(self, call: Call) -> None:
        """Refuse positions that the text of an edit's side does not have. Texts and roles are sought where the edits apply."""
        mask = decoder_tokens(call.kwargs)[1]
        lengths = {True: None if mask is None else mask.sum(dim=1), False: call.read and call.read.lengths}
        for planned in (one for parts in self.plan.by_point.values() for one in parts):
            length = lengths[is_decoders(self.model.module, planned.site.point)]
            if length is not None:
                check_positions([planned.edit], length, 0)

    def _check_gradients(self, call: Call) -> None:
        short = [] if call.tokens is None else (call.tokens.lengths < 2).nonzero().flatten().tolist()
        if self.objective == "loss" and short:
            raise CaptureError(f"row {short[0]} has one token, so nothing in it is predicted; give at least two")
        for name, is_asked in (
            ("reduce=", self.reduction is not None),
            ("grad=True", self.grad),
            ("a firing counted from the last", self.firing is not None and self.firing < 0),
        ):
            if is_asked:
                raise CaptureError(f"gradients_of= and {name} exclude one another; take one of the two")
        if torch.is_inference_mode_enabled():
            raise CaptureError(
                "inside torch.inference_mode() there are no gradients; leave the block, or drop gradients_of="
            )

    def part(self, rows: list[int], of: int) -> "Task":
        """The same for some of the rows of a batch of `of`."""
        chosen = None if self.chosen is None else self.chosen.part(rows)
        return replace(self, chosen=chosen, plan=self.plan.for_rows(rows, of))

    def of_rows(self, call: Call, rows: list[int]) -> Piece:
        """What the forward of some rows leaves."""
        if len(rows) == (call.count or 0) and rows == sorted(rows):
            return self.run(call, rows, is_part=True)
        return self.part(rows, call.count or 0).run(call.part(rows), rows, is_part=True)

    def run(self, call: Call, rows: list[int], *, is_part: bool = False) -> Piece:
        """What one forward leaves; a second one, under the eager kernel, where attention weights are asked for.

        Args:
            call: The forward's call.
            rows: Its rows in the given batch.
            is_part: Whether other pieces are to stand beside this one, and must be as long.
        """
        eager = [site for site in self.sites if site.is_eager]
        plain = [site for site in self.sites if not site.is_eager] if eager else self.sites
        forwards = [Forwarded.of(self, self.board, call, rows, plain)] if plain else []
        if eager:
            # A board holds its network weakly: the twin must live until its forward is over.
            twin = eager_twin(self.model)
            forwards.append(Forwarded.of(self, board_of(twin), call, rows, eager))
        found, gradients, axes = {}, {}, {}
        for one in forwards:
            found.update(one.values)
            gradients.update(one.gradients)
            axes.update(one.long_axes() if is_part else {})
        values = {site.name: found[site.name] for site in self.sites}
        return Piece(rows, values, gradients, *self._tokens(call, forwards[0].columns), axes)

    def _tokens(self, call: Call, columns: Columns | None) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Ids, mask and places of the tokens that were kept."""
        if call.tokens is None or isinstance(self.reduction, OverTokens):
            return None, None, None
        ids, mask = call.tokens.ids, call.tokens.mask
        if columns is None:
            return ids, mask, None
        places = (mask.long().cumsum(dim=1) - 1).cpu().gather(1, columns.index)
        chosen = ids.cpu().gather(1, columns.index).masked_fill(~columns.mask, text.pad_id(self.model))
        return chosen, columns.mask, places


class Forwarded:
    """One forward of a task, and what it leaves at sites."""

    def __init__(self, task: Task, call: Call, rows: list[int]) -> None:
        self.values: dict[str, Tensor] = {}
        self.gradients: dict[str, Tensor] = {}
        self._axes: dict[str, tuple[int, ...]] = {}
        self.columns: Columns | None = None
        self._task = task
        self._call = call
        self._rows = rows
        self._copies = Copies(task.sink) if task.sink is not None else None

    @classmethod
    def of(cls, task: Task, board: Board, call: Call, rows: list[int], sites: list[Site]) -> "Forwarded":
        """The forward of a task for some rows at some of its sites."""
        made = cls(task, call, rows)
        if task.objective is None:
            made._watch(board, sites, copies=call.has_cache)
        else:
            made._differentiate(board, sites)
        if made._copies is not None:
            made._copies.wait()
        return made

    def _watch(self, board: Board, sites: list[Site], *, copies: bool) -> None:
        task, call = self._task, self._call
        is_known = all(site.name in task.model.table for site in sites)
        # A module that the table does not know may run again; a cache must be filled to the last layer.
        may_stop = not call.has_cache and (is_known or task.firing is not None)
        keeper = Keeper(
            sites, firing=task.firing, may_stop=may_stop, copies=copies, before_edits=task.before_edits, shape=call.shape
        )  # fmt: skip
        run = self._run(board, keeper)
        run.forward_once(call.args, call.kwargs, is_plain=self._is_plain(sites))
        keeper.check()
        # A network that works in place writes over what was kept; it runs again, and what passes is copied.
        if not copies and keeper.is_written_over():
            return self._watch(board, sites, copies=True)
        self.values = keeper.values

    def _differentiate(self, board: Board, sites: list[Site]) -> None:
        task, call = self._task, self._call
        keeper = LiveKeeper(sites, firing=task.firing, before_edits=task.before_edits, shape=call.shape)
        run = self._run(board, keeper)
        finish, keeper.finish = keeper.finish, None
        try:
            output = run.forward_once(call.args, call.kwargs, is_plain=False)
            keeper.check()
            gradients = keeper.gradients(scalar_of(task.objective, call, output))
        finally:
            keeper.let_go()
        self.values, self.gradients = (
            {s.name: found[s.name] if finish is None else finish(s, found[s.name]) for s in sites}
            for found in (keeper.values, gradients)
        )

    def _run(self, board: Board, keeper: Keeper) -> CaptureRun:
        task, call = self._task, self._call
        is_counted = task.chosen is not None and task.chosen.where is not None
        needs_rows = (bool(task.plan.by_point) or is_counted) and not call.has_cache
        run = CaptureRun(board, task.plan, call.rows() if needs_rows else None, keeper)
        keeper.finish = None if task.is_whole else self._finish(run)
        keeper.is_late = self._copies is not None
        return run

    def _is_plain(self, sites: list[Site]) -> bool:
        """Whether plain hooks are enough: nothing edited, no token counted."""
        task = self._task
        is_counted = task.chosen is not None and task.chosen.where is not None
        return not task.plan.by_point and not is_counted and all(site.side in ("input", "output") for site in sites)

    def long_axes(self) -> dict[str, tuple[int, ...]]:
        """Axes that grow with the text, by site."""
        if not self._task.is_whole:
            return self._axes
        sites = [site for site in self._task.sites if site.name in self.values]
        return {s.name: self._long_axes(s, pos_axis(s, self.values[s.name], self._call)) for s in sites}

    def _finish(self, run: CaptureRun) -> Finish:
        """What becomes of a value before it is kept: tokens, heads, reduction, and the way to its sink."""
        task, call = self._task, self._call

        def finish(site: Site, x: Tensor) -> Tensor:
            axis = pos_axis(site, x, call)
            self._axes[site.name] = self._long_axes(site, axis)
            mask = call.tokens.mask if call.tokens is not None else None
            if task.chosen is not None:
                if self.columns is None:
                    self.columns = task.chosen.columns(
                        call, run.pair.decoder if call.is_decoders and run.pair else run.located
                    )
                if axis is None:
                    raise CaptureError(
                        f"{site.name!r} of shape {list(x.shape)} has no axis of tokens, so none can be chosen; capture it without"
                    )
                x, mask = self.columns.take(x, axis), self.columns.mask
            if task.heads is not None:
                x = take_heads(site, x, task.heads)
            if isinstance(task.reduction, OverTokens) and mask is not None:
                self._check_rows(site, mask)
            if task.reduction is not None:
                x = task.reduction.apply(site, x, axis, mask)
            return x if self._copies is None else self._copies.start(x)

        return finish

    def _check_rows(self, site: Site, mask: Tensor) -> None:
        """Refuse to reduce nothing.

        Raises:
            CaptureError: A row has no token that counts.
        """
        empty = (~mask.any(dim=1)).nonzero().flatten().tolist()
        if empty:
            raise CaptureError(
                f"row {self._rows[empty[0]]} has no chosen token to reduce at {site.name!r}; choose others with where="
            )

    def _long_axes(self, site: Site, axis: int | None) -> tuple[int, ...]:
        """Axes of the result that grow with the text."""
        is_reduced = isinstance(self._task.reduction, OverTokens)
        if not site.axes:
            return () if axis is None or is_reduced else (axis,)
        names = [name for name in site.axes if not (is_reduced and name == "pos")]
        return tuple(i for i, name in enumerate(names) if name in ("pos", "key"))
