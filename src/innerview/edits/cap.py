"""Keep a projection within limits."""

import dataclasses
from dataclasses import dataclass, field

from torch import Tensor

from innerview.direction import UNITS, Direction, Unit
from innerview.edits.context import Context
from innerview.edits.edit import Edit, direction_of, number_of
from innerview.edits.shapes import flat, times, wide
from innerview.errors import EditError


@dataclass(frozen=True, eq=False)
class Cap(Edit):
    """Keep the projection onto a direction at most, or at least, at a limit.

    The formula is `x + (min(max(p, low), high) − p) v` with `p = x·v`. In steps, as a projection is read, a limit of `c` means
    `p = center + c × scale`; in raw units `p = c`; in residual norms `p = c × residual_norm`. Within its limits an activation keeps its value.

    Attributes:
        direction: The direction.
        at_most: Upper limit, None for none.
        at_least: Lower limit, None for none.
        unit: What the limits count.

    Reference: arXiv:2601.10387
    """

    direction: Direction
    at_most: float | None = field(default=None, kw_only=True)
    at_least: float | None = field(default=None, kw_only=True)
    unit: Unit = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        direction = direction_of(self.direction, "Cap")
        if self.unit not in UNITS:
            raise EditError(f"no unit {self.unit!r}; it is one of {', '.join(UNITS)}")
        for name in ("at_most", "at_least"):
            if getattr(self, name) is not None:
                self._set(**{name: number_of(getattr(self, name), name)})
        if self.at_most is None and self.at_least is None:
            raise EditError("Cap takes a limit, at_most= or at_least=, and got neither")
        if self.at_most is not None and self.at_least is not None and self.at_least > self.at_most:
            raise EditError(f"at_least={self.at_least:g} is above at_most={self.at_most:g}; exchange them")
        direction.length(1.0, self.unit)
        self._set(site=self.site or direction.site)
        super().__post_init__()

    @property
    def width(self) -> int:
        return self.direction.vector.numel()

    @property
    def label(self) -> str:
        unit = {"step": "steps", "raw": "raw", "residual": "residual norms"}[self.unit]
        told = (("at least", self.at_least), ("at most", self.at_most))
        limits = " and ".join(f"{words} {limit:+g}" for words, limit in told if limit is not None)
        return f"{self.direction.name} {limits} {unit}{self._behind}"

    def with_coefficient(self, coefficient: float) -> "Cap":
        """The same edit with its one limit elsewhere.

        Raises:
            EditError: It has two.
        """
        if self.at_most is not None and self.at_least is not None:
            raise EditError(f"{self.label} has two limits, so {coefficient!r} could be either; give Cap one side")
        return dataclasses.replace(self, **{"at_least" if self.at_most is None else "at_most": coefficient})

    def limits(self) -> tuple[float | None, float | None]:
        """The lower and the upper limit of `x·v`, in the activations' own units."""
        zero = self.direction.center if self.unit == "step" else 0.0
        return (
            None if self.at_least is None else zero + self.direction.length(self.at_least, self.unit),
            None if self.at_most is None else zero + self.direction.length(self.at_most, self.unit),
        )

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        vector = self._vector(self.direction, whole)
        amount = (whole * vector).sum(dim=-1, keepdim=True)
        change = (amount.clamp(*self.limits()) - amount) * times(share, whole)
        return (whole + change * vector).to(x.dtype).view(x.shape)
