"""Semi-NMF: activations as sums of signed sparse features with nonnegative codes."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Architecture
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.nonnegative import nonnegative_codes
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class SemiNMF(Architecture):
    """Nonnegative codes of least squares on the decoder's rows; the encoder is not used. `iv.fit_semi_nmf` makes one.

    Attributes:
        steps: Projected gradients of the solver, at most.
        tolerance: How far the optimality conditions may be missed, as a share of a token's largest product with a row.
    Reference: arXiv:2506.10920
    """

    steps: int = 2000
    tolerance: float = 1e-6
    is_elementwise: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole("steps", self.steps)
        real("tolerance", self.tolerance)

    def check(self, weights: Weights) -> None:
        super().check(weights)
        if weights.d_in != weights.d_out:
            raise DictionaryError(
                f"semi-NMF solves for the decoder's rows, and they are {weights.d_out} wide, the input {weights.d_in}"
            )

    def pre(self, weights: Weights, x: Tensor) -> Tensor:
        return x @ weights.decoder.T

    def encode(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        flat = x.reshape(-1, x.shape[-1])
        codes = nonnegative_codes(weights.decoder, flat, self.steps, self.tolerance)
        return codes.view(*x.shape[:-1], weights.n_features)
