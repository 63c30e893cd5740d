"""Addresses of activations: what a site is, and how its value is read from and written to what a module handles."""

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from innerview.errors import SiteError

# `received` is the input before any change of it, `call` all that a module is called with by position; `scores`, `pattern` and `linear`
# are computed inside a module: see `models/inside.py`.
Side = Literal["input", "received", "call", "output", "scores", "pattern", "linear"]
Point = tuple[str, Side]
Rows = tuple[int, int] | None


@dataclass(frozen=True)
class Cut:
    """Where some heads lie in the last axis of a fused projection: seen as [groups, members, width], members `start` to `stop`.

    Queries, keys and values one behind the other are one group; interleaved head by head, each head is a group.
    """

    groups: int
    members: int
    start: int
    stop: int

    def read(self, whole: Tensor) -> Tensor:
        """The cut, flat in the last axis, heads in their order."""
        if self.groups == 1:
            width = whole.shape[-1] // self.members
            return whole[..., self.start * width : self.stop * width]
        return whole.unflatten(-1, (self.groups, self.members, -1))[..., self.start : self.stop, :].flatten(-3)

    def write(self, whole: Tensor, new: Tensor) -> Tensor:
        """The whole axis with the cut replaced."""
        seen = whole.unflatten(-1, (self.groups, self.members, -1))
        inside = new.unflatten(-1, (self.groups, self.stop - self.start, -1))
        return torch.cat([seen[..., : self.start, :], inside, seen[..., self.stop :, :]], dim=-2).flatten(-3)


@dataclass(frozen=True)
class Site:
    """One address inside a network.

    Attributes:
        name: The address, such as `blocks.3.resid`.
        module: Path of the module that carries the activation.
        side: Whether its input, its output, or what it computes inside.
        axes: Names of the axes, such as `("batch", "pos", "d_model")`.
        sizes: Sizes of the axes after `batch` and `pos`; None where unknown before a forward.
        layer: Number of the block, None outside of blocks.
        item: Which item of the module's value, where it is a tuple or a mapping; None takes the tensor or the first.
        cut: Which part of the last axis (a fused projection); None takes all.
        heads: Number of heads that the last axis is viewed as; None leaves it flat.
        drop: Columns at the end of the last axis that belong to no token (attention sinks).
        is_flat: Whether the module sees all tokens of the batch in one axis.
        is_shared: Whether the skip connection holds the very tensor, so that a change is written into it.
        times: What the network multiplies the value by before it is what the site names.
        over: What it divides the value by.
        cap: Bound of the tanh that the network puts on the value; None for none.
        derive: What computes the site from the value, where no module holds it.
        is_eager: Whether only the eager attention kernel computes it.
        is_editable: Whether a change here reaches everything that reads the site.
        instead: Where to edit when `is_editable` is false.
        is_bare: Whether the activation is the very tensor that the module handles, where it handles one.
    """

    name: str
    module: str
    side: Side = "output"
    axes: tuple[str, ...] = ()
    sizes: tuple[int, ...] | None = None
    layer: int | None = None
    item: int | str | None = None
    cut: Cut | None = None
    heads: int | None = None
    drop: int = 0
    is_flat: bool = False
    is_shared: bool = False
    times: float = 1.0
    over: float = 1.0
    cap: float | None = None
    derive: Callable[[Any], Tensor] | None = field(default=None, repr=False, compare=False)
    is_eager: bool = False
    is_editable: bool = True
    instead: str = ""
    is_bare: bool = field(init=False, repr=False, compare=False, default=False)

    def __post_init__(self) -> None:
        is_part = bool(self.cut or self.heads or self.drop or self.is_flat or self.is_shared)
        is_bare = not is_part and self.derive is None and self.cap is None and self.times == self.over == 1.0
        object.__setattr__(self, "is_bare", is_bare)

    @property
    def point(self) -> Point:
        """Where the hook sits: module path and side."""
        return self.module, self.side

    @property
    def pos_axis(self) -> int:
        """Which axis the tokens are along: 1, except for attention scores and patterns, [batch, head, pos, key]."""
        return self.axes.index("pos") if "pos" in self.axes else 1

    @property
    def shape(self) -> str:
        """The axes with their sizes, for people: `[batch, pos, d_model=160]`."""
        if not self.axes:
            return "[...]"
        sizes = (None, None) + (self.sizes or (None,) * (len(self.axes) - 2))
        named = [a if n is None else f"{a}={n}" for a, n in zip(self.axes, sizes, strict=True)]
        return "[" + ", ".join(named) + "]"

    def read(self, value: Any, rows: Rows = None) -> Tensor:
        """The activation inside what the module handles.

        Args:
            value: What the module received, returned or computed.
            rows: Rows and tokens a row of the forward, for modules that see all tokens in one axis.
        """
        if self.is_bare and isinstance(value, Tensor):
            return value
        if self.side == "call" and self.derive is not None:
            return self._by_rows(self.derive(value), rows)
        tensor = self._tensor(value, rows)
        if self.cut is not None:
            tensor = self.cut.read(tensor)
        if self.heads:
            tensor = tensor.unflatten(-1, (self.heads, -1))
        if self.derive is not None:
            tensor = self.derive(tensor)
        return self._scaled(tensor)

    def read_to_edit(self, value: Any, rows: Rows = None) -> Tensor:
        """The same, for an edit: what is written over must be no tensor that a gradient still needs."""
        tensor = self.read(value, rows)
        return tensor.clone() if self.is_shared and tensor.requires_grad else tensor

    def write(self, value: Any, new: Tensor, rows: Rows = None) -> Any:
        """A copy of `value` with the activation replaced; the container keeps its type."""
        if self.is_bare and isinstance(value, Tensor):
            return new if new.shape == value.shape else new.reshape(value.shape)
        whole = self._tensor(value, rows)
        flat = self._unscaled(whole, new)
        flat = flat.flatten(-2) if self.heads else flat
        if self.cut is not None:
            flat = self.cut.write(whole, flat)
        held = _item_of(value, self.item, self.name)
        if self.drop:
            flat = torch.cat([flat, held[..., held.shape[-1] - self.drop :]], dim=-1)
        if flat.shape != held.shape:
            flat = flat.reshape(held.shape)
        if self.is_shared:
            # The block keeps this tensor for its skip connection, which no hook passes: both must see the change.
            held.copy_(flat)
            return value
        return _with_item(value, self.item, flat)

    def _tensor(self, value: Any, rows: Rows) -> Tensor:
        tensor = _item_of(value, self.item, self.name)
        if self.drop:
            tensor = tensor[..., : tensor.shape[-1] - self.drop]
        return self._by_rows(tensor, rows)

    def _by_rows(self, tensor: Tensor, rows: Rows) -> Tensor:
        if self.is_flat and rows is not None and tensor.shape[0] == rows[0] * rows[1]:
            tensor = tensor.unflatten(0, rows)
        return tensor

    def _scaled(self, tensor: Tensor) -> Tensor:
        tensor = tensor if self.times == 1.0 else tensor * self.times
        tensor = tensor if self.over == 1.0 else tensor / self.over
        return tensor if self.cap is None else torch.tanh(tensor / self.cap) * self.cap

    def _unscaled(self, whole: Tensor, new: Tensor) -> Tensor:
        if self.times == 1.0 and self.over == 1.0 and self.cap is None:
            return new
        wide = new.float() if new.dtype in (torch.float16, torch.bfloat16) else new
        if self.cap is not None:
            if bool((wide.abs() >= self.cap).any()):
                raise SiteError(
                    f"the network caps {self.name!r} at {self.cap:g}, and the edit asks for {float(wide.abs().max()):g}; "
                    "ask for less, or edit 'final_norm'"
                )
            wide = torch.atanh(wide / self.cap) * self.cap
        raw = (wide * self.over / self.times).to(new.dtype)
        if self.cut is not None or self.heads:
            return raw
        # What an edit leaves alone stays bitwise as it was.
        return torch.where(new == self._scaled(whole), whole, raw)


def _first_tensor(items: Any) -> Any:
    for key, item in items:
        if isinstance(item, Tensor):
            return key
    return None


def _key_of(value: Any, item: int | str | None) -> Any:
    """Key or index of the tensor inside a container, None if there is none."""
    if isinstance(value, Mapping):
        return item if isinstance(item, str) and item in value else _first_tensor(value.items())
    if isinstance(value, (tuple, list)):
        return item if isinstance(item, int) else _first_tensor(enumerate(value))
    if dataclasses.is_dataclass(value):
        return _first_tensor((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    return None


def _item_of(value: Any, item: int | str | None, name: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    key = _key_of(value, item)
    found = None
    if key is not None:
        found = getattr(value, key) if _is_plain_dataclass(value) else value[key]
    if not isinstance(found, Tensor):
        raise SiteError(
            f"no tensor at {name!r}: the module handles a {type(value).__name__}; name a module inside it that returns one"
        )
    return found


def _is_plain_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, (Mapping, tuple, list))


def _with_item(value: Any, item: int | str | None, new: Tensor) -> Any:
    if isinstance(value, Tensor):
        return new
    key = _key_of(value, item)
    if isinstance(value, Mapping):
        copied = copy.copy(value)
        copied[key] = new  # type: ignore[index]
        return copied
    if isinstance(value, tuple):
        items = [new if i == key else v for i, v in enumerate(value)]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    if isinstance(value, list):
        return type(value)(new if i == key else v for i, v in enumerate(value))
    return dataclasses.replace(value, **{key: new})
