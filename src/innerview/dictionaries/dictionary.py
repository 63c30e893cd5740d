"""A dictionary: a sparse code of a site. Read, decoded, and turned into directions, readings and plain edits."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.codes import BLOCK, Codes, checked_feature, checked_features, coded
from innerview.dictionaries.encoders import encoder_of
from innerview.dictionaries.manifest import Manifest
from innerview.dictionaries.readers import Encoded
from innerview.dictionaries.weights import Weights
from innerview.direction import Direction
from innerview.edits import SetFeatures
from innerview.edits.set_features import Affine, FeatureReader, Readings
from innerview.errors import DictionaryError
from innerview.kernels.encode import encode
from innerview.kernels.finite import refuse_not_finite
from innerview.kernels.rules import Encoder, Sparse
from innerview.kernels.sums import can_sum, summed
from innerview.opened import opened
from innerview.readings import Gate, Reading

# Tokens that are prepared at once for a kernel.
TOKENS = 8192


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
        for name, kind in (("weights", Weights), ("architecture", Architecture), ("manifest", Manifest)):
            if not isinstance(getattr(self, name), kind):
                raise DictionaryError(
                    f"the {name} of a dictionary are {kind.__name__}, not {getattr(self, name)!r:.60}"
                )
        self.architecture.check(self.weights)
        if self.manifest.subtracts_decoder_bias and self.weights.d_in != self.weights.d_out:
            raise DictionaryError(
                f"the decoder's bias is {self.weights.d_out} wide and the input {self.weights.d_in}, so it cannot be subtracted"
            )
        opened.add("dictionary", self)

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
        return self.manifest.known("site_out") or self.site

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
        """Sparse codes of activations; of captured ones, those at this dictionary's site, pads left out. They lie where the weights do.

        Raises:
            DictionaryError: The width differs, or there is NaN or infinity.
        """
        values, mask = self._input(x)
        encoder = self.encoder
        if encoder is None or self._has_gradients(values):
            return coded(values, self.encode_dense, self.n_features, mask)
        return coded(values, self._by_kernel(encoder), self.n_features, mask, TOKENS)

    @property
    def encoder(self) -> Encoder | None:
        """What a kernel takes of it; None where its architecture encodes in a way of its own. `iv.kernels.explain` tells the path."""
        return encoder_of(self.architecture, self.weights)

    def n_tokens(self, x: Activations | Float[Tensor, "*tokens d_in"]) -> int:
        """Tokens of activations that `encode` looks at."""
        values, mask = self._input(x)
        return prod(values.shape[:-1]) if mask is None else int(mask.sum())

    def _by_kernel(self, encoder: Encoder) -> Callable[[Tensor], Sparse]:
        return lambda x: encode(encoder, self.prepared(x).detach())

    def _has_gradients(self, x: Tensor) -> bool:
        """Whether codes of these activations need gradients, which kernels have none of."""
        return torch.is_grad_enabled() and any(one.requires_grad for one in (x, *self.weights.tensors().values()))

    def encode_dense(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens n_features"]:
        """Every feature of every token, with gradients: for a few tokens; `encode` holds many."""
        return self.architecture.encode(self.weights, self.prepared(x))

    def prepared(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens d_in"]:
        """The input as the encoder takes it: beside the weights, normalised, the decoder's bias taken off where the manifest says so."""
        own = self.weights
        ready = self.manifest.normalisation.apply(x.to(own.encoder.device, own.encoder.dtype))
        return ready - own.decoder_bias if self.manifest.subtracts_decoder_bias else ready

    def encode_features(self, x: Activations | Tensor, features: Sequence[int]) -> Float[Tensor, "*tokens chosen"]:
        """A few features at every token, 0 at pads; where features do not compete, only their rows of the encoder are read.

        Raises:
            DictionaryError: There is no such feature, the width differs, or there is NaN or infinity.
        """
        chosen = tuple(checked_feature(feature, self.n_features) for feature in features)
        values, mask = self._input(x)
        if mask is not None:
            values = values.masked_fill(~mask.to(values.device)[..., None], 0.0)
        if self.architecture.is_elementwise and self.encoder is not None:
            found = self._chosen(list(chosen))._read(values)
        else:
            refuse_not_finite(values.reshape(-1, self.d_in))
            found = self._some(chosen)(values)
        return found if mask is None else found * mask.to(found.device)[..., None]

    def _some(self, features: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
        """What gives some features of activations, shape [*tokens, n]."""
        if self.architecture.is_elementwise:
            return self._chosen(list(features)).encode_dense
        chosen, size = list(features), max(1, BLOCK // self.n_features)

        def read(x: Tensor) -> Tensor:
            parts = [self.encode_dense(part)[:, chosen] for part in x.reshape(-1, x.shape[-1]).split(size)]
            return torch.cat(parts).view(*x.shape[:-1], len(chosen))

        return read

    def _read(self, x: Float[Tensor, "*tokens d_in"]) -> Float[Tensor, "*tokens n_features"]:
        """Dense codes of finite activations; of others the refusal, without another look at those that are finite.

        Raises:
            DictionaryError: There is NaN or infinity.
        """
        pre = self.architecture.pre(self.weights, self.prepared(x))
        # NaN or infinity in a token is in each of its products too, and they are far fewer.
        if not bool(torch.isfinite(pre.sum())):
            refuse_not_finite(x.reshape(-1, self.d_in))
        return self.architecture.activate(self.weights, pre)

    def _chosen(self, features: list[int]) -> "Dictionary":
        """The dictionary of some features alone; only right where features do not compete."""
        own = self.weights
        extras = {name: tensor[features] for name, tensor in own.extras.items()}
        weights = Weights(
            own.encoder[features], own.encoder_bias[features], own.decoder[features], own.decoder_bias, own.skip, extras
        )
        return dataclasses.replace(self, weights=weights, architecture=self.architecture.of_some(len(features)))

    def decode(
        self, codes: Codes | Float[Tensor, "*tokens n_features"], x: Activations | Tensor | None = None
    ) -> Float[Tensor, "*tokens d_out"]:
        """What the codes stand for, in the activations' own units.

        Args:
            codes: Codes, or dense ones.
            x: The activations that they are of: needed where each token is normalised by its own scale, or there is a skip.
        Raises:
            DictionaryError: `x` is needed and missing, or the codes are not of this dictionary.
        """
        summed = self._summed(codes) if isinstance(codes, Codes) else self._product(codes)
        bias = self.weights.decoder_bias
        # In place: a second tensor of this size takes a tenth of the time of the sum.
        made = summed.add_(bias) if summed.dtype == bias.dtype else summed + bias
        normalisation = self.manifest.normalisation
        if x is None:
            if self.weights.skip is not None or (normalisation.is_per_token and normalisation.is_undone):
                raise DictionaryError(
                    "these codes are decoded beside the activations they are of; give decode(codes, x)"
                )
            return normalisation.undo(made, made)
        given = self._input(x)[0].to(made.device, made.dtype)
        if given.shape[:-1] != made.shape[:-1]:
            raise DictionaryError(
                f"codes of tokens {list(made.shape[:-1])} are not of activations of tokens {list(given.shape[:-1])}; give those they are of"
            )
        if self.weights.skip is not None:
            made = made + normalisation.apply(given) @ self.weights.skip.T
        return normalisation.undo(made, given)

    def _product(self, codes: Any) -> Tensor:
        if (
            not isinstance(codes, Tensor)
            or not codes.is_floating_point()
            or codes.shape[-1:] != self.weights.encoder_bias.shape
        ):
            told = f"{codes.dtype} {list(codes.shape)}" if isinstance(codes, Tensor) else type(codes).__name__
            raise DictionaryError(f"codes are Codes, or real numbers [..., {self.n_features}], not {told}")
        return codes.to(self.weights.decoder.device, self.weights.decoder.dtype) @ self.weights.decoder

    def _summed(self, codes: Codes) -> Tensor:
        """Sums of the decoder's rows by token, shape [*shape, d_out]."""
        if codes.n_features != self.n_features:
            raise DictionaryError(
                f"these codes are of {codes.n_features} features, and the dictionary has {self.n_features}; give its own"
            )
        decoder, total = self.weights.decoder, prod(codes.shape)
        tokens = codes.tokens.to(decoder.device)
        if can_sum(decoder, codes.values):
            places = Sparse(tokens, codes.features.to(decoder.device), codes.values.to(decoder))
            return summed(places, total, decoder).view(*codes.shape, self.d_out)
        offsets = torch.searchsorted(tokens, torch.arange(total, device=tokens.device))
        made = torch.nn.functional.embedding_bag(
            codes.features.to(decoder.device), decoder, offsets, mode="sum", per_sample_weights=codes.values.to(decoder)
        )
        return made.view(*codes.shape, self.d_out)

    def reconstruct(self, x: Activations | Tensor) -> Float[Tensor, "*tokens d_out"]:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x), x)

    def measured(self, x: Activations | Float[Tensor, "*tokens d_in"]) -> "Dictionary":
        """The same, with each feature's median non-zero activation and its density in `x` in its manifest.

        A token's own scale, where each has one, is measured as the median over tokens. `direction` takes its natural step from these.
        """
        values, mask = self._input(x)
        codes = self.encode(x)
        real = values.reshape(-1, self.d_in) if mask is None else values[mask.to(values.device)]
        worth = self.manifest.normalisation.output_scale(real.to(self.weights.encoder))
        median, count = codes.medians()
        density = count / max(1, codes.n_tokens)
        found: dict[str, Any] = {
            "median": median.tolist(), "density": density.tolist(), "measured_tokens": codes.n_tokens
        }  # fmt: skip
        found["worth"] = float(worth.median()) if isinstance(worth, Tensor) else float(worth)
        return dataclasses.replace(
            self, manifest=self.manifest.with_fields(statistics={**self.manifest.statistics, **found})
        )

    # Features as directions, readings and edits.

    def direction(self, feature: int) -> Direction:
        """The feature's row of the decoder; one step is its median non-zero activation times the row's length, where that was measured.

        Raises:
            DictionaryError: There is no such feature, or its row is zero.
        """
        number = checked_feature(feature, self.n_features)
        row, said = self.weights.decoder[number].detach(), self.manifest.statistics
        length = float(row.double().norm())
        if not length:
            raise DictionaryError(
                f"the decoder's row of feature {number} is zero, so the feature writes nothing; it is dead"
            )
        median = float(said["median"][number]) if "median" in said else 0.0
        worth = self.worth()
        scale = median * length * worth if median > 0 and worth is not None else None
        made = Direction.from_vector(
            row, site=self.site_out, name=f"feature {number}", origin=f"feature {number} of {self.manifest.source}"
        )
        kind = "median non-zero activation × ‖W_dec row‖"
        if scale is None:
            is_silent = "median" in said and not median > 0
            kind = "never active where it was measured" if is_silent else "not measured; sae.measured(acts) measures it"
        active = float(said["density"][number]) * said["measured_tokens"] if "measured_tokens" in said else 0.0
        stepped = dataclasses.replace(
            made, scale=scale, scale_kind=kind, scale_n=0 if scale is None else max(0, round(active))
        )
        opened.add("direction", stepped)
        return stepped

    def worth(self) -> float | None:
        """What one unit of a decoder's row is worth in the activations' own units; None where that is each token's own, and not measured."""
        normalisation = self.manifest.normalisation
        if not normalisation.is_undone or not normalisation.is_per_token:
            return 1.0 / normalisation.factor if normalisation.kind == "constant" and normalisation.is_undone else 1.0
        return self.manifest.statistics.get("worth")

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
        row = self.weights.encoder[number].detach().double()
        taken = (
            float(row @ self.weights.decoder_bias.detach().double()) if self.manifest.subtracts_decoder_bias else 0.0
        )
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
        chosen = checked_features(feature, self.n_features)
        change = Affine.of(gain, offset, len(chosen))
        rows = self.weights.decoder[list(chosen)]
        return SetFeatures(self._reader(chosen), rows, change, verb=verb, site=self.site_out, **options)

    def _reader(self, features: tuple[int, ...]) -> FeatureReader:
        normalisation = self.manifest.normalisation
        if self.architecture.is_elementwise and not normalisation.is_per_token:
            return Readings(tuple(self.reading(one) for one in features), self.worth() or 1.0)
        why = "each token is normalised" if normalisation.is_per_token else "its features compete"
        some = self._some(features)

        def read(x: Tensor) -> Tensor:
            return some(self._fitting(x))

        def worth(x: Tensor) -> Tensor | float:
            return normalisation.output_scale(self._fitting(x))

        return Encoded(self, features, (self.site,), (self.d_in,), read, worth, why)

    # What a dictionary takes in.

    def _input(self, x: Any) -> tuple[Float[Tensor, "*tokens d_in"], Tensor | None]:
        """The activations to encode, and which tokens are real."""
        if isinstance(x, Activations):
            return self._fitting(x[self.site]), x.mask
        if not isinstance(x, Tensor):
            raise DictionaryError(
                f"a dictionary encodes Activations or a tensor [..., {self.d_in}], not {type(x).__name__}"
            )
        return self._fitting(x), None

    def _fitting(self, x: Tensor) -> Float[Tensor, "*tokens d_in"]:
        """Activations as wide as what is read; an axis of heads is joined.

        Raises:
            DictionaryError: They are not, or hold no real numbers.
        """
        if not x.is_floating_point():
            raise DictionaryError(
                f"activations are real numbers, not {x.dtype}; token ids go through iv.capture first, then sae.encode(acts)"
            )
        if x.ndim > 3 and x.shape[-1] != self.d_in and x.shape[-1] * x.shape[-2] == self.d_in:
            return x.flatten(-2)
        if x.ndim == 0 or x.shape[-1] != self.d_in:
            raise DictionaryError(
                f"activations of shape {list(x.shape)} do not fit a dictionary that reads {self.d_in} numbers a token "
                f"({self.manifest.site}); capture that site"
            )
        return x

    def __repr__(self) -> str:
        width = f"{self.d_in}" if self.d_in == self.d_out else f"{self.d_in} → {self.d_out}"
        return f"Dictionary({self.architecture!r} at {self.manifest.site}, {self.n_features} features of {width}; {self.manifest.source})"
