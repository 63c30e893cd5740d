"""Every feature of a dictionary, to look at: a table of all, and one feature's page by its number."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from innerview.dictionaries.codes import checked_feature
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.manifest import UNKNOWN
from innerview.errors import FeatureError
from innerview.features import searching
from innerview.features.corpus import checked_dictionary, checked_model, reads_bos
from innerview.features.effects import NOT_RUN, with_effects
from innerview.features.loading import read_contents
from innerview.features.nearest import nearest
from innerview.features.neuronpedia import NeuronpediaUpload, write_upload
from innerview.features.on_text import OnText, feature_on_text
from innerview.features.saving import Contents, write_contents
from innerview.features.statistics import FeatureStatistics, feature_statistics
from innerview.features.view import FeatureView, Histogram, Label, Partner, Word
from innerview.features.words import Readout, readout_of, words_of
from innerview.features.written import Written
from innerview.models.model import Model
from innerview.models.text import token_word
from innerview.opened import opened
from innerview.plots import ACCENT, caption, drawn
from innerview.shows import ShowsItself

WORDS, NEAREST = 10, 10
EFFECTS = 3
# Tokens of a word that is searched for.
MOST_PARTS = 8


@dataclass(frozen=True, eq=False)
class Dashboard(ShowsItself):
    """The features of a dictionary: `[17]` is one feature's page, `.frame()` all of them.

    Attributes:
        dictionary: The dictionary; None where it was read from files alone.
        model: The network; None likewise.
        statistics: What a corpus showed; None where none was read, and what needs no corpus is answered on demand.
        labels: What features are said to mean, by number.
        written: Words and neighbours of every feature, where they were gathered.
        spelled: Texts of tokens by id, where there is no network to give them.
    """

    dictionary: Dictionary | None
    model: Model | None = field(repr=False)
    statistics: FeatureStatistics | None = None
    labels: dict[int, Label] = field(default_factory=dict, repr=False)
    written: Written | None = field(default=None, repr=False)
    spelled: dict[int, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        opened.add("dashboard", self)

    def __len__(self) -> int:
        return self._known.n_features if self.statistics is None else self.statistics.n_features

    def __iter__(self) -> Iterator[FeatureView]:
        return (self[feature] for feature in range(len(self)))

    def __getitem__(self, feature: int) -> FeatureView:
        number = checked_feature(feature, len(self))
        promoted, suppressed = self._words(number)
        is_known = self.written is not None or isinstance(self._readout, Readout)
        notes = [] if is_known else [f"words were not read: {self._readout}"]
        told: dict[str, Any] = {
            "promoted": promoted, "suppressed": suppressed, "nearest": self._named(self._nearest(number)),
            "label": self.labels.get(number), "source": self,
        }  # fmt: skip
        own = self.statistics
        if own is None:
            known = self._known
            notes.append(
                "no texts were read, so counts and examples are missing: iv.dashboard(dictionary, model, texts)"
            )
            none = Histogram(np.zeros(0), np.zeros(0, dtype=np.int64), 0)
            name = "unknown" if self.model is None else self.model.name
            said = (number, repr(known), name, str(known.manifest.site))
            return FeatureView(*said, 0, 0, none, {}, (), bos=reads_bos(known), notes=tuple(notes), **told)
        return FeatureView(
            number, own.dictionary, own.model, own.site, own.n_tokens, int(own.spread.count[number]), own.histogram(number),
            own.quantiles(number), own.stretches(number, self.spell), together=self._named(own.partners(number)),
            neurons=own.correlated(number), fired_on=own.fired_on(number, self.spell), bos=own.bos,
            notes=(*notes, *own.notes, NOT_RUN), **told,
        )  # fmt: skip

    # On demand.

    def on_text(self, feature: int, prompt: Any) -> OnText:
        """One feature at each token of a text; see `iv.feature_on_text`."""
        return feature_on_text(self._network, self._known, feature, prompt)

    def effects(self, feature: int | FeatureView, examples: int = EFFECTS) -> FeatureView:
        """A feature's view with what the network loses where the feature is taken out: two forwards an example.

        Args:
            feature: A feature's number, or its view.
            examples: Examples of each stretch that are run.
        """
        view = feature if isinstance(feature, FeatureView) else self[feature]
        corpus = None if self.statistics is None else self.statistics.corpus
        return with_effects(view, self._network, self._known, corpus, examples)

    def search(self, wanted: str, k: int = 10) -> pd.DataFrame:
        """Features by a word: whose label holds it, which fire on it, and which promote it; at most `k` for each reason."""
        word = searching.checked_word(wanted)
        rows = searching.labels_with(self.labels, word)
        ids = searching.tokens_with(self._vocabulary, word)
        own = self.statistics
        if own is not None and own.profile is not None:
            rows += searching.fired_on(own.profile, own, ids, self._vocabulary)
        if own is not None:
            for several in self._spellings(word):
                rows += searching.fired_within(own.sample, several, word)
        if self.dictionary is not None and isinstance(self._readout, Readout):
            known = [i for i in ids if i < self._readout.matrix.shape[1]]
            rows += searching.promoting(self.dictionary, self._readout, known, self._vocabulary, k)
        return searching.found_frame(rows, k)

    # All features.

    def frame(self, *, words: bool = False) -> pd.DataFrame:
        """One row a feature: its label and score, counts, density, mean, median and largest activation.

        Args:
            words: Add what each fires on most and, where they were gathered, the words that it promotes, as texts.
        """
        index = pd.RangeIndex(len(self), name="feature")
        found = pd.DataFrame(index=index) if self.statistics is None else self.statistics.frame()
        # As they are: pandas' own texts refuse half a character.
        labels = [self.labels[i].text if i in self.labels else "" for i in index]
        found.insert(0, "label", pd.Series(labels, index=index, dtype=object))
        scores = [self.labels[i].score if i in self.labels else None for i in index]
        found.insert(1, "label_score", np.array([np.nan if one is None else one for one in scores], dtype=np.float64))
        if words and self.statistics is not None and self.statistics.profile is not None:
            found["fires_on"] = [self._said(row) for row in self.statistics.profile.ids.tolist()]
        if words and self.written is not None and self.written.promoted_ids.shape[1]:
            found["promotes"] = [self._said(row) for row in self.written.promoted_ids.tolist()]
        return found

    def figure(self) -> go.Figure:
        """How often each feature is active, against its median activation, one dot a feature.

        Raises:
            FeatureError: No texts were read.
        """
        if self.statistics is None:
            raise FeatureError(
                "no texts were read, so there is nothing to draw: iv.dashboard(dictionary, model, texts)"
            )
        frame = self.frame()
        seen = frame[frame["n_active"] > 0]
        names = [f"{i} {caption(label)}" for i, label in zip(seen.index, seen["label"], strict=True)]
        dots = go.Scattergl(
            x=seen["density"], y=seen["median"], text=names, mode="markers",
            marker={"size": 4, "color": ACCENT, "opacity": 0.5}, hovertemplate="%{text}<br>%{x:.3g} · %{y:.3g}<extra></extra>",
        )  # fmt: skip
        own = self.statistics
        silent = f"{len(frame) - len(seen)} of {len(frame)} features never active in {own.n_tokens} tokens"
        return drawn(
            dots, f"{caption(own.model)} · {caption(own.site)}<br><sup>{silent}</sup>",
            xaxis={"title": {"text": "share of the tokens"}, "type": "log"},
            yaxis={"title": {"text": "median activation, where active"}, "type": "log"},
        )  # fmt: skip

    def with_labels(self, labels: Any) -> "Dashboard":
        """The same with what features are said to mean.

        Args:
            labels: Labels, texts by feature's number, or what holds labels as its `.labels`.
        Raises:
            FeatureError: There is no such feature, or something else is given.
        """
        return replace(self, labels={**self.labels, **labels_of(labels, len(self))})

    def with_words(self, k: int = WORDS, *, progress: bool | None = None) -> "Dashboard":
        """The same with words and neighbours of every feature gathered, as saving does: they are then in `frame(words=True)`.

        Args:
            k: Words, and neighbours, of each feature.
            progress: Show how far it is; after two seconds when None.
        """
        return replace(self, written=Written.of(self._known, self._readout, k, progress=progress))

    # On disk.

    def save(self, folder: str | os.PathLike[str], *, progress: bool | None = None) -> Path:
        """Write this dashboard as files that others read; returns the folder. `iv.load_dashboard` reads it back.

        Tensors with a row a feature in safetensors, names and labels in JSON, and a table in parquet where pyarrow is installed. Words
        and neighbours of every feature are gathered first, where they were not yet.

        Args:
            folder: The folder; made where it is missing.
            progress: Show how far it is; after two seconds when None.
        Raises:
            FeatureError: No texts were read, or the disk did not take it.
        """
        if self.statistics is None:
            raise FeatureError(
                "no texts were read, so there is nothing to keep: iv.dashboard(dictionary, model, texts)"
            )
        whole = self if self.written or not self.dictionary else self.with_words(progress=progress)
        contents = Contents(self.statistics, whole.written, self.labels)
        return write_contents(contents, folder, self.spell, whole.frame(words=True))

    def to_neuronpedia(
        self, folder: str | os.PathLike[str], upload: NeuronpediaUpload, features: Iterable[int] | None = None, *, progress: bool | None = None
    ) -> Path:  # fmt: skip
        """Write features in the layout that Neuronpedia takes up; returns the folder of the source.

        Args:
            folder: Where; `<model>/<source>/` is made inside.
            upload: What Neuronpedia is to call them.
            features: Their numbers; those that were active when None.
            progress: Show how far it is; after two seconds when None.
        Raises:
            FeatureError: No texts were read, or the disk did not take it.
        """
        if self.statistics is None:
            raise FeatureError("no texts were read, so there are no examples: iv.dashboard(dictionary, model, texts)")
        chosen = self.statistics.spread.count.nonzero()[:, 0].tolist() if features is None else list(features)
        return write_upload(self, chosen, self._readout, folder, upload, progress=progress)

    # What they are made of.

    def spell(self, token: int) -> str:
        """The text of a token."""
        if self.model is not None:
            return token_word(self.model.tokenizer, token)
        return self.spelled.get(token, f"<{token}>")

    @property
    def _known(self) -> Dictionary:
        if self.dictionary is None:
            raise FeatureError(
                "this dashboard was read from files alone, so its dictionary is unknown; iv.load_dashboard(folder, dictionary, model)"
            )
        return self.dictionary

    @property
    def _network(self) -> Model:
        if self.model is None:
            raise FeatureError(
                "this dashboard was read from files alone, so its network is unknown; iv.load_dashboard(folder, dictionary, model)"
            )
        return self.model

    @cached_property
    def _readout(self) -> Readout | str:
        return "no dictionary is at hand" if self.dictionary is None else readout_of(self.model, self.dictionary)

    @cached_property
    def _vocabulary(self) -> dict[int, str]:
        """Texts of all tokens that are known."""
        if self.model is None or self.model.tokenizer is None:
            return self.spelled
        return {i: self.spell(i) for i in range(len(self.model.tokenizer))}

    def _spellings(self, word: str) -> list[list[int]]:
        """A word of several tokens as ids, at a text's front and behind a space."""
        if self.model is None or self.model.tokenizer is None:
            return []
        spelled = [self.model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (word, f" {word}")]
        return [list(ids) for ids in dict.fromkeys(map(tuple, spelled)) if 1 < len(ids) <= MOST_PARTS]

    def _words(self, feature: int) -> tuple[tuple[Word, ...], ...]:
        if self.written is not None:
            own = self.written
            sides = ((own.promoted_ids, own.promoted), (own.suppressed_ids, own.suppressed))
            return tuple(
                tuple(
                    Word(i, self.spell(i), value)
                    for i, value in zip(ids[feature].tolist(), values[feature].tolist(), strict=True)
                    if i >= 0
                )
                for ids, values in sides
            )
        if isinstance(self._readout, str):
            return (), ()
        return words_of(self._readout, self._known.weights.decoder[feature], WORDS, self.spell)

    def _nearest(self, feature: int) -> tuple[Partner, ...]:
        if self.written is not None and self.written.nearest_ids.shape[1]:
            pairs = zip(self.written.nearest_ids[feature].tolist(), self.written.nearest[feature].tolist(), strict=True)
            return tuple(Partner(index, value) for index, value in pairs if index >= 0)
        return () if self.dictionary is None else nearest(self.dictionary.weights.decoder, feature, NEAREST)

    def _named(self, partners: tuple[Partner, ...]) -> tuple[Partner, ...]:
        """Features with their labels."""
        return tuple(
            replace(one, text=self.labels[one.index].text) if one.index in self.labels else one for one in partners
        )

    def _said(self, ids: list[int]) -> str:
        return " · ".join(self.spell(i) for i in ids[:5] if i >= 0)

    def __repr__(self) -> str:
        own = self.statistics
        name, site = (
            (own.model, own.site) if own is not None
            else ("no network" if self.model is None else self.model.name, self._known.manifest.site)
        )  # fmt: skip
        read = "no texts read" if own is None else f"{own.n_tokens} tokens read"
        return f"Dashboard({len(self)} features of {name} at {site}, {read}, {len(self.labels)} labels)"


def dashboard(
    dictionary: Dictionary,
    model: Model,
    texts: Any = None,
    *,
    together: bool = True,
    neurons: bool | None = None,
    max_tokens: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Dashboard:
    """Every feature of a dictionary, to look at: counts, examples, words, neighbours. Shows itself.

    Args:
        dictionary: A dictionary of one of the network's sites.
        model: The network.
        texts: Texts, chats, rows of ids, or FeatureStatistics that were made before; without any, what needs no corpus is answered.
        together: Count which features are active at the same tokens.
        neurons: Correlate with the neurons of the same layer; where features × neurons are few when None.
        max_tokens: Texts are read until there are so many tokens, as of a stream without an end; all of them when None.
        folder: Where the pass is kept now and then, so that the same call goes on behind a stop.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: The dictionary is none, or statistics of another one are given.
        TextError: The texts cannot be read.
    """
    own, model = checked_dictionary(dictionary), checked_model(model)
    if isinstance(texts, FeatureStatistics):
        _check_own(texts, own, model, "these statistics are")
        return Dashboard(own, model, texts)
    if texts is None:
        return Dashboard(own, model)
    read = feature_statistics(
        model, own, texts, together=together, neurons=neurons, max_tokens=max_tokens, folder=folder, progress=progress
    )
    return Dashboard(own, model, read)


def load_dashboard(
    folder: str | os.PathLike[str], dictionary: Dictionary | None = None, model: Model | None = None
) -> Dashboard:
    """A dashboard from a folder; with its dictionary and network it answers on any text too.

    Args:
        folder: Where `Dashboard.save` wrote it.
        dictionary: Its dictionary.
        model: Its network.
    Raises:
        FeatureError: The folder is damaged, holds something else, or is of another dictionary.
    """
    found = read_contents(folder)
    if model is not None:
        checked_model(model)
    if dictionary is not None:
        _check_own(found.statistics, checked_dictionary(dictionary), model, "the dashboard is")
    return Dashboard(dictionary, model, found.statistics, dict(found.labels), found.written, dict(found.spelled))


def _check_own(statistics: FeatureStatistics, dictionary: Dictionary, model: Model | None, said: str) -> None:
    """Refuse statistics of another dictionary."""
    n, site = statistics.n_features, dictionary.manifest.site
    if n != dictionary.n_features:
        raise FeatureError(f"{said} of {n} features, and the dictionary has {dictionary.n_features}; give its own")
    names = [statistics.site, str(site)]
    if site != UNKNOWN and model is not None:
        # One site has several names.
        names = [model.site(name).name if name != UNKNOWN else name for name in names]
    if site != UNKNOWN and names[0] != names[1]:
        raise FeatureError(f"{said} of features at {statistics.site}, and the dictionary reads {site}; give its own")


def labels_of(given: Any, n_features: int) -> dict[int, Label]:
    """Labels by feature's number.

    Raises:
        FeatureError: Something else is given.
        DictionaryError: There is no such feature.
    """
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
