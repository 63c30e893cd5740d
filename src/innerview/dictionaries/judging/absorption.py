"""Absorption: the feature of a concept is silent where another one, of a narrower thing, fires and does its work.

Reference: arXiv:2409.14507; the share of the projection instead of an ablation as in arXiv:2503.09532
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from innerview.dictionaries.judging.probing import differences, f1_of, fitted

# Of the papers: what another main feature must add to F1, the least cosine with the probe, the least share of the projection.
SPLIT_F1 = 0.03
ALIGNED = 0.1
CARRIED = 0.4
MOST_MAIN = 10


@dataclass(frozen=True)
class Absorption:
    """How often a concept's features are silent while another one carries it.

    Attributes:
        main: The concept's own features: the most telling one, and those it is split into.
        absorbing: Features that carried it in their place, the most frequent first.
        n_absorbed: Tokens where that happened.
        n: Tokens of the concept that the probe tells rightly.
    """

    main: tuple[int, ...]
    absorbing: tuple[int, ...]
    n_absorbed: int
    n: int

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
) -> Absorption:
    """Count absorption on held-out tokens that a probe on the activation tells rightly.

    Ablating a feature changes the probe's log odds by its activation times its decoder row's product with the probe, so that the
    effects are read from the codes.

    Args:
        decoder: The decoder's rows.
        train: Activations [n, d], codes [n, n_features] and labels [n] of single tokens.
        test: The same, held out.
        aligned: Least cosine of an absorbing feature's row with the probe.
        carried: Least share of the activation's projection on the probe, less that of a token without the concept, that the feature must carry.
    """
    probe = fitted(train[0], train[2], by_column=False)
    main = _main(train[1], train[2])
    x, codes, y = test
    told = y & (probe.score(x) > 0)
    silent = told & (codes[:, main] <= 0).all(dim=1)
    along = decoder.detach().float() @ probe.weight
    cosine = along / (decoder.detach().float().norm(dim=-1) * probe.weight.norm()).clamp(min=1e-30)
    others = (codes[silent].float() * along).masked_fill(cosine < aligned, 0.0)
    # What the concept adds to the projection: behind what a token has without it.
    total = x[silent].float() @ probe.weight - (train[0][~train[2]].float() @ probe.weight).mean()
    others[:, main] = 0.0
    top = others.max(dim=1) if len(others) else None
    if top is None:
        return Absorption(tuple(main), (), 0, int(told.sum()))
    is_absorbed = (top.values > 0) & (total > 0) & (top.values >= carried * total)
    counted = torch.bincount(top.indices[is_absorbed], minlength=len(decoder))
    order = counted.argsort(descending=True, stable=True)[: int((counted > 0).sum())]
    return Absorption(tuple(main), tuple(order.tolist()), int(is_absorbed.sum()), int(told.sum()))


def _main(codes: Float[Tensor, "n n_features"], y: Bool[Tensor, "n"]) -> list[int]:
    """The most telling feature, and further ones as long as each makes the concept clearly better told."""
    order = differences(codes, y).argsort(descending=True, stable=True)[:MOST_MAIN].tolist()
    kept, best = order[:1], float(f1_of((codes[:, order[:1]] > 0).any(dim=1), y))
    for feature in order[1:]:
        score = float(f1_of((codes[:, [*kept, feature]] > 0).any(dim=1), y))
        if score <= best + SPLIT_F1:
            break
        kept, best = [*kept, feature], score
    return kept
