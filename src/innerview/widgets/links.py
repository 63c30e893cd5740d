"""How widgets find one another: those that show one model and one dictionary belong together, and nothing has to be said.

Held weakly and by identity, so that a widget, a model or a dictionary that is gone takes its links with it.
"""

import threading
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from innerview.dictionaries.dictionary import Dictionary
from innerview.direction import Direction
from innerview.errors import WidgetError
from innerview.features.view import Label
from innerview.models.model import Model


class OpensFeatures(Protocol):
    """What shows a feature's page.

    Attributes:
        is_page: Whether that is all it does; a browser shows pages beneath its table.
    """

    is_page: bool

    def show_feature(self, feature: int) -> Any:
        """Show a feature."""
        ...


class TakesDirections(Protocol):
    """What steers by a direction that it is sent."""

    def take(self, direction: Direction) -> Any:
        """Take a direction up."""
        ...


class _Joined:
    def __init__(self, widget: Any, model: Model | None, dictionary: Dictionary | None, source: Any) -> None:
        key = key_of(dictionary, source)
        self.widget = weakref.ref(widget)
        self.model = None if model is None else weakref.ref(model)
        self.dictionary = None if dictionary is None else weakref.ref(dictionary)
        self.key = None if key is None else weakref.ref(key)

    def has(self, model: Model | None, key: Any) -> bool:
        """Whether it shows this model, and the features of this key where one is asked for."""
        is_model = model is None or (self.model is not None and self.model() is model)
        return is_model and (key is None or (self.key is not None and self.key() is key))


def key_of(dictionary: Dictionary | None, source: Any = None) -> Any:
    """What two widgets share that show the same features.

    The dictionary's weights: one that was measured or placed anew is another object with the same weights. Where only files were read,
    what they were read into.
    """
    return source if dictionary is None else dictionary.weights


_lock = threading.Lock()
_joined: list[_Joined] = []


def join(widget: Any, *, model: Model | None = None, dictionary: Dictionary | None = None, source: Any = None) -> None:
    """Link a widget with all that show the same; one that joins again is the newest."""
    with _lock:
        _joined[:] = [one for one in _joined if one.widget() not in (None, widget)]
        _joined.append(_Joined(widget, model, dictionary, source))


def leave(widget: Any) -> None:
    """Take a widget out, such as one that was closed."""
    with _lock:
        _joined[:] = [one for one in _joined if one.widget() not in (None, widget)]


def sharing(able: str, model: Model | None = None, key: Any = None) -> list[Any]:
    """Widgets that can do `able` and show this model and what has this key, the newest first."""
    with _lock:
        known = list(_joined)
    found = [one.widget() for one in reversed(known) if one.has(model, key)]
    # A widget that was closed has no comm any more.
    return [one for one in found if one is not None and one.comm is not None and hasattr(one, able)]


def dictionaries_of(model: Model) -> list[Dictionary]:
    """Dictionaries that widgets of this model show, the newest first."""
    with _lock:
        known = list(_joined)
    found: list[Dictionary] = []
    for one in reversed(known):
        widget, dictionary = one.widget(), None if one.dictionary is None else one.dictionary()
        is_shown = widget is not None and widget.comm is not None and one.has(model, None)
        if is_shown and dictionary is not None and not any(dictionary.weights is old.weights for old in found):
            found.append(dictionary)
    return found


def labels_of(dictionary: Dictionary) -> Mapping[int, Label]:
    """What the newest widget that shows a dictionary says its features mean."""
    for widget in sharing("labels", key=key_of(dictionary)):
        if widget.labels:
            return widget.labels
    return {}


def open_feature(model: Model | None, key: Any, feature: int) -> OpensFeatures:
    """Open a feature in the newest page, else in the newest browser, of what has this key; returns it.

    Raises:
        WidgetError: Neither is there.
    """
    pages = sharing("show_feature", model, key) if key is not None else []
    if not pages:
        raise WidgetError(
            f"no page of this dictionary is open to show feature {feature}; "
            f"iv.FeaturePage(dashboard, {feature}) in a cell shows it"
        )
    page = next((one for one in pages if one.is_page), pages[0])
    page.show_feature(feature)
    return page


def send_to_steer(model: Model | None, direction: Direction) -> TakesDirections:
    """Hand a direction to the newest Steer of this model; returns it.

    Raises:
        WidgetError: There is none.
    """
    steers = sharing("take", model) if model is not None else []
    if not steers:
        raise WidgetError(
            f"no Steer of this model is open to take {direction.name!r}; run iv.Steer(model) in a cell, then send it again"
        )
    steers[0].take(direction)
    return steers[0]
