"""A direction in activation space: a unit vector, one natural step along it, and where it came from."""

import base64
import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DirectionError

Unit = Literal["step", "raw", "residual"]
UNITS = ("step", "raw", "residual")


@dataclass(frozen=True, eq=False)
class Direction:
    """A named direction at a site.

    Attributes:
        vector: Unit length, float32 on the CPU, shape [d_model] (or the width of the site).
        site: Where it was found.
        scale: Length of one natural step, in the activations' own units; None when unknown.
        scale_kind: What the step was measured as, in words.
        scale_n: Number of pairs or tokens the step was measured on.
        residual_norm: Median norm of the activations at the site, without BOS and outlier tokens; None when unknown.
        center: Projection, in the activations' own units, that reads as zero: halfway between the classes it was found on.
        name: What to call it.
        origin: How it was found, in words.
    """

    vector: Float[Tensor, "width"]
    site: str
    scale: float | None = None
    scale_kind: str = "unknown"
    scale_n: int = 0
    residual_norm: float | None = None
    center: float = 0.0
    name: str = "direction"
    origin: str = "given"

    def __post_init__(self) -> None:
        vector = torch.as_tensor(self.vector).detach().to("cpu", torch.float32).flatten()
        object.__setattr__(self, "vector", vector)
        if not torch.isfinite(vector).all():
            bad = int((~torch.isfinite(vector)).sum())
            raise DirectionError(
                f"direction {self.name!r} holds NaN or infinity in {bad} of {vector.numel()} numbers; look at what it was made from"
            )
        norm = float(vector.double().norm())
        if abs(norm - 1.0) > 1e-4:
            raise DirectionError(f"direction {self.name!r} has length {norm:.4g}, not 1; use Direction.from_vector")
        if self.scale is not None and not (np.isfinite(self.scale) and self.scale > 0):
            raise DirectionError(f"one natural step of {self.name!r} is {self.scale!r}; it must be above 0 and finite")

    @classmethod
    def from_vector(
        cls, vector: Any, site: str, *, name: str = "direction", scale: float | None = None,
        residual_norm: float | None = None, origin: str = "a given vector",
    ) -> "Direction":  # fmt: skip
        """The direction of a vector of any length.

        Args:
            vector: Numbers, shape [width of the site].
            site: Where it applies.
            name: What to call it.
            scale: Length of one natural step; the vector's own length when None.
            residual_norm: Median norm of the activations at the site.
            origin: Where it came from, in words.
        Raises:
            DirectionError: It is zero, or holds NaN or infinity.
        """
        flat = torch.as_tensor(vector).detach().to("cpu", torch.float64).flatten()
        norm = float(flat.norm())
        if not np.isfinite(norm):
            raise DirectionError(
                f"direction {name!r} holds NaN or infinity (length {norm}); look at what it was made from"
            )
        if norm < 1e-12:
            raise DirectionError(
                f"direction {name!r} is zero (length {norm:.3g} over {flat.numel()} numbers), so it points nowhere"
            )
        kind, step = ("given", scale) if scale is not None else ("length of the given vector", norm)
        return cls((flat / norm).float(), site, step, kind, 1, residual_norm, 0.0, name, origin)

    def project(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
        """Projection of activations in natural steps from the center; in raw units when no step is known."""
        wide = x.detach().float()
        return (wide @ self.vector.to(wide.device) - self.center) / (self.scale or 1.0)

    def named(self, name: str) -> "Direction":
        """The same direction under another name."""
        return dataclasses.replace(self, name=name)

    def __neg__(self) -> "Direction":
        return dataclasses.replace(self, vector=-self.vector, center=-self.center, name=f"minus {self.name}")

    def length(self, coefficient: float, unit: Unit = "step") -> float:
        """How far `coefficient` of a unit goes along the vector, in the activations' own units.

        Raises:
            DirectionError: The unit is unknown, or was not measured for this direction.
        """
        if unit == "raw":
            return float(coefficient)
        known = {"step": self.scale, "residual": self.residual_norm}
        if unit not in known:
            raise DirectionError(f"no unit {unit!r}; it is one of {', '.join(UNITS)}")
        size = known[unit]
        if size is None:
            what = "no natural step" if unit == "step" else "no residual norm"
            raise DirectionError(
                f"direction {self.name!r} has {what}; use unit='raw', or make it with Direction.from_vector(..., scale=...)"
            )
        return float(coefficient) * size

    def __repr__(self) -> str:
        step = "unknown" if self.scale is None else f"{self.scale:.3g} ({self.scale_kind}, n={self.scale_n})"
        return f"Direction({self.name!r} at {self.site}, {self.vector.numel()} wide, step {step}; {self.origin})"

    def to_dict(self) -> dict[str, Any]:
        """Everything but the vector, as JSON takes it."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "vector"}

    def to_code(self) -> str:
        """A Python expression that rebuilds this direction to the last bit."""
        body = json.dumps(self.to_dict(), sort_keys=True).encode()
        vector = self.vector.numpy().astype("<f4").tobytes()
        packed = base64.b64encode(len(body).to_bytes(4, "little") + body + vector).decode()
        return f'iv.Direction.from_code("{packed}")'

    @classmethod
    def from_code(cls, packed: str) -> "Direction":
        """The direction that `to_code` packed.

        Raises:
            DirectionError: The text is damaged.
        """
        try:
            raw = base64.b64decode(packed, validate=True)
            size = int.from_bytes(raw[:4], "little")
            fields = json.loads(raw[4 : 4 + size])
            vector = np.frombuffer(raw[4 + size :], dtype="<f4").copy()
            return cls(torch.from_numpy(vector), **fields)
        except (ValueError, TypeError) as error:
            raise DirectionError(
                f"no direction in {packed[:24]!r}…: the text is damaged ({error}); copy it again whole"
            ) from error
