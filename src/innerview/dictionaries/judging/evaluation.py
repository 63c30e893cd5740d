"""What judging a dictionary leaves: figures with the numbers they stand on, a table, and a picture of the features' densities."""

from dataclasses import dataclass, field

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.dictionaries.judging.concepts import ConceptScores
from innerview.plots import ACCENT, INK, ShowsFigure, caption, drawn

# A feature is dense where it is active at more than this share of the tokens.
DENSE = 0.1
# Bins of the density histogram, in powers of ten.
BIN = 0.25


@dataclass(frozen=True, eq=False)
class Evaluation(ShowsFigure):
    """How far a dictionary can be believed. Cross-entropies are means over next tokens, in nats.

    Attributes:
        dictionary: The dictionary in a line.
        model_name: The network's name.
        site: Where it reads.
        n_features: Its features.
        ce: Cross-entropy of the network as it is.
        ce_spliced: With the reconstruction in place of the activation.
        ce_mean: With the mean activation in its place.
        ce_zero: With zero in its place.
        ce_rise_se: Standard error over texts of each text's own rise.
        l0: Mean number of active features of a token.
        fvu: Share of the variance that is missed.
        cosine: Mean cosine of activation and reconstruction.
        n_dead: Features never active in `n_tokens` tokens.
        n_dense: Features active at more than a tenth of them.
        n_tokens: Tokens that the figures of the site stand on.
        n_predicted: Next tokens that the cross-entropies stand on.
        counts: Tokens at which each feature is active, shape [n_features].
        largest: Its largest activation, shape [n_features].
        is_whole: Whether all was measured; False when an interrupt came first.
        concepts: Scores against labels; None where none were given.
        against: The same for a dictionary of a random network; None where it was not run.
    """

    dictionary: str
    model_name: str
    site: str
    n_features: int
    ce: float
    ce_spliced: float
    ce_mean: float
    ce_zero: float
    ce_rise_se: float
    l0: float
    fvu: float
    cosine: float
    n_dead: int
    n_dense: int
    n_tokens: int
    n_predicted: int
    counts: Int[Tensor, "n_features"] = field(repr=False)
    largest: Float[Tensor, "n_features"] = field(repr=False)
    is_whole: bool = True
    concepts: ConceptScores | None = field(default=None, repr=False)
    against: "Evaluation | None" = field(default=None, repr=False)

    @property
    def ce_rise(self) -> float:
        """How much more the network loses with the reconstruction, in nats a token."""
        return self.ce_spliced - self.ce

    @property
    def recovered_of_mean(self) -> float:
        """Share of what mean ablation costs that the reconstruction keeps: 1 is all of it."""
        return _share(self.ce, self.ce_spliced, self.ce_mean)

    @property
    def recovered_of_zero(self) -> float:
        """The same of zero ablation, which flatters: zero is far from anything the network knows."""
        return _share(self.ce, self.ce_spliced, self.ce_zero)

    @property
    def dead(self) -> float:
        """Share of the features that are dead in these tokens."""
        return self.n_dead / self.n_features

    @property
    def dense(self) -> float:
        """Share of the features that are dense."""
        return self.n_dense / self.n_features

    @property
    def density(self) -> Float[Tensor, "n_features"]:
        """Share of the tokens at which each feature is active."""
        return self.counts.double() / max(1, self.n_tokens)

    def histogram(self) -> pd.DataFrame:
        """How many features have which density: the never active ones in a row of their own, the rest by powers of ten.

        Columns `low` and `high` are log10 of the density, −inf for never active; `high` is included.
        """
        found = self.density[self.counts > 0].log10()
        least = -BIN * max(1, int(torch.ceil(-found.min() / BIN))) if len(found) else -BIN
        edges = torch.arange(round(-least / BIN) + 1) * BIN + least
        # The lowest edge belongs to the first bin.
        place = (torch.bucketize(found.float(), edges.float()) - 1).clamp(0, len(edges) - 2)
        counted = torch.bincount(place, minlength=len(edges) - 1).tolist()
        rows = [(float("-inf"), float("-inf"), self.n_dead)]
        rows += list(zip(edges[:-1].tolist(), edges[1:].tolist(), counted, strict=True))
        return pd.DataFrame(rows, columns=["low", "high", "features"])

    def frame(self) -> pd.DataFrame:
        """One row a figure, with how many tokens or features it stands on; a column for the random network's dictionary where it was run."""
        made = pd.DataFrame(self._rows(), columns=["figure", "value", "n"]).set_index("figure")
        if self.against is not None:
            made.insert(1, "random_network", self.against.frame()["value"])
        return made

    def summary(self) -> pd.DataFrame:
        """The same as `frame`."""
        return self.frame()

    def _rows(self) -> list[tuple[str, float, int]]:
        told = [
            ("CE plain (nats)", self.ce), ("CE reconstruction (nats)", self.ce_spliced), ("CE mean ablation (nats)", self.ce_mean),
            ("CE zero ablation (nats)", self.ce_zero), ("CE rise (nats)", self.ce_rise), ("CE rise, standard error", self.ce_rise_se),
            ("recovered of mean ablation", self.recovered_of_mean), ("recovered of zero ablation", self.recovered_of_zero),
        ]  # fmt: skip
        rows: list[tuple[str, float, int]] = [(name, value, self.n_predicted) for name, value in told]
        rows += [
            (name, value, self.n_tokens)
            for name, value in (("L0", self.l0), ("FVU", self.fvu), ("cosine", self.cosine))
        ]
        rows += [
            (f"dead (never in {self.n_tokens:,} tokens)", self.dead, self.n_features),
            (f"dense (over {DENSE:.0%} of tokens)", self.dense, self.n_features),
        ]
        return rows + ([] if self.concepts is None else self.concepts.rows())

    def figure(self) -> go.Figure:
        """How many features are active at which share of the tokens; those of a random network's dictionary as a line."""
        table = self.histogram()
        title = (
            f"features by density · {caption(self.site)} · {caption(self.model_name)}<br><span style='font-size:12px'>"
            f"CE rise {self.ce_rise:.3f} nats at L0 {self.l0:.1f}; FVU {self.fvu:.3f}; dead {self.dead:.1%}, dense {self.dense:.1%}, in "
            f"{self.n_tokens:,} tokens{'' if self.is_whole else '; stopped early'}</span>"
        )
        traces: list[go.Bar | go.Scatter] = [_bars(table)]
        if self.against is not None:
            other = self.against.histogram()
            line = go.Scatter(
                x=_places(other), y=other["features"].tolist(), mode="lines+markers", name="random network",
                line={"color": INK, "width": 1.5}, hovertemplate="random network: %{y} features<extra></extra>",
            )  # fmt: skip
            traces.append(line)
        least = min(table["low"].tolist()[1:])
        ticks = list(range(round(least), 1))
        axis = {
            "title": {"text": "share of tokens at which a feature is active"},
            "tickvals": [_never(table), *ticks], "ticktext": ["never", *(f"10<sup>{n}</sup>" if n else "1" for n in ticks)],
        }  # fmt: skip
        return drawn(traces, title, xaxis=axis, yaxis={"title": {"text": "features"}}, bargap=0.08)


def _share(plain: float, spliced: float, ablated: float) -> float:
    return (ablated - spliced) / (ablated - plain) if ablated != plain else float("nan")


def _never(table: pd.DataFrame) -> float:
    """Where the never active ones stand: left of the others, with a gap."""
    return min(table["low"].tolist()[1:]) - 2 * BIN


def _places(table: pd.DataFrame) -> list[float]:
    return [_never(table), *((table["low"] + table["high"]) / 2).tolist()[1:]]


def _bars(table: pd.DataFrame) -> go.Bar:
    colours = [INK, *[ACCENT] * (len(table) - 1)]
    return go.Bar(
        x=_places(table), y=table["features"].tolist(), width=BIN, marker={"color": colours},
        hovertemplate="%{y} features<extra></extra>",
    )  # fmt: skip
