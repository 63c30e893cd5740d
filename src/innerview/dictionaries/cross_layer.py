"""Cross-layer transcoders: features are read at one layer's input and write into the output of that layer and of every later one.

Reference: transformer-circuits.pub/2025/attribution-graphs (Ameisen et al.)
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.codes import Codes
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.manifest import UNKNOWN, Manifest
from innerview.dictionaries.weights import Weights
from innerview.direction import Direction
from innerview.edits import SetFeatures
from innerview.errors import DictionaryError
from innerview.readings import Reading


@dataclass(frozen=True, eq=False)
class CrossLayerWeights:
    """Weights of a cross-layer transcoder, layer by layer; decoders of each pair of layers are kept apart.

    Attributes:
        encoders: A row a feature, one of shape [n_features, d_in] a layer.
        encoder_biases: One of shape [n_features] a layer.
        decoders: A row a feature, by (source, target) with target ≥ source, each of shape [n_features, d_out].
        decoder_biases: One of shape [d_out] a layer.
        extras: Further tensors of the architecture by name, such as `threshold`, one mapping a layer; empty where it needs none.
    """

    encoders: tuple[Float[Tensor, "n_features d_in"], ...] = field(repr=False)
    encoder_biases: tuple[Float[Tensor, "n_features"], ...] = field(repr=False)
    decoders: Mapping[tuple[int, int], Float[Tensor, "n_features d_out"]] = field(repr=False)
    decoder_biases: tuple[Float[Tensor, "d_out"], ...] = field(repr=False)
    extras: tuple[Mapping[str, Tensor], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        n = len(self.encoders)
        if not n or len(self.encoder_biases) != n or len(self.decoder_biases) != n or len(self.extras) not in (0, n):
            raise DictionaryError(
                f"{n} encoders, {len(self.encoder_biases)} encoder biases, {len(self.decoder_biases)} decoder biases and {len(self.extras)} "
                "extras are not of one cross-layer transcoder; give one of each a layer"
            )
        for source, target in self.decoders:
            if not 0 <= source <= target < n:
                raise DictionaryError(
                    f"a decoder from layer {source} to layer {target} does not go on through {n} layers; targets are source to {n - 1}"
                )
        for layer in range(n):
            if not any(source == layer for source, _ in self.decoders):
                raise DictionaryError(f"no decoder goes out from layer {layer}; give ({layer}, {layer}) at least")

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return len(self.encoders)

    def targets(self, source: int) -> tuple[int, ...]:
        """Layers that the features of a layer write into, in their order."""
        return tuple(sorted(target for one, target in self.decoders if one == source))

    def sources(self, target: int) -> tuple[int, ...]:
        """Layers whose features write into a layer, in their order."""
        return tuple(source for source in range(target + 1) if (source, target) in self.decoders)

    def pair(self, source: int, target: int) -> Weights:
        """The weights from one layer to another, as those of a transcoder whose decoder bias is 0."""
        bias = self.decoder_biases[target]
        extras = dict(self.extras[source]) if self.extras else {}
        return Weights(
            self.encoders[source], self.encoder_biases[source], self.decoders[source, target], torch.zeros_like(bias), None, extras
        )  # fmt: skip

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "CrossLayerWeights":
        """The same on another device, or in another number format."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device=device, dtype=dtype)

        return CrossLayerWeights(
            tuple(map(moved, self.encoders)),
            tuple(map(moved, self.encoder_biases)),
            {pair: moved(tensor) for pair, tensor in self.decoders.items()},
            tuple(map(moved, self.decoder_biases)),
            tuple({name: moved(tensor) for name, tensor in extras.items()} for extras in self.extras),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor by name: `encoder.0`, `encoder_bias.0`, `decoder.0.1` from layer 0 to layer 1, `threshold.0`."""
        found = {f"encoder.{i}": one for i, one in enumerate(self.encoders)}
        found |= {f"encoder_bias.{i}": one for i, one in enumerate(self.encoder_biases)}
        found |= {f"decoder.{source}.{target}": one for (source, target), one in sorted(self.decoders.items())}
        found |= {f"decoder_bias.{i}": one for i, one in enumerate(self.decoder_biases)}
        return found | {f"{name}.{i}": one for i, extras in enumerate(self.extras) for name, one in extras.items()}


@dataclass(frozen=True, eq=False)
class CrossLayerTranscoder:
    """Features of each layer's input that write into the outputs of that layer and of later ones.

    Attributes:
        weights: Its tensors.
        architecture: How each layer encodes.
        manifest: What else it says of itself; `site` and `site_out` are tuples, one a layer.
    """

    weights: CrossLayerWeights
    architecture: Architecture
    manifest: Manifest

    def __post_init__(self) -> None:
        for name in ("site", "site_out"):
            sites = getattr(self.manifest, name)
            if sites not in (UNKNOWN, "") and (isinstance(sites, str) or len(sites) != self.n_layers):
                raise DictionaryError(
                    f"{name} of a cross-layer transcoder names a site for each of {self.n_layers} layers, not {sites!r}"
                )
        normalisation = self.manifest.normalisation
        if self.manifest.subtracts_decoder_bias or (normalisation.is_per_token and normalisation.is_undone):
            raise DictionaryError(
                "layers of a cross-layer transcoder share no decoder bias or scale of their tokens; say subtracts_decoder_bias=False, and a "
                "normalisation of the input alone (is_undone=False) or of one factor"
            )
        for source, target in self.weights.decoders:
            self.architecture.check(self.weights.pair(source, target))

    @property
    def n_layers(self) -> int:
        """Number of layers."""
        return self.weights.n_layers

    @property
    def n_features(self) -> tuple[int, ...]:
        """Number of features of each layer."""
        return tuple(len(one) for one in self.weights.encoders)

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that it reads, one a layer.

        Raises:
            DictionaryError: They are unknown.
        """
        return tuple(self.manifest.known("site"))

    @property
    def sites_out(self) -> tuple[str, ...]:
        """The sites that it writes, one a layer.

        Raises:
            DictionaryError: They are unknown.
        """
        return tuple(self.manifest.known("site_out")) or self.sites

    def pair(self, source: int, target: int | None = None) -> Dictionary:
        """The transcoder from one layer to another; to the first that it writes when None. Its decoder bias is 0.

        Raises:
            DictionaryError: There are no such layers, or nothing goes from one to the other.
        """
        self._layer(source)
        to = self.weights.targets(source)[0] if target is None else target
        if (source, to) not in self.weights.decoders:
            told = ", ".join(map(str, self.weights.targets(source)))
            raise DictionaryError(f"nothing goes from layer {source} to layer {to}; it goes to {told}")
        return _pair(self, source, to)

    def _layer(self, layer: int) -> int:
        if isinstance(layer, bool) or not isinstance(layer, int) or not 0 <= layer < self.n_layers:
            raise DictionaryError(f"no layer {layer!r} of {self.n_layers}; use 0 to {self.n_layers - 1}")
        return layer

    def at(self, sites: Sequence[str] | None = None, **fields: Any) -> "CrossLayerTranscoder":
        """The same with fields of its manifest said or changed; `sites` are those it reads, one a layer."""
        said = fields if sites is None else {**fields, "site": tuple(sites)}
        return dataclasses.replace(self, manifest=self.manifest.with_fields(**said))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> "CrossLayerTranscoder":
        """The same on another device, or in another number format."""
        return dataclasses.replace(self, weights=self.weights.to(device, dtype))

    # Encoding and decoding.

    def encode(self, x: Activations | Mapping[str, Tensor] | Sequence[Tensor]) -> tuple[Codes, ...]:
        """Sparse codes of each layer's input: of captured activations, or of a tensor each, in the order of the layers.

        Raises:
            DictionaryError: A layer is missing, a width differs, or there is NaN or infinity.
        """
        if isinstance(x, Activations):
            return tuple(self.pair(layer).encode(x) for layer in range(self.n_layers))
        return tuple(self.pair(layer).encode(one) for layer, one in enumerate(self._parts(x)))

    def encode_dense(self, x: Activations | Mapping[str, Tensor] | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Every feature of every token, with gradients, one of shape [*tokens, n_features] a layer."""
        return tuple(self.pair(layer).encode_dense(one) for layer, one in enumerate(self._parts(x)))

    def decode(self, codes: Sequence[Codes | Tensor]) -> dict[str, Float[Tensor, "*tokens d_out"]]:
        """What the codes of all layers stand for at each layer's output, in the activations' own units.

        Raises:
            DictionaryError: There are not as many codes as layers.
        """
        if len(codes) != self.n_layers:
            raise DictionaryError(f"{len(codes)} codes do not fit {self.n_layers} layers; give those of every layer")
        return {site: self.decode_at(target, dict(enumerate(codes))) for target, site in enumerate(self.sites_out)}

    def decode_at(self, target: int, codes: Mapping[int, Codes | Tensor]) -> Float[Tensor, "*tokens d_out"]:
        """What codes stand for at one layer's output, in the activations' own units.

        Args:
            target: The layer.
            codes: Of each layer that writes into it, by its number.
        """
        bias = self.weights.decoder_biases[target]
        parts = [self.pair(source, target).decode(codes[source]) for source in self.weights.sources(target)]
        return sum(parts, start=self.manifest.normalisation.undo(bias, bias))

    def _parts(self, x: Any) -> list[Tensor]:
        if isinstance(x, Activations):
            return [x[site] for site in self.sites]
        listed = [x[site] for site in self.sites if site in x] if isinstance(x, Mapping) else list(x)
        if len(listed) != self.n_layers:
            raise DictionaryError(
                f"{len(listed)} activations do not fit {self.n_layers} layers; give one of each layer's input, in their order"
            )
        return listed

    # Features.

    def direction(self, layer: int, feature: int, target: int | None = None) -> Direction:
        """What a feature of a layer writes at a target layer; its own layer's when None."""
        return self.pair(layer, target).direction(feature)

    def reading(self, layer: int, feature: int) -> Reading:
        """A feature's activation as a number read from its layer's input.

        Raises:
            DictionaryError: Features compete, or each token is normalised.
        """
        return self.pair(layer).reading(feature)

    def clamp(
        self, layer: int, feature: int | Sequence[int], value: float | Sequence[float], **options: Any
    ) -> tuple[SetFeatures, ...]:
        """Edits, one at each layer that the features write into, that set features of a layer to values.

        Args:
            layer: Whose features.
            feature: One feature, or several.
            value: One value for all, or one each, in the units of the codes.
            options: `where=`, as every edit takes it.
        Raises:
            DictionaryError: There is no such layer or feature.
        """
        return tuple(self.pair(layer, target).clamp(feature, value, **options) for target in self._targets(layer))

    def scale(
        self, layer: int, feature: int | Sequence[int], factor: float | Sequence[float], **options: Any
    ) -> tuple[SetFeatures, ...]:
        """Edits that multiply features of a layer; as `clamp`."""
        return tuple(self.pair(layer, target).scale(feature, factor, **options) for target in self._targets(layer))

    def ablate(self, layer: int, feature: int | Sequence[int], **options: Any) -> tuple[SetFeatures, ...]:
        """Edits that take features of a layer out; as `clamp`."""
        return tuple(self.pair(layer, target).ablate(feature, **options) for target in self._targets(layer))

    def _targets(self, layer: int) -> tuple[int, ...]:
        return self.weights.targets(self._layer(layer))

    def __repr__(self) -> str:
        features = sorted(set(self.n_features))
        told = str(features[0]) if len(features) == 1 else f"{features[0]} to {features[-1]}"
        return f"CrossLayerTranscoder({self.architecture!r}, {self.n_layers} layers of {told} features; {self.manifest.source})"


def _pair(made: CrossLayerTranscoder, source: int, target: int) -> Dictionary:
    sites, sites_out = (getattr(made.manifest, name) for name in ("site", "site_out"))
    site = sites[source] if isinstance(sites, tuple) else UNKNOWN
    out = sites_out if isinstance(sites_out, tuple) else sites
    said = made.manifest.with_fields(site=site, site_out=out[target] if isinstance(out, tuple) else "")
    return Dictionary(made.weights.pair(source, target), made.architecture, said)
