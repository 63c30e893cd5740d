"""What a corpus shows of every feature, from one truncated forward and one encode of each token.

Reference: https://transformer-circuits.pub/2023/monosemantic-features (examples by quantile)
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.best import Best, random_keys, value_keys
from innerview.features.corpus import Corpus, checked_dictionary, reads_bos
from innerview.features.examples import Drawn, stretches_of
from innerview.features.seen import Seen
from innerview.features.spread import Spread
from innerview.features.view import Histogram, Stretch
from innerview.models.model import Model
from innerview.progress import progress as bar

CHUNK_TOKENS = 8192
# Codes kept of each feature: the strongest, one a row, and a uniform draw of all, whose ranks are true quantiles.
TOP, SAMPLE = 16, 32
BEFORE, BEHIND = 23, 8
QUANTILES = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
MOST_BINS = 40


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What was counted of every feature.

    Attributes:
        model: The network's name.
        dictionary: The dictionary in a line.
        site: Site that was read.
        corpus: What was read.
        spread: Counts, and how activations are spread.
        top: The strongest activation of each of a few rows.
        sample: A uniform draw of all activations.
        bos: Whether the first special token of each text counted.
        is_whole: Whether the whole corpus was read; False when an interrupt came first.
    """

    model: str
    dictionary: str
    site: str
    corpus: Corpus = field(repr=False)
    spread: Spread = field(repr=False)
    top: Best = field(repr=False)
    sample: Best = field(repr=False)
    bos: bool = False
    is_whole: bool = True

    @property
    def n_features(self) -> int:
        """Features of the dictionary."""
        return len(self.spread.count)

    @property
    def n_tokens(self) -> int:
        """Tokens that were read."""
        return self.spread.n_tokens

    @property
    def density(self) -> Tensor:
        """Share of the tokens at which each feature was active, shape [n_features]."""
        return self.spread.count.double().cpu() / max(1, self.n_tokens)

    def frame(self) -> pd.DataFrame:
        """One row a feature: tokens, density, mean, median and largest activation."""
        count = self.spread.count.cpu()
        active = count.clamp(min=1)
        blank = torch.where(count > 0, 1.0, torch.nan)
        return pd.DataFrame(
            {
                "n_active": count.numpy(),
                "density": self.density.numpy(),
                "mean": (self.spread.total.cpu() / active * blank).numpy(),
                "median": self.spread.quantile(0.5).numpy(),
                "max": (self.spread.most.cpu().clamp(min=-3e38) * blank).numpy(),
            },
            index=pd.RangeIndex(self.n_features, name="feature"),
        )

    def quantiles(self, feature: int) -> dict[float, float]:
        """Some quantiles of a feature's non-zero activations: exact where all of them were kept, else from the histogram, off by less than 9 %."""
        count = int(self.spread.count[feature])
        if not count:
            return {}
        if count <= self.sample.k:
            values = self.sample.values[feature][self.sample.keys[feature] >= 0].double().cpu().numpy()
            return {q: float(np.quantile(values, q)) for q in QUANTILES}
        chosen = torch.tensor([feature], device=self.spread.bins.device)
        return {q: float(self.spread.quantile(q, chosen)) for q in QUANTILES}

    def histogram(self, feature: int) -> Histogram:
        """How a feature's activations are spread, empty ends left out."""
        counts, edges = self.spread.bins[feature].long().cpu().numpy(), self.spread.edges().numpy()
        filled = np.flatnonzero(counts)
        zero = self.n_tokens - int(self.spread.count[feature])
        if not len(filled):
            return Histogram(np.zeros(0), np.zeros(0, dtype=np.int64), zero)
        wide = 1
        while (filled[-1] // wide - filled[0] // wide) >= MOST_BINS:
            wide *= 2
        first, last = filled[0] // wide, filled[-1] // wide
        counts = np.add.reduceat(counts, np.arange(0, len(counts), wide))
        return Histogram(edges[::wide][first : last + 2], counts[first : last + 1], zero)

    def stretches(self, model: Model, feature: int) -> tuple[Stretch, ...]:
        """Examples: the strongest of all, then by true quantile downward, no window twice."""
        return stretches_of(
            model, self.corpus, _drawn(self.top, feature), _drawn(self.sample, feature), self.quantiles(feature)
        )


def _drawn(best: Best, feature: int) -> list[Drawn]:
    """What is held of a feature, the strongest first."""
    held = (best.keys[feature] >= 0).nonzero()[:, 0]
    values = best.values[feature][held]
    held = held[values.argsort(descending=True, stable=True)]
    places, around = best.places[feature][held].tolist(), best.around[feature][held].cpu().numpy()
    return [Drawn(place, window, best.before) for place, window in zip(places, around, strict=True)]


def feature_statistics(
    model: Model,
    dictionary: Dictionary,
    corpus: Any,
    *,
    top: int = TOP,
    sample: int = SAMPLE,
    seed: int = 0,
    chunk_tokens: int = CHUNK_TOKENS,
    progress: bool | None = None,
) -> FeatureStatistics:
    """What a corpus shows of every feature: how often, how strongly, where.

    Each row is read once and encoded once. Rows that are the same are read once; a BOS token counts only where the dictionary's manifest
    says that it was trained on it. What is held does not grow with the corpus, its ids aside. An interrupt leaves what was read by then.

    Args:
        model: The network.
        dictionary: A dictionary of one of its sites.
        corpus: Texts, chats, or rows of ids.
        top: Strongest examples that are kept of each feature.
        sample: Activations that are drawn of each feature, uniformly.
        seed: Of the draw.
        chunk_tokens: Tokens of one forward.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: The dictionary is none, or does not fit the network.
        TextError: The corpus cannot be read.
    """
    own = checked_dictionary(dictionary)
    for name, given in (("top", top), ("sample", sample), ("chunk_tokens", chunk_tokens)):
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise FeatureError(f"{name} is a whole number from 1, not {given!r}")
    bos = reads_bos(own)
    read = Corpus.of(model, corpus, reads_bos=bos)
    device, n = own.weights.encoder.device, own.n_features
    made = FeatureStatistics(
        model.name, repr(own), own.site, read, Spread.empty(n, device), Best.empty(n, top, BEFORE, BEHIND, device),
        Best.empty(n, sample, BEFORE, BEHIND, device), bos,
    )  # fmt: skip
    groups = read.groups(chunk_tokens)
    try:
        with torch.no_grad(), bar(
            read.n_rows, "features", "row", delay_s=0.0 if progress else 2.0, is_shown=progress is not False
        ) as step:  # fmt: skip
            for group in groups:
                _count(made, seen_in(model, own, read, group), seed)
                step(len(group))
    except KeyboardInterrupt:
        return replace(made, is_whole=False)
    return made


def seen_in(model: Model, dictionary: Dictionary, corpus: Corpus, group: list[int]) -> Seen:
    """The codes of some rows, from one forward and one encode."""
    rows = [corpus.row(number) for number in group]
    acts = capture(model, rows, dictionary.site, hermetic=True, batch_size=len(rows), progress=False)
    codes = dictionary.encode(acts)
    device, width = codes.tokens.device, codes.shape[1]
    numbers = torch.tensor(group, device=device)[codes.tokens // width]
    places = corpus.starts.to(device)[numbers] + codes.tokens % width
    counts = corpus.is_read.to(device)[places]
    read = sum(
        int(corpus.is_read[int(corpus.starts[number]) : int(corpus.starts[number + 1])].sum()) for number in group
    )
    features, values = codes.features[counts], codes.values[counts]
    return Seen.sorted(features, places[counts], numbers[counts], values, codes.n_features, read)


def _count(made: FeatureStatistics, seen: Seen, seed: int) -> None:
    made.spread.add(seen)
    made.top.offer(seen, value_keys(seen.values), seen.peaks())
    made.sample.offer(seen, random_keys(seen, seed))
