"""Set features of a dictionary: what they change is added to the activation, and nothing else of it is touched."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.edits.code import code_of
from innerview.edits.context import Context
from innerview.edits.edit import Edit, number_of
from innerview.edits.shapes import flat, numbers, times, wide
from innerview.errors import EditError
from innerview.readings import Reading


class FeatureReader(Protocol):
    """What says how active some features are: readings where features are independent, a dictionary where they compete."""

    @property
    def sites(self) -> tuple[str, ...]:
        """Where they are read."""
        ...

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers a token at each of the sites."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """What the features are called."""
        ...

    def values(self, *x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens n"]:
        """How active each of them is, of the activations at the sites."""
        ...

    def scale(self, *x: Float[Tensor, "*tokens width"]) -> Tensor | float:
        """What one unit of a decoder's row is worth at each token, shape [*tokens, 1] or a number."""
        ...

    def is_same(self, other: Any) -> bool:
        """Whether the other reads the same."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it; refused where a dictionary is needed."""
        ...


@dataclass(frozen=True, eq=False)
class Readings:
    """Features that are read one by one, at one site.

    Attributes:
        readings: One a feature.
        factor: What one unit of a decoder's row is worth.
    """

    readings: tuple[Reading, ...]
    factor: float = 1.0
    _cast: dict = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        listed = tuple(self.readings)
        if not listed or not all(isinstance(one, Reading) for one in listed):
            raise EditError(f"features are read by Readings, at least one, not {self.readings!r}")
        if len({(one.site, one.vector.numel()) for one in listed}) > 1:
            raise EditError(f"these features are read at {sorted({one.site for one in listed})}; read them at one site")
        object.__setattr__(self, "readings", listed)
        object.__setattr__(self, "factor", number_of(self.factor, "the worth of a feature"))

    @property
    def sites(self) -> tuple[str, ...]:
        """The one site."""
        return (self.readings[0].site,)

    @property
    def widths(self) -> tuple[int, ...]:
        """Numbers a token there."""
        return (self.readings[0].vector.numel(),)

    @property
    def names(self) -> tuple[str, ...]:
        """What the features are called."""
        return tuple(reading.name for reading in self.readings)

    def values(self, *x: Float[Tensor, "*tokens width"]) -> Float[Tensor, "*tokens n"]:
        """How active each of them is; all in one product."""
        (one,) = x
        if one.shape[-1] != self.readings[0].vector.numel():
            one = flat(one, self.readings[0].vector.numel())
        parts = self._cast.get((one.device, one.dtype))
        if parts is None:
            parts = self._parts(one)
            if not parts[0].is_inference():
                self._cast[one.device, one.dtype] = parts
        vectors, bias, gates, gate_bias, threshold, scale = parts
        found = one @ vectors + bias
        if gates is not None:
            found = torch.where(one @ gates + gate_bias > 0, found, 0.0)
        if threshold is not None:
            found = torch.where(found > threshold, found, 0.0)
        return found if scale is None else found / scale

    def _parts(self, x: Tensor) -> tuple[Any, ...]:
        """What `Reading.of` takes, of all readings side by side, beside `x`."""
        own = self.readings

        def row(given: list[float]) -> Tensor:
            return torch.tensor(given, device=x.device, dtype=x.dtype)

        def columns(vectors: list[Tensor]) -> Tensor:
            return torch.stack(vectors, dim=1).to(x.device, x.dtype)

        gates = gate_bias = threshold = scale = None
        if any(one.gate is not None for one in own):
            # No gate is one that always passes.
            gates = columns([torch.zeros_like(one.vector) if one.gate is None else one.gate.vector for one in own])
            gate_bias = row([1.0 if one.gate is None else one.gate.bias for one in own])
        if any(one.threshold is not None for one in own):
            threshold = row([-torch.inf if one.threshold is None else one.threshold for one in own])
        if any(one.scale != 1.0 for one in own):
            scale = row([one.scale for one in own])
        return columns([one.vector for one in own]), row([one.bias for one in own]), gates, gate_bias, threshold, scale

    def scale(self, *x: Float[Tensor, "*tokens width"]) -> Tensor | float:
        """What one unit of a decoder's row is worth."""
        return self.factor

    def is_same(self, other: Any) -> bool:
        """Whether the other reads the same."""
        return isinstance(other, Readings) and (other.readings, other.factor) == (self.readings, self.factor)

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"readings": [one.to_dict() for one in self.readings], "factor": self.factor}

    @classmethod
    def from_dict(cls, given: Any) -> "Readings":
        """The readings that `to_dict` said.

        Raises:
            EditError: A field is missing or damaged; it is named.
        """
        if (
            not isinstance(given, dict)
            or set(given) != {"readings", "factor"}
            or not isinstance(given["readings"], list)
        ):
            raise EditError(f"features are read by the fields readings and factor, not {str(given)[:60]}")
        return cls(tuple(Reading.from_dict(one) for one in given["readings"]), given["factor"])


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
    Where the features are read at another site than the edit's (transcoders), that site fires first in the same forward.

    Attributes:
        reader: What says how active the features are.
        rows: What one unit of each writes, shape [n, width].
        change: What becomes of each.
        verb: `clamp`, `scale`, `ablate` or `set`.
    """

    reader: Any
    rows: Float[Tensor, "n width"] = field(repr=False)
    change: Affine
    verb: str = field(default="set", kw_only=True)

    def __post_init__(self) -> None:
        self._set(rows=numbers(self.rows, "the rows of SetFeatures").detach(), site=self.site or self.reader.sites[0])
        if self.rows.ndim != 2 or len(self.rows) != len(self.change.gain) or len(self.rows) != len(self.reader.names):
            raise EditError(
                f"rows of shape {list(self.rows.shape)} do not fit {len(self.reader.names)} features; give one row a feature"
            )
        super().__post_init__()

    @classmethod
    def of_readings(
        cls, readings: Sequence[Reading], rows: Any, gain: Any = 0.0, offset: Any = 0.0, *, factor: float = 1.0, verb: str = "set",
        **options: Any,
    ) -> "SetFeatures":  # fmt: skip
        """The edit that makes each reading `gain × value + offset`, by what one unit of it writes.

        Args:
            readings: One a feature, all at one site.
            rows: What one unit of each writes, shape [n, width].
            gain: One number for all, or one each.
            offset: Likewise.
            factor: What a unit of a row is worth.
            verb: What to call it.
            options: `site=` where the rows are added, if it is not where the features are read; `where=`.
        Raises:
            EditError: There are not as many of each.
        """
        listed = tuple(readings)
        return cls(Readings(listed, factor), torch.as_tensor(rows), Affine.of(gain, offset, len(listed)), verb=verb, **options)  # fmt: skip

    @property
    def width(self) -> int:
        return self.rows.shape[1]

    @property
    def sources(self) -> tuple[tuple[str, int], ...]:
        return tuple(zip(self.reader.sites, self.reader.widths, strict=True))

    @property
    def otherwise(self) -> str:
        return getattr(self.reader, "otherwise", "")

    @property
    def label(self) -> str:
        told = ", ".join(self.reader.names[:3]) + ("…" if len(self.reader.names) > 3 else "")
        among = {"clamp": self.change.offset, "scale": self.change.gain}.get(self.verb)
        to = "" if among is None else f" {'to' if self.verb == 'clamp' else 'by'} {_range(among)}"
        return f"{self.verb} {told}{to}{self._behind}"

    def with_coefficient(self, coefficient: float | Sequence[float]) -> "SetFeatures":
        """The same edit with another value of what is clamped, or another factor of what is scaled.

        Raises:
            EditError: Features that are ablated have no strength.
        """
        if self.verb not in ("clamp", "scale"):
            raise EditError(
                f"{self.label} has no strength to change to {coefficient!r}; use dictionary.clamp or dictionary.scale"
            )
        n, still = len(self.rows), (0.0,) * len(self.rows)
        given = _each(coefficient, n)
        change = Affine(still, given) if self.verb == "clamp" else Affine(given, still)
        return dataclasses.replace(self, change=change)

    def is_same(self, other: Edit) -> bool:
        """Whether the other edit does the same."""
        return isinstance(other, SetFeatures) and super().is_same(other) and self.reader.is_same(other.reader)

    def to_code(self) -> str:
        """The expression that builds this edit; where it needs its dictionary, that stands there by the name `dictionary`."""
        behind = [said for said in self._said() if said.partition("=")[0] in ("site", "where", "heads", "neurons")]
        gain, offset = self.change.gain, self.change.offset
        if isinstance(self.reader, Readings):
            readings = f"[{', '.join(one.to_code() for one in self.reader.readings)}]"
            named = [f"factor={self.reader.factor!r}", f"verb={self.verb!r}", *behind]
            said = [readings, code_of(self.rows), code_of(gain), code_of(offset), *named]
            return f"iv.SetFeatures.of_readings({', '.join(said)})"
        among = {"clamp": [code_of(offset)], "scale": [code_of(gain)]}.get(self.verb, [])
        said = [
            code_of(tuple(self.reader.features)),
            *among,
            *(one for one in behind if one != "where=iv.Where()" and not one.startswith("site=")),
        ]
        return f"dictionary.{self.verb}({', '.join(said)})"

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        read = self._read(x, whole, context)
        found = self.reader.values(*read)
        key = (whole.device, whole.dtype)
        rows = self._kept(("rows", *key), lambda: self.rows.to(*key))
        more, offset = self._change(found)
        delta = torch.addcmul(offset, more, found).to(*key) @ rows
        scale = self.reader.scale(*read)
        if isinstance(scale, Tensor) or scale != 1.0:
            delta = delta * _beside(scale, whole)
        if share is not None:
            delta = delta * times(share, whole)
        return (whole + delta).to(x.dtype).view(x.shape)

    def _change(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Gains less one, and offsets, beside the features' values."""
        key = (found.device, found.dtype)

        def beside(given: list[float]) -> Tensor:
            return torch.tensor(given, device=found.device, dtype=found.dtype)

        more = self._kept(("gain", *key), lambda: beside([gain - 1.0 for gain in self.change.gain]))
        return more, self._kept(("offset", *key), lambda: beside(list(self.change.offset)))

    def _read(self, x: Tensor, whole: Tensor, context: Context | None) -> tuple[Tensor, ...]:
        """The activations that the features are read of: what is edited, or what passed at other sites."""
        if context is None:
            if tuple(self.reader.sites) != (self.site,):
                raise EditError(
                    f"{self.label} reads {', '.join(self.reader.sites)}, which a bare activation does not tell; use iv.generate, iv.capture or iv.editing"
                )
            return (whole,)
        return tuple(whole if one is x else wide(one) for one in context.read(x))


def _beside(scale: Tensor | float, x: Tensor) -> Tensor | float:
    return scale.to(x.device, x.dtype) if isinstance(scale, Tensor) else scale


def _range(given: tuple[float, ...]) -> str:
    low, high = min(given), max(given)
    return f"{low:g}" if low == high else f"{low:g} … {high:g}"


def _each(given: Any, n: int) -> tuple[float, ...]:
    if isinstance(given, Tensor):
        given = given.tolist()
    if isinstance(given, Sequence) and not isinstance(given, str):
        if len(given) != n:
            raise EditError(f"{len(given)} values do not fit {n} features; give one, or one each")
        return tuple(number_of(one, "a feature's value") for one in given)
    return (number_of(given, "a feature's value"),) * n
