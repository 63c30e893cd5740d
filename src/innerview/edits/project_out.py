"""Take directions out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.direction import Direction
from innerview.edits.context import Context
from innerview.edits.edit import Edit, direction_of
from innerview.edits.shapes import flat, times, wide
from innerview.errors import EditError

# Of singular values: vectors are stored in float32, and what is below is their rounding.
DEPENDENT = 1e-6


@dataclass(frozen=True, eq=False)
class ProjectOut(Edit):
    """Take a direction out, `x − (x·v) v`; or several, `x − Σ (x·b) b` over an orthonormal basis `b` of their span.

    Attributes:
        direction: The direction, or several.

    Reference: arXiv:2406.11717
    """

    direction: Direction | Sequence[Direction]

    def __post_init__(self) -> None:
        given: Any = self.direction
        if isinstance(given, (list, tuple)):
            if not given:
                raise EditError("ProjectOut takes at least one direction, not none")
            self._set(direction=tuple(direction_of(one, "ProjectOut") for one in given))
        else:
            direction_of(given, "ProjectOut")
        sites, widths = {d.site for d in self.directions}, {d.vector.numel() for d in self.directions}
        if len(widths) > 1:
            raise EditError(f"directions of {sorted(widths)} numbers have no span together; find them at one site")
        if not self.site and len(sites) > 1:
            raise EditError(f"the directions come from several sites, {', '.join(sorted(sites))}; give site=")
        self._set(site=self.site or self.directions[0].site)
        super().__post_init__()

    @property
    def directions(self) -> tuple[Direction, ...]:
        """The directions, also where there is one."""
        return (self.direction,) if isinstance(self.direction, Direction) else tuple(self.direction)

    @property
    def width(self) -> int:
        return self.directions[0].vector.numel()

    @property
    def label(self) -> str:
        return f"{', '.join(d.name for d in self.directions)} taken out{self._behind}"

    def basis(self) -> Tensor:
        """Orthonormal basis of the directions' span, float64, shape [k, width]; one vector alone is itself."""
        vectors = torch.stack([d.vector.double() for d in self.directions])
        if len(vectors) == 1:
            return vectors
        _, sizes, basis = torch.linalg.svd(vectors, full_matrices=False)
        return basis[sizes > DEPENDENT * sizes[0]]

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        basis = self._kept((whole.device, whole.dtype), lambda: self.basis().to(whole.device, whole.dtype))
        if len(basis) == 1:
            along = (whole * basis[0]).sum(dim=-1, keepdim=True) * times(share, whole) * basis[0]
        else:
            along = (whole @ basis.T) * times(share, whole) @ basis
        return (whole - along).to(x.dtype).view(x.shape)
