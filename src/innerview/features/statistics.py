"""What a corpus shows of every feature, from one truncated forward and one encode of each token.

Reference: https://transformer-circuits.pub/2023/monosemantic-features (examples by quantile)
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import Corpus, checked_dictionary, checked_model, checked_site, reads_bos, takes_pads
from innerview.features.examples import stretches_of
from innerview.features.kept import Kept
from innerview.features.neurons import MOST_UNASKED, neuron_site
from innerview.features.passing import BEFORE, BEHIND, Pass
from innerview.features.profile import Profile
from innerview.features.resuming import Saver, fingerprint
from innerview.features.spread import Spread
from innerview.features.together import Partners
from innerview.features.view import FiredOn, Histogram, Partner, Stretch
from innerview.models.model import Model
from innerview.progress import progress as bar

CHUNK_TOKENS = 8192
# Codes kept of each feature: the strongest, one a row, and a uniform draw of all, whose ranks are true quantiles. Fewer of very many
# features, so that the text around them takes at most 1 GiB until a million.
TOP, SAMPLE, LEAST = 16, 32, 4
MOST_HELD = 1 << 28
QUANTILES = (0.0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)
MOST_BINS = 40
PARTNERS, TOKENS = 10, 10


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """What was counted of every feature.

    Attributes:
        model: The network's name.
        dictionary: The dictionary in a line.
        site: Site that was read.
        spread: Counts, and how activations are spread.
        top: The strongest activation of each of a few rows.
        sample: A uniform draw of all activations.
        together: Features that are active at the same tokens, by PMI; None where they were not counted.
        profile: Tokens that features are most often active on; None where they were not counted.
        neurons: Neurons of the same layer that go with each, by correlation; None where they were not counted.
        bos: Whether the first special token of each text counted.
        n_texts: Texts that were given.
        n_twice: Rows that were left out because another is the same.
        is_whole: Whether the whole corpus was read; False when an interrupt came first.
        texts_told: What else to know of the texts, in words: empty ones, BOS tokens too many or too few.
        corpus: What was read; None where the statistics were read from a file.
    """

    model: str
    dictionary: str
    site: str
    spread: Spread = field(repr=False)
    top: Kept = field(repr=False)
    sample: Kept = field(repr=False)
    together: Partners | None = field(default=None, repr=False)
    profile: Profile | None = field(default=None, repr=False)
    neurons: Partners | None = field(default=None, repr=False)
    bos: bool = False
    n_texts: int = 0
    n_twice: int = 0
    is_whole: bool = True
    texts_told: tuple[str, ...] = ()
    corpus: Corpus | None = field(default=None, repr=False)

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
        return self.spread.count.double() / max(1, self.n_tokens)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out, not run or not exact, in words."""
        told = [] if self.is_whole else ["the corpus was not read to its end"]
        told += [] if self.bos else ["a special token at the front of a text does not count"]
        told += self.texts_told
        told += [f"{self.n_twice} texts or pieces were left out because another is the same"] if self.n_twice else []
        told.append(
            f"quantiles are exact up to {self.sample.k} activations, else read from a histogram, off by less than 9 %"
        )
        if self.together is not None and 0 < self.together.n_tokens < self.n_tokens:
            told.append(f"pairs of features were counted at {self.together.n_tokens} of {self.n_tokens} tokens")
        told += ["neurons were not correlated; neurons=True does it"] if self.neurons is None else []
        told += ["pairs of features were not counted"] if self.together is None else []
        return tuple(told)

    def frame(self) -> pd.DataFrame:
        """One row a feature: tokens at which it was active, their share, and its mean, median and largest activation."""
        count = self.spread.count
        blank = torch.where(count > 0, 1.0, torch.nan)
        return pd.DataFrame(
            {
                "n_active": count.numpy(),
                "density": self.density.numpy(),
                "mean": (self.spread.total / count.clamp(min=1) * blank).numpy(),
                "median": self._medians().numpy(),
                "max": (self.spread.most.clamp(min=-3e38) * blank).numpy(),
            },
            index=pd.RangeIndex(self.n_features, name="feature"),
        )

    def _medians(self) -> Tensor:
        """Median non-zero activation of each feature, as `quantiles` says it, shape [n_features]; NaN where it never was active."""
        count, values = self.spread.count, self.sample.values[:, :, self.sample.before]
        few = (count > 0) & (count <= self.sample.k)
        # The strongest first: the two in the middle, which are one where their number is odd.
        middle = torch.stack([(count - 1).clamp(min=0) // 2, count // 2], dim=1).clamp(max=self.sample.k - 1)
        exact = values.double().gather(1, middle).mean(dim=1).float()
        return torch.where(few, exact, self.spread.quantile(0.5))

    def quantiles(self, feature: int) -> dict[float, float]:
        """Some quantiles of a feature's non-zero activations: exact where all of them were kept, else from the histogram, off by less than 9 %."""
        count = int(self.spread.count[feature])
        if not count:
            return {}
        if count <= self.sample.k:
            values = self.sample.activations(feature)
            return {q: float(np.quantile(values, q)) for q in QUANTILES}
        chosen = torch.tensor([feature])
        found = {q: float(self.spread.quantile(q, chosen)) for q in QUANTILES}
        # What was drawn may lie below what the lowest bin says.
        return {
            **found,
            0.0: min(found[0.0], float(self.sample.activations(feature)[-1])),
            1.0: float(self.spread.most[feature]),
        }

    def histogram(self, feature: int) -> Histogram:
        """How a feature's activations are spread, empty ends left out."""
        counts, edges = self.spread.bins[feature].long().numpy(), self.spread.edges(feature).numpy()
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

    def stretches(self, feature: int, spell: Callable[[int], str]) -> tuple[Stretch, ...]:
        """Examples: the strongest of all, then by true quantile downward, no window twice."""
        return stretches_of(spell, self.top.drawn(feature), self.sample.drawn(feature), self.quantiles(feature))

    def partners(self, feature: int) -> tuple[Partner, ...]:
        """Features that are active at the same tokens, by PMI in nats."""
        return _listed(self.together, feature)

    def correlated(self, feature: int) -> tuple[Partner, ...]:
        """Neurons of the same layer that go with it, by correlation."""
        return _listed(self.neurons, feature)

    def fired_on(self, feature: int, spell: Callable[[int], str]) -> tuple[FiredOn, ...]:
        """Tokens that it was most often active on."""
        if self.profile is None:
            return ()
        own = self.profile
        columns = (own.ids, own.counts, own.means, own.reads)
        rows = zip(*(column[feature].tolist() for column in columns), strict=True)
        active = max(1, int(self.spread.count[feature]))
        return tuple(FiredOn(i, spell(i), n, n / active, mean, of) for i, n, mean, of in rows if i >= 0 and n > 0)


def _listed(partners: Partners | None, feature: int) -> tuple[Partner, ...]:
    if partners is None:
        return ()
    columns = (partners.indices, partners.values, partners.counts)
    rows = zip(*(column[feature].tolist() for column in columns), strict=True)
    return tuple(Partner(index, value, n) for index, value, n in rows if index >= 0)


def feature_statistics(
    model: Model,
    dictionary: Dictionary,
    corpus: Any,
    *,
    top: int | None = None,
    sample: int | None = None,
    together: bool = True,
    tokens: bool = True,
    neurons: bool | None = None,
    seed: int = 0,
    chunk_tokens: int = CHUNK_TOKENS,
    max_tokens: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> FeatureStatistics:
    """What a corpus shows of every feature: how often, how strongly, where, with what.

    Each row is read once and encoded once. Rows that are the same are read once; a BOS token counts only where the dictionary's manifest
    says that it was trained on it. What is held does not grow with the corpus, its ids aside. An interrupt leaves what was read by then.

    Args:
        model: The network.
        dictionary: A dictionary of one of its sites.
        corpus: Texts, chats, or rows of ids.
        top: Strongest examples that are kept of each feature; 16, or fewer beyond 170,000 features, when None.
        sample: Activations that are drawn of each feature, uniformly; twice as many when None.
        together: Count which features are active at the same tokens.
        tokens: Count which tokens each feature is active on.
        neurons: Correlate with the neurons of the same layer; where features × neurons are few when None.
        seed: Of the draw.
        chunk_tokens: Tokens of one forward.
        max_tokens: Texts are read until there are so many tokens, as of a stream without an end; the last one is read whole. All when None.
        folder: Where what was counted is kept now and then, so that the same call goes on behind a stop.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: The dictionary is none, or the folder is of another pass.
        TextError: The corpus cannot be read.
    """
    own, model = checked_dictionary(dictionary), checked_model(model)
    checked_site(model, own)
    usual = usually_kept(own.n_features)
    top, sample = usual[0] if top is None else top, usual[1] if sample is None else sample
    whole = {"top": top, "sample": sample, "chunk_tokens": chunk_tokens}
    whole |= {} if max_tokens is None else {"max_tokens": max_tokens}
    for name, given in whole.items():
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise FeatureError(f"{name} is a whole number from 1, not {given!r}")
    bos = reads_bos(own)
    read = Corpus.of(model, corpus, reads_bos=bos, max_tokens=max_tokens)
    site = _neurons(model, own, neurons)
    vocab = max(model.vocab or 0, int(read.ids.max()) + 1)
    made = Pass.empty(
        own.n_features, own.weights.encoder.device, top=top, sample=sample, together=together, vocab=vocab if tokens else None, neurons=site is not None
    )  # fmt: skip
    groups = read.groups(chunk_tokens, is_even=not takes_pads(model))
    asked = (top, sample, together, tokens, site, seed, chunk_tokens)
    saver = None if folder is None else Saver(Path(folder), fingerprint(model, own, read, asked))
    if saver is not None:
        saver.restore(made)
    is_whole = True
    try:
        with torch.no_grad(), bar(
            read.n_rows, "features", "row", delay_s=0.0 if progress else 2.0, is_shown=progress is not False
        ) as step:  # fmt: skip
            step(sum(map(len, groups[: made.done])))
            for group in groups[made.done :]:
                made.read(model, own, read, group, seed, site)
                step(len(group))
                if saver is not None:
                    saver.save_sometimes(made)
    except KeyboardInterrupt:
        is_whole = False
    if saver is not None:
        saver.save(made)
    return _finished(
        made, read, model=model.name, dictionary=repr(own), site=own.site, bos=bos, is_whole=is_whole
    )  # fmt: skip


def usually_kept(n_features: int) -> tuple[int, int]:
    """The strongest examples, and the activations drawn, that are kept of each feature unless told."""
    room = MOST_HELD // (n_features * (BEFORE + 1 + BEHIND) * 3)
    return max(LEAST, min(TOP, room)), max(2 * LEAST, min(SAMPLE, 2 * room))


def _neurons(model: Model, dictionary: Dictionary, asked: bool | None) -> str | None:
    """The site of the neurons to correlate with; None for none."""
    site = None if asked is False else neuron_site(model, dictionary.site)
    if site is None:
        if asked:
            raise FeatureError(f"{model.name} has no neurons at the layer of {dictionary.site!r}; drop neurons=True")
        return None
    sizes = model.site(site).sizes
    is_small = bool(sizes) and sizes[-1] * dictionary.n_features <= MOST_UNASKED
    return site if asked or is_small else None


def _finished(made: Pass, corpus: Corpus, **told: Any) -> FeatureStatistics:
    """What a pass leaves, on the CPU."""
    spread = Spread(
        made.spread.count.cpu(), made.spread.total.cpu().double(), made.spread.most.cpu(), made.spread.bins.cpu(),
        made.spread.floors.cpu(), made.spread.floor, made.spread.n_tokens,
    )  # fmt: skip
    return FeatureStatistics(
        spread=spread, top=Kept.of(made.top, corpus), sample=Kept.of(made.sample, corpus),
        together=None if made.together is None else made.together.partners(PARTNERS),
        profile=None if made.profiling is None else made.profiling.profile(TOKENS),
        neurons=None if made.correlating is None else made.correlating.partners(PARTNERS),
        n_texts=corpus.n_texts, n_twice=corpus.n_twice, texts_told=corpus.notes, corpus=corpus, **told,
    )  # fmt: skip
