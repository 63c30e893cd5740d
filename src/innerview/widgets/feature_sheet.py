"""What shows one feature at a time: its page, the text a person types into it, and the ways to others and to Steer."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import traitlets

from innerview.capturing import capture
from innerview.dictionaries.dictionary import Dictionary
from innerview.direction import Direction
from innerview.errors import InnerviewError, WidgetError
from innerview.features.corpus import given_to
from innerview.features.on_text import feature_on_text
from innerview.features.view import FeatureView, Label
from innerview.models.model import Model
from innerview.widgets import links, wire
from innerview.widgets.base import Widget, choice, text, whole
from innerview.widgets.base import plain as in_words
from innerview.widgets.feature_wire import view_traits
from innerview.widgets.newest import Newest

TYPED_LIMIT = 20_000
# Examples in which the median scale of a token is taken.
WORTH_ROWS = 8
SHADES = ("activation", "effect")


class FeatureSheet(Widget):
    """One feature's page inside a widget; typing, opening and sending go on in a thread, of which only the newest counts."""

    verbs: ClassVar[tuple[str, ...]] = ("go", "follow", "steer", "effects")
    writable: ClassVar[dict[str, str]] = {"typed": "check_typed", "shade": "check_shade"}
    is_page: ClassVar[bool] = False

    view = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    typed = traitlets.Unicode("").tag(sync=True, echo_update=False)
    own = traitlets.Dict(allow_none=True, default_value=None).tag(sync=True)
    shade = traitlets.Unicode("activation").tag(sync=True, echo_update=False)
    opened = traitlets.Int(0).tag(sync=True)

    def __init__(
        self, view: FeatureView | None, source: Any, model: Model | None, dictionary: Dictionary | None, **traits: Any
    ) -> None:
        self._view, self._source, self._model, self._dictionary = view, source, model, dictionary
        self._reading = Newest("innerview-own-text")
        self._opening = Newest("innerview-open")
        super().__init__(view=self._wired(view), **traits)
        self.observe(lambda _: self._read_soon(), "typed")
        links.join(self, model=model, dictionary=dictionary, source=source)

    # What Python asks.

    @property
    def feature(self) -> int | None:
        """The feature that is shown; None while none is."""
        return None if self._view is None else self._view.feature

    @property
    def labels(self) -> Mapping[int, Label]:
        """What features are said to mean, by number."""
        found = getattr(self._source, "labels", None)
        return found if isinstance(found, Mapping) else {}

    def show_feature(self, feature: int) -> None:
        """Show a feature, and bring this widget into sight; returns at once.

        Raises:
            WidgetError: There is no such feature, or nothing to make its page from.
        """
        self._go(self._checked(feature))
        self.push(opened=self.opened + 1)

    def wait(self, timeout_s: float = 60.0) -> "FeatureSheet":
        """Wait until what was asked for is shown; returns the widget.

        Raises:
            WidgetError: It is not, after `timeout_s`.
        """
        if not (self._opening.wait(timeout_s) and self._reading.wait(timeout_s)):
            raise WidgetError(f"still reading after {timeout_s:g} s; wait(timeout_s=...) longer")
        self._writer.wait()
        return self

    def read(self, own_text: str) -> np.ndarray:
        """The feature at each token of a text, shape [pos]; shown as if it were typed.

        Raises:
            WidgetError: No feature is shown, or no model and dictionary to read with.
            TextError: The text cannot be read.
        """
        found = self._read(text(own_text, TYPED_LIMIT))
        self.typed, self.own = own_text, found
        return wire.unpack(found["values"])

    # What the browser asks.

    def check_typed(self, value: Any) -> str:
        return text(value, TYPED_LIMIT)

    def check_shade(self, value: Any) -> str:
        return choice(value, SHADES)

    def do_go(self, message: dict[str, Any]) -> dict[str, Any]:
        """Show another feature here."""
        feature = self._checked(whole(message.get("feature"), 0, self._last()))
        self._go(feature)
        return {"feature": feature}

    def do_follow(self, message: dict[str, Any]) -> dict[str, Any]:
        """Open a feature wherever its page is."""
        feature = self._checked(whole(message.get("feature"), 0, self._last()))
        links.open_feature(self._model, links.key_of(self._dictionary, self._source), feature)
        return {"feature": feature}

    def do_steer(self, message: dict[str, Any]) -> Any:
        """Send the feature that is shown to Steer."""
        return lambda: {"name": self.send_to_steer().name}

    def do_effects(self, message: dict[str, Any]) -> None:
        """Measure what is lost in the examples when the feature is taken out."""
        view = self._shown()
        if not self._live()["effects"]:
            raise WidgetError("there is no network to run the examples in; give a dashboard that has one")

        def job() -> None:
            with self._telling():
                self.tell("loading", f"taking feature {view.feature} out of its examples…")
                found = self._source.effects(view)
                if self._view is view:
                    self._show(found)
                self.tell("ready")

        self._opening.put(job)

    def measure_effects(self) -> "FeatureSheet":
        """Measure what is lost in the first examples of each stretch when the feature is taken out; returns the widget.

        Raises:
            WidgetError: No feature is shown, or there is no network to run them in.
        """
        self.do_effects({})
        return self.wait()

    def send_to_steer(self) -> Direction:
        """Send the feature that is shown to the newest Steer of this model; returns the direction.

        Raises:
            WidgetError: No feature is shown, or no Steer is open.
        """
        direction = self.direction()
        links.send_to_steer(self._model, direction)
        return direction

    def direction(self) -> Direction:
        """The shown feature's row of the decoder, its step the median of its activations where it was measured.

        Raises:
            WidgetError: No feature is shown, or there is no dictionary.
        """
        view, dictionary = self._shown(), self._known_dictionary()
        made = dictionary.direction(view.feature)
        label = f" · {view.label.text}" if view.label is not None else ""
        named = dataclasses.replace(made, name=f"feature {view.feature}{label}")
        median = view.quantiles.get(0.5, 0.0)
        if named.scale is not None or not median > 0:
            return named
        worth = self._worth(view, dictionary)
        if worth is None:
            return named
        length = float(dictionary.weights.decoder[view.feature].detach().double().norm())
        kind = "median non-zero activation × ‖W_dec row‖"
        return dataclasses.replace(named, scale=median * length * worth, scale_kind=kind, scale_n=view.n_active)

    # How it works.

    def _worth(self, view: FeatureView, dictionary: Dictionary) -> float | None:
        """What one unit of a decoder's row is worth; where each token has a scale of its own, the median in the examples, if they can be read."""
        known = dictionary.worth()
        rows = [list(one.ids) for stretch in view.stretches for one in stretch.examples]
        if known is not None or self._model is None or not rows:
            return known
        # One by one: a network that is told of no pads takes rows of one length alone.
        read = (
            capture(self._model, given_to(self._model, [row]), dictionary.site, hermetic=True)
            for row in rows[:WORTH_ROWS]
        )
        found = [worth for acts in read if (worth := dictionary.measured(acts).worth()) is not None]
        return float(np.median(found)) if found else None

    def _wired(self, view: FeatureView | None) -> dict[str, Any] | None:
        if view is None:
            return None
        return view_traits(view, self._n_features()) | {"live": self._live(), "about": about(self._dictionary)}

    def _live(self) -> dict[str, bool]:
        """What can be done in this kernel."""
        can_read = self._model is not None and self._dictionary is not None
        can_lose = can_read and hasattr(self._source, "effects")
        return {"read": can_read, "go": self._source is not None, "steer": can_read, "effects": can_lose}

    def _n_features(self) -> int | None:
        if self._dictionary is not None:
            return self._dictionary.n_features
        return len(self._source) if hasattr(self._source, "__len__") else None

    def _last(self) -> int:
        return (self._n_features() or 2**31) - 1

    def _checked(self, feature: int) -> int:
        if self._source is None:
            raise WidgetError(
                f"feature {feature} cannot be opened, because only values were given; "
                f"give what makes pages: iv.dashboard(dictionary, model, texts) to iv.{type(self).__name__}"
            )
        if not 0 <= feature <= self._last():
            raise WidgetError(f"no feature {feature}; the dictionary has {self._last() + 1}")
        return feature

    def _shown(self) -> FeatureView:
        if self._view is None:
            raise WidgetError("no feature is shown; open one first, such as widget.show_feature(17)")
        return self._view

    def _known_dictionary(self) -> Dictionary:
        if self._dictionary is None:
            raise WidgetError("no dictionary is known; give it with dictionary=")
        return self._dictionary

    def _go(self, feature: int) -> None:
        def job() -> None:
            with self._telling():
                view = self._source[feature]
                if self._opening.is_overtaken:
                    return
                self._show(view)
                if self.status["state"] == "error":
                    self.tell("ready")
                self._read_soon()

        self._opening.put(job)

    def _show(self, view: FeatureView) -> None:
        self._view = view
        self.push(view=self._wired(view))

    def _read_soon(self) -> None:
        """Read what is typed, instead of whatever waits to be read."""
        typed = self.typed
        if not typed.strip() or self._view is None or not self._live()["read"]:
            self.push(own=None)
            return

        def job() -> None:
            try:
                found = self._read(typed)
            except InnerviewError as error:
                found = {"text": typed, "feature": self.feature, "error": in_words(error)}
            self.push(own=found)

        self._reading.put(job)

    def _read(self, typed: str) -> dict[str, Any]:
        """A text as the wire carries it: its words, their ids, and the feature at each."""
        view, dictionary, model = self._shown(), self._known_dictionary(), self._model
        if model is None:
            raise WidgetError("no model is known to read a text with; give it with model=")
        found = feature_on_text(model, dictionary, view.feature, typed)
        # What was not counted has no value: the first special token is an outlier.
        values = np.where(found.is_read, found.values, np.nan)
        return {
            "text": typed,
            "feature": view.feature,
            "words": [wire.sendable(word) for word in found.words],
            "ids": wire.pack(found.ids, "int32"),
            "values": wire.pack(values, "float32"),
        }

    def _telling(self) -> "_Telling":
        return _Telling(self)


def source_parts(
    shown: Any, model: Model | None, dictionary: Dictionary | None
) -> tuple[Any, Model | None, Dictionary | None]:
    """What gives views, and the model and dictionary that were given, else those it says it has."""

    def said(name: str, kind: type) -> Any:
        found = getattr(shown, name, None)
        return found if isinstance(found, kind) else None

    return (
        shown,
        model if model is not None else said("model", Model),
        dictionary if dictionary is not None else said("dictionary", Dictionary),
    )


def identity(shown: Any, model: Model | None, dictionary: Dictionary | None) -> dict[str, str]:
    """What features are of, by name: as their views say it, so that the parts of a page find one another."""
    own = getattr(shown, "statistics", None)
    named = {
        "model": getattr(own, "model", None) or getattr(model, "name", None) or "",
        "site": getattr(own, "site", None) or ("" if dictionary is None else dictionary.manifest.site) or "",
        "dictionary": getattr(own, "dictionary", None) or ("" if dictionary is None else repr(dictionary)),
        "about": about(dictionary),
    }
    return {name: wire.sendable(str(value)) for name, value in named.items()}


def about(dictionary: Dictionary | None) -> str:
    """A dictionary in a few words."""
    if dictionary is None:
        return ""
    known, said = dictionary.manifest, f"{type(dictionary.architecture).__name__} {dictionary.n_features:,}"
    # A bundled dictionary is named after its site, which stands before it.
    return wire.sendable(said if known.source in ("", known.site) else f"{said} · {known.source}")


class _Telling:
    """Shows an error of ours in the widget; others are shown and raised."""

    def __init__(self, widget: Widget) -> None:
        self._widget = widget

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if isinstance(error, Exception):
            self._widget.tell("error", in_words(error))
        return isinstance(error, InnerviewError)
