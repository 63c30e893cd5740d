"""Add steps along a direction."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from innerview.direction import UNITS, Direction, Unit
from innerview.edits.context import Context
from innerview.edits.edit import Edit, direction_of, number_of
from innerview.edits.shapes import fit, per_row, per_token, rows_among, times
from innerview.errors import EditError

WORDS = {"step": "steps of", "raw": "raw ×", "residual": "residual norms of"}


@dataclass(frozen=True, eq=False)
class Add(Edit):
    """Add `coefficient` steps along a direction.

    The formula is `x + coefficient × size × vector`, where `size` is the direction's natural step (`unit="step"`), 1 (`"raw"`), or the
    median norm at the site (`"residual"`).

    Attributes:
        direction: The direction.
        coefficient: One number, or one for each row of the batch; rows that a run repeats (beams) share theirs.
        unit: What the coefficient counts.

    Reference: arXiv:2312.06681
    """

    direction: Direction
    coefficient: float | Sequence[float] = 1.0
    unit: Unit = field(default="step", kw_only=True)

    def __post_init__(self) -> None:
        direction = direction_of(self.direction, "Add")
        if self.unit not in UNITS:
            raise EditError(f"no unit {self.unit!r}; it is one of {', '.join(UNITS)}")
        self._set(coefficient=_coefficient(self.coefficient), site=self.site or direction.site)
        direction.length(1.0, self.unit)
        super().__post_init__()

    @property
    def width(self) -> int:
        return self.direction.vector.numel()

    @property
    def label(self) -> str:
        given = self.coefficient
        said = f"{min(given):+g} to {max(given):+g} (one a row)" if isinstance(given, tuple) else f"{given:+g}"
        return f"{said} {WORDS[self.unit]} {self.direction.name}{self._behind}"

    def with_coefficient(self, coefficient: float | Sequence[float]) -> "Add":
        """The same edit at another strength, or at one for each row."""
        return dataclasses.replace(self, coefficient=coefficient)

    def for_rows(self, rows: Sequence[int], of: int) -> "Add":
        """The same edit for some rows of a batch of `of`."""
        if not isinstance(self.coefficient, tuple):
            return self
        told = rows_among(len(self.coefficient), rows, of, "coefficients")
        return self.with_coefficient([self.coefficient[i] for i in told])

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        delta = fit(self._kept((x.device, x.dtype), lambda: self._delta(x)), x) if self._is_one else self._rows(x)
        return x + delta * times(share, x) if share is not None else x + delta

    @property
    def _is_one(self) -> bool:
        return isinstance(self.coefficient, float)

    def _delta(self, x: Tensor) -> Tensor:
        length = self.direction.length(self.coefficient, self.unit)  # type: ignore[arg-type]
        return (self.direction.vector.double() * length).to(x.device, x.dtype)

    def _rows(self, x: Tensor) -> Tensor:
        """The change of each row, shape [rows, 1, ...]."""
        lengths = [self.direction.length(c, self.unit) for c in self.coefficient]  # type: ignore[union-attr]
        each = per_row(torch.tensor(lengths, dtype=torch.float64), x, "coefficients")[:, None]
        vector = fit(self.direction.vector.double(), x)
        return (per_token(each, x) * vector).to(x.device, x.dtype)


def _coefficient(given: Any) -> float | tuple[float, ...]:
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, (list, tuple, range)):
        if not given:
            raise EditError("coefficients are one number, or one for each row, not none")
        return tuple(number_of(one, "a coefficient") for one in given)
    return number_of(given, "a coefficient")
