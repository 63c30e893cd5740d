"""One feature as people look at it: plain values, made once, that a page, a table and a file all show."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from innerview.shows import ShowsItself


@dataclass(frozen=True)
class Word:
    """A token that a feature promotes or suppresses.

    Attributes:
        id: Its id.
        text: Its own text.
        logit: What one unit of the feature adds to its logit, the final norm's weight folded in.
    """

    id: int
    text: str
    logit: float


@dataclass(frozen=True)
class Partner:
    """Another feature, or a neuron, that goes together with a feature.

    Attributes:
        index: Its number.
        value: How strongly: a cosine, a PMI in nats, or a correlation.
        n: Tokens at which both were active; 0 where that is not what was counted.
        text: Its label, empty where it has none.
    """

    index: int
    value: float
    n: int = 0
    text: str = ""


@dataclass(frozen=True)
class FiredOn:
    """A token that a feature is often active on.

    Attributes:
        id: Its id.
        text: Its own text.
        n: Times that the feature was active on it.
        share: Part of the feature's activations that were on it, from 0 to 1.
        mean: Mean activation on it, where it was active.
        of: Times that the token was read; 0 where that is not known.
    """

    id: int
    text: str
    n: int
    share: float
    mean: float
    of: int = 0


@dataclass(frozen=True)
class Label:
    """What a feature is said to mean.

    Attributes:
        feature: Its number.
        text: In words.
        score: How well the words tell its activations, from 0 to 1; None where nobody asked.
        source: Where it came from, such as "known labels of pocket", or the name of an endpoint's model.
        detail: What the score is of, and its controls, by name.
    """

    feature: int
    text: str
    score: float | None = None
    source: str = ""
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Example:
    """A stretch of text in which a feature was active.

    Attributes:
        text: Number of the text in the corpus.
        start: Position of the first token shown, in its text.
        ids: Ids of the tokens shown.
        words: Their texts.
        values: The feature at each of them, float32, shape [pos].
        peak: Which of them is the strongest.
        effects: Rise of each next token's loss, in nats, when the feature is taken out, float32, shape [pos]; None where it was not run.
        drawn: Which of them the example was chosen for, whose activation lies in its stretch; the strongest where nothing is said.
        place: The token it was chosen for, counted through the corpus; −1 where that is not known.
    """

    text: int
    start: int
    ids: tuple[int, ...]
    words: tuple[str, ...]
    values: np.ndarray
    peak: int
    effects: np.ndarray | None = None
    drawn: int = -1
    place: int = -1


@dataclass(frozen=True, eq=False)
class Stretch:
    """Examples between two quantiles of a feature's non-zero activations.

    Attributes:
        low: Lower quantile, from 0 to 1.
        high: Upper quantile; both are 1 for the strongest examples of all.
        least: Activation at the lower one.
        most: Activation at the upper one.
        examples: Drawn from between them, the strongest first.
    """

    low: float
    high: float
    least: float
    most: float
    examples: tuple[Example, ...]


@dataclass(frozen=True, eq=False)
class Histogram:
    """How a feature's activations are spread, on a logarithmic axis.

    Attributes:
        edges: Borders of the bins, rising, shape [n_bins + 1].
        counts: Tokens in each, shape [n_bins].
        zero: Tokens at which it was not active.
    """

    edges: np.ndarray
    counts: np.ndarray
    zero: int


@dataclass(frozen=True, eq=False)
class FeatureView(ShowsItself):
    """One feature: how often, how strongly, where, with what, and what it writes.

    Attributes:
        feature: Its number.
        dictionary: Where the dictionary came from.
        model: The network's name.
        site: Site that is read.
        n_tokens: Tokens that were read.
        n_active: Tokens at which it was active.
        histogram: How its activations are spread.
        quantiles: Its non-zero activation at some quantiles, by quantile.
        stretches: Examples, the strongest of all first, then by true quantile downward.
        promoted: Tokens whose logit it raises most, the strongest first.
        suppressed: Tokens whose logit it lowers most.
        nearest: Features whose decoder rows lie nearest, by cosine.
        together: Features that are active at the same tokens, by PMI in nats.
        neurons: Neurons whose activation goes with it, by correlation.
        fired_on: Tokens that it is most often active on.
        label: What it is said to mean; None where nobody said.
        bos: Whether the first special token of each text was read too.
        notes: What was not run or not kept, in words.
        source: The dashboard that it came from, which answers what a page asks; None where it was read from a file.
    """

    feature: int
    dictionary: str
    model: str
    site: str
    n_tokens: int
    n_active: int
    histogram: Histogram
    quantiles: dict[float, float]
    stretches: tuple[Stretch, ...]
    promoted: tuple[Word, ...] = ()
    suppressed: tuple[Word, ...] = ()
    nearest: tuple[Partner, ...] = ()
    together: tuple[Partner, ...] = ()
    neurons: tuple[Partner, ...] = ()
    fired_on: tuple[FiredOn, ...] = ()
    label: Label | None = None
    bos: bool = False
    notes: tuple[str, ...] = ()
    source: Any = field(default=None, repr=False)

    @property
    def density(self) -> float:
        """Share of the tokens at which it was active."""
        return self.n_active / max(1, self.n_tokens)

    def frame(self) -> pd.DataFrame:
        """One row a token of each example: stretch, example, position, token, activation, effect."""
        rows = []
        for stretch in self.stretches:
            for number, one in enumerate(stretch.examples):
                effects = [float("nan")] * len(one.ids) if one.effects is None else one.effects.tolist()
                for place, (word, value, effect) in enumerate(
                    zip(one.words, one.values.tolist(), effects, strict=True)
                ):
                    rows.append(
                        (stretch.low, stretch.high, number, one.text, one.start + place, word, value, effect)
                    )  # fmt: skip
        columns = ["low", "high", "example", "text", "pos", "token", "activation", "loss_effect"]
        return pd.DataFrame(rows, columns=columns)
