"""Two dictionaries matched feature by feature: how much of what one found, the other found too."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.assignment import assigned
from innerview.errors import DictionaryError
from innerview.plots import ACCENT, INK, ShowsFigure, drawn

THRESHOLD = 0.7
# The exact assignment holds all pairs: 256 MiB of float32 at this size.
MOST_EXACT = 8192
CANDIDATES = 32
BLOCK_ROWS = 1024


@dataclass(frozen=True, eq=False)
class FeatureMatch(ShowsFigure):
    """Features of one dictionary beside those of another, one to one.

    Attributes:
        one: The first dictionary in a line.
        other: The second.
        features: Features of the first that have a partner, shape [n].
        partners: Theirs in the second, shape [n].
        encoder: Cosine of their encoders' rows, shape [n].
        decoder: Cosine of their decoders' rows, shape [n].
        threshold: A feature is shared where both cosines reach it.
        n_features: Features of the smaller dictionary.
        is_exact: Whether the sum of cosines is the largest there is; for large dictionaries the most alike pairs are taken first.
    """

    one: str
    other: str
    features: Int[Tensor, "n"] = field(repr=False)
    partners: Int[Tensor, "n"] = field(repr=False)
    encoder: Float[Tensor, "n"] = field(repr=False)
    decoder: Float[Tensor, "n"] = field(repr=False)
    threshold: float
    n_features: int
    is_exact: bool

    @property
    def is_shared(self) -> Tensor:
        """Whether both cosines reach the threshold, shape [n]."""
        return (self.encoder >= self.threshold) & (self.decoder >= self.threshold)

    @property
    def share(self) -> float:
        """Share of the smaller dictionary's features that are shared."""
        return float(self.is_shared.sum()) / self.n_features

    def frame(self) -> pd.DataFrame:
        """One row a pair: feature, partner, both cosines, and whether it is shared."""
        columns = {
            "feature": self.features, "partner": self.partners, "encoder_cosine": self.encoder, "decoder_cosine": self.decoder,
            "is_shared": self.is_shared,
        }  # fmt: skip
        return pd.DataFrame({name: value.numpy() for name, value in columns.items()})

    def summary(self) -> pd.DataFrame:
        """Shares of features at the threshold, by encoder, decoder and both, and mean cosines."""
        n = self.n_features
        rows = [
            (name, float((cosine >= self.threshold).sum()) / n, float(cosine.mean()))
            for name, cosine in (("encoder", self.encoder), ("decoder", self.decoder))
        ]
        both = torch.minimum(self.encoder, self.decoder)
        rows.append(("both", self.share, float(both.mean())))
        return pd.DataFrame(rows, columns=["by", f"share at {self.threshold:g}", "mean cosine"]).set_index("by")

    def figure(self) -> go.Figure:
        """Both cosines of every pair, and the threshold."""
        told = "" if self.is_exact else "; most alike pairs first, not the exact assignment"
        title = (
            f"features found twice: {self.share:.1%} of {self.n_features:,}<br><span style='font-size:12px'>both cosines at least "
            f"{self.threshold:g}{told}</span>"
        )
        dots = go.Scattergl(
            x=self.encoder.tolist(), y=self.decoder.tolist(), mode="markers", marker={"color": ACCENT, "size": 4, "opacity": 0.5},
            text=[f"{a} – {b}" for a, b in zip(self.features.tolist(), self.partners.tolist(), strict=True)],
            hovertemplate="features %{text}<br>encoder %{x:.3f}<br>decoder %{y:.3f}<extra></extra>",
        )  # fmt: skip
        at = self.threshold
        corner = go.Scatter(
            x=[at, at, 1.0],
            y=[1.0, at, at],
            mode="lines",
            line={"color": INK, "dash": "dot", "width": 1},
            hoverinfo="skip",
        )
        axes = [{"title": {"text": f"cosine of the {name}s"}, "range": [-0.3, 1.03]} for name in ("encoder", "decoder")]
        return drawn([dots, corner], title, xaxis=axes[0], yaxis=axes[1])


def match_features(one: Dictionary, other: Dictionary, *, threshold: float = THRESHOLD) -> FeatureMatch:
    """Features of two dictionaries, one to one, by the mean of their encoders' and decoders' cosines (Hungarian).

    Two dictionaries of the same activations that differ in their seed alone share fewer features than one would think; what they share is
    what both found.

    Args:
        one: A dictionary.
        other: Another of the same widths.
        threshold: Cosine from which a feature counts as shared.
    Raises:
        DictionaryError: The widths differ, or the threshold is no cosine.
    Reference: arXiv:2501.16615
    """
    if (one.d_in, one.d_out) != (other.d_in, other.d_out):
        raise DictionaryError(
            f"features of {one.d_in} → {one.d_out} and of {other.d_in} → {other.d_out} numbers cannot be compared; give dictionaries of one site"
        )
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not -1 <= threshold <= 1:
        raise DictionaryError(f"threshold is a cosine from -1 to 1, not {threshold!r}")
    sides = [(_unit(d.weights.encoder), _unit(d.weights.decoder)) for d in (one, other)]
    is_swapped = one.n_features > other.n_features
    few, many = sides[::-1] if is_swapped else sides
    is_exact = len(many[0]) <= MOST_EXACT
    rows, columns = _exact(few, many) if is_exact else _greedy(few, many)
    cosines = [(a[rows] * b[columns]).sum(dim=-1) for a, b in zip(few, many, strict=True)]
    features, partners = (columns, rows) if is_swapped else (rows, columns)
    order = features.argsort()
    return FeatureMatch(
        repr(one), repr(other), features[order], partners[order], cosines[0][order], cosines[1][order], float(threshold),
        len(few[0]), is_exact,
    )  # fmt: skip


Sides = tuple[Tensor, Tensor]


def _unit(rows: Tensor) -> Tensor:
    """Rows at length 1; those of length 0 stay 0, and are like nothing."""
    rows = rows.detach().float().cpu()
    return rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def _score(few: Sides, many: Sides, start: int) -> Tensor:
    """Mean cosine of a block of features with all of the other's."""
    stop = start + BLOCK_ROWS
    return (few[0][start:stop] @ many[0].T + few[1][start:stop] @ many[1].T) / 2


def _exact(few: Sides, many: Sides) -> tuple[Tensor, Tensor]:
    score = np.concatenate([_score(few, many, start).numpy() for start in range(0, len(few[0]), BLOCK_ROWS)])
    return torch.arange(len(few[0])), torch.from_numpy(assigned(score).astype(np.int64))


def _greedy(few: Sides, many: Sides) -> tuple[Tensor, Tensor]:
    """The most alike pairs first, among each feature's nearest ones; those whose nearest ones are all taken have no partner."""
    found = [_score(few, many, start).topk(CANDIDATES, dim=-1) for start in range(0, len(few[0]), BLOCK_ROWS)]
    values, columns = torch.cat([f.values for f in found]).flatten(), torch.cat([f.indices for f in found]).flatten()
    rows = torch.arange(len(few[0])).repeat_interleave(CANDIDATES)
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for place in values.argsort(descending=True, stable=True).tolist():
        row, column = int(rows[place]), int(columns[place])
        if row not in partner and column not in taken:
            partner[row] = column
            taken.add(column)
    listed = sorted(partner.items())
    return torch.tensor([r for r, _ in listed]), torch.tensor([c for _, c in listed])
