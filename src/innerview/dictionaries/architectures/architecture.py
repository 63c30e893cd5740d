"""What every architecture says: how pre-activations become codes, how it is trained, and what that adds to the loss."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError
from innerview.readings import Gate


@dataclass(frozen=True)
class Gating:
    """How one feature is read by itself: what `Reading` takes beside the vector and the bias.

    The code is 0 where `vector · x + bias` is not above `threshold`, or the gate not above 0.
    """

    bias: float
    threshold: float | None
    gate: Gate | None = None
    factor: float = 1.0


@dataclass(frozen=True)
class Architecture:
    """How a dictionary encodes. Numbers are fields; tensors of its own lie in `Weights.extras`, named by `extras`."""

    extras: ClassVar[tuple[str, ...]] = ()
    is_elementwise: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The architecture's name, as in `iv.TopK`."""
        return type(self).__name__

    def check(self, weights: Weights) -> None:
        """Refuse weights that lack a tensor of this architecture, or have one that is not its own.

        Raises:
            DictionaryError: A tensor is missing, has another shape, or is not known.
        """
        for name in self.extras:
            if name not in weights.extras:
                raise DictionaryError(f"{self.name} needs the tensor {name!r}, which is missing")
            if tuple(weights.extras[name].shape) != (weights.n_features,):
                raise DictionaryError(
                    f"{name!r} has shape {list(weights.extras[name].shape)}, and [{weights.n_features}] is needed"
                )
        unknown = set(weights.extras) - set(self.extras)
        if unknown:
            raise DictionaryError(
                f"{self.name} has no tensor {sorted(unknown)[0]!r}; it has {', '.join(self.extras) or 'none'}"
            )

    def pre(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        """Pre-activations: `x @ encoder.T + encoder_bias`."""
        return torch.nn.functional.linear(x, weights.encoder, weights.encoder_bias)

    def activate(self, weights: Weights, pre: Float[Tensor, "*rows n_features"]) -> Float[Tensor, "*rows n_features"]:
        """Codes of pre-activations, dense."""
        raise TypeError(f"{self.name} is no architecture of its own; use iv.ReLU, iv.TopK or another")

    def encode(self, weights: Weights, x: Float[Tensor, "*rows d_in"]) -> Float[Tensor, "*rows n_features"]:
        """Dense codes of prepared inputs (normalised, decoder bias taken off where the manifest says so)."""
        return self.activate(weights, self.pre(weights, x))

    def gating(self, weights: Weights, feature: int) -> Gating:
        """How one feature is read by itself.

        Raises:
            DictionaryError: Features compete, so that none can.
        """
        raise DictionaryError(
            f"features of {self.name} compete, so feature {feature} cannot be read without the others"
        )

    def to_dict(self) -> dict[str, Any]:
        """Its name and its numbers, as JSON takes them."""
        return {"name": self.name, **vars(self)}
