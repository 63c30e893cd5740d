"""Every feature of a dictionary, to look at: a table of all, and one feature's page by its number."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from innerview.dictionaries.codes import checked_feature
from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.corpus import checked_dictionary, reads_bos
from innerview.features.nearest import nearest
from innerview.features.on_text import OnText, feature_on_text
from innerview.features.statistics import FeatureStatistics, feature_statistics
from innerview.features.view import FeatureView, Histogram, Label, Partner
from innerview.features.words import Readout, readout_of, words_of
from innerview.models.model import Model
from innerview.shows import ShowsItself

WORDS, NEAREST = 10, 10


@dataclass(frozen=True, eq=False)
class Dashboard(ShowsItself):
    """The features of a dictionary: `[17]` is one feature's page, `.frame()` all of them.

    Attributes:
        dictionary: The dictionary.
        model: The network.
        statistics: What a corpus showed; None where none was read, and what needs no corpus is answered on demand.
        labels: What features are said to mean, by number.
    """

    dictionary: Dictionary
    model: Model = field(repr=False)
    statistics: FeatureStatistics | None = None
    labels: dict[int, Label] = field(default_factory=dict, repr=False)
    _readout: Readout | str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_readout", readout_of(self.model, self.dictionary))

    def __len__(self) -> int:
        return self.dictionary.n_features

    def __iter__(self) -> Iterator[FeatureView]:
        return (self[feature] for feature in range(len(self)))

    def __getitem__(self, feature: int) -> FeatureView:
        number = checked_feature(feature, len(self))
        notes: list[str] = []
        promoted, suppressed = (), ()
        row = self.dictionary.weights.decoder[number]
        if isinstance(self._readout, Readout):
            promoted, suppressed = words_of(self.model, self._readout, row, WORDS)
        else:
            notes.append(f"words promoted and suppressed were not read: {self._readout}")
        near = self._named(nearest(self.dictionary.weights.decoder, number, NEAREST))
        own = self.statistics
        told: dict[str, Any] = {"promoted": promoted, "suppressed": suppressed, "nearest": near}
        told |= {"label": self.labels.get(number), "source": self}
        names = (number, repr(self.dictionary), self.model.name, self.dictionary.site)
        if own is None:
            notes.append("no texts were read, so counts and examples are missing: iv.dashboard(sae, model, texts)")
            none = Histogram(np.zeros(0), np.zeros(0, dtype=np.int64), 0)
            return FeatureView(*names, 0, 0, none, {}, (), bos=reads_bos(self.dictionary), notes=tuple(notes), **told)
        if not own.is_whole:
            notes.append("the corpus was not read to its end")
        if not own.bos:
            notes.append("a special token at the front of a text does not count")
        return FeatureView(
            *names, own.n_tokens, int(own.spread.count[number]), own.histogram(number), own.quantiles(number),
            own.stretches(self.model, number), together=self._named(own.partners(number)), neurons=own.correlated(number),
            fired_on=own.fired_on(self.model, number), bos=own.bos, notes=tuple(notes), **told,
        )  # fmt: skip

    def _named(self, partners: tuple[Partner, ...]) -> tuple[Partner, ...]:
        """Features with their labels."""
        return tuple(
            replace(one, text=self.labels[one.index].text) if one.index in self.labels else one for one in partners
        )

    def on_text(self, feature: int, prompt: Any) -> OnText:
        """One feature at each token of a text; see `iv.feature_on_text`."""
        return feature_on_text(self.model, self.dictionary, feature, prompt)

    def frame(self) -> pd.DataFrame:
        """One row a feature: its label and score, density, median and largest activation."""
        index = pd.RangeIndex(len(self), name="feature")
        found = pd.DataFrame(index=index) if self.statistics is None else self.statistics.frame()
        found.insert(0, "label", [self.labels[i].text if i in self.labels else "" for i in index])
        scores = [self.labels[i].score if i in self.labels else None for i in index]
        found.insert(1, "label_score", np.array([np.nan if one is None else one for one in scores], dtype=np.float64))
        return found

    def with_labels(self, labels: Any) -> "Dashboard":
        """The same with what features are said to mean.

        Args:
            labels: Labels, or texts by feature's number.
        Raises:
            FeatureError: There is no such feature, or something else is given.
        """
        return replace(self, labels={**self.labels, **_labels(labels, len(self))})

    def __repr__(self) -> str:
        own = self.statistics
        read = "no texts read" if own is None else f"{own.n_tokens} tokens read"
        return f"Dashboard({len(self)} features of {self.model.name} at {self.dictionary.manifest.site}, {read}, {len(self.labels)} labels)"


def dashboard(dictionary: Dictionary, model: Model, texts: Any = None, **options: Any) -> Dashboard:
    """Every feature of a dictionary, to look at: counts, examples, words, neighbours. Shows itself.

    Args:
        dictionary: A dictionary of one of the network's sites.
        model: The network.
        texts: Texts, chats, rows of ids, or FeatureStatistics that were made before; without any, what needs no corpus is answered.
        options: As `iv.feature_statistics` takes them.
    Raises:
        FeatureError: The dictionary is none, or does not fit the network.
    """
    own = checked_dictionary(dictionary)
    if texts is None or isinstance(texts, FeatureStatistics):
        if options:
            raise FeatureError(
                f"{next(iter(options))}= is of the pass over texts, and none is made here; drop it, or give texts"
            )
        return Dashboard(own, model, texts)
    return Dashboard(own, model, feature_statistics(model, own, texts, **options))


def _labels(given: Any, n_features: int) -> dict[int, Label]:
    listed = getattr(given, "labels", given)
    if isinstance(listed, dict):
        made = {k: v if isinstance(v, Label) else Label(k, str(v), source="given") for k, v in listed.items()}
    else:
        items = list(listed)
        wrong = next((one for one in items if not isinstance(one, Label)), None)
        if wrong is not None:
            raise FeatureError(f"a label is a Label, or a text by feature's number, not {wrong!r:.60}")
        made = {one.feature: one for one in items}
    return {checked_feature(number, n_features): label for number, label in made.items()}
