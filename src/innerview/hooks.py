"""The switchboard of one root module: counted hooks, and which job the forward that passes through them belongs to."""

import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from innerview.calls import cache_length, ids_shape, named, token_ids
from innerview.errors import EditError
from innerview.interrupts import Uninterrupted
from innerview.models.inside import watch
from innerview.models.model import Model, lock_of
from innerview.models.site import Point
from innerview.own_forwards import Block, OwnForward, Prompts, raise_unmet
from innerview.runs import EMPTY, Plan, Rows, Run, current
from innerview.sides import Pair, is_pair

ROOT: Point = ("", "root")  # type: ignore[assignment]


class Board:
    """Hooks and edits of one root module. Kept for as long as the module lives."""

    def __init__(self, root: nn.Module | None) -> None:
        self._root = None if root is None else weakref.ref(root)
        self.lock = threading.RLock() if root is None else lock_of(root)
        self.attached: dict[str, Any] = {}
        self._blocks: dict[int, list[Block]] = {}
        self._hooks: dict[Point, list[Any]] = {}
        self._own = threading.local()
        self._prompts = Prompts()

    @property
    def root(self) -> nn.Module:
        """The root module."""
        root = None if self._root is None else self._root()
        if root is None:
            raise EditError("the network of this edit is gone; open it again")
        return root

    # Hooks: one a point, counted.

    @property
    def is_hooked(self) -> bool:
        """Whether anybody has hooks here now."""
        return bool(self._hooks)

    def acquire(self, points: Iterable[Point]) -> list[Point]:
        """Hook the root and these points; returns what must be released.

        Raises:
            EditError: A module was compiled before the hook came, and would ignore it.
        """
        held: list[Point] = []
        with self.lock:
            try:
                for point in (ROOT, *points):
                    self._acquire_one(point)
                    held.append(point)
            except BaseException:
                self.release(held)
                raise
        return held

    def _acquire_one(self, point: Point) -> None:
        entry = self._hooks.get(point)
        if entry is None:
            refuse_compiled(self.root, point[0])
            entry = self._hooks[point] = [0, self._register(point)]
        entry[0] += 1

    def release(self, held: list[Point]) -> None:
        """Give hooks back, and empty the list of them; hooks that nobody else holds are removed."""
        with self.lock:
            while held:
                point = held.pop()
                entry = self._hooks[point]
                entry[0] -= 1
                if entry[0] == 0:
                    del self._hooks[point]
                    for handle in entry[1]:
                        handle.remove()

    def _register(self, point: Point) -> list[Any]:
        path, side = point
        module = self.root.get_submodule(path)
        if point == ROOT:
            return [
                module.register_forward_pre_hook(self._root_starts, with_kwargs=True),
                module.register_forward_hook(self._root_ends, with_kwargs=True, always_call=True),
            ]
        if side == "input":
            return [module.register_forward_pre_hook(_InputHook(self, point), with_kwargs=True)]
        if side == "received":
            # Before whatever changes the input: the skip connection holds what came, not what the module is given.
            return [module.register_forward_pre_hook(_InputHook(self, point), with_kwargs=True, prepend=True)]
        if side == "call":
            return [module.register_forward_pre_hook(_CallHook(self, point))]
        if side != "output":
            return [watch(self.root, module, side, _InsideHook(self, point))]
        return [module.register_forward_hook(_OutputHook(self, point))]

    def __deepcopy__(self, memo: dict) -> "Board":
        # A copy of a hooked network is a network of its own: its hooks lead to a board without edits.
        return Board(None)

    def __reduce__(self) -> Any:
        return Board, (None,)

    def visit_output(self, point: Point, output: Any) -> Any:
        """What a module returns, edited; None when nothing changed."""
        return self._job().visit(point, output)

    def visit_input(self, point: Point, args: tuple, kwargs: dict) -> Any:
        """What a module is called with, edited; None when nothing changed."""
        key = 0 if args else next((k for k, v in kwargs.items() if isinstance(v, Tensor)), None)
        if key is None:
            raise EditError(f"module {point[0]!r} received no tensor to read; name another site")
        changed = self._job().visit(point, args[0] if args else kwargs[key])
        if changed is None:
            return None
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, key: changed})

    # Whose forward it is.

    def _job(self) -> Any:
        run = current.get()
        if run is not None:
            # What happens inside a run is that run's alone, under another opened root of the same modules too.
            return run if run.board is self else _NOBODY
        own = self._under_way()
        # A part of the network called by itself, not through its root.
        return own if own is not None else OwnForward(self.own_blocks(), None)

    def _under_way(self) -> OwnForward | None:
        """This thread's forward of the user's own. No hook hears of an interrupt, so what it broke off is told by its frame."""
        own: OwnForward | None = getattr(self._own, "forward", None)
        frame: Any = sys._getframe(1)
        while own is not None and frame is not None:
            if frame is own.frame:
                return own
            frame = frame.f_back
        return None

    def _root_starts(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        run = current.get()
        if run is not None:
            if run.board is self:
                run.starts(args, kwargs)
            return
        own = OwnForward(self.own_blocks(), None, outer=self._under_way(), frame=sys._getframe(1))
        self._own.forward = own
        plans = [block.plan for block in own.blocks]
        _refuse_recomputing(module, plans)
        if any(plan.by_point for plan in plans):
            _refuse_wrapped(module, own.frame)  # type: ignore[call-arg]
        self._prompts.locate(module, own, *named(module, args, kwargs))

    def _root_ends(self, module: nn.Module, args: tuple, kwargs: dict, output: Any) -> None:
        run = current.get()
        if run is not None:
            if run.board is self:
                run.ends(output is not None)
            return
        own = getattr(self._own, "forward", None)
        if own is None:
            return
        self._own.forward = own.outer
        if output is None:
            return
        self._prompts.remember(own, output)
        for block in own.blocks:
            block.forwards += 1
            if block.name:
                raise_unmet(block, f"attached {block.name!r}", with_positions=False)

    def own_blocks(self) -> list[Block]:
        """What edits a forward of the user's own in this thread: attached edits, then the thread's blocks, the outer first.

        Raises:
            EditError: This thread has no blocks, and several others do.
        """
        blocks = self._blocks.get(threading.get_ident())
        if not blocks:
            others = [list(b) for b in list(self._blocks.values()) if b]
            if len(others) > 1:
                raise EditError(
                    f"{len(others)} other threads have editing blocks open, so whose edits this thread's forward takes is unclear; "
                    "open a block in this thread, or use iv.generate"
                )
            blocks = others[0] if others else []
        return [*self._enabled(), *blocks]

    def frozen_plan(self) -> Plan:
        """The attached edits and this thread's own blocks, as a Run takes them when it starts."""
        plan = EMPTY
        for block in (*self._enabled(), *self._blocks.get(threading.get_ident(), ())):
            plan = plan + block.plan
        return plan

    def _enabled(self) -> list[Block]:
        return [a.block for a in list(self.attached.values()) if a.block.is_enabled]

    def push(self, block: Block) -> None:
        """Open a block in this thread."""
        self._blocks.setdefault(threading.get_ident(), []).append(block)

    def pop(self, block: Block) -> None:
        """Close a block, whatever thread it was opened in."""
        for thread, blocks in list(self._blocks.items()):
            if block in blocks:
                blocks.remove(block)
                if not blocks:
                    self._blocks.pop(thread, None)


class _Hook:
    """What is registered at a point. An object, not a function: it is copied and pickled with its module."""

    def __init__(self, board: Board, point: Point) -> None:
        self.board = board
        self.point = point


class _InputHook(_Hook):
    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        return self.board.visit_input(self.point, args, kwargs)


class _OutputHook(_Hook):
    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.board.visit_output(self.point, output)


class _CallHook(_Hook):
    def __call__(self, module: nn.Module, args: tuple) -> None:
        # What is worked out from a call is read only.
        self.board.visit_output(self.point, args)


class _InsideHook(_Hook):
    def __call__(self, value: Tensor) -> Any:
        return self.board.visit_output(self.point, value)


class BoardRun(Run):
    """A Run of one network."""

    def __init__(self, board: Board, plan: Plan, rows: Rows | None, **options: Any) -> None:
        super().__init__(plan, rows, **options)
        self.board = board
        self._reads_two: bool | None = None

    def call(self, args: tuple, kwargs: dict) -> Any:
        """What the root module returns for one forward of this run, under the network's lock."""
        return self.inside(lambda: self.board.root(*args, **kwargs))

    def inside(self, job: Callable[[], Any]) -> Any:
        """What `job` returns; the network, or parts of it, that it calls belong to this run."""
        _refuse_recomputing(self.board.root, [self.plan])
        before = current.get()
        held: list[Point] = []
        try:
            with Uninterrupted():
                held = self.board.acquire(self.points)
            with self.board.lock:
                current.set(self)
                return job()
        finally:
            try:
                self._over(before, held)
            except KeyboardInterrupt:
                # It may have come before anything was put back; the second time puts back what is left.
                self._over(before, held)
                raise

    def _over(self, before: Any, held: list[Point]) -> None:
        with Uninterrupted():
            current.set(before)
            self.forward = None
            self.board.release(held)

    def starts(self, args: tuple, kwargs: dict) -> None:
        """The root module is called: count the tokens."""
        self.locate(*named(self.board.root, args, kwargs))

    def locate(self, args: tuple, kwargs: dict) -> None:
        """Count the tokens of a call of the root."""
        shape, device = ids_shape(args, kwargs)
        if self._reads_two is None:
            self._reads_two = is_pair(self.board.root)
        self.pair = Pair.of(self.board.root, kwargs) if self._reads_two else None
        self.begin(shape, cache_length(kwargs), device, token_ids(args, kwargs))

    def ends(self, is_whole: bool) -> None:
        """The root module returned, or failed."""
        self.forward = None
        if is_whole:
            missed = self.never_fired()
            if missed:
                raise EditError(
                    f"site {missed[0]!r} never fired in this run, so its edit was not applied; edit a site that fires, see model.sites()"
                )


_NOBODY = OwnForward([], None)


def _refuse_recomputing(root: nn.Module, plans: list[Plan]) -> None:
    """Refuse edits whose gradients would be wrong.

    Raises:
        EditError: The network checkpoints gradients: it runs its blocks again in backward, where the edits' tokens are unknown.
    """
    if not (root.training and torch.is_grad_enabled() and any(plan.by_point for plan in plans)):
        return
    if any(getattr(module, "gradient_checkpointing", False) for module in root.modules()):
        raise EditError(
            f"{type(root).__name__} checkpoints gradients, and runs its blocks again in backward without knowing which tokens are edited; "
            "call gradient_checkpointing_disable() on it before you edit while training"
        )


_BOARDS: "weakref.WeakKeyDictionary[nn.Module, Board]" = weakref.WeakKeyDictionary()
_GUARD = threading.Lock()


def board_of(model: Model) -> Board:
    """The one switchboard of a network's root module."""
    with _GUARD:
        board = _BOARDS.get(model.module)
        if board is None:
            board = _BOARDS[model.module] = Board(model.module)
        return board


# Frames between a call of what `torch.compile` returned and the hook of the network inside.
_STEPS_INSIDE = 24


# Dynamo follows hooks of the root, and cannot follow what looks at frames.
@torch.compiler.disable
def _refuse_wrapped(root: nn.Module, frame: Any) -> None:
    """Refuse edits of a forward that comes through `torch.compile(root)`, whose code may know nothing of their hooks.

    Raises:
        EditError: It comes that way.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    if dynamo is None:
        return
    code = dynamo.OptimizedModule.__call__.__code__
    for _ in range(_STEPS_INSIDE):
        if frame is None:
            return
        if frame.f_code is code and getattr(frame.f_locals.get("self"), "_orig_mod", None) is root:
            raise EditError(
                f"this forward of {type(root).__name__} comes through torch.compile, and compiled code ignores hooks that came later; "
                "call the original module (compiled._orig_mod), or compile with iv.compiled, whose edits stay live"
            )
        frame = frame.f_back


def _is_compiled(module: nn.Module) -> bool:
    """Whether a module, its call or its forward was compiled."""
    # Not hasattr on the module, which searches its parameters, buffers and parts; nor on its bound method, which is made anew each time.
    if "_orig_mod" in module._modules or module.__dict__.get("_compiled_call_impl") is not None:
        return True
    return hasattr(module.__dict__.get("forward") or type(module).forward, "_torchdynamo_orig_callable")


def refuse_compiled(root: nn.Module, path: str) -> nn.Module:
    """The module at a path, for a hook that no compiled code ignores.

    Raises:
        EditError: The module, or one around it, is compiled.
    """
    steps = path.split(".") if path else []
    module = root
    if _is_compiled(root):
        raise _ignored(root, "the root")
    for i, step in enumerate(steps, 1):
        parts: Any = module._modules
        module = parts[step] if step in parts else getattr(module, step)
        if _is_compiled(module):
            raise _ignored(module, ".".join(steps[:i]))
    return module


def _ignored(module: nn.Module, name: str) -> EditError:
    return EditError(
        f"module {name!r} ({type(module).__name__}) was compiled before this hook came, and compiled code ignores it; "
        "open the network before torch.compile, or the original module (compiled._orig_mod)"
    )
