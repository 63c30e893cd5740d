"""A capture of one site of ready ids, all else as it comes: what any capture does, without what only others need."""

from typing import Any

import torch
from torch import Tensor, nn

from innerview.activations import Activations
from innerview.hooks import Board, refuse_compiled
from innerview.inputs import FEW, Call
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import current
from innerview.sides import is_pair


class _Reached(Exception):
    """The site has fired: the rest of the forward is not needed."""


class _Watch:
    """The run of one forward and its hook in one: keeps what a module returns, and ends the forward there."""

    def __init__(self, board: Board | None, site: Site) -> None:
        self.board = board
        self.value: Tensor | None = None
        self.version: int | None = None
        self._site = site

    def __call__(self, module: nn.Module, args: tuple, output: Any) -> None:
        if self.board is None or current.get() is not self:
            return
        value = self._site.read(output)
        # Tensors of the inference mode count no versions.
        is_counted = not value.is_inference()
        self.value = value if is_counted else value.clone()
        self.version = value._version if is_counted else None
        raise _Reached

    # A copy of the network takes an idle one along.

    def __deepcopy__(self, memo: dict) -> "_Watch":
        return _Watch(None, self._site)

    def __reduce__(self) -> Any:
        return _Watch, (None, self._site)

    # What hooks of other jobs on the same network ask of the run that passes.

    def starts(self, args: tuple, kwargs: dict) -> None:
        """A forward starts; no token is counted."""

    def ends(self, is_whole: bool) -> None:
        """It ended."""

    def visit(self, point: Any, value: Any) -> None:
        """Nothing is edited."""

    @property
    def is_written_over(self) -> bool:
        """Whether the network has written over the value behind its firing."""
        return self.value is not None and self.version is not None and self.value._version != self.version


def capture_one(model: Model, board: Board, inputs: Any, name: Any) -> Activations | None:
    """What leaves a module for ready ids, nothing edited and nothing chosen; None where that takes more than one hook.

    Args:
        model: The network.
        board: Its switchboard.
        inputs: What `capture` was given.
        name: What `capture` was asked for: a name, or a list of one, is a site.
    Raises:
        EditError: The module is compiled.
    """
    if isinstance(name, list) and len(name) == 1:
        name = name[0]
    site = model.table.get(name) if isinstance(name, str) else None
    if site is None or site.side != "output" or site.is_flat or site.is_eager or not isinstance(inputs, Tensor):
        return None
    if inputs.numel() > FEW or is_pair(model.module):
        return None
    call = Call.of(model, inputs)
    if call.tokens is None or not call.is_encoded:
        return None
    watch = _Watch(board, site)
    _forward(board, site, call, watch)
    if watch.value is None or watch.is_written_over:
        return None
    return Activations({site.name: watch.value}, call.tokens.ids, call.tokens.mask, model)


def _forward(board: Board, site: Site, call: Call, watch: _Watch) -> None:
    root, had_gradients = board.root, torch.is_grad_enabled()
    before = current.get()
    with board.lock:
        module = refuse_compiled(root, site.module)
        try:
            try:
                torch.set_grad_enabled(False)
                module.register_forward_hook(watch)
                current.set(watch)
                root(*call.args, **call.kwargs)
            except _Reached:
                # How the forward ends: what was asked for is there.
                pass
            finally:
                _over(module, watch, before, had_gradients)
        except KeyboardInterrupt:
            # It may have come before everything was put back; the second time puts back what is left.
            _over(module, watch, before, had_gradients)
            raise


def _over(module: nn.Module, watch: _Watch, before: Any, had_gradients: bool) -> None:
    current.set(before)
    torch.set_grad_enabled(had_gradients)
    hooks = module._forward_hooks
    # By the object, not by a handle: an interrupt may come before a handle is in anybody's hands.
    for key in [key for key, hook in hooks.items() if hook is watch]:
        hooks.pop(key, None)
