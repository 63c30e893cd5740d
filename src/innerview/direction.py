"""A direction in activation space: a unit vector, one natural step along it, and where it came from."""

import base64
import dataclasses
import json
import math
import zlib
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DirectionError
from innerview.opened import opened
from innerview.readings import Reading

Unit = Literal["step", "raw", "residual"]
UNITS = ("step", "raw", "residual")
# Sites with an axis of heads, by the last word of their names, TransformerLens names among them.
HEADED = ("heads", "q", "k", "v", "result", "hook_z", "hook_q", "hook_k", "hook_v", "hook_result")


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
        for name in ("site", "name", "scale_kind", "origin"):
            _check_text(name, getattr(self, name))
        if isinstance(self.scale_n, bool) or not isinstance(self.scale_n, int) or self.scale_n < 0:
            raise DirectionError(f"scale_n of {self.name!r} counts pairs or tokens, from 0; it is {self.scale_n!r}")
        vector = _flat(self.vector, self.site, self.name).float()
        if not torch.isfinite(vector).all():
            bad = int((~torch.isfinite(vector)).sum())
            raise DirectionError(
                f"direction {self.name!r} holds NaN or infinity in {bad} of {vector.numel()} numbers; look at what it was made from"
            )
        norm = float(vector.double().norm())
        if abs(norm - 1.0) > 1e-4:
            raise DirectionError(f"direction {self.name!r} has length {norm:.4g}, not 1; use Direction.from_vector")
        scale, center = _number(self.scale, "scale", self.name), _number(self.center, "center", self.name)
        if scale is not None and not scale > 0:
            raise DirectionError(f"one natural step of {self.name!r} is {self.scale!r}; it must be above 0 and finite")
        if center is None:
            raise DirectionError(f"the center of {self.name!r} is a finite number, not None; leave it out for 0")
        residual_norm = _number(self.residual_norm, "residual_norm", self.name)
        if residual_norm is not None and residual_norm < 0:
            raise DirectionError(f"residual_norm of {self.name!r} is {residual_norm:.4g}; a norm is not below 0")
        for field, value in (
            ("vector", vector),
            ("scale", scale),
            ("center", center),
            ("residual_norm", residual_norm),
        ):
            object.__setattr__(self, field, value)

    @classmethod
    def from_vector(
        cls, vector: Any, site: str, *, name: str = "direction", scale: float | None = None,
        residual_norm: float | None = None, origin: str = "a given vector",
    ) -> "Direction":  # fmt: skip
        """The direction of a vector of any length.

        Args:
            vector: Numbers, shape [width of the site], or [head, d_head] for a site with heads.
            site: Where it applies.
            name: What to call it.
            scale: Length of one natural step; the vector's own length when None.
            residual_norm: Median norm of the activations at the site.
            origin: Where it came from, in words.
        Raises:
            DirectionError: It is zero, holds NaN or infinity, or is no vector.
        """
        _check_text("site", site)
        flat = _flat(vector, site, name)
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
        made = cls((flat / norm).float(), site, step, kind, 1, residual_norm, 0.0, name, origin)
        opened.add("direction", made)
        return made

    def project(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
        """Projection of activations in natural steps from the center; in raw units when no step is known."""
        wide = x.detach().float()
        return (wide @ self.vector.to(wide.device) - self.center) / (self.scale or 1.0)

    def reading(self) -> Reading:
        """The projection as a reading, in natural steps from the center (raw units when no step is known): for conditions, and to record."""
        return Reading(self.site, self.vector, -self.center, scale=self.scale or 1.0, name=self.name or "direction")

    def named(self, name: str) -> "Direction":
        """The same direction under another name."""
        made = dataclasses.replace(self, name=name)
        opened.add("direction", made)
        return made

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
            if unit == "step" and self.scale_kind != "unknown":
                what += f" ({self.scale_kind})"
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
        packed = len(body).to_bytes(4, "little") + body + self.vector.numpy().astype("<f4").tobytes()
        summed = zlib.crc32(packed).to_bytes(4, "little") + packed
        return f'iv.Direction.from_code("{base64.b64encode(summed).decode()}")'

    @classmethod
    def from_code(cls, packed: str) -> "Direction":
        """The direction that `to_code` packed.

        Raises:
            DirectionError: A character of the text is damaged or lost.
        """
        if not isinstance(packed, str):
            raise DirectionError(f"a direction's code is a text, not {packed!r} of type {type(packed).__name__}")
        try:
            raw = base64.b64decode(packed, validate=True)
            # Some of the last character's bits are nobody's, so decoding alone would let it be another one.
            if base64.b64encode(raw).decode() != packed or zlib.crc32(raw[4:]).to_bytes(4, "little") != raw[:4]:
                raise ValueError("its checksum does not agree")
            end = 8 + int.from_bytes(raw[4:8], "little")
            vector = np.frombuffer(raw[end:], dtype="<f4").copy()
            return cls(torch.from_numpy(vector), **json.loads(raw[8:end]))
        except (ValueError, TypeError, RecursionError) as error:
            raise DirectionError(
                f"no direction in {packed[:24]!r}…: the text is damaged ({error}); copy it again whole"
            ) from error


def _check_text(field: str, value: object) -> None:
    if not isinstance(value, str) or (field == "site" and not value):
        raise DirectionError(f"the {field} of a direction is a text, not {value!r} of type {type(value).__name__}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DirectionError(f"the {field} of a direction holds half a character: {value!r}; spell it anew") from error


def _number(given: Any, field: str, name: str) -> float | None:
    """A finite number of any library as a float; None stays None."""
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if given is None:
        return None
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise DirectionError(f"{field} of {name!r} is a finite number, not {given!r}")
    return float(given)


def _flat(vector: Any, site: str, name: str) -> Tensor:
    """A copy of the vector, float64 on the CPU, shape [width].

    Raises:
        DirectionError: It is no vector.
    """
    try:
        tensor = torch.as_tensor(vector).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DirectionError(
            f"direction {name!r} takes a vector of numbers, not {str(vector)[:40]!r}: {error}"
        ) from error
    is_headed = tensor.ndim == 2 and site.rpartition(".")[2] in HEADED
    if tensor.is_complex() or not (tensor.ndim == 1 or is_headed):
        raise DirectionError(
            f"direction {name!r} at {site} has shape {list(tensor.shape)} and dtype {tensor.dtype}; give real numbers of shape [width], "
            "such as vector.squeeze(0)"
        )
    # A copy: what becomes of the caller's tensor later is no part of the direction.
    return tensor.to("cpu", torch.float64, copy=True).flatten()
