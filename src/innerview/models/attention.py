"""A twin of a network whose attention kernel computes its weights, for the forwards that must read them."""

import copy
import dataclasses
import functools
import threading
from typing import Any

from torch import nn

from innerview.errors import CaptureError
from innerview.models.inside import Inside
from innerview.models.model import Model


def eager_twin(model: Model) -> Model:
    """The same network under the eager attention kernel: its own modules and config around the very same weights.

    The network itself is not switched, because a forward of another thread would see it.

    Raises:
        CaptureError: The network cannot choose its kernel.
    """
    module: Any = model.module
    kernel = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if kernel is None:
        raise CaptureError(
            f"{model.name} ({type(module).__name__}) cannot choose its attention kernel, so its attention weights cannot be had; "
            "read attn.heads or attn.out instead"
        )
    if kernel == "eager":
        return model
    return dataclasses.replace(model, module=eager_copy(module), lock=threading.RLock())


def eager_copy(module: nn.Module) -> Any:
    """The module's twin under the eager kernel; None where its kernel cannot be chosen, or is eager."""
    if getattr(getattr(module, "config", None), "_attn_implementation", None) in (None, "eager"):
        return None
    twin: Any = _twin(module, {})
    # Not set_attn_implementation, which refuses networks whose attention chooses by its config as it runs.
    for part in twin.modules():
        if getattr(getattr(part, "config", None), "_attn_implementation", None) not in (None, "eager"):
            part.config._attn_implementation = "eager"
    return twin


def _twin(module: nn.Module, made: dict[int, Any]) -> nn.Module:
    """A module like this one, with twins of its children and configs, its own tables of hooks, and the same weights."""
    if id(module) in made:
        return made[id(module)]
    twin = made[id(module)] = module.__new__(type(module))
    for name, value in module.__dict__.items():
        if name == "_modules":
            value = {key: None if child is None else _twin(child, made) for key, child in value.items()}
        elif isinstance(value, nn.Module):
            value = _twin(value, made)
        elif hasattr(value, "_attn_implementation"):
            value = made.setdefault(id(value), copy.deepcopy(value))
        elif isinstance(value, dict):
            value = copy.copy(value)
        elif name in ("forward", "_old_forward"):
            value = _rebound(value, module, twin)
        if value is not _OWN:
            twin.__dict__[name] = value
    return twin


_OWN = object()


def _rebound(forward: Any, module: nn.Module, twin: nn.Module) -> Any:
    """A forward that somebody put on a module, for its twin: it must call the twin's parts. `_OWN` for the class's own."""
    if isinstance(forward, Inside):
        return _rebound(forward.before, module, twin)
    if forward is None:
        return _OWN
    if isinstance(forward, functools.partial):
        # Offloading: what loads the weights is told the module that it loads them into.
        args = [twin if arg is module else arg for arg in forward.args]
        return functools.update_wrapper(functools.partial(forward.func, *args, **forward.keywords), forward)
    return forward.__func__.__get__(twin) if getattr(forward, "__self__", None) is module else forward
