"""The run behind a capture: one forward, what is kept of it, and where it stops."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from innerview.errors import CaptureError
from innerview.hooks import Board, BoardRun, refuse_compiled
from innerview.models.site import Point, Site
from innerview.runs import Forward, Plan, Rows, current
from innerview.sides import is_pair

Finish = Callable[[Site, Tensor], Tensor]

# What tells an encoder–decoder its decoder's text.
DECODERS = ("decoder_input_ids", "decoder_inputs_embeds", "labels")


class _Stop(Exception):
    """Every site that was asked for has fired: the rest of the forward is not needed."""


class Keeper:
    """What one forward leaves at sites.

    Args:
        sites: What to keep.
        finish: What becomes of each value before it is kept; None keeps it as it is.
        firing: Which firing of a site counts, from 0, negative from the last; None demands that there is one.
        may_stop: Whether the forward ends behind the last site.
        copies: Keep copies, for networks that write over their own tensors.
        before_edits: Keep what arrives at a site, not what leaves it.
        shape: Rows and tokens a row of the forward; None when the network reads no ids.
    """

    def __init__(
        self, sites: list[Site], *, finish: Finish | None = None, firing: int | None = None, may_stop: bool = False,
        copies: bool = False, before_edits: bool = False, shape: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        self.sites = sites
        self.before_edits = before_edits
        self.shape = shape
        self.values: dict[str, Tensor] = {}
        self.by_point: dict[Point, list[Site]] = {}
        for site in sites:
            self.by_point.setdefault(site.point, []).append(site)
        self.finish = finish
        self.is_late = False
        self._firing = firing
        self._counts: dict[str, int] = {}
        self._may_stop = may_stop and (firing is None or firing >= 0)
        self._copies = copies
        self._seen: list[tuple[Tensor, int]] = []
        self._latest: dict[str, list[Tensor]] = {}

    def keep(self, point: Point, value: Any) -> Any:
        """Keep what a module handles; None, because nothing changes."""
        for site in self.by_point[point]:
            if self._is_due(site):
                self._put(site, site.read(value, self.shape))
        if self._may_stop and len(self.values) == len(self.sites):
            raise _Stop
        return None

    def _is_due(self, site: Site) -> bool:
        """Whether this firing of a site is one to keep.

        Raises:
            CaptureError: It is the second, and nobody said which one counts.
        """
        count = self._counts[site.name] = self._counts.get(site.name, -1) + 1
        if self._firing is None and count:
            raise CaptureError(
                f"site {site.name!r} fired more than once in one forward; name a module that runs once, or say which one counts: "
                "firing=0 is the first, -1 the last"
            )
        return self._firing is None or self._firing < 0 or count == self._firing

    def _put(self, site: Site, value: Tensor) -> None:
        is_own = self._copies or value.is_inference()
        if is_own:
            value = value.clone()
        kept = value if self.finish is None else self.finish(site, value)
        # What is shared with the network, or copied while it runs on, may be written over.
        if not is_own and (self.is_late or kept is value or kept._is_view()):
            self._seen.append((value, value._version))
        if self._firing is not None and self._firing < 0:
            # Counted from the last, which nobody knows before the forward is over.
            latest = self._latest.setdefault(site.name, [])
            latest.append(kept)
            del latest[: max(0, len(latest) + self._firing)]
            kept = latest[0]
        self.values[site.name] = kept

    def is_written_over(self) -> bool:
        """Whether the network has written over a value behind its firing, while it may still have been copied."""
        return any(value._version != version for value, version in self._seen)

    def check(self) -> None:
        """Refuse a site that did not fire, or not often enough.

        Raises:
            CaptureError: There is one.
        """
        for site in self.sites:
            fired = self._counts.get(site.name, -1) + 1
            if not fired:
                raise CaptureError(
                    f"site {site.name!r} never fired: the network does not run that module itself; see model.sites() for sites that fire"
                )
            wanted = self._firing
            if wanted is not None and not -fired <= wanted < fired:
                raise CaptureError(
                    f"site {site.name!r} fired {fired} times, so there is no firing {wanted}; use {-fired} to {fired - 1}"
                )


class _Tap:
    """What is registered at a point when nothing but watching is asked for. A copy of the module takes an idle one along."""

    def __init__(self, run: "CaptureRun | None", point: Point) -> None:
        self.run = run
        self.point = point

    def __deepcopy__(self, memo: dict) -> "_Tap":
        return _Tap(None, self.point)

    def __reduce__(self) -> Any:
        return _Tap, (None, self.point)


class _OutputTap(_Tap):
    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        run = self.run
        return run.keeper.keep(self.point, output) if run is not None and current.get() is run else None


class _InputTap(_Tap):
    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        run = self.run
        if run is None or current.get() is not run:
            return None
        value = args[0] if args else next((v for v in kwargs.values() if isinstance(v, Tensor)), None)
        if value is None:
            raise CaptureError(f"module {self.point[0]!r} received no tensor to read; name another site")
        return run.keeper.keep(self.point, value)


class CaptureRun(BoardRun):
    """One forward of a capture."""

    def __init__(self, board: Board, plan: Plan, rows: Rows | None, keeper: Any) -> None:
        super().__init__(board, plan, rows)
        self.keeper = keeper
        # The forward of this run, its tokens counted; it stays when the forward is over.
        self.located: Forward | None = None
        self._has_plain_hooks = False

    def begin(self, *told: Any, **more: Any) -> None:
        """The forward starts: count its tokens."""
        super().begin(*told, **more)
        self.located = self.forward

    @property
    def points(self) -> set[Point]:
        """Where this run needs hooks."""
        return self.plan.points | set(self.keeper.by_point)

    def visit(self, point: Point, value: Any) -> Any:
        """Apply edits, and keep what passes; None when nothing changed."""
        # Hooks of an open block or an attachment may be at the very points that plain hooks watch.
        if point not in self.keeper.by_point or self._has_plain_hooks:
            return super().visit(point, value)
        if not self.keeper.before_edits:
            changed = super().visit(point, value)
            replaced = self.keeper.keep(point, value if changed is None else changed)
            return changed if replaced is None else replaced
        replaced = self.keeper.keep(point, value)
        changed = super().visit(point, value if replaced is None else replaced)
        return replaced if changed is None else changed

    def forward_once(self, args: tuple, kwargs: dict, *, is_plain: bool) -> Any:
        """What the root module returns; None when the forward stopped behind the last site.

        Args:
            is_plain: Nothing is edited and no token is counted, so that plain hooks at the points are enough.
        """
        try:
            return self._watched(args, kwargs) if is_plain else self.call(args, kwargs)
        except _Stop:
            return None
        except ValueError as error:
            if is_pair(self.board.root) and not any(kwargs.get(name) is not None for name in DECODERS):
                raise CaptureError(
                    f"{type(self.board.root).__name__} is an encoder-decoder, and was not told what its decoder reads ({error}); "
                    "give decoder_input_ids beside input_ids"
                ) from error
            raise

    def _watched(self, args: tuple, kwargs: dict) -> Any:
        self._has_plain_hooks = True
        before, root = current.get(), self.board.root
        taps: list[tuple[nn.Module, _Tap]] = []
        with self.board.lock:
            try:
                try:
                    for point in self.keeper.by_point:
                        taps.append(_tap_at(root, self, point))
                        _register(*taps[-1])
                    current.set(self)
                    return root(*args, **kwargs)
                finally:
                    _over(before, taps)
            except KeyboardInterrupt:
                # It may have come before everything was put back; the second time puts back what is left.
                _over(before, taps)
                raise


def _tap_at(root: nn.Module, run: CaptureRun, point: Point) -> tuple[nn.Module, _Tap]:
    """The module of a point, which no compiled code runs, and the tap that belongs there."""
    path, side = point
    return refuse_compiled(root, path), (_InputTap if side == "input" else _OutputTap)(run, point)


def _register(module: nn.Module, tap: _Tap) -> None:
    if isinstance(tap, _InputTap):
        module.register_forward_pre_hook(tap, with_kwargs=True)
    else:
        module.register_forward_hook(tap)  # type: ignore[arg-type]


def _over(before: Any, taps: list[tuple[nn.Module, _Tap]]) -> None:
    current.set(before)
    for module, tap in taps:
        # By the object, not by a handle: an interrupt may come before a handle is in anybody's hands.
        is_input = isinstance(tap, _InputTap)
        hooks: Any = module._forward_pre_hooks if is_input else module._forward_hooks
        for key in [key for key, hook in list(hooks.items()) if hook is tap]:
            hooks.pop(key, None)
            if is_input:
                module._forward_pre_hooks_with_kwargs.pop(key, None)
