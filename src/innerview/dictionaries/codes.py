"""Codes: which features are active at which tokens, and how much. Never dense unless asked."""

from dataclasses import dataclass, field
from math import prod

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Codes:
    """Sparse features of tokens, ordered by token, then by feature.

    Attributes:
        tokens: Flat place of each code's token in `shape`, int64, shape [n_codes].
        features: Feature of each code, int64, shape [n_codes].
        values: Its value, never 0, shape [n_codes].
        shape: Axes of the tokens, such as (batch, pos).
        n_features: Features of the dictionary.
        mask: True where a token is real, shaped as `shape`; pads have no codes. None where all are real.
    """

    tokens: Int[Tensor, "n_codes"] = field(repr=False)
    features: Int[Tensor, "n_codes"] = field(repr=False)
    values: Float[Tensor, "n_codes"] = field(repr=False)
    shape: tuple[int, ...]
    n_features: int
    mask: Tensor | None = field(default=None, repr=False)

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "*tokens n_features"], mask: Tensor | None = None) -> "Codes":
        """The codes of a dense tensor; what is 0 is no code."""
        flat = dense.reshape(-1, dense.shape[-1])
        if mask is not None:
            flat = flat * mask.reshape(-1, 1)
        tokens, features = flat.nonzero(as_tuple=True)
        return cls(tokens, features, flat[tokens, features], tuple(dense.shape[:-1]), dense.shape[-1], mask)

    def __len__(self) -> int:
        return self.values.numel()

    @property
    def n_tokens(self) -> int:
        """Real tokens."""
        return prod(self.shape) if self.mask is None else int(self.mask.sum())

    def dense(self) -> Float[Tensor, "*tokens n_features"]:
        """All features of all tokens, zeros too, shape [*shape, n_features]."""
        made = self.values.new_zeros(prod(self.shape), self.n_features)
        made = made.index_put((self.tokens, self.features), self.values)
        return made.view(*self.shape, self.n_features)

    def of_feature(self, feature: int) -> Float[Tensor, "*tokens"]:
        """One feature at every token, shape [*shape].

        Raises:
            DictionaryError: There is no such feature.
        """
        checked_feature(feature, self.n_features)
        is_it = self.features == feature
        made = self.values.new_zeros(prod(self.shape)).index_put((self.tokens[is_it],), self.values[is_it])
        return made.view(self.shape)

    def l0(self) -> Int[Tensor, "*tokens"]:
        """Active features of each token, shape [*shape]."""
        return torch.bincount(self.tokens, minlength=prod(self.shape)).view(self.shape)

    def frame(self) -> pd.DataFrame:
        """One row a code: the place of its token on each axis, its feature and value."""
        places = torch.unravel_index(self.tokens.cpu(), self.shape) if self.shape else ()
        names = ("batch", "pos") if len(self.shape) == 2 else tuple(f"axis_{i}" for i in range(len(self.shape)))
        names = ("token",) if len(self.shape) == 1 else names
        columns = {name: place.numpy() for name, place in zip(names, places, strict=True)}
        columns["feature"] = self.features.cpu().numpy()
        columns["value"] = self.values.detach().float().cpu().numpy()
        return pd.DataFrame(columns)


def checked_feature(feature: int, n_features: int) -> int:
    """The number of a feature.

    Raises:
        DictionaryError: There is no such feature.
    """
    if isinstance(feature, bool) or not hasattr(feature, "__index__"):
        raise DictionaryError(f"a feature is a whole number from 0 to {n_features - 1}, not {feature!r}")
    number = feature.__index__()
    if not 0 <= number < n_features:
        raise DictionaryError(f"no feature {number}: the dictionary has {n_features}; use 0 to {n_features - 1}")
    return number
