"""All features as columns: sorted, searched and cut into pages, 100,000 rows at ease."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from innerview.errors import WidgetError
from innerview.widgets import wire
from innerview.widgets.base import number, text, whole

TEXT_LIMIT = 200
SIMILARITY, FIT = "similarity", "fit"
# Columns that are named here come first, in this order; others as they stand.
HINTS = ("fires_on", "promotes")
FIRST_COLUMNS = ("density", "n_active", "median", "mean", "max", "label_score")


@dataclass(frozen=True)
class Query:
    """What a person asks of the table.

    Attributes:
        sort: Column it is sorted by; `feature`, `label` or `similarity` as well; `fit`: how well a feature's label and words say the text.
        descending: Whether the largest comes first.
        text: Part of a label or of the words beside it, or a feature's number; empty for all.
        low: Least density; None for none.
        high: Largest density, likewise.
        direction: Index of the direction that features are compared with, -1 for none.
        feature: Feature that features are compared with, before any direction; -1 for none.
        cosine: Least similarity to it; None for none.
    """

    sort: str = "feature"
    descending: bool = False
    text: str = ""
    low: float | None = None
    high: float | None = None
    direction: int = -1
    feature: int = -1
    cosine: float | None = None

    @classmethod
    def checked(cls, value: Any, columns: tuple[str, ...], n_features: int, n_directions: int) -> "Query":
        """What the browser sent, its numbers clamped.

        Raises:
            WidgetError: A field is missing, unknown, or of another kind.
        """
        names = sorted(cls.__dataclass_fields__)
        if not isinstance(value, dict) or sorted(map(str, value)) != names:
            raise WidgetError(f"a query has the fields {', '.join(names)}; received {str(value)[:80]}")
        sorts = ("feature", "label", SIMILARITY, FIT, *columns)
        if not isinstance(value["sort"], str) or value["sort"] not in sorts:
            raise WidgetError(f"the table is sorted by {', '.join(sorts)}, not by {str(value['sort'])[:40]!r}")
        if not isinstance(value["descending"], bool):
            raise WidgetError(f"descending is true or false, not {str(value['descending'])[:40]!r}")
        return cls(
            value["sort"],
            value["descending"],
            text(value["text"], TEXT_LIMIT),
            _maybe(value["low"], 0.0, 1.0),
            _maybe(value["high"], 0.0, 1.0),
            whole(value["direction"], -1, n_directions - 1),
            whole(value["feature"], -1, n_features - 1),
            _maybe(value["cosine"], -1.0, 1.0),
        )

    def to_dict(self) -> dict[str, Any]:
        """As the wire carries it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def _maybe(value: Any, low: float, high: float) -> float | None:
    return None if value is None else float(number(value, low, high))


class FeatureTable:
    """Columns of numbers and labels, by feature.

    Args:
        frame: One row a feature, in order; `label`, `fires_on` and `promotes` are texts, every other column numbers.
        similarity: Gives each feature's cosine with what a query compares with, shape [n_features].
    Raises:
        WidgetError: It is no such frame.
    """

    def __init__(self, frame: pd.DataFrame, similarity: Callable[[Query], np.ndarray]) -> None:
        if not isinstance(frame, pd.DataFrame) or not len(frame.index):
            raise WidgetError(f"a table of features is a DataFrame with one row a feature, not {str(frame)[:60]!r}")
        self.n_features = len(frame)
        numbers = {name: _numbers(frame, name) for name in _ordered(frame)}
        # What nobody measured needs no column.
        self.columns = {name: values for name, values in numbers.items() if not np.isnan(values).all()}
        self.labels = _texts(frame, "label")
        # What a feature without a label is known by.
        self._hints = {name: _texts(frame, name) for name in HINTS if name in frame}
        self._folded = np.array([label.casefold() for label in self.labels], dtype=object)
        told = [self.labels, *self._hints.values()]
        self._searched = [" · ".join(parts).casefold() for parts in zip(*told, strict=True)]
        self._similarity = similarity
        self._lock = threading.Lock()
        self._found: tuple[Query, np.ndarray, np.ndarray | None] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of numbers."""
        return tuple(self.columns)

    @property
    def has_hints(self) -> bool:
        """Whether any feature has words beside its label."""
        return any(any(texts) for texts in self._hints.values())

    def hint(self, feature: int) -> str:
        """The tokens that a feature fires on, or the words that it promotes; empty where neither was gathered."""
        return next((texts[feature] for texts in self._hints.values() if texts[feature]), "")

    def find(self, query: Query) -> tuple[np.ndarray, np.ndarray | None]:
        """Features that a query finds, in its order, and each feature's similarity where one is asked for."""
        with self._lock:
            if self._found is None or self._found[0] != query:
                self._found = (query, *self._search(query))
            return self._found[1:]

    def rows(self, query: Query, start: int, count: int) -> dict[str, Any]:
        """A page of rows as the wire carries it: numbers by column, shape [column, row], similarity last where it was asked for."""
        found, similarity = self.find(query)
        here = found[start : start + count]
        columns = [column[here] for column in self.columns.values()]
        columns += [] if similarity is None else [similarity[here]]
        values = np.stack(columns) if columns else np.zeros((0, len(here)), np.float32)
        return {
            "start": start,
            "total": len(found),
            "features": wire.pack(here, "int32"),
            "values": wire.pack(values, "float32"),
            "labels": [self.labels[i] for i in here],
            "hints": [self.hint(i) for i in here],
        }

    def _search(self, query: Query) -> tuple[np.ndarray, np.ndarray | None]:
        keep = np.ones(self.n_features, dtype=bool)
        wanted = query.text.strip().casefold()
        if wanted:
            keep &= np.fromiter((wanted in told for told in self._searched), bool, self.n_features)
            bare = wanted.replace(",", "")
            if bare.isdecimal() and int(bare) < self.n_features:
                keep[int(bare)] = True
        density = self.columns.get("density")
        if density is not None:
            keep &= True if query.low is None else density >= query.low
            keep &= True if query.high is None else density <= query.high
        similarity = self._similarity(query) if query.feature >= 0 or query.direction >= 0 else None
        if similarity is not None and query.cosine is not None:
            keep &= similarity >= query.cosine
        found = np.flatnonzero(keep)
        return found[self._order(query, found, similarity)], similarity

    def _order(self, query: Query, found: np.ndarray, similarity: np.ndarray | None) -> np.ndarray:
        if query.sort == "feature" or (query.sort == SIMILARITY and similarity is None):
            return np.arange(len(found))[:: -1 if query.descending else 1]
        if query.sort == "label":
            folded = self._folded[found]
            # Nothing said comes last either way round.
            said = np.array([bool(label) for label in folded], dtype=bool)
            order = np.argsort(folded[said], kind="stable")[:: -1 if query.descending else 1]
            return np.concatenate([np.flatnonzero(said)[order], np.flatnonzero(~said)])
        if query.sort == FIT:
            density = self.columns.get("density", np.zeros(self.n_features))[found]
            # Among those that say it alike, those that fire most.
            return np.lexsort(np.stack([-np.nan_to_num(density), self._fits(found, query.text)]))
        values = similarity if query.sort == SIMILARITY and similarity is not None else self.columns[query.sort]
        keys = values[found]
        return np.argsort(np.where(np.isnan(keys), np.inf, -keys if query.descending else keys), kind="stable")

    def _fits(self, found: np.ndarray, text: str) -> np.ndarray:
        """How well features say a text, 0 the best: by their number, their label, then their words, the first ones first."""
        wanted, labels = text.strip().casefold(), self._folded[found]
        at = np.fromiter((label.find(wanted) for label in labels), np.int64, len(labels))
        fits = np.where(at == 0, 2, np.where(at > 0, 3, 4))
        fits[labels == wanted] = 1
        for row in np.flatnonzero(at < 0).tolist():
            words = [word for texts in self._hints.values() for word in texts[found[row]].casefold().split("·")]
            said = ((i, word.strip()) for i, word in enumerate(words) if wanted in word)
            fits[row] += next((2 * i + (word != wanted) for i, word in said), 2 * len(words))
        fits[found.astype(str) == wanted.replace(",", "")] = 0
        return fits


def _ordered(frame: pd.DataFrame) -> list[str]:
    names = [str(name) for name in frame.columns if name not in ("label", *HINTS)]
    return [name for name in FIRST_COLUMNS if name in names] + [name for name in names if name not in FIRST_COLUMNS]


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    if name not in frame:
        return [""] * len(frame)
    return ["" if pd.isna(said) else wire.sendable(str(said)) for said in frame[name].tolist()]


def _numbers(frame: pd.DataFrame, name: str) -> np.ndarray:
    try:
        return np.asarray(frame[name].to_numpy(dtype=np.float32, na_value=np.nan))
    except (TypeError, ValueError) as error:
        raise WidgetError(
            f"column {name!r} holds {frame[name].dtype}, and a table of features holds numbers beside its `label`"
        ) from error


def checked_selection(value: Any, n_features: int) -> np.ndarray:
    """Features that the browser selected, in order, each once; numbers that no feature has are left out.

    Raises:
        WidgetError: It is no packed array of whole numbers.
    """
    if not isinstance(value, Mapping) or value.get("dtype") != "int32":
        raise WidgetError(f"a selection is an int32 array as bytes, not {str(value)[:40]!r}")
    try:
        flat = np.frombuffer(bytes(value["data"]), np.dtype("<i4"))
    except (KeyError, TypeError, ValueError) as error:
        raise WidgetError(f"a selection is an int32 array as bytes: {error}") from error
    return np.unique(flat[(flat >= 0) & (flat < n_features)])
