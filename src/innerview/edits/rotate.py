"""Turn an activation and keep its length."""

import dataclasses
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerview.direction import Direction
from innerview.edits.context import Context
from innerview.edits.edit import Edit, direction_of, number_of
from innerview.edits.shapes import flat, per_token, wide
from innerview.errors import EditError

# Of its length: what is closer to the axis than that has no plane to turn in.
ALONG = 1e-6


@dataclass(frozen=True, eq=False)
class Rotate(Edit):
    """Turn the activation toward a direction by an angle θ and keep its length.

    With `start`, in the plane of `start` and `direction`, from the one toward the other: with `e = start` and `f` the unit part of
    `direction` across it, `x + (cos θ − 1)(p e + q f) + sin θ (p f − q e)`, `p = x·e`, `q = x·f`. Without, each in its own plane:
    at an angle ω to the direction `v`, it comes to `ω' = max(ω − θ, 0)` (at most π): `‖x‖ (cos ω' v + sin ω' n)`, `n` the unit part of `x`
    across `v`; what lies along `v` stays. A share of a schedule is one of the angle.

    Attributes:
        direction: Where to turn to.
        degrees: How far; below 0 away from it.
        start: The plane's other direction; None for each token's own plane.

    Reference: arXiv:2510.26243 (in a plane), arXiv:2602.08169 (toward a direction)
    """

    direction: Direction
    degrees: float
    start: Direction | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        direction = direction_of(self.direction, "Rotate")
        self._set(degrees=number_of(self.degrees, "degrees"), site=self.site or direction.site)
        if self.start is not None:
            other = direction_of(self.start, "start= of Rotate").vector
            if other.numel() != direction.vector.numel():
                raise EditError(f"directions of {other.numel()} and {direction.vector.numel()} numbers have no plane")
            if abs(float(other.double() @ direction.vector.double())) > 1 - 1e-6:
                raise EditError(
                    f"{self.start.name!r} and {direction.name!r} lie along one line, so they span no plane; leave start= out"
                )
        super().__post_init__()

    @property
    def width(self) -> int:
        return self.direction.vector.numel()

    @property
    def label(self) -> str:
        origin = "" if self.start is None else f" from {self.start.name}"
        return f"{self.degrees:+g}°{origin} toward {self.direction.name}{self._behind}"

    def with_coefficient(self, coefficient: float) -> "Rotate":
        """The same edit by another angle, in degrees."""
        return dataclasses.replace(self, degrees=coefficient)

    def plane(self) -> Tensor:
        """`e` and `f`, float64, shape [2, width].

        Raises:
            EditError: Without `start` there is no one plane.
        """
        if self.start is None:
            raise EditError(f"{self.label} turns each token in a plane of its own; give start= for one plane")
        e, v = self.start.vector.double(), self.direction.vector.double()
        across = v - (v @ e) / (e @ e) * e
        return torch.stack([e / e.norm(), across / across.norm()])

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        angle = torch.tensor(math.radians(self.degrees), device=whole.device, dtype=whole.dtype)
        if share is not None:
            angle = angle * per_token(share.to(whole.dtype), whole)
        turned = self._toward(whole, angle) if self.start is None else self._in_plane(whole, angle)
        return turned.to(x.dtype).view(x.shape)

    def _in_plane(self, x: Tensor, angle: Tensor) -> Tensor:
        e, f = self._kept((x.device, x.dtype), lambda: self.plane().to(x.device, x.dtype))
        p, q = (x * e).sum(-1, keepdim=True), (x * f).sum(-1, keepdim=True)
        less, sine = angle.cos() - 1, angle.sin()
        return x + (less * p - sine * q) * e + (less * q + sine * p) * f

    def _toward(self, x: Tensor, angle: Tensor) -> Tensor:
        v = self._vector(self.direction, x)
        p = (x * v).sum(-1, keepdim=True)
        across = x - p * v
        length, off = x.norm(dim=-1, keepdim=True), across.norm(dim=-1, keepdim=True)
        is_along = off <= ALONG * length
        # Where there is no plane, any numbers that have gradients do: the result is not taken.
        off = torch.where(is_along, torch.ones_like(off), off)
        omega = (torch.atan2(off, p) - angle).clamp(0.0, math.pi)
        return torch.where(is_along, x, length * (omega.cos() * v + omega.sin() * across / off))
