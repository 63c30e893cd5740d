"""What is done to an activation: add along a direction, project one out, replace."""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from innerview.direction import UNITS, Direction, Unit
from innerview.errors import EditError
from innerview.where import Where


@dataclass(frozen=True, eq=False)
class Edit:
    """An operation at a site, and where it applies. Editing returns new tensors; gradients flow through it.

    Attributes:
        site: Site or wildcard that the edit applies at.
        where: Tokens that the edit applies to.
    """

    site: str
    where: Where

    def apply(self, x: Tensor, share: Tensor | None) -> Tensor:
        """The edited activation, everywhere; the caller keeps `x` where the edit does not apply.

        Args:
            x: Activation, shape [rows, q, ...].
            share: Share of the coefficient for each token, shape [rows, q]; None for one everywhere.
        """
        raise TypeError(f"{type(self).__name__} is no edit of its own; use Add, ProjectOut or Replace")

    @property
    def width(self) -> int | None:
        """Size that the last axis, or the last two together, must have; None for any."""
        return None

    @property
    def label(self) -> str:
        """The edit in a few words."""
        return f"{type(self).__name__} at {self.site}"

    def to_code(self) -> str:
        """The expression that builds this edit."""
        raise TypeError(f"{type(self).__name__} is no edit of its own; use Add, ProjectOut or Replace")


def _direction(given: Any, verb: str) -> Direction:
    if not isinstance(given, Direction):
        raise EditError(
            f"{verb} takes a Direction, not {type(given).__name__}; make one with iv.contrast or Direction.from_vector(vector, site=...)"
        )
    return given


def _where(given: Any) -> Where:
    if not isinstance(given, Where):
        raise EditError(f"where= takes a Where such as iv.Where(scope='generated'), not {given!r}")
    return given


@dataclass(frozen=True, eq=False, init=False)
class Add(Edit):
    """Add `coefficient` steps along a direction.

    The formula is `x + coefficient × size × vector`, where `size` is the direction's natural step (`unit="step"`), 1 (`"raw"`), or the
    median norm at the site (`"residual"`).

    Reference: arXiv:2312.06681
    """

    direction: Direction
    coefficient: float
    unit: Unit
    _cast: dict = field(repr=False)

    def __init__(
        self, direction: Direction, coefficient: float = 1.0, *, unit: Unit = "step", site: str | None = None, where: Where = Where()
    ) -> None:  # fmt: skip
        _direction(direction, "Add")
        if unit not in UNITS:
            raise EditError(f"no unit {unit!r}; it is one of {', '.join(UNITS)}")
        if isinstance(coefficient, bool) or not isinstance(coefficient, (int, float)) or not math.isfinite(coefficient):
            raise EditError(f"a coefficient is a finite number, not {coefficient!r}")
        direction.length(coefficient, unit)
        _set(
            self,
            direction=direction,
            coefficient=float(coefficient),
            unit=unit,
            site=site or direction.site,
            where=_where(where),
            _cast={},
        )

    @property
    def width(self) -> int:
        return self.direction.vector.numel()

    @property
    def label(self) -> str:
        unit = {"step": "steps of", "raw": "raw ×", "residual": "residual norms of"}[self.unit]
        return f"{self.coefficient:+g} {unit} {self.direction.name} at {self.site}"

    def with_coefficient(self, coefficient: float) -> "Add":
        """The same edit at another strength."""
        return Add(self.direction, coefficient, unit=self.unit, site=self.site, where=self.where)

    def apply(self, x: Tensor, share: Tensor | None) -> Tensor:
        key = (x.device, x.dtype)
        delta = self._cast.get(key)
        if delta is None:
            length = self.direction.length(self.coefficient, self.unit)
            delta = (self.direction.vector.double() * length).to(x.device, x.dtype)
            _keep(self._cast, key, delta)
        delta = fit(delta, x)
        return x + (delta if share is None else delta * per_token(share.to(x.dtype), x))

    def to_code(self) -> str:
        """The expression that builds this edit."""
        return f"iv.Add({self.direction.to_code()}, {self.coefficient!r}, unit={self.unit!r}, site={self.site!r}, where={self.where.to_code()})"


@dataclass(frozen=True, eq=False, init=False)
class ProjectOut(Edit):
    """Take a direction out: `x − (x·v) v`.

    Reference: arXiv:2406.11717
    """

    direction: Direction
    _cast: dict = field(repr=False)

    def __init__(self, direction: Direction, *, site: str | None = None, where: Where = Where()) -> None:
        _direction(direction, "ProjectOut")
        _set(self, direction=direction, site=site or direction.site, where=_where(where), _cast={})

    @property
    def width(self) -> int:
        return self.direction.vector.numel()

    @property
    def label(self) -> str:
        return f"{self.direction.name} taken out at {self.site}"

    def apply(self, x: Tensor, share: Tensor | None) -> Tensor:
        # Half precision loses the small projection of a large activation.
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        key = (wide.device, wide.dtype)
        vector = self._cast.get(key)
        if vector is None:
            vector = self.direction.vector.to(wide.device, wide.dtype)
            _keep(self._cast, key, vector)
        vector = fit(vector, x)
        axes = tuple(range(-vector.ndim, 0))
        amount = (wide * vector).sum(dim=axes, keepdim=True)
        if share is not None:
            amount = amount * per_token(share.to(wide.dtype), x)
        return (wide - amount * vector).to(x.dtype)

    def to_code(self) -> str:
        """The expression that builds this edit."""
        return f"iv.ProjectOut({self.direction.to_code()}, site={self.site!r}, where={self.where.to_code()})"


@dataclass(frozen=True, eq=False, init=False)
class Replace(Edit):
    """Put a given value in place of the activation.

    The value broadcasts against [batch, pos, ...]: one vector for all tokens, or one for each row as [batch, 1, width].
    """

    value: Tensor
    name: str

    def __init__(self, value: Any, *, site: str, where: Where = Where(), name: str = "a given value") -> None:
        # A copy: what becomes of the caller's tensor later is no part of the edit.
        tensor = torch.as_tensor(value).clone()
        if not torch.isfinite(tensor).all():
            raise EditError(f"the value to put at {site!r} holds NaN or infinity; look at where it came from")
        _set(self, value=tensor, site=site, where=_where(where), name=name)

    @property
    def label(self) -> str:
        return f"{self.name} put in at {self.site}"

    def apply(self, x: Tensor, share: Tensor | None) -> Tensor:
        value = self.value.to(x.device, x.dtype)
        if value.ndim == x.ndim and 1 < value.shape[0] < x.shape[0] and x.shape[0] % value.shape[0] == 0:
            # Beams and several returned sequences come as repeated rows.
            value = value.repeat_interleave(x.shape[0] // value.shape[0], dim=0)
        try:
            # A tensor of its own: a network that works in place would write over the value.
            value = value.expand(x.shape).clone()
        except RuntimeError as error:
            raise EditError(
                f"a value of shape {list(self.value.shape)} does not fit {self.site!r} of shape {list(x.shape)}; "
                f"give one that broadcasts to it, such as [{x.shape[-1]}]"
            ) from error
        if share is not None:
            value = torch.lerp(x, value, per_token(share.to(x.dtype), x).expand(x.shape))
        return value

    def to_code(self) -> str:
        """The expression that builds this edit."""
        return f"iv.Replace({self.value.tolist()!r}, site={self.site!r}, where={self.where.to_code()})"


def _keep(cast: dict, key: Any, tensor: Tensor) -> None:
    # A tensor made under inference_mode would fail in a later forward with gradients.
    if not tensor.is_inference():
        cast[key] = tensor


def _set(edit: Edit, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(edit, name, value)


def fit(vector: Tensor, x: Tensor) -> Tensor:
    """The vector in the shape of the last axis of `x`, or of its last two (heads).

    Raises:
        EditError: The widths differ.
    """
    if vector.numel() == x.shape[-1]:
        return vector
    if x.ndim >= 4 and vector.numel() == x.shape[-1] * x.shape[-2]:
        return vector.view(x.shape[-2], x.shape[-1])
    raise EditError(
        f"a direction {vector.numel()} wide does not fit an activation of shape {list(x.shape)}; find it at the same site"
    )


def per_token(share: Tensor, x: Tensor) -> Tensor:
    """`share` [rows, q] with axes of one behind, so that it multiplies `x` [rows, q, ...]."""
    return share.view(*share.shape, *(1,) * (x.ndim - 2))


def checked(edits: Any) -> tuple[Edit, ...]:
    """The edits as a tuple.

    Raises:
        EditError: Something else than edits was given.
    """
    listed = (edits,) if isinstance(edits, Edit) else edits
    if isinstance(listed, (str, bytes)) or not isinstance(listed, Sequence):
        raise EditError(f"edits are a list such as [iv.Add(direction, 2.0)], not {edits!r}")
    for edit in listed:
        if not isinstance(edit, Edit) or not dataclasses.is_dataclass(edit):
            raise EditError(f"no edit: {edit!r} of type {type(edit).__name__}; use Add, ProjectOut or Replace")
    return tuple(listed)
