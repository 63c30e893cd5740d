"""`FeatureBrowser`: all features of a dictionary as a table that is sorted, searched and filtered, each with its page."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import traitlets

from innerview.dictionaries.dictionary import Dictionary
from innerview.direction import Direction
from innerview.errors import InnerviewError, WidgetError
from innerview.features.nearest import all_cosines
from innerview.models.model import Model
from innerview.widgets import links, wire
from innerview.widgets.base import plain, whole
from innerview.widgets.feature_sheet import FeatureSheet, identity, source_parts
from innerview.widgets.feature_table import FeatureTable, Query
from innerview.widgets.newest import Newest
from innerview.widgets.selecting import SelectsFeatures
from innerview.widgets.static_page import Saved

PAGE_ROWS = 500
FIRST_ROWS = 100
SAVED_ROWS = 2000
TABLE_ROWS = 40
# Beyond this, spelling the words of every feature takes longer than a table should.
WORDED_ROWS = 50_000


class FeatureBrowser(FeatureSheet, SelectsFeatures):
    """All features, sortable and searchable; a feature's page opens beneath, or in a `FeaturePage` of the same dictionary.

    Args:
        shown: A dashboard (`iv.dashboard(dictionary, model, texts)`), or a table of one row a feature: `label` and columns of numbers.
        directions: Directions that features can be compared with.
        model: The network; that of `shown` when None.
        dictionary: The dictionary, likewise.
    Raises:
        WidgetError: It is no such thing, or a direction does not fit the dictionary.
    """

    bundle: ClassVar[str] = "feature_browser"
    heading: ClassVar[str] = "Features"
    verbs: ClassVar[tuple[str, ...]] = (*FeatureSheet.verbs, "rows", "select")
    writable: ClassVar[dict[str, str]] = {
        **FeatureSheet.writable, "query": "check_query", "selected": "check_selected"
    }  # fmt: skip

    about = traitlets.Dict().tag(sync=True)
    first = traitlets.Dict().tag(sync=True)
    query = traitlets.Dict().tag(sync=True, echo_update=False)

    def __init__(
        self, shown: Any, *, directions: Sequence[Direction] | Direction = (), model: Model | None = None,
        dictionary: Dictionary | None = None,
    ) -> None:  # fmt: skip
        _, own_model, own_dictionary = source_parts(shown, model, dictionary)
        self._directions = [directions] if isinstance(directions, Direction) else list(directions)
        self._model, self._dictionary = own_model, own_dictionary
        # A bare table gives rows, and no pages.
        self._source = shown if hasattr(shown, "__getitem__") and not isinstance(shown, pd.DataFrame) else None
        self._check_directions()
        self._table = FeatureTable(frame_of(shown), self._similarity)
        self._finding = Newest("innerview-find")
        query = Query("density", True) if "density" in self._table.columns else Query()
        super().__init__(
            None,
            self._source,
            own_model,
            own_dictionary,
            about=self._about(shown),
            query=query.to_dict(),
            first=self._first(query),
        )
        self.observe(lambda _: self._find_soon(), "query")

    @classmethod
    def from_result(cls, result: Any) -> "FeatureBrowser":
        """The browser of a dashboard."""
        return cls(result)

    # What Python asks.

    def found(self) -> np.ndarray:
        """The features that the table shows, in its order, shape [n]."""
        return self._table.find(self._query())[0].copy()

    def wait(self, timeout_s: float = 60.0) -> "FeatureBrowser":
        """Wait until what was asked for is shown; returns the widget."""
        if not self._finding.wait(timeout_s):
            raise WidgetError(f"still searching after {timeout_s:g} s; wait(timeout_s=...) longer")
        super().wait(timeout_s)
        return self

    # What the browser asks.

    def check_query(self, value: Any) -> dict[str, Any]:
        return self._checked_query(value).to_dict()

    def do_rows(self, message: dict[str, Any]) -> Any:
        """A page of the rows that a query finds."""
        query = self._checked_query(message.get("query"))
        start = whole(message.get("start"), 0, self._table.n_features)
        count = whole(message.get("count"), 1, PAGE_ROWS)
        return lambda: self._table.rows(query, start, count)

    def do_select(self, message: dict[str, Any]) -> Any:
        """Select all that a query finds."""
        query = self._checked_query(message.get("query"))

        def chosen() -> dict[str, Any]:
            self.selection = self._table.find(query)[0]
            return {"count": len(self.selection)}

        return chosen

    def do_follow(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open a feature in its page, else beneath the table."""
        feature = self._checked(whole(message.get("feature"), 0, self._last()))
        key = links.key_of(self._dictionary, self._source)
        pages = [] if key is None else links.sharing("show_feature", self._model, key)
        page = next((one for one in pages if one.is_page), None)
        if page is None:
            self._go(feature)
        else:
            page.show_feature(feature)
        return {"feature": feature, "here": page is None}

    # What is shown where no JavaScript runs.

    def html_table(self) -> str:
        names = self._table.names
        rows = [
            [str(i), *(f"{self._table.columns[name][i]:.3g}" for name in names), self._label(i)]
            for i in self.found()[:TABLE_ROWS]
        ]
        total = f"{self._title()} · the first {len(rows)} of {self._table.n_features}"
        return wire.html_table(["feature", *(name.replace("_", " ") for name in names), "label"], rows, total)

    def plain_text(self) -> str:
        shown = ", ".join(f"{i} {self._label(i)}".strip() for i in self.found()[:5])
        return f"{self._title()}; first by {self.query['sort']}: {shown}"

    def page_title(self) -> str:
        return self._title()

    def saved(self) -> Saved:
        """As it stands, with more rows: a page without a kernel cannot ask for them."""
        made = super().saved()
        return Saved(
            made.widget, {**made.traits, "first": self._first(self._query(), SAVED_ROWS)}, made.links, made.fallback
        )

    # How it works.

    def _title(self) -> str:
        where = " · ".join(part for part in (self.about["model"], self.about["site"]) if part)
        return f"{self._table.n_features:,} features" + (f" · {where}" if where else "")

    def _label(self, feature: int) -> str:
        said = self._table.labels[feature] or self._table.hint(feature)
        return wire.legible(said) if said else ""

    def _last(self) -> int:
        return self._table.n_features - 1

    def _about(self, shown: Any) -> dict[str, Any]:
        statistics = getattr(shown, "statistics", None)
        return {
            "n_features": self._table.n_features,
            "columns": list(self._table.names),
            "n_labels": sum(map(bool, self._table.labels)),
            "has_hints": self._table.has_hints,
            "n_tokens": getattr(statistics, "n_tokens", None),
            "directions": [wire.sendable(direction.name) for direction in self._directions],
            "can_compare": self._dictionary is not None,
            **identity(shown, self._model, self._dictionary),
            "opens": self._source is not None,
        }

    def _check_directions(self) -> None:
        for direction in self._directions:
            if not isinstance(direction, Direction):
                raise WidgetError(
                    f"directions holds Directions, not {type(direction).__name__}; make one with iv.contrast"
                )
            if self._dictionary is None:
                raise WidgetError("features are compared with directions by the dictionary; give it with dictionary=")
            if direction.vector.numel() != self._dictionary.d_out:
                raise WidgetError(
                    f"direction {direction.name!r} is {direction.vector.numel()} wide, and the dictionary writes "
                    f"{self._dictionary.d_out}; find it at {self._dictionary.site_out}"
                )

    def _similarity(self, query: Query) -> np.ndarray:
        dictionary = self._known_dictionary()
        decoder = dictionary.weights.decoder
        vector = decoder[query.feature] if query.feature >= 0 else self._directions[query.direction].vector.flatten()
        if not bool(vector.any()):
            return np.full(self._table.n_features, np.nan, np.float32)
        cosines = all_cosines(decoder, vector).cpu().numpy()
        return np.where(np.isfinite(cosines), cosines, np.nan).astype(np.float32)

    def _query(self) -> Query:
        return Query(**self.query)

    def _checked_query(self, value: Any) -> Query:
        query = Query.checked(value, self._table.names, self._table.n_features, len(self._directions))
        if query.feature >= 0 and self._dictionary is None:
            raise WidgetError("features are compared by their dictionary, and none is known; give it with dictionary=")
        return query

    def _first(self, query: Query, count: int = FIRST_ROWS) -> dict[str, Any]:
        return {**self._table.rows(query, 0, count), "query": query.to_dict()}

    def _find_soon(self) -> None:
        query = self._query()

        def job() -> None:
            try:
                self.push(first=self._first(query))
            except InnerviewError as error:
                self.tell("error", plain(error))

        self._finding.put(job)


def frame_of(shown: Any, name: str = "FeatureBrowser") -> pd.DataFrame:
    """One row a feature, of a dashboard or of a table that is one already; with words where the features are few.

    Args:
        shown: A dashboard or a table.
        name: The widget that asks, for the error.
    Raises:
        WidgetError: It is neither.
    """
    if isinstance(shown, pd.DataFrame):
        return shown
    if not hasattr(shown, "frame"):
        raise WidgetError(
            f"{name} takes a dashboard or a table of one row a feature, not {type(shown).__name__}; "
            f"try iv.{name}(iv.dashboard(dictionary, model, texts))"
        )
    is_small = hasattr(shown, "__len__") and len(shown) <= WORDED_ROWS
    return shown.frame(words=True) if is_small else shown.frame()
