"""How a result shows itself: its type's name leads to the widget, which is imported only when it is displayed."""

import importlib
from typing import Any

WIDGETS = {
    "Dashboard": "innerview.widgets.feature_browser:FeatureBrowser",
    "FeatureView": "innerview.widgets.feature_page:FeaturePage",
    "Lens": "innerview.widgets.logit_lens:LogitLens",
    "Evidence": "innerview.widgets.evidence_card:EvidenceCard",
    "PatchGrid": "innerview.widgets.patch_grid:PatchGridView",
    "Projection": "innerview.widgets.token_strip:TokenStrip",
}


def widget_of(result: object) -> Any:
    """The widget that shows `result`.

    Raises:
        TypeError: Nothing shows results of this type.
    """
    target = WIDGETS.get(type(result).__name__)
    if target is None:
        raise TypeError(f"nothing shows a {type(result).__name__}; these show themselves: {', '.join(WIDGETS)}")
    module, name = target.split(":")
    return getattr(importlib.import_module(module), name).from_result(result)


class ShowsItself:
    """Gives a result `.widget()`, `.to_html()` and its display in a notebook."""

    def widget(self) -> Any:
        """The interactive view of this result."""
        return widget_of(self)

    def to_html(self, path: Any) -> Any:
        """Write one offline page with the interactive view; returns the path."""
        return self.widget().to_html(path)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        return self.widget()._repr_mimebundle_(include=include, exclude=exclude)
