"""The run behind a generation of an encoder–decoder: its encoder reads one text, once, and its decoder writes another."""

from typing import Any

from torch import Tensor, nn

from innerview.calls import cache_length
from innerview.errors import EditError
from innerview.forwards import Forward
from innerview.hooks import Board
from innerview.models import text
from innerview.models.site import Point
from innerview.plans import Plan, Planned
from innerview.rows import Memory, Rows
from innerview.runs import check_positions, current
from innerview.sides import Pair, encoder_of, is_decoders
from innerview.writing_runs import WritingRun


class PairWritingRun(WritingRun):
    """A run whose `rows` and `memory` are the decoder's.

    Args:
        read: What the encoder reads.
    """

    def __init__(self, board: Board, plan: Plan, rows: Rows, *, read: text.Tokens, **options: Any) -> None:
        super().__init__(board, plan, rows, **options)
        self._read = read
        self._read_rows = Rows(
            read.left_pad, read.lengths, read.lengths, is_full=bool(read.mask.all()), real=read.mask.bool()
        )
        self._read_memory = Memory(read.ids, read.mask, read.lengths)
        self._sides: dict[Point, bool] = {}
        self._handles: list[Any] = []
        self._is_reading = False
        self.has_begun = False

    def enter(self) -> None:
        super().enter()
        # Transformers calls the encoder by itself, before the first call of the root.
        encoder = encoder_of(self.board.root)
        if encoder is not None:
            self._handles += [
                encoder.register_forward_pre_hook(_Ear(self, "reads"), with_kwargs=True, prepend=True),
                encoder.register_forward_hook(_Ear(self, "has_read"), with_kwargs=True, always_call=True),
            ]

    def leave(self) -> None:
        while self._handles:
            self._handles.pop().remove()
        super().leave()

    def reads(self, args: tuple, kwargs: dict) -> None:
        """The encoder starts by itself."""
        if self.pair is not None and self.forward is not None:
            # Within a call of the root, which holds the lock.
            return
        self.lock()
        self._is_reading = True
        self.pair = None
        given = kwargs.get("input_ids", args[0] if args else None)
        shape = tuple(given.shape[:2]) if isinstance(given, Tensor) and given.ndim >= 2 else None
        self.forward = self._of_encoder(shape, getattr(given, "device", None))
        if self._pending:
            self._switch(self._pending.pop())
        self.has_begun = True

    def has_read(self, *told: Any) -> None:
        """The encoder returned, or failed."""
        if self._is_reading:
            self._is_reading = False
            self.forward = None
            self.let_go()

    def locate(self, args: tuple, kwargs: dict) -> None:
        ids = kwargs.get("decoder_input_ids")
        known = ids if isinstance(ids, Tensor) and ids.ndim == 2 else None
        shape = None if known is None else (int(known.shape[0]), int(known.shape[1]))
        self.begin(shape, cache_length(kwargs), getattr(known, "device", None), known)
        self.pair = Pair(self.board.root, self.forward, self._sides)
        states = (kwargs.get("encoder_outputs") or (None,))[0]
        seen = tuple(states.shape[:2]) if isinstance(states, Tensor) else None
        self.forward = self._of_encoder(seen, getattr(states, "device", None))

    def _switch(self, plan: Plan) -> None:
        if self.has_begun:
            check_late(self.board.root, self.plan, plan)
        super()._switch(plan)

    def _of_encoder(self, shape: Any, device: Any) -> Forward:
        """Where the encoder's tokens stand; beams and several sequences come repeat-interleaved."""
        ids = self._read.ids
        if shape is not None and shape[0] != ids.shape[0] and shape[0] % ids.shape[0] == 0:
            ids = ids.repeat_interleave(shape[0] // ids.shape[0], dim=0)
        return Forward(self._read_rows, shape, 0, device, ids=ids, memory=self._read_memory)


class _Ear:
    """What is registered at an encoder. A copy of the network takes an idle one along."""

    def __init__(self, run: PairWritingRun | None, name: str) -> None:
        self.run = run
        self.name = name

    def __call__(self, module: nn.Module, *told: Any) -> None:
        run = self.run
        if run is not None and current.get() is run:
            getattr(run, self.name)(*told)

    def __deepcopy__(self, memo: dict) -> "_Ear":
        return _Ear(None, self.name)

    def __reduce__(self) -> Any:
        return _Ear, (None, self.name)


def check_pair(root: nn.Module, plan: Plan, read: text.Tokens, start: text.Tokens, room: int) -> None:
    """Refuse positions, texts and roles that the text of an edit's side does not have.

    Args:
        root: The root module.
        plan: The run's edits.
        read: What the encoder reads.
        start: What the decoder starts from.
        room: Tokens that the decoder will be fed behind its start.
    Raises:
        EditError: A position is past the end, or before the start; a text or a role is not in a row.
    """
    for one in _parts(plan):
        is_written = is_decoders(root, one.site.point)
        side, more = (start, room) if is_written else (read, 0)
        check_positions([one.edit], side.lengths, more)
        if one.edit.where.needs_prompt_ids:
            Memory(side.ids, side.mask, side.lengths).span(one.edit.where, one.reader)


def check_late(root: nn.Module, before: Plan, plan: Plan) -> None:
    """Refuse other edits of what the encoder has read already.

    Raises:
        EditError: They differ.
    """
    was, now = ([one.edit for one in _parts(p) if not is_decoders(root, one.site.point)] for p in (before, plan))
    if len(was) != len(now) or not all(a is b or a.is_same(b) for a, b in zip(was, now, strict=True)):
        changed = next((edit.label for edit in now if edit not in was), "an edit taken off")
        raise EditError(
            f"the encoder has read its text, so its edits cannot change any more ({changed}); start a new run with these edits"
        )


def _parts(plan: Plan) -> list[Planned]:
    return [one for parts in plan.by_point.values() for one in parts]
