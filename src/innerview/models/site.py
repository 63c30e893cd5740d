"""Addresses of activations: what a site is, and how its value is read from and written to what a module handles."""

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from innerview.errors import SiteError

Side = Literal["input", "output"]
Point = tuple[str, Side]


@dataclass(frozen=True)
class Site:
    """One address inside a network.

    Attributes:
        name: The address, such as `blocks.3.resid`.
        module: Path of the module whose input or output carries the activation.
        side: Which of the two.
        axes: Names of the axes, such as `("batch", "pos", "d_model")`.
        sizes: Sizes of the axes after `batch` and `pos`; None where unknown before a forward.
        layer: Number of the block, None outside of blocks.
        item: Which item of the module's value, where it is a tuple; None takes the tensor or the first.
        part: Which of `parts` equal pieces of the last axis (a fused projection); None takes all.
        parts: Number of equal pieces of the last axis.
        heads: Number of heads that the last axis is viewed as; None leaves it flat.
        is_eager: Whether only the eager attention kernel computes it.
        is_editable: Whether a change here reaches everything that reads the site.
        instead: Where to edit when `is_editable` is false.
    """

    name: str
    module: str
    side: Side = "output"
    axes: tuple[str, ...] = ()
    sizes: tuple[int, ...] | None = None
    layer: int | None = None
    item: int | None = None
    part: int | None = None
    parts: int = 1
    heads: int | None = None
    is_eager: bool = False
    is_editable: bool = True
    instead: str = ""

    @property
    def point(self) -> Point:
        """Where the hook sits: module path and side."""
        return self.module, self.side

    @property
    def shape(self) -> str:
        """The axes with their sizes, for people: `[batch, pos, d_model=160]`."""
        if not self.axes:
            return "[...]"
        sizes = (None, None) + (self.sizes or (None,) * (len(self.axes) - 2))
        named = [a if n is None else f"{a}={n}" for a, n in zip(self.axes, sizes, strict=True)]
        return "[" + ", ".join(named) + "]"

    def read(self, value: Any) -> Tensor:
        """The activation inside what the module received or returned."""
        tensor = _item_of(value, self.item, self.name)
        if self.part is not None:
            tensor = tensor.chunk(self.parts, dim=-1)[self.part]
        return tensor.unflatten(-1, (self.heads, -1)) if self.heads else tensor

    def write(self, value: Any, new: Tensor) -> Any:
        """A copy of `value` with the activation replaced; the container keeps its type."""
        whole = _item_of(value, self.item, self.name)
        flat = new.flatten(-2) if self.heads else new
        if self.part is not None:
            pieces = list(whole.chunk(self.parts, dim=-1))
            pieces[self.part] = flat
            flat = torch.cat(pieces, dim=-1)
        return _with_item(value, self.item, flat)


def _first_tensor(items: Any) -> Any:
    for key, item in items:
        if isinstance(item, Tensor):
            return key
    return None


def _key_of(value: Any, item: int | None) -> Any:
    """Key or index of the tensor inside a container, None if there is none."""
    if isinstance(value, Mapping):
        return _first_tensor(value.items())
    if isinstance(value, (tuple, list)):
        return item if item is not None else _first_tensor(enumerate(value))
    if dataclasses.is_dataclass(value):
        return _first_tensor((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))
    return None


def _item_of(value: Any, item: int | None, name: str) -> Tensor:
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


def _with_item(value: Any, item: int | None, new: Tensor) -> Any:
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
