"""`FeatureMap`: the directions of a dictionary's features in two dimensions, coloured by what is known of them."""

from typing import Any, ClassVar

import numpy as np
import torch
import traitlets

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import WidgetError
from innerview.features.layouts import Layout, PCALayout
from innerview.models.model import Model
from innerview.widgets import links, wire
from innerview.widgets.base import choice, whole
from innerview.widgets.feature_browser import frame_of
from innerview.widgets.feature_sheet import identity, source_parts
from innerview.widgets.feature_table import FeatureTable, Query
from innerview.widgets.selecting import SelectsFeatures

LABEL_BYTES = 300_000
COLUMN_BYTES = 1_500_000
TABLE_ROWS = 40


class FeatureMap(SelectsFeatures):
    """Features as points: hover, draw round a set, colour by any column.

    Args:
        shown: A dashboard, or a table of one row a feature with `dictionary`.
        layout: How directions are placed: `iv.PCALayout()`, or `iv.NeighbourLayout()`, which keeps near rows near.
        points: Places of one's own, shape [n_features, 2], instead of a layout.
        dictionary: The dictionary; that of `shown` when None.
        model: The network, likewise.
    Raises:
        WidgetError: There is nothing to place, or the points do not fit.
        FeatureError: The layout cannot place so many.
    """

    bundle: ClassVar[str] = "feature_map"
    heading: ClassVar[str] = "Feature map"
    verbs: ClassVar[tuple[str, ...]] = ("follow", "column", "say")
    writable: ClassVar[dict[str, str]] = {"colour": "check_colour", "selected": "check_selected"}

    about = traitlets.Dict().tag(sync=True)
    points = traitlets.Dict().tag(sync=True)
    columns = traitlets.Dict().tag(sync=True)
    labels = traitlets.List(traitlets.Unicode()).tag(sync=True)
    colour = traitlets.Unicode("").tag(sync=True, echo_update=False)

    def __init__(
        self, shown: Any, *, layout: Layout | None = None, points: Any = None, dictionary: Dictionary | None = None,
        model: Model | None = None,
    ) -> None:  # fmt: skip
        self._source, self._model, self._dictionary = source_parts(shown, model, dictionary)
        frame = frame_of(shown, "FeatureMap")
        self._table = FeatureTable(frame, lambda _: np.zeros(len(frame), np.float32))
        self._named = [label or self._table.hint(i) for i, label in enumerate(self._table.labels)]
        chosen = layout if layout is not None else PCALayout()
        places, how = (
            (_given(points, len(frame)), "places given") if points is not None else (self._placed(chosen), chosen.name)
        )
        names = self._table.names
        fits = len(frame) * len(names) * 4 <= COLUMN_BYTES
        self._places = places
        super().__init__(
            about=self._about(shown, how),
            points=wire.pack(places, "float32"),
            columns={name: wire.pack(self._table.columns[name], "float32") for name in (names if fits else names[:1])},
            labels=self._named if sum(map(len, self._named)) <= LABEL_BYTES else [],
            colour=names[0] if names else "",
        )
        links.join(self, model=self._model, dictionary=self._dictionary, source=self._source)

    # What the browser asks.

    def check_colour(self, value: Any) -> str:
        return choice(value, self._table.names)

    def do_column(self, message: dict[str, Any]) -> dict[str, Any]:
        """One column, where not all were sent."""
        name = choice(message.get("name"), self._table.names)
        return {"name": name, "values": wire.pack(self._table.columns[name], "float32")}

    def do_say(self, message: dict[str, Any]) -> dict[str, Any]:
        """A feature's label, where not all were sent."""
        feature = whole(message.get("feature"), 0, self._table.n_features - 1)
        return {"feature": feature, "label": self._named[feature]}

    def do_follow(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open a feature's page."""
        feature = whole(message.get("feature"), 0, self._table.n_features - 1)
        links.open_feature(self._model, links.key_of(self._dictionary, self._source), feature)
        return {"feature": feature}

    # What is shown where no JavaScript runs.

    def html_table(self) -> str:
        names = self._table.names
        order = self._table.find(Query(names[0], True) if names else Query())[0]
        rows = [
            [
                str(i),
                *(f"{place:.3g}" for place in self._places[i]),
                *(f"{self._table.columns[name][i]:.3g}" for name in names),
                wire.visible(self._named[i]) if self._named[i] else "",
            ]
            for i in order[:TABLE_ROWS]
        ]
        head = ["feature", "x", "y", *(name.replace("_", " ") for name in names), "label"]
        return wire.html_table(head, rows, f"{self.plain_text()}; the first {len(rows)}")

    def plain_text(self) -> str:
        where = " · ".join(part for part in (self.about["model"], self.about["site"]) if part)
        return f"FeatureMap of {self._table.n_features:,} features{' · ' + where if where else ''}: {self.about['how']}"

    def page_title(self) -> str:
        return self.plain_text()

    # How it works.

    def _placed(self, layout: Layout) -> np.ndarray:
        if self._dictionary is None:
            raise WidgetError(
                "features are placed by the dictionary's decoder; give it with dictionary=, or give points="
            )
        rows = self._dictionary.weights.decoder
        if len(rows) != self._table.n_features:
            raise WidgetError(f"the table has {self._table.n_features} rows, and the dictionary {len(rows)} features")
        return layout.points(rows).numpy()

    def _about(self, shown: Any, how: str) -> dict[str, Any]:
        return {
            "n_features": self._table.n_features,
            "names": list(self._table.names),
            "how": how,
            "n_placed": int(np.isfinite(self._places).all(1).sum()),
            **identity(shown, self._model, self._dictionary),
        }


def _given(points: Any, n_features: int) -> np.ndarray:
    plain = points.detach().float().cpu().numpy() if isinstance(points, torch.Tensor) else points
    try:
        array = np.asarray(plain, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise WidgetError(f"points are numbers of shape [{n_features}, 2], not {str(points)[:40]!r}") from error
    if array.shape != (n_features, 2):
        raise WidgetError(f"points have shape [{n_features}, 2], not {list(array.shape)}")
    return array
