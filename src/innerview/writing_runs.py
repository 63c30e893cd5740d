"""The run behind a generation."""

from collections import deque
from typing import Any

from innerview.hooks import Board, BoardRun
from innerview.runs import Plan, Rows


class WritingRun(BoardRun):
    """A run that holds the lock for one token at a time: new edits come into force when its next forward starts."""

    def __init__(self, board: Board, plan: Plan, rows: Rows, *, recomputes: bool, **options: Any) -> None:
        super().__init__(board, plan, rows, **options)
        self.held: list[Any] = []
        self._is_locked = False
        self._recomputes = recomputes
        self.is_new = True
        # A deque, because reading and clearing it is one step: no update is lost in between.
        self._pending: deque[Plan] = deque(maxlen=1)

    def update(self, plan: Plan) -> None:
        """Put new edits in force from the next forward on; takes no lock."""
        self._pending.append(plan)

    def enter(self) -> None:
        """Put the hooks on."""
        self.held = self.board.acquire(self.points)

    def leave(self) -> None:
        """Give the lock and the hooks back."""
        self.let_go()
        self.board.release(self.held)

    def lock(self) -> None:
        """Hold the network's lock for a forward."""
        self.board.lock.acquire()
        self._is_locked = True

    def starts(self, args: tuple, kwargs: dict) -> None:
        self.lock()
        super().starts(args, kwargs)
        if self._pending:
            self._switch(self._pending.pop())
        self.is_new = False

    def ends(self, is_whole: bool) -> None:
        self.let_go()
        super().ends(is_whole)

    def let_go(self) -> None:
        """Give the lock back behind a forward, or behind one that was broken off."""
        if self._is_locked:
            self._is_locked = False
            self.board.lock.release()

    def _switch(self, plan: Plan) -> None:
        forward = self.forward if self.pair is None else self.pair.decoder
        assert forward is not None
        if self._recomputes and not self.is_new:
            # Without a cache, old tokens pass again: they keep the edits they had.
            fresh = forward.col0 + forward.q - 1
            plan = Plan.joined(plan.edits, self.plan.between(0, fresh) + plan.between(fresh, None))
        old, self.held = self.held, self.board.acquire(plan.points | set(self.taps))
        self.plan = plan
        self.board.release(old)
