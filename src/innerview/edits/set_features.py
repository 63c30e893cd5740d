"""Set features of a dictionary: what they change is added to the activation, and nothing else of it is touched."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.edits.context import Context
from innerview.edits.edit import Edit, number_of
from innerview.edits.shapes import flat, numbers, times, wide
from innerview.errors import EditError
from innerview.readings import Reading


class FeatureReader(Protocol):
    """What says how active some features are: readings where features are independent, a dictionary where they compete."""

    @property
    def site(self) -> str:
        """Where they are read."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What the features are called."""
        ...

    def values(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens n"]:
        """How active each of them is."""
        ...

    def scale(self, x: Float[Tensor, "*tokens d_in"]) -> Tensor | float:
        """What one unit of a decoder's row is worth at each token, shape [*tokens, 1] or a number."""
        ...


@dataclass(frozen=True, eq=False)
class Readings:
    """Features that are read one by one."""

    readings: tuple[Reading, ...]
    factor: float = 1.0

    @property
    def site(self) -> str:
        return self.readings[0].site

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(reading.name for reading in self.readings)

    def values(self, x: Tensor) -> Tensor:
        return torch.stack([reading.of(x) for reading in self.readings], dim=-1).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor | float:
        return self.factor


@dataclass(frozen=True)
class Affine:
    """What becomes of each feature: `gain × value + offset`."""

    gain: tuple[float, ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, gain: Any, offset: Any, n: int) -> "Affine":
        """Numbers for `n` features, one for all or one each.

        Raises:
            EditError: They are no numbers, or not as many.
        """
        return cls(_each(gain, n), _each(offset, n))


@dataclass(frozen=True, eq=False)
class SetFeatures(Edit):
    """Adds `Σ (new value − value) · row`, made by `dictionary.clamp`, `.scale` and `.ablate`.

    It equals encoding, changing the codes, decoding and adding the reconstruction's error back, since a linear decoder's error cancels.

    Attributes:
        reader: What says how active the features are.
        rows: What one unit of each writes, shape [n, width].
        change: What becomes of each.
        verb: What it is called.
    """

    reader: Any
    rows: Float[Tensor, "n width"] = field(repr=False)
    change: Affine
    verb: str = field(default="set", kw_only=True)

    def __post_init__(self) -> None:
        self._set(rows=numbers(self.rows, "the rows of SetFeatures").detach(), site=self.site or self.reader.site)
        if self.rows.ndim != 2 or len(self.rows) != len(self.change.gain):
            raise EditError(f"rows of shape {list(self.rows.shape)} do not fit {len(self.change.gain)} features")
        super().__post_init__()

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    @property
    def label(self) -> str:
        told = ", ".join(self.reader.names[:3]) + ("…" if len(self.reader.names) > 3 else "")
        return f"{self.verb} {told}{self._behind}"

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        found = self.reader.values(whole)
        gain, offset = (self._beside(one, found) for one in (self.change.gain, self.change.offset))
        rows = self._kept(("rows", whole.device, whole.dtype), lambda: self.rows.to(whole.device, whole.dtype))
        delta = ((gain - 1.0) * found + offset) @ rows
        changed = whole + delta * self.reader.scale(whole) * times(share, whole)
        return changed.to(x.dtype).view(x.shape)

    def _beside(self, given: tuple[float, ...], x: Tensor) -> Tensor:
        return self._kept((given, x.device, x.dtype), lambda: torch.tensor(given, device=x.device, dtype=x.dtype))


def _each(given: Any, n: int) -> tuple[float, ...]:
    if isinstance(given, Tensor):
        given = given.tolist()
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != n:
            raise EditError(f"{len(given)} values do not fit {n} features; give one, or one each")
        return tuple(number_of(one, "a feature's value") for one in given)
    return (number_of(given, "a feature's value"),) * n
