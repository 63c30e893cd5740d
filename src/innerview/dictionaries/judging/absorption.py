"""Absorption: the feature of a concept is silent where another one, of a narrower thing, fires and does its work.

Reference: arXiv:2409.14507; the share of the projection instead of an ablation, and the fraction, as in arXiv:2503.09532
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerview.dictionaries.judging.probing import differences, f1_of, fitted

# Of the papers: what another main feature must add to F1, the least cosine with the probe, the least share of the projection, how many
# features may carry the concept together where a fraction of it is absorbed.
SPLIT_F1 = 0.03
ALIGNED = 0.1
CARRIED = 0.4
MOST_MAIN = 10
MOST_TOGETHER = 3
# Ours. F1 alone takes any feature that fires at more than some 3 % of a concept's tokens for a part of a split, and so an absorbing one
# of a narrower thing that is not rare. Parts of a split are peers: each fires at the concept about as often as the most telling one.
PEER = 2 / 3


@dataclass(frozen=True)
class Absorption:
    """How often a concept's features are silent while another one carries it.

    Attributes:
        main: The concept's own features: the most telling one, and those it is split into.
        absorbing: Features that carried it in their place, the most frequent first.
        n_absorbed: Tokens where that happened.
        n: Tokens of the concept that the probe tells rightly.
        fraction: Part of the concept that other features carry, the mean over those tokens; main features that fire too weakly count in part.
    """

    main: tuple[int, ...]
    absorbing: tuple[int, ...]
    n_absorbed: int
    n: int
    fraction: float

    @property
    def share(self) -> float:
        """Share of the tokens; NaN where the probe tells none."""
        return self.n_absorbed / self.n if self.n else float("nan")


def absorption(
    decoder: Float[Tensor, "n_features d"],
    train: tuple[Tensor, Tensor, Tensor],
    test: tuple[Tensor, Tensor, Tensor],
    *,
    aligned: float = ALIGNED,
    carried: float = CARRIED,
    peer: float = PEER,
) -> Absorption:
    """Count absorption on held-out tokens that a probe on the activation tells rightly.

    Ablating a feature changes the probe's log odds by its activation times its decoder row's product with the probe, so that the
    effects are read from the codes.

    Args:
        decoder: The decoder's rows.
        train: Activations [n, d] in the units that codes and decoder make, codes [n, n_features] and labels [n] of single tokens.
        test: The same, held out.
        aligned: Least cosine of an absorbing feature's row with the probe.
        carried: Least share of the activation's projection on the probe, less that of a token without the concept, that the feature must carry.
        peer: How often a part of a split fires at the concept, at least, for each time that the most telling feature does.
    """
    rows = decoder.detach().float()
    probe = fitted(train[0], train[2], by_column=False)
    main = _main(train[1], train[2], peer)
    x, codes, y = test
    told = y & (probe.score(x) > 0)
    along = rows @ probe.weight
    cosine = along / (rows.norm(dim=-1) * probe.weight.norm()).clamp(min=1e-30)
    effects = codes[told].float() * along
    # What the concept adds to the projection: behind what a token has without it.
    total = x[told].float() @ probe.weight - (train[0][~train[2]].float() @ probe.weight).mean()
    own = effects[:, main].sum(dim=-1)
    others = effects.masked_fill(cosine < aligned, 0.0).clamp(min=0.0)
    others[:, main] = 0.0
    top = others.topk(min(MOST_TOGETHER, others.shape[1]), dim=-1)
    enough = carried * total.clamp(min=1e-30)
    is_absorbed = (codes[told][:, main] <= 0).all(dim=1) & (total > 0) & (top.values[:, 0] >= enough)
    counted = torch.bincount(top.indices[is_absorbed, 0], minlength=len(rows))
    order = counted.argsort(descending=True, stable=True)[: int((counted > 0).sum())]
    parts = _parts(total, own, top.values.sum(dim=-1), enough)
    fraction = float(parts.mean()) if len(parts) else float("nan")
    return Absorption(tuple(main), tuple(order.tolist()), int(is_absorbed.sum()), int(told.sum()), fraction)


def _parts(
    total: Float[Tensor, "n"], own: Float[Tensor, "n"], others: Float[Tensor, "n"], enough: Float[Tensor, "n"]
) -> Float[Tensor, "n"]:
    """Part of each token's concept that others carry: of what the main features leave, where the others carry enough of the whole."""
    left = torch.minimum(others, total - own)
    part = left / (left + own.clamp(min=0.0)).clamp(min=1e-30)
    return torch.where((total > 0) & (own < total) & (others >= enough), part, torch.zeros_like(part)).clamp(0.0, 1.0)


def _main(codes: Float[Tensor, "n n_features"], y: Bool[Tensor, "n"], peer: float) -> list[int]:
    """The most telling feature, and its peers among the next, each of which makes the concept clearly better told."""
    order = differences(codes, y).argsort(descending=True, stable=True)[:MOST_MAIN].tolist()
    fires = codes[:, order] > 0
    often = (fires & y[:, None]).sum(dim=0)
    kept, best = [0], float(f1_of(fires[:, 0], y))
    for place in range(1, len(order)):
        score = float(f1_of(fires[:, [*kept, place]].any(dim=1), y))
        if often[place] >= peer * often[0] and score > best + SPLIT_F1:
            kept, best = [*kept, place], score
    return [order[place] for place in kept]
