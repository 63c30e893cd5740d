"""The run behind a generation of a compiled network: its edits are data of the taps while one of its forwards passes."""

from collections import deque
from collections.abc import Callable
from typing import Any

from torch import Tensor

from innerview.compiling import Compiled
from innerview.errors import EditError
from innerview.hooks import BoardRun, board_of
from innerview.models.site import Point
from innerview.runs import Plan, Rows


class CompiledRun(BoardRun):
    """A run that hooks nothing, and holds the lock for one token at a time: new edits come into force when its next forward starts.

    Args:
        live: The compiled network.
        plan: The edits.
        rows: The prompts' rows.
    Raises:
        EditError: An edit does not fit the taps.
    """

    def __init__(self, live: Compiled, plan: Plan, rows: Rows, **options: Any) -> None:
        super().__init__(board_of(live.model), plan, rows, **options)
        self.is_new = True
        self._live = live
        self._load = live.taps.read(plan)
        self._pending: deque[Plan] = deque(maxlen=1)

    def update(self, plan: Plan) -> None:
        """Put new edits in force from the next forward on; takes no lock.

        Raises:
            EditError: An edit does not fit the taps.
        """
        self._live.taps.read(plan)
        self._pending.append(plan)

    def enter(self) -> None:
        """Begin. No hook is put on."""

    def leave(self) -> None:
        """Leave the taps to everybody's edits."""
        with self.board.lock:
            self._live.taps.take_back()

    # Hooks of other jobs on the network pass this run by.

    def starts(self, args: tuple, kwargs: dict) -> None:
        """A forward of the root starts."""

    def ends(self, is_whole: bool) -> None:
        """It ended."""

    def visit(self, point: Point, value: Any) -> None:
        """Nothing is edited by hooks."""

    def forward_of(self, ids: Tensor, call: Callable[[], Tensor]) -> Tensor:
        """What one forward of this run returns.

        Args:
            ids: Its tokens, shape [rows, q].
            call: The forward.
        """
        with self.board.lock:
            if self._pending:
                self.plan = self._pending.pop()
                self._load = self._live.taps.read(self.plan)
            self.is_new = False
            shape = (int(ids.shape[0]), int(ids.shape[1]))
            self.begin(shape, self.columns, ids.device, ids)
            assert self.forward is not None
            taps = self._live.taps
            taps.lend(self._load, self.forward)
            try:
                found = call()
                for listed in self.taps.values():
                    for site, tap in listed:
                        tap(site, taps.kept(site.name, shape))
                return found
            finally:
                taps.pause()
                self.forward = None

    def compiling(self, key: tuple[int, int]) -> None:
        """Before code is compiled for a shape: hooks would become part of it.

        Raises:
            EditError: There are some.
        """
        if key in self._live.built:
            return
        if self.board.is_hooked:
            raise EditError(
                "the first text of a length and a number of rows compiles its code, and hooks of attached edits, of open blocks or of "
                "another run would become part of it; write one text without them first"
            )
        self._live.built.add(key)
