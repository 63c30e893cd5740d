"""Starting inside the active subspace: features whose directions no activation has would be dead from the first step."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.numbers import real
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


@dataclass(frozen=True)
class ActiveSubspace:
    """First weights within the principal components of the first activations, lengths as they were drawn.

    Attributes:
        share: Share of the variance that the components hold; the fewest that do are taken.
    Reference: arXiv:2508.16929
    """

    share: float = 0.99

    def __post_init__(self) -> None:
        if not 0 < real("share", self.share) <= 1:
            raise DictionaryError(f"share is above 0 and at most 1, not {self.share!r}")

    def applied(self, weights: Weights, x: Float[Tensor, "rows d_in"], target: Float[Tensor, "rows d_out"]) -> Weights:
        """The weights with rows of the encoder in the inputs' subspace, and rows of the decoder in the targets'."""
        return replace(
            weights,
            encoder=_within(weights.encoder, self.components(x)),
            decoder=_within(weights.decoder, self.components(target)),
        )

    def components(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "k d"]:
        """The fewest principal components that hold the share of the variance, orthonormal rows."""
        centered = (x - x.mean(0)).double()
        sizes, rows = torch.linalg.eigh(centered.T @ centered)
        held = sizes.flip(0).clamp_min(0).cumsum(0)
        # Rounding may leave the whole a hair above the sum of all.
        n = min(len(held), int((held < self.share * held[-1]).sum()) + 1)
        return rows.flip(1)[:, :n].T.float()


def _within(rows: Tensor, basis: Tensor) -> Tensor:
    basis = basis.to(rows)
    found = rows @ basis.T @ basis
    return torch.nn.functional.normalize(found, dim=-1) * rows.norm(dim=-1, keepdim=True)
