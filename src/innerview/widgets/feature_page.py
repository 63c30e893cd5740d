"""`FeaturePage`: one feature, where it fires, what it writes, and a text of one's own that lights up."""

from typing import Any, ClassVar

import numpy as np
import pandas as pd

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import WidgetError
from innerview.features.view import Example, FeatureView, Stretch
from innerview.models.model import Model
from innerview.widgets import wire
from innerview.widgets.feature_sheet import FeatureSheet, source_parts
from innerview.widgets.feature_wire import drawn

TABLE_EXAMPLES = 24


class FeaturePage(FeatureSheet):
    """A feature's page.

    Args:
        shown: A feature's view, or what gives one by its number, such as `iv.dashboard(dictionary, model, texts)`.
        feature: Its number, with what gives views.
        model: The network, to read own texts with; that of `shown` when None.
        dictionary: The dictionary, likewise.
    Raises:
        WidgetError: It is neither, or no feature is named.
    """

    bundle: ClassVar[str] = "feature_page"
    heading: ClassVar[str] = "Feature"
    is_page: ClassVar[bool] = True

    def __init__(
        self,
        shown: Any,
        feature: int | None = None,
        *,
        model: Model | None = None,
        dictionary: Dictionary | None = None,
    ) -> None:
        view, source = _view_of(shown, feature)
        super().__init__(view, *source_parts(source, model, dictionary))

    @classmethod
    def from_result(cls, result: FeatureView) -> "FeaturePage":
        """The page of a view."""
        return cls(result)

    def html_table(self) -> str:
        view = self._shown()
        rows = [
            [
                named(stretch),
                _line(one),
                f"{_value(one):.3g}",
                "" if one.effects is None else f"{one.effects[drawn(one)]:+.3g}",
            ]
            for stretch in view.stretches
            for one in stretch.examples
        ]
        head = ["quantile", "example", "activation", "loss if removed"]
        return _table_of_words(view) + wire.html_table(head, rows[:TABLE_EXAMPLES], _title(view))

    def plain_text(self) -> str:
        view = self._shown()
        lines = [_title(view)]
        for name, some in (("promotes", view.promoted), ("suppresses", view.suppressed)):
            if some:
                lines.append(f"{name}: " + " ".join(f"{wire.visible(word.text)} {word.logit:+.3g}" for word in some))
        lines += [f"{named(s)}: {_line(one)}" for s in view.stretches[:1] for one in s.examples[:3]]
        return "\n".join(lines)

    def page_title(self) -> str:
        return _title(self._shown())


def named(stretch: Stretch) -> str:
    """A stretch as a reader meets it: `max`, or the quantiles between which it lies."""
    return "max" if stretch.low >= 1 else f"{stretch.low:.4g}–{stretch.high:.4g}"


def _view_of(shown: Any, feature: int | None) -> tuple[FeatureView, Any]:
    if isinstance(shown, FeatureView):
        if feature is not None and feature != shown.feature:
            raise WidgetError(f"this view is of feature {shown.feature}, not {feature}; leave the number out")
        return shown, shown.source
    if not hasattr(shown, "__getitem__") or isinstance(shown, (str, bytes, list, tuple, dict, pd.DataFrame)):
        raise WidgetError(
            f"FeaturePage takes a feature's view or a dashboard, not {type(shown).__name__}; "
            "try iv.FeaturePage(iv.dashboard(dictionary, model, texts), 17)"
        )
    if feature is None:
        raise WidgetError("FeaturePage of a dashboard needs a feature's number, such as iv.FeaturePage(dashboard, 17)")
    view = shown[feature]
    if not isinstance(view, FeatureView):
        raise WidgetError(f"{type(shown).__name__}[{feature}] gives a {type(view).__name__}, and no view of a feature")
    return view, shown


def _title(view: FeatureView) -> str:
    label = f" · {wire.legible(view.label.text)}" if view.label is not None else ""
    fires = f"fires on {view.density:.3%} of {view.n_tokens:,} tokens" if view.n_tokens else "no texts were read"
    return f"Feature {view.feature}{label} · {view.model} · {view.site} · {fires}"


def _value(one: Example) -> float:
    return float(one.values[drawn(one)]) if len(one.values) else float("nan")


def _line(one: Example) -> str:
    """An example in a line, the token it was chosen for in brackets."""
    said = [wire.visible(word) for word in one.words]
    return "".join(f"[{word}]" if i == drawn(one) and np.any(one.values) else word for i, word in enumerate(said))


def _table_of_words(view: FeatureView) -> str:
    rows = [
        [wire.visible(up.text), f"{up.logit:+.3g}", wire.visible(down.text), f"{down.logit:+.3g}"]
        for up, down in zip(view.promoted, view.suppressed, strict=False)
    ]
    if not rows:
        return ""
    return wire.html_table(["promotes", "", "suppresses", ""], rows, "words, by what one unit adds to their logits")
