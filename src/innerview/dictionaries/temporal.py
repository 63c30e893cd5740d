"""Temporal SAEs: what attention predicts of a token from those before it is taken off first; the sparse codes are of what is new.

Reference: arXiv:2511.01836
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.codes import Codes, checked_feature
from innerview.dictionaries.manifest import Manifest
from innerview.direction import Direction
from innerview.errors import DictionaryError

# Added to the length of a prediction before it is divided by.
EPSILON = 1e-6


@dataclass(frozen=True, eq=False)
class ContextAttention:
    """Attention over the codes of earlier tokens.

    Attributes:
        query: Weight and bias, shapes [width, n_features] and [width].
        key: The same.
        value: Shapes [n_features, n_features] and [n_features].
        output: The same.
        n_heads: Number of heads.
    """

    query: tuple[Tensor, Tensor] = field(repr=False)
    key: tuple[Tensor, Tensor] = field(repr=False)
    value: tuple[Tensor, Tensor] = field(repr=False)
    output: tuple[Tensor, Tensor] = field(repr=False)
    n_heads: int

    def predicted(self, codes: Float[Tensor, "batch pos n_features"]) -> Float[Tensor, "batch pos n_features"]:
        """Codes of each token as those before it tell them, never below 0."""
        # Each token sees codes one token late, so never its own.
        context = torch.cat([torch.zeros_like(codes[:, :1]), codes[:, :-1]], dim=1)
        query, key, value = (
            torch.nn.functional.linear(read, *weights).unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
            for read, weights in ((codes, self.query), (context, self.key), (context, self.value))
        )
        mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return torch.nn.functional.linear(mixed.transpose(1, 2).flatten(2), *self.output).relu()


@dataclass(frozen=True, eq=False)
class TemporalSAE:
    """A sparse code of what is new at each token, beside what the tokens before it predict.

    Attributes:
        encoder: A row a feature, shape [n_features, d_in].
        decoder: A row a feature, shape [n_features, d_in].
        decoder_bias: Shape [d_in].
        attention: Layers that predict, each from what the last left.
        k: Features that are kept at each token; None for all above 0.
        manifest: What else it says of itself.
    """

    encoder: Float[Tensor, "n_features d_in"] = field(repr=False)
    decoder: Float[Tensor, "n_features d_in"] = field(repr=False)
    decoder_bias: Float[Tensor, "d_in"] = field(repr=False)
    attention: tuple[ContextAttention, ...] = field(repr=False)
    k: int | None
    manifest: Manifest

    @property
    def n_features(self) -> int:
        """Number of features."""
        return len(self.encoder)

    @property
    def d_in(self) -> int:
        """Width of what is read."""
        return self.encoder.shape[1]

    @property
    def site(self) -> str:
        """The site that it reads.

        Raises:
            DictionaryError: It is unknown.
        """
        return self.manifest.known("site")

    def at(self, site: str | None = None, **fields: Any) -> "TemporalSAE":
        """The same with fields of its manifest said or changed."""
        said = fields if site is None else {**fields, "site": site}
        return dataclasses.replace(self, manifest=self.manifest.with_fields(**said))

    def encode(self, x: Activations | Float[Tensor, "batch pos d_in"]) -> Codes:
        """Sparse codes of what is new at each token; of captured activations those at its site, pads left out.

        Raises:
            DictionaryError: The width differs, or the tokens are not in their order, one row a text.
        """
        values, mask = self._input(x)
        return Codes.from_dense(self._split(values)[0], mask)

    def predicted(self, x: Activations | Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos n_features"]:
        """Codes of each token that the tokens before it predict, dense."""
        return self._split(self._input(x)[0])[1]

    def reconstruct(self, x: Activations | Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos d_in"]:
        """What is new and what is predicted, decoded."""
        values = self._input(x)[0]
        new, predicted = self._split(values)
        return self.manifest.normalisation.undo((new + predicted) @ self.decoder + self.decoder_bias, values)

    def direction(self, feature: int) -> Direction:
        """The feature's row of the decoder."""
        row = self.decoder[checked_feature(feature, self.n_features)]
        origin = f"feature {feature} of {self.manifest.source}"
        return Direction.from_vector(row, site=self.site, name=f"feature {feature}", origin=origin)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of what is new, and those that are predicted, both dense."""
        left = self.manifest.normalisation.apply(x.to(self.encoder.dtype)) - self.decoder_bias
        scale = 1.0 / (4 * self.d_in)
        total = left.new_zeros(*left.shape[:-1], self.n_features)
        for layer in self.attention:
            found = layer.predicted((left * scale @ self.encoder.T).relu())
            made = found @ self.decoder
            length = made.norm(dim=-1, keepdim=True) + EPSILON
            share = (made * left).sum(dim=-1, keepdim=True) / length**2
            total, left = total + found * share, left - made * share
        new = (left * scale @ self.encoder.T).relu()
        if self.k is not None:
            kept = new.topk(self.k, dim=-1)
            new = torch.zeros_like(new).scatter(-1, kept.indices, kept.values)
        return new, total

    def _input(self, x: Any) -> tuple[Tensor, Tensor | None]:
        values, mask = (x[self.site], x.mask) if isinstance(x, Activations) else (x, None)
        if not isinstance(values, Tensor) or values.ndim != 3 or values.shape[-1] != self.d_in:
            told = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise DictionaryError(
                f"a temporal SAE reads tokens in their order, [batch, pos, {self.d_in}], not {told}; one text is [1, pos, {self.d_in}]"
            )
        return values, mask

    def __repr__(self) -> str:
        return f"TemporalSAE(k={self.k} at {self.manifest.site}, {self.n_features} features of {self.d_in}; {self.manifest.source})"
