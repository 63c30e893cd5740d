"""Factorising a matrix of activations into a dictionary: semi-NMF."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.activations import Activations
from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.architectures.semi_nmf import SemiNMF
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.manifest import UNKNOWN, Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

TINY = 1e-12


def fit_semi_nmf(
    x: Activations | Float[Tensor, "*tokens d"],
    n_features: int,
    *,
    site: str | None = None,
    share: float = 0.01,
    steps: int = 500,
    patience: int = 100,
    seed: int = 0,
) -> Dictionary:
    """A dictionary whose rows, signed and sparse, sum with nonnegative codes to the activations.

    Args:
        x: Activations of tokens, such as `mlp.hidden`; pads are left out.
        n_features: Rows of the dictionary.
        site: Where `x` was captured; needed where several sites were.
        share: Of each row the share of neurons that is kept: those with the largest absolute weights; 1 keeps all.
        steps: Updates, at most.
        patience: Updates without a lower error after which it ends.
        seed: Of the random start.
    Raises:
        DictionaryError: A number is out of its range, or the activations are not finite.
    Reference: arXiv:2506.10920; the updates are Ding, Li and Jordan's (2010).
    """
    for name, number in (("n_features", n_features), ("steps", steps), ("patience", patience)):
        whole(name, number)
    if not 0 < real("share", share) <= 1:
        raise DictionaryError(f"share is above 0 and at most 1, not {share!r}")
    values, where = _tokens(x, site)
    best = factors(values, n_features, share, steps, patience, seed)
    decoder = best.features.T.contiguous()
    weights = Weights(decoder.clone(), decoder.new_zeros(n_features), decoder, decoder.new_zeros(decoder.shape[1]))
    about = {"fvu": best.error / float((values - values.mean(0)).square().sum()), "updates": best.updates}
    manifest = Manifest(False, Normalisation(), site=where, source="fit_semi_nmf", statistics=about)
    return Dictionary(weights, SemiNMF(), manifest)


@dataclass(frozen=True, eq=False)
class Factors:
    """`A ≈ features @ codes.T` for activations `A` of shape [d, tokens].

    Attributes:
        features: Signed and sparse, a column a feature, shape [d, n_features].
        codes: Nonnegative, columns of length 1 before the last update, shape [tokens, n_features].
        error: Squared error, summed.
        updates: After how many updates it was found.
    """

    features: Tensor
    codes: Tensor
    error: float
    updates: int


@torch.no_grad()
def factors(
    x: Float[Tensor, "tokens d"], n_features: int, share: float, steps: int, patience: int, seed: int
) -> Factors:
    """The factors of the lowest error among the updates."""
    drawn = torch.Generator().manual_seed(seed)
    codes = torch.rand(len(x), n_features, generator=drawn).clamp_min(1e-6).to(x)
    best: Factors | None = None
    for update in range(steps):
        features, codes = updated(x, codes, share)
        error = float((x - codes @ features.T).square().sum())
        if best is None or error < best.error:
            best = Factors(features, codes, error, update + 1)
        elif update + 1 - best.updates >= patience:
            break
    assert best is not None
    if not math.isfinite(best.error):
        raise DictionaryError("the activations have numbers that are not finite; leave those tokens out")
    return best


def updated(x: Tensor, codes: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """One update: least squares for the features, the winners of each kept, then the codes by their quotient."""
    gram = codes.T @ codes
    gram.diagonal().add_(1e-6)
    features = torch.linalg.solve(gram, codes.T @ x).T
    features = winners(features, share)
    lengths = codes.norm(dim=0).clamp_min(TINY)
    codes, features = codes / lengths, features * lengths
    product, inner = x @ features, features.T @ features
    up = product.relu() + codes @ (-inner).relu()
    down = (-product).relu() + codes @ inner.relu()
    return features, codes * (up / down.clamp_min(TINY)).sqrt()


def winners(features: Float[Tensor, "d n_features"], share: float) -> Float[Tensor, "d n_features"]:
    """Each column with its largest absolute entries alone."""
    kept = max(1, math.ceil(share * len(features)))
    places = features.abs().topk(kept, dim=0).indices
    return torch.zeros_like(features).scatter(0, places, features.gather(0, places))


def _tokens(x: Activations | Tensor, site: str | None) -> tuple[Tensor, str]:
    if isinstance(x, Activations):
        if site is None and len(x.sites) != 1:
            raise DictionaryError(f"several sites were captured ({', '.join(x.sites)}); say which with site=")
        where = site or x.sites[0]
        values = x[where]
        values = values.flatten(0, -2) if x.mask is None else values[x.mask.to(values.device)]
    else:
        where, values = site or UNKNOWN, x
    if values.ndim < 2:
        raise DictionaryError(f"activations have shape [tokens, d], not {list(values.shape)}")
    return values.reshape(-1, values.shape[-1]).float(), where
