"""How crosscoders train: one code of several sites, weighed with the lengths of its rows at each of them."""

from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture, Losses, Optimization, Step
from innerview.dictionaries.architectures.relu import ReLU
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class AcrossSites(Architecture):
    """Another architecture on the sites' activations side by side, its codes in units of the lengths of their rows, summed over sites.

    So ReLU's penalty is the published `Σ code · Σ_sites ‖row‖`, and TopK and BatchTopK choose by it. What is used and saved has
    rows whose lengths sum to 1, and the other architecture's codes.

    Attributes:
        inner: How codes are made and kept sparse.
        widths: Numbers of a token at each site.
    Reference: transformer-circuits.pub/2024/crosscoders; BatchTopK, arXiv:2504.02922
    """

    inner: Architecture
    widths: tuple[int, ...]

    @property
    def extras(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.extras

    @property
    def measured(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.measured

    @property
    def is_elementwise(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.is_elementwise

    @property
    def subtracts_decoder_bias(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.subtracts_decoder_bias

    @property
    def starts_at_median(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.starts_at_median

    @property
    def initial_norm(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.initial_norm

    @property
    def initial_encoder(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.initial_encoder

    def check(self, weights: Weights) -> None:
        if sum(self.widths) != weights.d_out or weights.d_in != weights.d_out:
            raise DictionaryError(
                f"widths {list(self.widths)} make {sum(self.widths)}, and the weights read {weights.d_in} and write {weights.d_out}"
            )
        self.inner.check(weights)

    def optimization(self, n_features: int) -> Optimization:
        return self.inner.optimization(n_features)

    def initial_extras(self, n_features: int, d_in: int) -> dict[str, Tensor]:
        return self.inner.initial_extras(n_features, d_in)

    def losses(self, weights: Weights, x: Tensor, target: Tensor, step: Step) -> Losses:
        inner = replace(self.inner, has_unit_rows=True) if isinstance(self.inner, ReLU) else self.inner
        return inner.losses(self.weighed(weights), x, target, step)

    def weighed(self, weights: Weights) -> Weights:
        """The same function with codes in units of their rows' lengths."""
        lengths = self.lengths(weights)
        return replace(
            weights,
            encoder=weights.encoder * lengths[:, None],
            encoder_bias=weights.encoder_bias * lengths,
            decoder=weights.decoder / lengths[:, None],
        )

    def lengths(self, weights: Weights) -> Float[Tensor, "n_features"]:
        """Lengths of each feature's rows at the sites, summed."""
        parts = weights.decoder.split(list(self.widths), dim=-1)
        return sum((part.norm(dim=-1) for part in parts[1:]), start=parts[0].norm(dim=-1)).clamp_min(1e-12)

    def finished(self, weights: Weights, seen: int) -> tuple[Architecture, Weights]:
        return self.inner.finished(self.weighed(weights), seen)

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "inner": self.inner.to_dict()}
