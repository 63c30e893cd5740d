"""Probes of few features, of the raw activation, and the one feature that tells a label best."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RIDGE = 1e-2
STEPS = 60
# A feature counts as firing above these shares of its largest value in training.
CUTS = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True, eq=False)
class Probe:
    """A logistic regression.

    Attributes:
        weight: In the units of what it reads, shape [d].
        bias: Added to the product.
    """

    weight: Float[Tensor, "d"]
    bias: float

    def score(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Log odds that the label holds."""
        return x.float() @ self.weight + self.bias

    def accuracy(self, x: Float[Tensor, "n d"], y: Bool[Tensor, "n"]) -> float:
        """Share of labels that it tells."""
        return float(((self.score(x) > 0) == y).float().mean())


def fitted(x: Float[Tensor, "n d"], y: Bool[Tensor, "n"], *, by_column: bool = True) -> Probe:
    """A logistic regression with a small ridge; columns that never change count nothing.

    Args:
        x: What it reads.
        y: Labels.
        by_column: Whether each column is standardised by itself; one scale for all keeps a column of mere noise from a large weight, where
            the probe's direction is what is wanted.
    """
    x, wanted = x.float(), y.float()
    center = x.mean(dim=0)
    spread = x.std(dim=0) if by_column else (x - center).square().mean().sqrt().expand(x.shape[1])
    scale = torch.where(spread > 1e-8, 1 / spread.clamp(min=1e-8), torch.zeros_like(spread))
    ready = (x - center) * scale
    with torch.enable_grad():
        weight = torch.zeros(x.shape[1], requires_grad=True)
        bias = torch.zeros((), requires_grad=True)
        steps = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            steps.zero_grad()
            fit = torch.nn.functional.binary_cross_entropy_with_logits(ready @ weight + bias, wanted)
            found = fit + RIDGE * weight.square().sum() / 2
            found.backward()
            return found

        steps.step(loss)
    own = weight.detach() * scale
    return Probe(own, float(bias.detach() - own @ center))


def differences(codes: Float[Tensor, "n n_features"], y: Bool[Tensor, "n"]) -> Float[Tensor, "n_features"]:
    """Difference of each feature's means where the label holds and where not, in its own standard deviations, so that scale counts nothing."""
    spread = codes.std(dim=0)
    return (codes[y].mean(dim=0) - codes[~y].mean(dim=0)) / spread.clamp(min=1e-12)


def most_telling(codes: Float[Tensor, "n n_features"], y: Bool[Tensor, "n"]) -> Int[Tensor, "n_features"]:
    """Features by the size of that difference, the largest first."""
    return differences(codes, y).abs().argsort(descending=True, stable=True)


def sparse_accuracies(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], sizes: tuple[int, ...]
) -> dict[int, float]:
    """Held-out accuracy of probes on the k most telling features of the training half.

    Args:
        train: Pooled codes [n, n_features] and labels [n].
        test: The same, held out.
        sizes: Numbers of features.
    Reference: arXiv:2305.01610
    """
    order = most_telling(*train)
    made = {}
    for k in sizes:
        chosen = order[:k]
        made[k] = fitted(train[0][:, chosen], train[1]).accuracy(test[0][:, chosen], test[1])
    return made


def f1_of(said: Bool[Tensor, "n *more"], y: Bool[Tensor, "n"]) -> Tensor:
    """Harmonic mean of precision and recall, column by column; 0 where nothing is said."""
    wanted = y.view(-1, *[1] * (said.ndim - 1))
    right = (said & wanted).sum(dim=0).double()
    total = said.sum(dim=0).double() + y.sum().double()
    return 2 * right / total.clamp(min=1)


@dataclass(frozen=True)
class Best:
    """The feature that tells a label best by itself: its F1 is held out, what was chosen was chosen in training."""

    feature: int
    threshold: float
    f1: float


def best_feature(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> Best:
    """The feature, and the cut of its own largest value, with the largest F1 in training; its F1 on what was held out."""
    codes, y = train
    largest = codes.amax(dim=0)
    scores = torch.stack([f1_of(codes > largest * cut, y) for cut in CUTS])
    # A feature that never fires says nothing, at any cut.
    place = int(scores.masked_fill(largest <= 0, -1.0).flatten().argmax())
    cut, feature = divmod(place, codes.shape[1])
    threshold = float(largest[feature] * CUTS[cut])
    return Best(feature, threshold, float(f1_of(test[0][:, feature] > threshold, test[1])))
