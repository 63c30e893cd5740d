"""Readings: numbers read from an activation. A direction's projection is one, a feature's activation is one."""

import base64
import hashlib
import math
import zlib
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.conditions import Both, Comparable, Compare, Condition, Either, Not
from innerview.errors import EditError

How = Literal["max", "mean", "last"]
HOWS = ("max", "mean", "last")


@dataclass(frozen=True, eq=False)
class Gate:
    """A second reading of the same activation that lets the first pass where it is above 0 (gated dictionaries).

    Reference: arXiv:2404.16014
    """

    vector: Float[Tensor, "width"]
    bias: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "vector", _vector(self.vector, "a gate"))
        object.__setattr__(self, "bias", _number(self.bias, "the bias of a gate"))


@dataclass(frozen=True, eq=False)
class Reading(Comparable):
    """A number read from the activation at a site: `(x · vector + bias) / scale`, behind a gate and a threshold where there are such.

    Attributes:
        site: Where it is read: one site, no wildcard.
        vector: Weights, float32 on the CPU, shape [width of the site].
        bias: Added to the product, in the activations' own units.
        gate: The number is 0 where the gate is not above 0; None for no gate.
        threshold: The number is 0 where it is not above this, before it is divided (0.0 is a ReLU); None for none.
        scale: What the number is divided by.
        name: What to call it.
    """

    site: str
    vector: Float[Tensor, "width"]
    bias: float = 0.0
    gate: Gate | None = None
    threshold: float | None = None
    scale: float = 1.0
    name: str = "reading"

    def __post_init__(self) -> None:
        for field in ("site", "name"):
            given = getattr(self, field)
            if not isinstance(given, str) or not given:
                raise EditError(f"the {field} of a reading is a text, not {given!r} of type {type(given).__name__}")
        put = {"vector": _vector(self.vector, f"reading {self.name!r}")}
        for field in ("bias", "scale") if self.threshold is None else ("bias", "scale", "threshold"):
            put[field] = _number(getattr(self, field), f"the {field} of reading {self.name!r}")  # type: ignore[assignment]
        if put["scale"] == 0:
            raise EditError(
                f"the scale of reading {self.name!r} is 0, by which nothing can be divided; leave it out for 1"
            )
        if self.gate is not None and (not isinstance(self.gate, Gate) or self.gate.vector.shape != put["vector"].shape):
            raise EditError(f"the gate of reading {self.name!r} is a Gate as wide as its vector, not {self.gate!r}")
        for field, value in put.items():
            object.__setattr__(self, field, value)

    def of(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows"]:
        """The number for each activation, in float32, or in float64 where the activation is; sites with heads are read flat.

        Raises:
            EditError: The widths differ.
        """
        if self.vector.numel() != x.shape[-1] and x.ndim > 3:
            x = x.flatten(-2)
        if self.vector.numel() != x.shape[-1]:
            raise EditError(
                f"reading {self.name!r}, {self.vector.numel()} wide, does not fit an activation of shape {list(x.shape)} at {self.site!r}; "
                "read at the site it was found at"
            )
        # float32: a product of half-precision numbers loses the digits that a limit is compared with.
        wide = x if x.dtype == torch.float64 else x.float()
        found = wide @ self.vector.to(wide.device, wide.dtype) + self.bias
        if self.gate is not None:
            passes = wide @ self.gate.vector.to(wide.device, wide.dtype) + self.gate.bias > 0
            found = torch.where(passes, found, torch.zeros_like(found))
        if self.threshold is not None:
            found = torch.where(found > self.threshold, found, torch.zeros_like(found))
        return found / self.scale

    def over_prompt(self, how: How = "max") -> "OverPrompt":
        """One number for each row: the reading's maximum, mean or last value over the prompt.

        Raises:
            EditError: There is no such summary.
        """
        return OverPrompt(self, how)

    @cached_property
    def key(self) -> str:
        """Digest of everything that makes the number; equal readings share it."""
        gate = (None, None) if self.gate is None else (self.gate.vector.numpy().tobytes(), self.gate.bias)
        said = (self.site, self.bias, self.threshold, self.scale, self.vector.numpy().tobytes(), *gate)
        return hashlib.sha256(repr(said).encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reading) and (self.key, self.name) == (other.key, other.name)

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        return f"Reading({self.name!r} at {self.site}, {self.vector.numel()} wide)"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it; vectors as checked text of their float32 bytes."""
        gate = None if self.gate is None else {"vector": _packed(self.gate.vector), "bias": self.gate.bias}
        return {
            "kind": "reading", "site": self.site, "name": self.name, "vector": _packed(self.vector), "bias": self.bias,
            "gate": gate, "threshold": self.threshold, "scale": self.scale,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, given: Any) -> "Reading":
        """The reading that `to_dict` said.

        Raises:
            EditError: A field is missing or damaged; it is named.
        """
        fields = ("site", "vector", "bias", "gate", "threshold", "scale", "name")
        _check_fields(given, ("kind", *fields), "a reading")
        gate = given["gate"]
        if gate is not None:
            _check_fields(gate, ("vector", "bias"), "a gate")
            gate = Gate(_unpacked(gate["vector"]), gate["bias"])
        return cls(
            given["site"], _unpacked(given["vector"]), given["bias"], gate, given["threshold"], given["scale"], given["name"]
        )  # fmt: skip

    def to_code(self) -> str:
        """A Python expression that rebuilds this reading to the last bit."""
        return f"iv.Reading.from_dict({self.to_dict()!r})"


@dataclass(frozen=True)
class OverPrompt(Comparable):
    """A reading over the prompt of each row, which decides for the whole row, generated tokens too."""

    reading: Reading
    how: How = "max"

    def __post_init__(self) -> None:
        if not isinstance(self.how, str) or self.how not in HOWS:
            raise EditError(f"a reading over the prompt is its {', '.join(HOWS)}, not {self.how!r}")
        if not isinstance(self.reading, Reading):
            raise EditError(f"what is read over the prompt is a Reading, not {self.reading!r}")

    def of(self, values: Float[Tensor, "rows pos"], is_prompt: Tensor) -> Float[Tensor, "rows 1"]:
        """The number of each row.

        Args:
            values: The reading of each token, shape [rows, pos].
            is_prompt: True for tokens of the prompt, shape [rows, pos].
        """
        if self.how == "max":
            return values.masked_fill(~is_prompt, -math.inf).amax(dim=1, keepdim=True)
        if self.how == "mean":
            kept = values.double().masked_fill(~is_prompt, 0.0)
            return kept.sum(dim=1, keepdim=True) / is_prompt.sum(dim=1, keepdim=True)
        columns = torch.arange(values.shape[1], device=values.device)
        last = columns.masked_fill(~is_prompt, -1).amax(dim=1, keepdim=True)
        return values.gather(1, last)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"kind": "over_prompt", "how": self.how, "reading": self.reading.to_dict()}

    def to_code(self) -> str:
        """The expression that builds this number."""
        return f"{self.reading.to_code()}.over_prompt({self.how!r})"


def condition_of(given: Any) -> Condition:
    """The condition that `Condition.to_dict` said.

    Raises:
        EditError: A field is missing or damaged; it is named.
    """
    kind = given.get("kind") if isinstance(given, dict) else None
    if kind == "compare":
        _check_fields(given, ("kind", "relation", "limit", "term"), "a comparison")
        limit = given["limit"]
        limit = float(limit) if limit in ("inf", "-inf") else limit
        return Compare(_term_of(given["term"]), given["relation"], limit)
    if kind not in ("and", "or", "not"):
        raise EditError(f"no condition {given!r}; its kind is one of compare, and, or, not")
    _check_fields(given, ("kind", "of"), f"a condition {kind!r}")
    count = 1 if kind == "not" else 2
    if not isinstance(given["of"], (list, tuple)) or len(given["of"]) != count:
        raise EditError(f"a condition {kind!r} is of {count} condition(s), not {given['of']!r}")
    parts = [condition_of(part) for part in given["of"]]
    return Not(parts[0]) if kind == "not" else (Both if kind == "and" else Either)(*parts)


def _term_of(given: Any) -> Reading | OverPrompt:
    if isinstance(given, dict) and given.get("kind") == "over_prompt":
        _check_fields(given, ("kind", "how", "reading"), "a reading over the prompt")
        return OverPrompt(Reading.from_dict(given["reading"]), given["how"])
    return Reading.from_dict(given)


def _check_fields(given: Any, fields: tuple[str, ...], what: str) -> None:
    if not isinstance(given, dict) or set(given) != set(fields):
        found = sorted(map(str, given)) if isinstance(given, dict) else repr(given)
        raise EditError(f"{what} has the fields {', '.join(fields)}, not {found}")


def _vector(given: Any, what: str) -> Tensor:
    """A copy of a vector, float32 on the CPU, flat: what becomes of the caller's tensor later is no part of the reading."""
    try:
        tensor = torch.as_tensor(given).detach().to("cpu", torch.float32, copy=True).flatten().contiguous()
    except (TypeError, ValueError, RuntimeError) as error:
        raise EditError(f"{what} takes a vector of numbers, not {str(given)[:40]!r}: {error}") from error
    if tensor.numel() == 0 or not torch.isfinite(tensor).all():
        raise EditError(f"the vector of {what} holds NaN or infinity, or nothing; look at what it was made from")
    return tensor


def _number(given: Any, what: str) -> float:
    if isinstance(given, Tensor) and given.numel() == 1:
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise EditError(f"{what} is a finite number, not {given!r}")
    return float(given)


def _packed(vector: Tensor) -> str:
    body = vector.numpy().astype("<f4").tobytes()
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "little") + body).decode()


def _unpacked(text: Any) -> Tensor:
    try:
        raw = base64.b64decode(text, validate=True)
        if base64.b64encode(raw).decode() != text or zlib.crc32(raw[4:]).to_bytes(4, "little") != raw[:4]:
            raise ValueError("its checksum does not agree")
        return torch.from_numpy(np.frombuffer(raw[4:], dtype="<f4").copy())
    except (ValueError, TypeError) as error:
        raise EditError(
            f"no vector in {str(text)[:24]!r}…: the text is damaged ({error}); copy it again whole"
        ) from error
