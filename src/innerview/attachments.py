"""Edits of the user's own forwards: for the length of a block, or until detached."""

import contextlib
from collections.abc import Iterator
from typing import Any

from innerview.edits import Edit
from innerview.errors import EditError
from innerview.hooks import Board, board_of
from innerview.interrupts import Uninterrupted
from innerview.models.model import Model
from innerview.opened import opened
from innerview.own_forwards import Block, raise_unmet
from innerview.runs import Plan


@contextlib.contextmanager
def editing(model: Model, edits: Any, *, prompt_tokens: Any = None) -> Iterator[None]:
    """Edit the forwards of this thread inside the block; blocks nest, the outer first.

    Args:
        model: The network.
        edits: Edits, applied in list order.
        prompt_tokens: Length of the prompt, or one a row, for positions and scopes in forwards that do not tell it.
    Raises:
        EditError: An edit does not fit, or its site never fired in the forwards of the block.
    """
    board = board_of(model)
    block = Block(Plan.of(model, edits), prompt_tokens)
    held: list[Any] = []
    try:
        with Uninterrupted():
            held = board.acquire(block.plan.points)
            board.push(block)
        yield
    finally:
        try:
            _close(board, block, held)
        except KeyboardInterrupt:
            # It may have come before anything was taken off; the second time takes off what is left.
            _close(board, block, held)
            raise
    raise_unmet(block, "this block")


def _close(board: Board, block: Block, held: list[Any]) -> None:
    with Uninterrupted():
        board.pop(block)
        board.release(held)


class Attachment:
    """Edits that stay on a network until detached."""

    def __init__(self, board: Board, name: str, block: Block, held: list[Any]) -> None:
        self.name = name
        self.block = block
        self._board = board
        self._held = held

    @property
    def edits(self) -> tuple[Edit, ...]:
        """The attached edits."""
        return self.block.plan.edits

    @property
    def enabled(self) -> bool:
        """Whether the edits apply; set it to switch them."""
        return self.block.is_enabled

    @enabled.setter
    def enabled(self, is_enabled: bool) -> None:
        self.block.is_enabled = bool(is_enabled)
        opened.changed("edit")

    def update(self, model: Model, edits: Any) -> None:
        """Put other edits in their place, under the same name: the next forward takes them.

        Args:
            model: The network they are attached to.
            edits: Edits, applied in list order.
        Raises:
            EditError: An edit does not fit, there is none, or these are not attached to this network any more.
        """
        plan = Plan.of(model, edits)
        if not plan.edits:
            raise EditError(
                f"nothing to put in the place of {self.name!r}: the list of edits is empty; detach() takes it off"
            )
        with Uninterrupted(), self._board.lock:
            if self._board is not board_of(model) or self._board.attached.get(self.name) is not self:
                raise EditError(
                    f"{self.name!r} is not attached to {model.name} any more; attach it anew with iv.attach"
                )
            held, self._held = self._held, self._board.acquire(plan.points)
            self.block.plan, self.block.fired, self.block.forwards = plan, set(), 0
            self._board.release(held)
        opened.changed("edit")

    def detach(self) -> None:
        """Take the edits off; a second call does nothing."""
        with Uninterrupted(), self._board.lock:
            if self._board.attached.get(self.name) is self:
                del self._board.attached[self.name]
            held, self._held = self._held, []
            self._board.release(held)
        opened.changed("edit")

    def __repr__(self) -> str:
        state = "on" if self.enabled else "off"
        return f"Attachment({self.name!r}, {state}: {', '.join(edit.label for edit in self.edits)})"


def attach(model: Model, edits: Any, *, name: str | None = None) -> Attachment:
    """Edit every forward of the network from now on; the same name replaces what it named before.

    Args:
        model: The network.
        edits: Edits, applied in list order.
        name: What to call them; their description when None, so that a cell run twice never doubles. Other edits of the same
            description get a number behind it.
    Raises:
        EditError: An edit does not fit.
    """
    board = board_of(model)
    plan = Plan.of(model, edits)
    if not plan.edits:
        raise EditError("nothing to attach: the list of edits is empty")
    with Uninterrupted(), board.lock:
        name = name or _described(board, plan)
        made = Attachment(board, name, Block(plan, name=name), board.acquire(plan.points))
        old = board.attached.get(name)
        board.attached[name] = made
        if old is not None:
            old.detach()
    opened.changed("edit")
    return made


def _described(board: Board, plan: Plan) -> str:
    """The edits in a few words, with a number behind where other edits are attached under the same words."""
    words = name = " + ".join(edit.label for edit in plan.edits)
    number = 1
    while name in board.attached and not _is_same(plan.edits, board.attached[name].edits):
        number += 1
        name = f"{words} ({number})"
    return name


def _is_same(edits: tuple[Edit, ...], others: tuple[Edit, ...]) -> bool:
    return len(edits) == len(others) and all(a.is_same(b) for a, b in zip(edits, others, strict=True))


def attached(model: Model) -> list[Attachment]:
    """What is attached to a network, in the order in which it applies."""
    return list(board_of(model).attached.values())


def detach(model: Model, name: str | None = None) -> None:
    """Take off what was attached under `name`, or everything.

    Raises:
        EditError: Nothing of this name is attached.
    """
    names = [one.name for one in attached(model)]
    if name is not None and name not in names:
        raise EditError(
            f"nothing named {name!r} is attached to {model.name}; attached are {', '.join(map(repr, names)) or 'none'}"
        )
    for one in attached(model):
        if name is None or one.name == name:
            one.detach()
