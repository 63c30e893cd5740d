"""What every edit is: an operation at a site, where it applies, and to which heads and neurons."""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from innerview.direction import Direction
from innerview.edits.code import code_of
from innerview.edits.context import Context
from innerview.errors import EditError
from innerview.models.site import Site
from innerview.where import Where

KNOWN = "Add, ProjectOut or Replace, or another edit of iv"


@dataclass(frozen=True, eq=False)
class Edit:
    """An operation at a site, and where it applies. Editing returns new tensors; gradients flow through it.

    The operation sees the whole activation; what is outside of `where`, `heads` and `neurons` keeps its value to the last bit.

    Attributes:
        site: Site or wildcard that the edit applies at.
        where: Tokens that the edit applies to.
        heads: Heads that it applies to, at a site with heads; None for all.
        neurons: Entries of the last axis that it applies to; None for all.
    """

    site: str = field(default="", kw_only=True)
    where: Where = field(default=Where(), kw_only=True)
    heads: tuple[int, ...] | None = field(default=None, kw_only=True)
    neurons: tuple[int, ...] | None = field(default=None, kw_only=True)
    _cast: dict = field(default_factory=dict, init=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.site, str) or not self.site:
            raise EditError(f"{type(self).__name__} needs a site such as site='blocks.3.resid', not {self.site!r}")
        if not isinstance(self.where, Where):
            raise EditError(f"where= takes a Where such as iv.Where(scope='generated'), not {self.where!r}")
        self._set(heads=_indices(self.heads, "heads"), neurons=_indices(self.neurons, "neurons"))

    def apply(self, x: Tensor, share: Tensor | None = None, context: Context | None = None) -> Tensor:
        """The edited activation; the caller keeps `x` at tokens where the edit does not apply.

        Args:
            x: Activation, shape [rows, q, ...].
            share: Share of the coefficient for each token, shape [rows, q]; None for one everywhere.
            context: What is known about the tokens; None where nothing is.
        """
        new = self._changed(x, share, context)
        if self.heads is None and self.neurons is None:
            return new
        axis = -2 if context is None else _head_axis(context.site, x)
        return torch.where(
            self._kept(("part", axis, x.ndim, x.shape[axis], x.shape[-1], x.device), lambda: self._part(x, axis)),
            new,
            x,
        )

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        raise TypeError(f"{type(self).__name__} is no edit of its own; use {KNOWN}")

    @property
    def width(self) -> int | None:
        """Size that the last axis, or the last two together, must have; None for any."""
        return None

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        """Sites whose activations the edit needs beside the one that it changes, and how wide they are; `Context.read` gives them."""
        return ()

    @property
    def otherwise(self) -> str:
        """What else can be done where a source cannot be read, behind a comma; empty for nothing."""
        return ""

    @property
    def label(self) -> str:
        """The edit in a few words."""
        return f"{type(self).__name__}{self._behind}"

    @property
    def _behind(self) -> str:
        """The end of a label: heads, neurons and the site."""
        chosen = [
            f"{name} {', '.join(map(str, among[:4]))}{'…' if len(among) > 4 else ''} of "
            for name, among in (("neurons", self.neurons), ("heads", self.heads))
            if among is not None
        ]
        return f" at {''.join(chosen)}{self.site}"

    def with_coefficient(self, coefficient: float) -> "Edit":
        """The same edit at another strength.

        Raises:
            EditError: The edit has no strength.
        """
        raise EditError(f"{type(self).__name__} has no strength to change to {coefficient!r}; make another edit")

    def for_rows(self, rows: Sequence[int], of: int) -> "Edit":
        """The same edit for some rows of a batch of `of`, taken apart into several forwards; itself where it says nothing row by row."""
        return self

    def to_code(self) -> str:
        """The expression that builds this edit."""
        return f"iv.{type(self).__name__}({', '.join(self._said())})"

    def is_same(self, other: "Edit") -> bool:
        """Whether the other edit does the same."""
        if type(self) is not type(other) or self.where != other.where:
            return False
        # A schedule may be a function, which has no code.
        one, two = (dataclasses.replace(edit, where=Where()).to_code() for edit in (self, other))
        return one == two

    def check(self, site: Site) -> None:
        """Refuse a site without the heads or neurons that are asked for.

        Raises:
            EditError: It has none, or not as many.
        """
        axis = _named_head(site)
        if self.heads is not None and site.axes and axis is None:
            raise EditError(
                f"{site.name!r} has no heads: it is {site.shape}; drop heads=, or edit a site that has, such as 'blocks.0.attn.heads'"
            )
        # Sizes begin behind the axes of rows and tokens.
        if self.heads is not None and site.sizes and axis is not None and axis >= 2:
            _refuse_past(self.heads, site.sizes[axis - 2], "head", site.name)
        if self.neurons is not None and site.sizes:
            _refuse_past(self.neurons, site.sizes[-1], "neuron", site.name)

    def _part(self, x: Tensor, axis: int) -> Tensor:
        """True for the heads and neurons that are edited, broadcasting to `x`."""
        chosen = torch.ones(x.shape[-1], dtype=torch.bool, device=x.device)
        if self.neurons is not None:
            _refuse_past(self.neurons, x.shape[-1], "neuron", self.site)
            chosen = torch.zeros_like(chosen)
            chosen[list(self.neurons)] = True
        if self.heads is None:
            return chosen
        if x.ndim < 4:
            raise EditError(
                f"{self.site!r} has no heads: its shape is {list(x.shape)}; drop heads=, or edit a site that has, such as "
                "'blocks.0.attn.heads'"
            )
        _refuse_past(self.heads, x.shape[axis], "head", self.site)
        among = torch.zeros(x.shape[axis], dtype=torch.bool, device=x.device)
        among[list(self.heads)] = True
        return among.view(-1, *(1,) * (x.ndim - 1 - axis % x.ndim)) & chosen

    def _said(self) -> list[str]:
        """Arguments of the expression that builds this edit: its own in order, then where it applies."""
        shared = {one.name for one in dataclasses.fields(Edit)}
        placed, named, behind = [], [], []
        for one in dataclasses.fields(self):
            value = getattr(self, one.name)
            if not one.init or (value is None and one.default is None):
                continue
            said = code_of(value)
            if one.name in shared:
                behind.append(f"{one.name}={said}")
            elif one.kw_only or named:
                named.append(f"{one.name}={said}")
            else:
                placed.append(said)
        return placed + named + behind

    def _kept(self, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """A tensor that is made once for each device and dtype."""
        tensor = self._cast.get(key)
        if tensor is None:
            tensor = make()
            # A tensor made under inference_mode would fail in a later forward with gradients.
            if not tensor.is_inference():
                self._cast[key] = tensor
        return tensor

    def _vector(self, direction: Direction, x: Tensor) -> Tensor:
        """The direction's vector beside `x`."""
        return self._kept((id(direction), x.device, x.dtype), lambda: direction.vector.to(x.device, x.dtype))

    def _set(self, **fields: Any) -> None:
        for name, value in fields.items():
            object.__setattr__(self, name, value)


def _named_head(site: Site) -> int | None:
    """The axis of heads: their number, not their width."""
    return next((i for i, axis in enumerate(site.axes) if axis.endswith("head") and axis != "d_head"), None)


def _head_axis(site: Site, x: Tensor) -> int:
    named = _named_head(site)
    return -2 if named is None or named >= x.ndim else named


def _indices(given: Any, name: str) -> tuple[int, ...] | None:
    if given is None:
        return None
    if hasattr(given, "tolist"):
        given = given.tolist()
    listed: tuple[Any, ...] = tuple(given) if hasattr(given, "__iter__") and not isinstance(given, str) else (given,)
    try:
        found = tuple(operator.index(n) for n in listed if not isinstance(n, bool))
    except TypeError:
        found = ()
    if not found or len(found) != len(listed) or min(found) < 0:
        raise EditError(f"{name} are whole numbers from 0, at least one, such as {name}=(3, 5), not {given!r}")
    return found


def _refuse_past(chosen: tuple[int, ...], count: int, name: str, site: str) -> None:
    if max(chosen) >= count:
        raise EditError(f"no {name} {max(chosen)} at {site!r}, which has {count}; use 0 to {count - 1}")


def direction_of(given: Any, verb: str) -> Direction:
    """What was given, if it is a direction.

    Raises:
        EditError: It is something else.
    """
    if not isinstance(given, Direction):
        raise EditError(
            f"{verb} takes a Direction, not {type(given).__name__}; make one with iv.contrast or Direction.from_vector(vector, site=...)"
        )
    return given


def number_of(given: Any, what: str) -> float:
    """A finite number as a float.

    Raises:
        EditError: It is something else.
    """
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise EditError(f"{what} is a finite number, not {given!r}")
    return float(given)


def checked(edits: Any) -> tuple[Edit, ...]:
    """The edits as a tuple.

    Raises:
        EditError: Something else than edits was given.
    """
    listed = (edits,) if isinstance(edits, Edit) else edits
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
        raise EditError(f"edits are a list such as [iv.Add(direction, 2.0)], not {edits!r}")
    for edit in listed:
        if not isinstance(edit, Edit) or type(edit) is Edit:
            raise EditError(f"no edit: {edit!r} of type {type(edit).__name__}; use {KNOWN}")
    return tuple(listed)
