"""Make an activation, or its component along a direction, larger or smaller."""

import dataclasses
from dataclasses import dataclass

from torch import Tensor

from innerview.direction import Direction
from innerview.edits.context import Context
from innerview.edits.edit import Edit, direction_of, number_of
from innerview.edits.shapes import flat, times, wide


@dataclass(frozen=True, eq=False)
class Scale(Edit):
    """Multiply the activation by a factor, `factor × x`; or only its component along a direction, `x + (factor − 1)(x·v) v`.

    A share `s` of a schedule makes the factor `1 + s × (factor − 1)`.

    Attributes:
        factor: 1 changes nothing, 0 takes out, −1 mirrors.
        direction: Direction whose component is scaled; None for the whole activation.
    """

    factor: float
    direction: Direction | None = None

    def __post_init__(self) -> None:
        self._set(factor=number_of(self.factor, "a factor"))
        if self.direction is not None:
            self._set(site=self.site or direction_of(self.direction, "Scale").site)
        super().__post_init__()

    @property
    def width(self) -> int | None:
        return None if self.direction is None else self.direction.vector.numel()

    @property
    def label(self) -> str:
        what = "" if self.direction is None else f" {self.direction.name}"
        return f"{self.factor:g} ×{what}{self._behind}"

    def with_coefficient(self, coefficient: float) -> "Scale":
        """The same edit with another factor."""
        return dataclasses.replace(self, factor=coefficient)

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = wide(x)
        if self.direction is None:
            # A product, so that a factor of 0 leaves nothing of large numbers either.
            factor = self.factor if share is None else 1 + (self.factor - 1) * times(share, whole)
            return (whole * factor).to(x.dtype)
        whole = flat(whole, self.direction.vector.numel())
        vector = self._vector(self.direction, whole)
        amount = (whole * vector).sum(dim=-1, keepdim=True) * (self.factor - 1) * times(share, whole)
        return (whole + amount * vector).to(x.dtype).view(x.shape)
