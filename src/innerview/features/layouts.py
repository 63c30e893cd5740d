"""Decoder directions in two dimensions: by their principal components, or so that near rows stay near."""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.errors import FeatureError

BLOCK = 1 << 12
# Beyond this, comparing all rows with all takes minutes.
MOST_ROWS = 40_000
# Of the curve 1 / (1 + A d^2B) that a least distance of 0.1 gives.
A, B = 1.577, 0.895
NEGATIVES = 10


class Layout(Protocol):
    """A way to lay rows out.

    Attributes:
        name: In words, for the footline.
    """

    @property
    def name(self) -> str:
        """In words, for the footline."""
        ...

    def points(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """A place for each row; NaN for a row of zeros."""
        ...


@dataclass(frozen=True)
class PCALayout:
    """The first two principal components of the rows' directions."""

    @property
    def name(self) -> str:
        """In words, for the footline."""
        return "PCA of decoder directions"

    @torch.no_grad()
    def points(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """A place for each row; NaN for a row of zeros."""
        units, is_live = _units(rows)
        live = units[is_live]
        placed = torch.full((len(units), 2), torch.nan)
        if len(live) < 3:
            placed[is_live] = torch.zeros(len(live), 2)
            return placed
        centred = live - live.mean(0)
        _, vectors = torch.linalg.eigh((centred.T @ centred).double())
        axes = vectors[:, -2:].flip(1).float()
        # An axis and its opposite are the same component: the heavier end points up.
        axes = axes * torch.where((axes.pow(3).sum(0)) < 0, -1.0, 1.0)
        placed[is_live] = centred @ axes
        return placed


@dataclass(frozen=True)
class NeighbourLayout:
    """Rows with a large cosine stay near one another, as in UMAP; distances between far groups mean nothing.

    Attributes:
        neighbours: Nearest rows that each row is drawn to.
        epochs: Rounds.
        seed: Of the random rows that each row is pushed from.

    Reference: arXiv:1802.03426
    """

    neighbours: int = 15
    epochs: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("neighbours", "epochs"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise FeatureError(f"{name} is a whole number, at least 1, not {value!r}")

    @property
    def name(self) -> str:
        """In words, for the footline."""
        return f"neighbour embedding of decoder directions ({self.neighbours} neighbours)"

    @torch.no_grad()
    def points(self, rows: Float[Tensor, "n d"]) -> Float[Tensor, "n 2"]:
        """A place for each row; NaN for a row of zeros.

        Raises:
            FeatureError: There are too many rows to compare with one another.
        """
        if len(rows) > MOST_ROWS:
            raise FeatureError(
                f"{len(rows)} rows are too many for neighbours, at most {MOST_ROWS}; take iv.PCALayout()"
            )
        placed = PCALayout().points(rows)
        units, is_live = _units(rows)
        if int(is_live.sum()) > 3:
            placed[is_live] = self._moved(units[is_live], placed[is_live])
        return placed

    def _moved(self, units: Tensor, start: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        near, weights = _neighbours(units, min(self.neighbours, len(units) - 1))
        heads = torch.arange(len(units)).repeat_interleave(near.shape[1])
        tails, weights = near.flatten(), weights.flatten()
        places = start / start.std().clamp(min=1e-9) * 3 + torch.randn(start.shape, generator=generator) * 1e-3
        for epoch in range(self.epochs):
            step = 1.0 - epoch / self.epochs
            gap = places[heads] - places[tails]
            square = gap.square().sum(1, keepdim=True)
            pull = -2 * A * B * square.clamp(min=1e-6) ** (B - 1) / (1 + A * square**B) * gap * weights[:, None]
            moved = torch.zeros_like(places).index_add_(0, heads, pull).index_add_(0, tails, -pull)
            for _ in range(NEGATIVES):
                others = torch.randint(len(places), (len(places),), generator=generator)
                gap = places - places[others]
                square = gap.square().sum(1, keepdim=True)
                moved += (2 * B / ((0.001 + square) * (1 + A * square**B)) * gap).clamp(-4, 4)
            places = places + step * moved.clamp(-4, 4) * 0.25
        return places


def _units(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of length one on the CPU, and which of them are none of zeros."""
    plain = rows.detach().cpu().float()
    length = plain.norm(dim=1)
    return plain / length.clamp(min=1e-30)[:, None], length > 0


def _neighbours(units: Float[Tensor, "n d"], k: int) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """Each row's nearest by cosine, and how much it is drawn to each, from 0 to 1."""
    near, gaps = [], []
    for start in range(0, len(units), BLOCK):
        block = units[start : start + BLOCK]
        cosines = block @ units.T
        cosines[torch.arange(len(block)), torch.arange(start, start + len(block))] = -torch.inf
        best = cosines.topk(k, dim=1)
        near.append(best.indices)
        gaps.append(1 - best.values)
    gap = torch.cat(gaps)
    # The nearest one counts whole, whatever its distance; the others by how much farther they are.
    beyond = gap - gap[:, :1]
    scale = beyond.mean(1, keepdim=True).clamp(min=1e-6)
    return torch.cat(near), torch.exp(-beyond / scale)
