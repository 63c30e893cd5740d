"""Crosscoders: one sparse code of several sites at once, encoded from all of them and decoded to each.

Reference: transformer-circuits.pub/2024/crosscoders (Lindsey et al.)
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.codes import Codes, checked_feature, checked_features
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.known import KnownFeatures
from innerview.dictionaries.manifest import UNKNOWN, Manifest, Normalisation
from innerview.dictionaries.readers import Encoded
from innerview.dictionaries.weights import Weights
from innerview.direction import Direction
from innerview.edits import SetFeatures
from innerview.edits.set_features import Affine
from innerview.errors import DictionaryError

NO_NORMALISATION = Normalisation()


@dataclass(frozen=True, eq=False)
class Crosscoder:
    """One sparse code of several sites. Its weights are those of a dictionary of the sites' activations side by side.

    Attributes:
        weights: Its tensors; the last axis of encoder and decoder is the sites' widths one behind the other, in the order of `sites`.
        architecture: How it encodes the sum of what the sites' encoders give.
        manifest: What else it says of itself; `site` is a tuple.
        widths: Numbers a token at each site.
        normalisations: How each site's input is prepared; empty where all are prepared as the manifest says.
    """

    weights: Weights
    architecture: Architecture
    manifest: Manifest
    widths: tuple[int, ...]
    normalisations: tuple[Normalisation, ...] = ()

    def __post_init__(self) -> None:
        sites = self.manifest.site
        if sites != UNKNOWN and (isinstance(sites, str) or len(sites) != len(self.widths)):
            raise DictionaryError(f"a crosscoder of {len(self.widths)} widths names as many sites, not {sites!r}")
        if sum(self.widths) != self.weights.d_in or self.weights.d_in != self.weights.d_out:
            raise DictionaryError(
                f"widths {list(self.widths)} make {sum(self.widths)}, and the encoder reads {self.weights.d_in} and the decoder writes "
                f"{self.weights.d_out}; a crosscoder writes what it reads"
            )
        if self.weights.skip is not None:
            raise DictionaryError("a crosscoder has no skip; a transcoder has")
        if self.normalisations and len(self.normalisations) != len(self.widths):
            raise DictionaryError(
                f"{len(self.normalisations)} normalisations do not fit {len(self.widths)} sites; give one each"
            )
        self.architecture.check(self.weights)

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.weights.n_features

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it reads and writes.

        Raises:
            DictionaryError: They are unknown.
        """
        return tuple(self.manifest.known("site"))

    @cached_property
    def joined(self) -> Dictionary:
        """The dictionary of the prepared activations side by side."""
        plain = self.manifest.with_fields(site=UNKNOWN, site_out="", normalisation=NO_NORMALISATION)
        return Dictionary(self.weights, self.architecture, plain)

    def at(self, sites: Sequence[str] | None = None, **fields: Any) -> "Crosscoder":
        """The same with fields of its manifest said or changed; `sites` in the order of the widths."""
        said = fields if sites is None else {**fields, "site": tuple(sites)}
        return dataclasses.replace(self, manifest=self.manifest.with_fields(**said))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Crosscoder":
        """The same on another device, or in another number format."""
        return dataclasses.replace(self, weights=self.weights.to(device, dtype))

    # Encoding and decoding.

    def encode(self, x: Activations | Mapping[str, Tensor] | Sequence[Tensor]) -> Codes:
        """Sparse codes of the sites' activations: captured ones, or a tensor each, in the order of `sites`.

        Raises:
            DictionaryError: A site is missing, a width differs, or there is NaN or infinity.
        """
        parts, mask = self._parts(x)
        # Prepared whole: a token's place is the same at every site.
        codes = self.joined.encode(self._prepared(parts))
        return codes if mask is None else codes.within(mask)

    def encode_dense(self, x: Activations | Mapping[str, Tensor] | Sequence[Tensor]) -> Tensor:
        """Every feature of every token, with gradients, shape [*tokens, n_features]."""
        return self.joined.encode_dense(self._prepared(self._parts(x)[0]))

    def encode_features(self, x: Any, features: Sequence[int]) -> Float[Tensor, "*tokens chosen"]:
        """A few features at every token."""
        parts, mask = self._parts(x)
        found = self.joined.encode_features(self._prepared(parts), features)
        return found if mask is None else found.masked_fill(~mask.to(found.device)[..., None], 0.0)

    def decode(self, codes: Codes | Tensor, x: Any = None) -> dict[str, Float[Tensor, "*tokens width"]]:
        """What the codes stand for at each site, in the activations' own units.

        Args:
            codes: Codes, or dense ones.
            x: The activations that they are of: needed where each token is normalised by its own scale.
        Raises:
            DictionaryError: `x` is needed and missing.
        """
        made = self.joined.decode(codes).split(list(self.widths), dim=-1)
        given: Sequence[Tensor | None] = [None] * len(made) if x is None else self._parts(x)[0]
        return {
            site: self._undone(number, part, own)
            for number, (site, part, own) in enumerate(zip(self.sites, made, given, strict=True))
        }

    def _undone(self, number: int, made: Tensor, x: Tensor | None) -> Tensor:
        normalisation = self._normalisation(number)
        if x is None and normalisation.is_per_token and normalisation.is_undone:
            raise DictionaryError("these codes are decoded beside the activations they are of; give decode(codes, x)")
        return normalisation.undo(made, made if x is None else x.to(made.device, made.dtype))

    def _normalisation(self, number: int) -> Normalisation:
        return self.normalisations[number] if self.normalisations else self.manifest.normalisation

    def _parts(self, x: Any) -> tuple[list[Tensor], Tensor | None]:
        """The activations of each site, and which tokens are real."""
        if isinstance(x, Activations):
            return self._parts([x[site] for site in self.sites])[0], x.mask
        listed = [x[site] for site in self.sites if site in x] if isinstance(x, Mapping) else list(x)
        widths = [one.shape[-1] if isinstance(one, Tensor) and one.ndim else None for one in listed]
        if widths != list(self.widths) or len({one.shape[:-1] for one in listed}) > 1:
            shapes = [list(one.shape) if isinstance(one, Tensor) else type(one).__name__ for one in listed]
            raise DictionaryError(
                f"a crosscoder of the widths {list(self.widths)} takes a tensor [..., width] of each site, with the same tokens, not {shapes}"
            )
        if not all(one.is_floating_point() for one in listed):
            raise DictionaryError(f"activations are real numbers, not {[str(one.dtype) for one in listed]}")
        return listed, None

    def _prepared(self, parts: Sequence[Tensor]) -> Tensor:
        """The sites' activations normalised and side by side."""
        near = self.weights.encoder
        ready = [self._normalisation(i).apply(one.to(near.device, near.dtype)) for i, one in enumerate(parts)]
        return torch.cat(ready, dim=-1)

    # Features.

    def norms(self) -> Float[Tensor, "n_features n_sites"]:
        """Length of each feature's row of the decoder at each site: where a feature lives."""
        parts = self.weights.decoder.split(list(self.widths), dim=-1)
        return torch.stack([part.norm(dim=-1) for part in parts], dim=-1)

    def direction(self, feature: int, site: str) -> Direction:
        """The feature's row of the decoder at a site.

        Raises:
            DictionaryError: There is no such feature, or it is no site of this crosscoder.
        """
        number, row = checked_feature(feature, self.n_features), self._rows([feature], site)[0].detach()
        made = Direction.from_vector(
            row, site=site, name=f"feature {number}", origin=f"feature {number} of {self.manifest.source}"
        )
        return dataclasses.replace(made, scale=None, scale_kind="unknown", scale_n=0)

    def _number(self, site: str) -> int:
        if site not in self.sites:
            raise DictionaryError(f"{site!r} is no site of this crosscoder; it has {', '.join(self.sites)}")
        return self.sites.index(site)

    def _rows(self, features: Sequence[int], site: str) -> Tensor:
        part = self.weights.decoder.split(list(self.widths), dim=-1)[self._number(site)]
        return part[list(features)]

    def on(self, acts: Activations) -> KnownFeatures:
        """Its features on texts that were captured at all of its sites, whose clamp, scale and ablate write at every site.

        Raises:
            DictionaryError: These are no captured activations.
        """
        return KnownFeatures(self, acts)

    def clamp(
        self, feature: int | Sequence[int], value: float | Sequence[float], *, site: str | None = None, **options: Any
    ) -> SetFeatures:
        """An edit at one site that sets features to values. A feature is known when the last site has fired, so that is where it writes;
        `on(acts).clamp(...)` writes at every site.

        Args:
            feature: One feature, or several.
            value: One value for all, or one each, in the units of the codes.
            site: Where to write: a site that none of the others comes behind; the last one when None.
            options: `where=`, as every edit takes it.
        Raises:
            DictionaryError: There is no such feature or site.
        """
        return self._set(feature, "clamp", 0.0, value, site, options)

    def scale(
        self, feature: int | Sequence[int], factor: float | Sequence[float], *, site: str | None = None, **options: Any
    ) -> SetFeatures:
        """An edit that multiplies features; as `clamp`."""
        return self._set(feature, "scale", factor, 0.0, site, options)

    def ablate(self, feature: int | Sequence[int], *, site: str | None = None, **options: Any) -> SetFeatures:
        """An edit that takes features out; as `clamp`."""
        return self._set(feature, "ablate", 0.0, 0.0, site, options)

    def _set(
        self, feature: Any, verb: str, gain: Any, offset: Any, site: str | None, options: dict[str, Any]
    ) -> SetFeatures:
        chosen, at = checked_features(feature, self.n_features), self.sites[-1] if site is None else site
        number = self._number(at)
        normalisation = self._normalisation(number)

        def read(*x: Tensor) -> Tensor:
            return self._some(chosen)(self._prepared(x))

        def worth(*x: Tensor) -> Tensor | float:
            return normalisation.output_scale(x[number])

        why, otherwise = "it is read at several sites", ", or write at every site with crosscoder.on(acts)"
        reader = Encoded(self, chosen, self.sites, self.widths, read, worth, why, otherwise)
        change = Affine.of(gain, offset, len(chosen))
        return SetFeatures(reader, self._rows(chosen, at), change, verb=verb, site=at, **options)

    def _some(self, features: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        return self.joined._some(features)

    def __repr__(self) -> str:
        return f"Crosscoder({self.architecture!r} of {len(self.widths)} sites, {self.n_features} features; {self.manifest.source})"
