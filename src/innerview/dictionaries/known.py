"""Features of several sites that are known beforehand: what they write can then be changed at every site, the first among them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.codes import checked_features
from innerview.edits import Context, Edit
from innerview.edits.set_features import Affine
from innerview.edits.shapes import per_row, rows_among, times
from innerview.errors import DictionaryError, EditError


@dataclass(frozen=True, eq=False)
class AddKnown(Edit):
    """Adds what was worked out for each token of the texts that were read beforehand.

    Attributes:
        deltas: What is added, shape [batch, pos, width].
        mask: True for real tokens, shape [batch, pos].
        tokens: Their ids, by which the texts are known again, shape [batch, pos]; None where the network reads no ids.
        verb: What it does, in words.
    """

    deltas: Float[Tensor, "batch pos width"] = field(repr=False)
    mask: Bool[Tensor, "batch pos"] = field(repr=False)
    tokens: Int[Tensor, "batch pos"] | None = field(default=None, repr=False)
    verb: str = field(default="set known features", kw_only=True)

    @property
    def width(self) -> int:
        return self.deltas.shape[-1]

    @property
    def label(self) -> str:
        return f"{self.verb}{self._behind}"

    def to_code(self) -> str:
        return f"crosscoder.on(acts): {self.verb}"

    def is_same(self, other: Edit) -> bool:
        """Whether the other edit is this one: what it adds belongs to its own texts."""
        return isinstance(other, AddKnown) and other.deltas is self.deltas and super().is_same(other)

    def for_rows(self, rows: Sequence[int], of: int) -> "AddKnown":
        """The same for some of the texts."""
        chosen = rows_among(len(self.deltas), rows, of, "texts that were read beforehand")
        tokens = None if self.tokens is None else self.tokens[chosen]
        made = AddKnown(self.deltas[chosen], self.mask[chosen], tokens, verb=self.verb, site=self.site, where=self.where, heads=self.heads, neurons=self.neurons)  # fmt: skip
        return made

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        if context is None:
            raise EditError(
                f"{self.label} belongs to tokens, which a bare activation does not tell; use iv.capture or iv.generate"
            )
        pos = context.pos.to(self.deltas.device)
        rows = per_row(torch.arange(len(self.deltas), device=pos.device), x, "texts that were read beforehand")[:, None]
        applies = pos >= 0 if context.mask is None else (pos >= 0) & context.mask.to(pos.device)
        near = pos.clamp(0, self.mask.shape[1] - 1)
        is_known = (pos < self.mask.shape[1]) & self.mask[rows, near]
        if self.tokens is not None:
            is_known &= self.tokens[rows, near] == context.ids.to(pos.device)
        if bool((applies & ~is_known).any()):
            raise EditError(
                f"{self.label} knows the tokens that it was made from, and {int((applies & ~is_known).sum())} of these are others; capture these "
                "texts, or keep to the prompt with where=iv.Where(scope='prompt')"
            )
        delta = (self.deltas[rows, near] * applies[..., None]).to(x.device, x.dtype).view(x.shape)
        return x + delta * times(share, x)


@dataclass(frozen=True, eq=False)
class KnownFeatures:
    """A crosscoder's features on texts that were read beforehand. Made by `crosscoder.on(acts)`.

    Attributes:
        crosscoder: The crosscoder.
        acts: Activations at all of its sites, of the network as it is.
    """

    crosscoder: Any
    acts: Activations = field(repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.acts, Activations) or self.acts.mask is None:
            raise DictionaryError(
                f"features are known by what iv.capture(model, texts, crosscoder.sites) returns, not {type(self.acts).__name__}"
            )

    def clamp(
        self, feature: int | Sequence[int], value: float | Sequence[float], **options: Any
    ) -> tuple[AddKnown, ...]:
        """Edits, one at each site, that write features as if they had these values; equal to encode, set, decode and add each site's error.

        Args:
            feature: One feature, or several.
            value: One value for all, or one each, in the units of the codes.
            options: `where=`, as every edit takes it.
        Raises:
            DictionaryError: There is no such feature.
        """
        return self._set(feature, "clamp", 0.0, value, options)

    def scale(
        self, feature: int | Sequence[int], factor: float | Sequence[float], **options: Any
    ) -> tuple[AddKnown, ...]:
        """Edits that multiply features; as `clamp`."""
        return self._set(feature, "scale", factor, 0.0, options)

    def ablate(self, feature: int | Sequence[int], **options: Any) -> tuple[AddKnown, ...]:
        """Edits that take features out; as `clamp`."""
        return self._set(feature, "ablate", 0.0, 0.0, options)

    def _set(self, feature: Any, verb: str, gain: Any, offset: Any, options: dict[str, Any]) -> tuple[AddKnown, ...]:
        own, acts = self.crosscoder, self.acts
        assert acts.mask is not None
        chosen = checked_features(feature, own.n_features)
        change = Affine.of(gain, offset, len(chosen))
        found = own.encode_features(acts, chosen).detach()
        more = found * (found.new_tensor(change.gain) - 1.0) + found.new_tensor(change.offset)
        told = f"{verb} {', '.join(f'feature {one}' for one in chosen[:3])}{'…' if len(chosen) > 3 else ''}, known beforehand,"
        made = []
        for site in own.sites:
            deltas = more @ own._rows(chosen, site).detach()
            scale = own._normalisation(own._number(site)).output_scale(acts[site].to(deltas))
            made.append(AddKnown(deltas * scale, acts.mask.to(deltas.device), _beside(acts.tokens, deltas), verb=told, site=site, **options))  # fmt: skip
        return tuple(made)


def _beside(tokens: Tensor | None, other: Tensor) -> Tensor | None:
    return None if tokens is None else tokens.to(other.device)
