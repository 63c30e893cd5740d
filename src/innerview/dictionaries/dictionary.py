"""A dictionary: a sparse code of a site. Read, decoded, and turned into directions, readings and plain edits."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.codes import Codes, checked_feature
from innerview.dictionaries.manifest import Manifest
from innerview.dictionaries.weights import Weights
from innerview.direction import Direction
from innerview.edits import SetFeatures
from innerview.edits.set_features import Affine, FeatureReader, Readings
from innerview.errors import DictionaryError
from innerview.readings import Gate, Reading

# Pre-activations that are held at once: 64 MiB of float32.
BLOCK = 1 << 24


@dataclass(frozen=True, eq=False)
class Dictionary:
    """A sparse code of a site: SAEs, and transcoders, which read one site and write another.

    Attributes:
        weights: Its tensors.
        architecture: How it encodes, such as `iv.TopK(32)`.
        manifest: What else it says of itself: site, model, how its input is prepared, where it came from.
    """

    weights: Weights
    architecture: Architecture
    manifest: Manifest

    def __post_init__(self) -> None:
        self.architecture.check(self.weights)
        if self.manifest.subtracts_decoder_bias and self.weights.d_in != self.weights.d_out:
            raise DictionaryError(
                f"the decoder's bias is {self.weights.d_out} wide and the input {self.weights.d_in}, so it cannot be subtracted"
            )

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.weights.n_features

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.weights.d_in

    @property
    def d_out(self) -> int:
        """Width of what is written."""
        return self.weights.d_out

    @property
    def site(self) -> str:
        """The site that it reads.

        Raises:
            DictionaryError: It is unknown.
        """
        return self.manifest.known("site")

    @property
    def site_out(self) -> str:
        """The site that it writes: its own, or a transcoder's other one."""
        return self.manifest.site_out or self.site

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes another site than it reads."""
        return bool(self.manifest.site_out) and self.manifest.site_out != self.manifest.site

    def at(self, site: str | None = None, **fields: Any) -> "Dictionary":
        """The same dictionary with fields of its manifest said or changed: site, site_out, model, bos."""
        said = fields if site is None else {**fields, "site": site}
        return dataclasses.replace(self, manifest=self.manifest.with_fields(**said))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "Dictionary":
        """The same on another device, or in another number format."""
        return dataclasses.replace(self, weights=self.weights.to(device, dtype))

    # Encoding and decoding.

    def encode(self, x: Activations | Float[Tensor, "*tokens d_in"]) -> Codes:
        """Sparse codes of activations; of captured ones, those at this dictionary's site, pads left out.

        Raises:
            DictionaryError: The width differs, or there is NaN or infinity.
        """
        values, mask = self._input(x)
        flat = self._checked(values)
        block = max(1, BLOCK // self.n_features)
        parts = [Codes.from_dense(self.encode_dense(flat[i : i + block])) for i in range(0, len(flat), block)]
        starts = range(0, len(flat), block)
        tokens = torch.cat([part.tokens + start for part, start in zip(parts, starts, strict=True)] or [_NONE])
        features = torch.cat([part.features for part in parts] or [_NONE])
        found = torch.cat([part.values for part in parts] or [flat.new_zeros(0)])
        if mask is not None:
            kept = mask.flatten().to(tokens.device)[tokens]
            tokens, features, found = tokens[kept], features[kept], found[kept]
        return Codes(tokens, features, found, tuple(values.shape[:-1]), self.n_features, mask)

    def encode_dense(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens n_features"]:
        """Every feature of every token, with gradients: for a few tokens; `encode` holds many."""
        return self.architecture.encode(self.weights, self.prepared(x))

    def prepared(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        """The input as the encoder takes it: normalised, the decoder's bias taken off where the manifest says so."""
        ready = self.manifest.normalisation.apply(x.to(self.weights.encoder.dtype))
        return ready - self.weights.decoder_bias if self.manifest.subtracts_decoder_bias else ready

    def encode_features(self, x: Activations | Tensor, features: Sequence[int]) -> Float[Tensor, "*tokens chosen"]:
        """A few features at every token; where features do not compete, only their rows of the encoder are read.

        Raises:
            DictionaryError: There is no such feature, or the width differs.
        """
        chosen = [checked_feature(feature, self.n_features) for feature in features]
        values, mask = self._input(x)
        flat = self._checked(values)
        if self.architecture.is_elementwise:
            found = self._chosen(chosen).encode_dense(flat)
        else:
            block = max(1, BLOCK // self.n_features)
            found = torch.cat([self.encode_dense(part)[..., chosen] for part in flat.split(block)])
        found = found if mask is None else found * mask.reshape(-1, 1)
        return found.view(*values.shape[:-1], len(chosen))

    def _chosen(self, features: list[int]) -> "Dictionary":
        """The dictionary of some features alone; only right where features do not compete."""
        own = self.weights
        extras = {name: tensor[features] for name, tensor in own.extras.items()}
        weights = Weights(
            own.encoder[features], own.encoder_bias[features], own.decoder[features], own.decoder_bias, own.skip, extras
        )
        return dataclasses.replace(self, weights=weights)

    def decode(
        self, codes: Codes | Float[Tensor, "*tokens n_features"], x: Activations | Tensor | None = None
    ) -> Float[Tensor, "*tokens d_out"]:
        """What the codes stand for, in the activations' own units.

        Args:
            codes: Codes, or dense ones.
            x: The activations that they are of: needed where each token is normalised by its own scale, or there is a skip.
        Raises:
            DictionaryError: `x` is needed and missing.
        """
        made = self._summed(codes) if isinstance(codes, Codes) else codes @ self.weights.decoder
        made = made + self.weights.decoder_bias
        normalisation = self.manifest.normalisation
        needs = self.weights.skip is not None or (normalisation.is_per_token and normalisation.is_undone)
        if x is None:
            if needs:
                raise DictionaryError(
                    "these codes are decoded beside the activations they are of; give decode(codes, x)"
                )
            return normalisation.undo(made, made)
        given = self._input(x)[0].to(made.dtype)
        if self.weights.skip is not None:
            made = made + normalisation.apply(given) @ self.weights.skip.T
        return normalisation.undo(made, given)

    def _summed(self, codes: Codes) -> Tensor:
        """Sums of the decoder's rows by token, shape [*shape, d_out]."""
        decoder = self.weights.decoder
        total = 1
        for size in codes.shape:
            total *= size
        counts = torch.bincount(codes.tokens, minlength=total)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])[:-1]
        made = torch.nn.functional.embedding_bag(
            codes.features, decoder, offsets, mode="sum", per_sample_weights=codes.values.to(decoder.dtype)
        )
        return made.view(*codes.shape, self.d_out)

    def reconstruct(self, x: Activations | Tensor) -> Float[Tensor, "*tokens d_out"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x), x)

    # Features as directions, readings and edits.

    def direction(self, feature: int) -> Direction:
        """The feature's row of the decoder; one step is its median non-zero activation times the row's length, where that was measured."""
        row = self.weights.decoder[checked_feature(feature, self.n_features)]
        medians = self.manifest.statistics.get("median")
        scale = None if medians is None else float(medians[feature]) * float(row.norm())
        made = Direction.from_vector(
            row,
            site=self.site_out,
            name=f"feature {feature}",
            scale=scale or None,
            origin=f"feature {feature} of {self.manifest.source}",
        )
        kind = "median non-zero activation × ‖W_dec row‖" if scale else "unknown"
        return dataclasses.replace(made, scale=scale or None, scale_kind=kind)

    def reading(self, feature: int) -> Reading:
        """The feature's activation as a number read from an activation: for conditions, and to record.

        Raises:
            DictionaryError: Features compete, or each token is normalised, so no number is read alone.
        """
        number = checked_feature(feature, self.n_features)
        normalisation = self.manifest.normalisation
        if normalisation.is_per_token:
            raise DictionaryError(
                f"each token is normalised ({normalisation.kind}), so feature {number} is no plain reading; use encode_features"
            )
        gating = self.architecture.gating(self.weights, number)
        row = self.weights.encoder[number].double()
        taken = float(row @ self.weights.decoder_bias.double()) if self.manifest.subtracts_decoder_bias else 0.0
        vector = row * normalisation.factor if normalisation.kind == "constant" else row
        gate = None if gating.gate is None else Gate(vector.float(), gating.gate.bias - taken)
        # The gate's own product and the magnitude's share their direction, at another length.
        bias = gating.bias - taken * gating.factor
        return Reading(
            self.site, (vector * gating.factor).float(), bias, gate, gating.threshold, name=f"feature {number}"
        )  # fmt: skip

    def clamp(self, feature: int | Sequence[int], value: float | Sequence[float], **options: Any) -> SetFeatures:
        """An edit that sets features to values, equal to encode, set, decode and add the error back.

        Args:
            feature: One feature, or several.
            value: One value for all, or one each, in the units of the codes.
            options: `where=`, as every edit takes it.
        Raises:
            DictionaryError: There is no such feature.
        """
        return self._set(feature, "clamp", 0.0, value, **options)

    def scale(self, feature: int | Sequence[int], factor: float | Sequence[float], **options: Any) -> SetFeatures:
        """An edit that multiplies features; options as in `clamp`."""
        return self._set(feature, "scale", factor, 0.0, **options)

    def ablate(self, feature: int | Sequence[int], **options: Any) -> SetFeatures:
        """An edit that takes features out; options as in `clamp`."""
        return self._set(feature, "ablate", 0.0, 0.0, **options)

    def _set(self, feature: Any, verb: str, gain: Any, offset: Any, **options: Any) -> SetFeatures:
        features = tuple(feature) if hasattr(feature, "__iter__") else (feature,)
        chosen = tuple(checked_feature(one, self.n_features) for one in features)
        change = Affine.of(gain, offset, len(chosen))
        rows = self.weights.decoder[list(chosen)]
        return SetFeatures(self._reader(chosen), rows, change, verb=verb, site=self.site_out, **options)

    def _reader(self, features: tuple[int, ...]) -> FeatureReader:
        normalisation = self.manifest.normalisation
        if self.architecture.is_elementwise and not normalisation.is_per_token:
            scale = 1.0 / normalisation.factor if normalisation.is_undone else 1.0
            return Readings(tuple(self.reading(one) for one in features), scale)
        return Encoded(self, features)

    # What a dictionary takes in.

    def _input(self, x: Any) -> tuple[Tensor, Tensor | None]:
        if isinstance(x, Activations):
            return x[self.site], x.mask
        if not isinstance(x, Tensor):
            raise DictionaryError(
                f"a dictionary encodes Activations or a tensor [..., {self.d_in}], not {type(x).__name__}"
            )
        return x, None

    def _checked(self, x: Tensor) -> Tensor:
        if x.ndim == 0 or x.shape[-1] != self.d_in:
            raise DictionaryError(
                f"activations of shape {list(x.shape)} do not fit a dictionary that reads {self.d_in} numbers a token ({self.manifest.site})"
            )
        return x.reshape(-1, self.d_in)

    def __repr__(self) -> str:
        width = f"{self.d_in}" if self.d_in == self.d_out else f"{self.d_in} → {self.d_out}"
        return f"Dictionary({self.architecture!r} at {self.manifest.site}, {self.n_features} features of {width}; {self.manifest.source})"


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features that are read by encoding the token: they compete, or each token is normalised."""

    dictionary: Dictionary
    features: tuple[int, ...]

    @property
    def site(self) -> str:
        return self.dictionary.site

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"feature {one}" for one in self.features)

    def values(self, x: Tensor) -> Tensor:
        return self.dictionary.encode_features(x, self.features).to(x.dtype)

    def scale(self, x: Tensor) -> Tensor | float:
        return self.dictionary.manifest.normalisation.output_scale(x)


_NONE = torch.zeros(0, dtype=torch.int64)
