"""Codes: which features are active at which tokens, and how much. Never dense unless asked."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.errors import DictionaryError
from innerview.kernels.finite import refuse_not_finite
from innerview.kernels.rules import Sparse

# Pre-activations that are held at once: 64 MiB of float32.
BLOCK = 1 << 24


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

    def __post_init__(self) -> None:
        counts = {len(self.tokens), len(self.features), len(self.values)}
        if len(counts) > 1:
            raise DictionaryError(
                f"{len(self.tokens)} tokens, {len(self.features)} features and {len(self.values)} values are no codes; give one of each a code"
            )
        if self.mask is not None and tuple(self.mask.shape) != tuple(self.shape):
            raise DictionaryError(
                f"a mask of shape {list(self.mask.shape)} does not fit tokens of shape {list(self.shape)}"
            )

    @classmethod
    def from_dense(cls, dense: Float[Tensor, "*tokens n_features"], mask: Tensor | None = None) -> "Codes":
        """The codes of a dense tensor; what is 0 is no code."""
        flat = dense.reshape(-1, dense.shape[-1])
        if mask is not None:
            # Not a product: what stands at a pad may be NaN.
            flat = flat.masked_fill(~mask.reshape(-1, 1).to(flat.device), 0.0)
        tokens, features = flat.nonzero(as_tuple=True)
        return cls(tokens, features, flat[tokens, features], tuple(dense.shape[:-1]), dense.shape[-1], mask)

    def to(self, device: torch.device | str | None = None) -> "Codes":
        """The same on another device."""
        mask = None if self.mask is None else self.mask.to(device)
        tokens, features, values = (one.to(device) for one in (self.tokens, self.features, self.values))
        return Codes(tokens, features, values, self.shape, self.n_features, mask)

    def with_values(self, values: Float[Tensor, "n_codes"]) -> "Codes":
        """Other numbers of the same tokens and features."""
        return Codes(self.tokens, self.features, values, self.shape, self.n_features, self.mask)

    def within(self, mask: Tensor) -> "Codes":
        """The codes of real tokens.

        Args:
            mask: True where a token is real, shaped as `shape`.
        """
        kept = mask.flatten().to(self.tokens.device)[self.tokens]
        return Codes(
            self.tokens[kept], self.features[kept], self.values[kept], self.shape, self.n_features, mask
        )  # fmt: skip

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

    def medians(self) -> tuple[Float[Tensor, "n_features"], Int[Tensor, "n_features"]]:
        """Each feature's median value where it is active (the lower of two; 0 where it never is), and how many tokens that were."""
        count = torch.bincount(self.features, minlength=self.n_features)
        # Sorted by feature and then by value: both sorts are stable.
        by_value = self.values.detach().sort(stable=True)
        order = by_value.indices[self.features[by_value.indices].sort(stable=True).indices]
        middle = count.cumsum(0) - count + (count - 1).clamp(min=0) // 2
        found = self.values.new_zeros(self.n_features)
        is_seen = count > 0
        found[is_seen] = self.values.detach()[order][middle[is_seen]]
        return found, count

    def frame(self) -> pd.DataFrame:
        """One row a code: the place of its token on each axis, its feature and value."""
        places = torch.unravel_index(self.tokens.cpu(), self.shape) if self.shape else ()
        names = ("batch", "pos") if len(self.shape) == 2 else tuple(f"axis_{i}" for i in range(len(self.shape)))
        names = ("token",) if len(self.shape) == 1 else names
        columns = {name: place.numpy() for name, place in zip(names, places, strict=True)}
        columns["feature"] = self.features.cpu().numpy()
        columns["value"] = self.values.detach().float().cpu().numpy()
        return pd.DataFrame(columns)


def coded(
    x: Float[Tensor, "*tokens width"],
    encode: Callable[[Tensor], Tensor | Sparse],
    n_features: int,
    mask: Tensor | None = None,
    size: int | None = None,
) -> Codes:
    """Codes of activations, block by block, so that memory does not grow with tokens × features.

    Args:
        x: Activations.
        encode: Gives codes of some rows of them: dense, or as kernels give them.
        n_features: Features that it gives.
        mask: True where a token is real, shape [*tokens]; the others are not looked at. None for all.
        size: Rows of a block; as many as have `BLOCK` dense codes when None.
    Raises:
        DictionaryError: There is NaN or infinity at a real token, or the mask is of other tokens.
    """
    if mask is not None and mask.shape != x.shape[:-1]:
        raise DictionaryError(
            f"the mask is of tokens {list(mask.shape)} and the activations are of tokens {list(x.shape[:-1])}, as of the two sides of an "
            "encoder-decoder; capture this site by itself, or encode its tensor"
        )
    flat = x.reshape(-1, x.shape[-1])
    rows = None if mask is None else mask.flatten().nonzero()[:, 0].to(flat.device)
    count, size = len(flat) if rows is None else len(rows), size or max(1, BLOCK // n_features)
    parts: list[Codes | Sparse] = []
    places: list[Tensor] = []
    # A block of no tokens too, which says on which device and in which format nothing was found.
    for start in range(0, max(count, 1), size):
        chosen = None if rows is None else rows[start : start + size]
        block = flat[start : start + size] if chosen is None else flat[chosen]
        refuse_not_finite(block, start if chosen is None else chosen)
        found = encode(block)
        part = Codes.from_dense(found) if isinstance(found, Tensor) else found
        parts.append(part)
        places.append(part.tokens + start if chosen is None else chosen.to(part.tokens.device)[part.tokens])
    features, values = torch.cat([part.features for part in parts]), torch.cat([part.values for part in parts])
    return Codes(torch.cat(places), features, values, tuple(x.shape[:-1]), n_features, mask)


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


def checked_features(given: Any, n_features: int) -> tuple[int, ...]:
    """One feature, or several, each once.

    Raises:
        DictionaryError: There is no such feature, none is given, or one is given twice.
    """
    if isinstance(given, Tensor):
        given = given.tolist()
    listed: tuple[Any, ...] = tuple(given) if hasattr(given, "__iter__") and not isinstance(given, str) else (given,)
    chosen = tuple(checked_feature(one, n_features) for one in listed)
    if not chosen or len(set(chosen)) < len(chosen):
        raise DictionaryError(f"features are given each once, at least one, not {list(chosen)}")
    return chosen
