"""A set of features that a person selects, the same in every widget that shows the same features."""

from typing import Any

import numpy as np
import traitlets

from innerview.errors import WidgetError
from innerview.widgets import links, wire
from innerview.widgets.base import Widget
from innerview.widgets.feature_table import FeatureTable, checked_selection


class SelectsFeatures(Widget):
    """A widget with a selected set of features; its table is `_table`, and `_linked()` what it shares with others."""

    _table: FeatureTable

    selected = traitlets.Dict().tag(sync=True, echo_update=False)

    def __init__(self, **traits: Any) -> None:
        super().__init__(selected=wire.pack(np.zeros(0), "int32"), **traits)
        self.observe(lambda _: self._share_selection(), "selected")

    @property
    def selection(self) -> np.ndarray:
        """The features that are selected, in order, shape [n]."""
        return wire.unpack(self.selected).copy()

    @selection.setter
    def selection(self, features: Any) -> None:
        chosen = np.unique(np.asarray(features, dtype=np.int64))
        if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < self._table.n_features:
            raise WidgetError(
                f"features are 0 to {self._table.n_features - 1}; received {int(chosen[0])} to {int(chosen[-1])}"
            )
        self.selected = wire.pack(chosen, "int32")

    def check_selected(self, value: Any) -> dict[str, Any]:
        return wire.pack(checked_selection(value, self._table.n_features), "int32")

    def _linked(self) -> tuple[Any, Any]:
        """Its model, and the key of its features."""
        return getattr(self, "_model", None), links.key_of(
            getattr(self, "_dictionary", None), getattr(self, "_source", None)
        )

    def _share_selection(self) -> None:
        model, key = self._linked()
        if key is None:
            return
        for other in links.sharing("selection", model, key):
            # Equal ones are left alone, so that no selection goes round.
            if other is not self and bytes(other.selected["data"]) != bytes(self.selected["data"]):
                other.push(selected=self.selected)
