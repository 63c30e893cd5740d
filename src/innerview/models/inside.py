"""What a module computes inside its forward, where no module of its own holds it: scores and pattern of attention, a router's logits."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, softmax
from torch.overrides import TorchFunctionMode

from innerview.errors import EditError
from innerview.models.site import Side

Visitor = Callable[[Tensor], Tensor | None]

SOFTMAX = {softmax, torch.softmax, Tensor.softmax}


class Inside:
    """A module's forward with visitors in it. It stands in the module's own `forward` for as long as somebody visits."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        # Offloading puts a forward of its own on the module.
        self.before = module.__dict__.get("forward")
        self.visitors: dict[Side, Visitor] = {}
        module.__dict__["forward"] = self

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        forward = self.before or type(self.module).forward.__get__(self.module)
        if not self.visitors:
            return forward(*args, **kwargs)
        with _Watch(dict(self.visitors), _dtype(args, kwargs)):
            return forward(*args, **kwargs)

    def leave(self, side: Side) -> None:
        """One visitor goes; with the last one the module is as it was."""
        del self.visitors[side]
        if not self.visitors and self.module.__dict__.get("forward") is self:
            del self.module.__dict__["forward"]
            if self.before is not None:
                self.module.__dict__["forward"] = self.before

    def __deepcopy__(self, memo: dict) -> "Inside":
        # A copy of a watched network is a network of its own, which nobody watches.
        made = memo[id(self)] = Inside.__new__(Inside)
        made.module, made.visitors = copy.deepcopy(self.module, memo), {}
        made.before = copy.deepcopy(self.before, memo)
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"module": self.module, "before": self.before, "visitors": {}}


class Handle:
    """One visitor of one module."""

    def __init__(self, inside: Inside, side: Side) -> None:
        self._inside = inside
        self._side: Side = side

    def remove(self) -> None:
        """The visitor goes."""
        self._inside.leave(self._side)


def watch(root: nn.Module, module: nn.Module, side: Side, visitor: Visitor) -> Handle:
    """Call `visitor` with what a module computes inside; what it returns, unless None, stands in its place.

    Raises:
        EditError: The network's attention kernel computes no scores.
    """
    if side in ("scores", "pattern"):
        _refuse_fused(root, module, side)
    inside = module.__dict__.get("forward")
    if not isinstance(inside, Inside) or inside.module is not module:
        inside = Inside(module)
    inside.visitors[side] = visitor
    return Handle(inside, side)


def _refuse_fused(root: nn.Module, module: nn.Module, side: Side) -> None:
    config = getattr(module, "config", None) or getattr(root, "config", None)
    kernel = getattr(config, "_attn_implementation", None)
    if kernel not in (None, "eager"):
        raise EditError(
            f"the attention kernel {kernel!r} computes no attn.{side} to edit; load the network with attn_implementation='eager', "
            "or edit attn.q, attn.k or attn.heads"
        )


def _dtype(args: tuple, kwargs: dict[str, Any]) -> torch.dtype | None:
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.is_floating_point():
            return value.dtype
    return None


class _Watch(TorchFunctionMode):
    """Passes what a softmax over keys takes and gives, and what a linear map gives, through visitors."""

    def __init__(self, visitors: dict[Side, Visitor], dtype: torch.dtype | None) -> None:
        super().__init__()
        self._visitors = visitors
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if func in SOFTMAX and args and isinstance(args[0], Tensor) and args[0].ndim == 4:
            scores = self._visit("scores", args[0])
            return self._visit("pattern", func(scores, *args[1:], **kwargs))
        result = func(*args, **kwargs)
        return self._visit("linear", result) if func is linear else result

    def _visit(self, side: Side, value: Tensor) -> Tensor:
        visitor = self._visitors.get(side)
        if visitor is None:
            return value
        # Softmax in single precision is rounded to the network's numbers at once: what is shown is what is used.
        shown = value.to(self._dtype) if side == "pattern" and self._dtype is not None else value
        changed = visitor(shown)
        return value if changed is None else changed.to(value.dtype)
