"""Labels of features: what each is said to mean, by what is known of the text or by an endpoint."""

import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from innerview.dictionaries.codes import checked_feature
from innerview.errors import FeatureError
from innerview.features.asking import CostEstimate, asked
from innerview.features.dashboards import Dashboard
from innerview.features.endpoint import Endpoint
from innerview.features.known_labels import KnownLabels
from innerview.features.prompting import Messages, label_of, naming, written
from innerview.features.records import Records
from innerview.features.view import Label
from innerview.where.spans import Reader

PASSAGES = 12


@dataclass(frozen=True, eq=False)
class Labels:
    """What features are said to mean. `dashboard.with_labels(labels)` shows them.

    Attributes:
        labels: One a feature that has one.
        asked_for: Features that were to be labelled.
        is_whole: Whether all were tried; False when an interrupt came first.
    """

    labels: tuple[Label, ...] = field(repr=False)
    asked_for: tuple[int, ...] = field(repr=False)
    is_whole: bool = True

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def unlabelled(self) -> tuple[int, ...]:
        """Features without a label: never active, or no answer that could be read, or not reached."""
        has = {one.feature for one in self.labels}
        return tuple(feature for feature in self.asked_for if feature not in has)

    def frame(self) -> pd.DataFrame:
        """One row a feature: its label, score and source; empty where it has none."""
        by_number = {one.feature: one for one in self.labels}
        found = [by_number.get(feature) for feature in self.asked_for]
        index = pd.Index(self.asked_for, name="feature", dtype="int64")
        return pd.DataFrame(
            {
                # As it is: pandas' own texts refuse half a character.
                "label": pd.Series(["" if one is None else one.text for one in found], index=index, dtype=object),
                "score": np.array([np.nan if one is None or one.score is None else one.score for one in found], dtype=float),
                "source": ["" if one is None else one.source for one in found],
            },
            index=index,
        )  # fmt: skip

    def __repr__(self) -> str:
        stopped = "" if self.is_whole else ", stopped early"
        return f"Labels(of {len(self.labels)} of {len(self.asked_for)} features{stopped})"


def label_features(
    dashboard: Dashboard,
    by: KnownLabels | Endpoint,
    features: Sequence[int] | None = None,
    *,
    passages: int = PASSAGES,
    file: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> Labels:
    """What features mean, in words.

    `KnownLabels` takes the fact of labelled sentences that tells a feature best, and scores it on held-out ones. An `Endpoint` is shown
    passages in which the feature was active; what it will cost is estimated first, shown, and refused where it is more than allowed.

    Args:
        dashboard: The features: `iv.dashboard(dictionary, model, texts)`; known labels need no texts.
        by: Who says what they mean.
        features: Their numbers; all that were active when None.
        passages: Passages of each that an endpoint is shown at most.
        file: Where an endpoint's answers are kept, so that the same call goes on behind a stop; no key is ever in it.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: No texts were read, it would cost too much, or the endpoint refused.
        DictionaryError: There is no such feature.
    """
    chosen = _chosen(dashboard, features)
    _check_passages(passages)
    if isinstance(by, KnownLabels):
        dictionary, model = owners(dashboard)
        found, is_whole = by.labelled(model, dictionary, chosen, progress=progress)
        return Labels(tuple(found), chosen, is_whole)
    questions = _questions(dashboard, _endpoint(by), chosen, passages)
    records = Records.at(file, _job(dashboard, by, questions))
    # An answer is of the passages that were shown: other texts are other questions.
    keys = {feature: _key(feature, messages) for feature, messages in questions.items()}
    chats = {keys[feature]: messages for feature, messages in questions.items()}
    is_whole = asked(by, chats, lambda _, said: label_of(said), records, what="labelling", progress=progress)
    return Labels(_labels(records, keys, by), chosen, is_whole)


def estimate_labels(
    dashboard: Dashboard, by: Endpoint, features: Sequence[int] | None = None, *, passages: int = PASSAGES
) -> CostEstimate:
    """What `label_features` will cost with an endpoint, before anything is asked; arguments as there."""
    _check_passages(passages)
    return CostEstimate.of(by, _questions(dashboard, _endpoint(by), _chosen(dashboard, features), passages))


def owners(dashboard: Dashboard) -> tuple[Any, Any]:
    """The dictionary and the network of a dashboard.

    Raises:
        FeatureError: It was read from files without them.
    """
    if not isinstance(dashboard, Dashboard):
        raise FeatureError(
            f"features come from iv.dashboard(dictionary, model, texts), not from {type(dashboard).__name__}"
        )
    if dashboard.dictionary is None or dashboard.model is None:
        raise FeatureError(
            "this dashboard was read from files alone; iv.load_dashboard(folder, dictionary, model) gives it both"
        )
    return dashboard.dictionary, dashboard.model


def _chosen(dashboard: Dashboard, features: Sequence[int] | None) -> tuple[int, ...]:
    if not isinstance(dashboard, Dashboard):
        raise FeatureError(
            f"features come from iv.dashboard(dictionary, model, texts), not from {type(dashboard).__name__}"
        )
    if features is not None:
        listed: list[Any] = [*features] if isinstance(features, Iterable) else [features]
        return tuple(dict.fromkeys(checked_feature(one, len(dashboard)) for one in listed))
    if dashboard.statistics is None:
        return tuple(range(len(dashboard)))
    return tuple(dashboard.statistics.spread.count.nonzero()[:, 0].tolist())


def _endpoint(by: Any) -> Endpoint:
    if not isinstance(by, Endpoint):
        raise FeatureError(f"labels come from iv.KnownLabels() or iv.Endpoint(url, model), not from {by!r:.60}")
    return by


def _questions(dashboard: Dashboard, by: Endpoint, chosen: Sequence[int], passages: int) -> dict[str, Messages]:
    """The question of each feature that was active, by its number."""
    if dashboard.statistics is None:
        raise FeatureError(
            "an endpoint is shown passages, and no texts were read: iv.dashboard(dictionary, model, texts)"
        )
    reader = Reader.of(owners(dashboard)[1].tokenizer)
    views = (dashboard[feature] for feature in chosen)
    return {
        str(view.feature): naming(view, passages, partial(written, reader))
        for view in views
        if any(one.examples for one in view.stretches)
    }


def _job(dashboard: Dashboard, by: Endpoint, questions: dict[str, Messages]) -> dict[str, Any]:
    """What makes a job the same one; other features may join it."""
    assert dashboard.statistics is not None
    system = next((messages[0]["content"] for messages in questions.values()), "")
    return {
        "job": "labels", "dictionary": dashboard.statistics.dictionary, "model": dashboard.statistics.model,
        "answered by": by.model, "prompt": hashlib.sha256(system.encode()).hexdigest()[:16],
    }  # fmt: skip


def _check_passages(given: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or given < 1:
        raise FeatureError(f"passages is a whole number from 1, not {given!r}")


def _key(feature: str, messages: Messages) -> str:
    asked_for = "\x1f".join(one["content"] for one in messages)
    return f"{feature} {hashlib.sha256(asked_for.encode()).hexdigest()[:16]}"


def _labels(records: Records, keys: dict[str, str], by: Endpoint) -> tuple[Label, ...]:
    """Labels of the features that have an answer.

    Raises:
        FeatureError: A file's answer is no text.
    """
    found = [(int(feature), records.held[key]) for feature, key in keys.items() if key in records.held]
    wrong = next((answer for _, answer in found if not isinstance(answer, str)), None)
    if wrong is not None:
        raise FeatureError(
            f"{records.path} holds the label {wrong!r:.60}, which is no text; give another file, or remove it"
        )
    return tuple(Label(feature, answer, source=by.model) for feature, answer in found)
