"""What every widget shares: its built front end, its messages, its way out, and its form where no JavaScript runs."""

import logging
import math
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import anywidget
import traitlets

from innerview.errors import InnerviewError, WidgetError
from innerview.widgets import static_page, wire
from innerview.widgets.writer import Writer

log = logging.getLogger(__name__)

READY = {"state": "ready", "message": ""}
ID_LIMIT = 2**53


class Widget(anywidget.AnyWidget):
    """A view in a notebook.

    Attributes:
        bundle: Name of the built front end, shared with the file of the widget.
        verbs: The requests that the browser may make; `rank` is answered by `do_rank(message)`.
        writable: The traits that the browser may set, each with the name of the method that checks and clamps a value.
    """

    bundle: ClassVar[str] = ""
    heading: ClassVar[str] = ""
    verbs: ClassVar[tuple[str, ...]] = ()
    writable: ClassVar[dict[str, str]] = {}

    status = traitlets.Dict(READY).tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        self._esm = static_page.built(f"{self.bundle}.js")
        self._css = static_page.built(f"{self.bundle}.css")
        self._writer = Writer()
        super().__init__(**traits)
        self.on_msg(self._receive)

    def html_table(self) -> str:
        """A plain table, escaped."""
        return f"<p>{type(self).__name__}</p>"

    def plain_text(self) -> str:
        """The widget in a line or a few."""
        return type(self).__name__

    def to_html(self, path: str | Path) -> Path:
        """Write one offline page with this widget as it stands; returns the path.

        Raises:
            WidgetError: The path is a folder, lies in none, or cannot be written.
        """
        return static_page.write(path, static_page.page(self.page_title(), [self.saved()]), f"{self.bundle}.html")

    def page_title(self) -> str:
        """The title of this widget's own page."""
        return self.heading

    def saved(self) -> static_page.Saved:
        """What a page without a kernel needs of this widget."""
        self._writer.wait()
        traits = {name: getattr(self, name) for name in self.own_traits()}
        return static_page.Saved(self.bundle, traits, fallback=self.html_table())

    @classmethod
    def own_traits(cls) -> list[str]:
        """Names of the synced traits that are this widget's own."""
        inherited = set(anywidget.AnyWidget.class_trait_names(sync=True))
        return [name for name in cls.class_trait_names(sync=True) if name not in inherited and not name.startswith("_")]

    def _repr_mimebundle_(self, **options: Any) -> Any:
        shown = super()._repr_mimebundle_(**options)
        if shown is None:
            return None
        bundle, metadata = shown if isinstance(shown, tuple) else (shown, {})
        return {**bundle, "text/html": self.html_table(), "text/plain": self.plain_text()}, metadata

    def push(self, **traits: Any) -> None:
        """Set traits soon, from any thread; the newest value of each leaves, paced."""
        for name, value in traits.items():
            self._writer.put(name, lambda name=name, value=value: self._set(name, value))

    def tell(self, state: str, message: str = "") -> None:
        """Set the state that the title line shows: ready, loading, stale or error."""
        self.push(status={"state": state, "message": message})

    def work(self, job: Callable[[], Any], answered: Callable[[Any], None] | None = None) -> threading.Thread:
        """Run `job` in a worker thread; an error of ours shows in the widget."""

        def run() -> None:
            try:
                result = job()
            except Exception as error:
                self.tell("error", plain(error))
                if not isinstance(error, InnerviewError):
                    log.warning("%s: a worker failed", type(self).__name__, exc_info=error)
                return
            if answered is not None:
                answered(result)

        thread = threading.Thread(target=run, name=f"innerview-{self.bundle}", daemon=True)
        thread.start()
        return thread

    def answer(self, message_id: int, ok: Any) -> None:
        """Send `{id, ok}`; packed arrays inside go as buffers."""
        content, buffers = wire.detach({"id": message_id, "ok": ok})
        self._writer.put(("answer", message_id), lambda: self._say(content, buffers))

    def refuse(self, message_id: int, error: str) -> None:
        """Send `{id, error}`."""
        self._writer.put(("answer", message_id), lambda: self._say({"id": message_id, "error": error}, []))

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Take from the browser what it may set, checked and clamped; send back what it may not have."""
        taken: dict[str, Any] = {}
        corrected: list[str] = []
        for name, value in sync_data.items():
            check = self.writable.get(name)
            if check is None:
                continue
            try:
                taken[name] = getattr(self, check)(value)
            except (InnerviewError, TypeError, ValueError, KeyError, OverflowError):
                corrected.append(name)
                continue
            if taken[name] != value:
                corrected.append(name)
        if taken:
            super().set_state(taken)
        for name in corrected:
            self._writer.put(name, lambda name=name: self._resend(name))

    def _receive(self, _: Any, content: Any, buffers: Any) -> None:
        """One request in, one answer out; whatever is no request of ours is dropped."""
        message_id = content.get("id") if isinstance(content, dict) else None
        if not isinstance(message_id, int) or isinstance(message_id, bool) or not 0 <= message_id < ID_LIMIT:
            return
        kind = content.get("kind")
        if kind == "hello":
            self.answer(message_id, {})
        elif kind not in self.verbs:
            self.refuse(
                message_id,
                f"no request {str(kind)[:40]!r}; a {type(self).__name__} answers {', '.join(self.verbs) or 'none'}",
            )
        else:
            self._do(message_id, kind, content)

    def _do(self, message_id: int, kind: str, content: dict[str, Any]) -> None:
        try:
            result = getattr(self, f"do_{kind}")(content)
        except Exception as error:
            self.refuse(message_id, plain(error))
            if not isinstance(error, InnerviewError):
                log.warning("%s: %s failed", type(self).__name__, kind, exc_info=error)
            return
        if callable(result):
            self._later(message_id, result)
        else:
            self.answer(message_id, result if result is not None else {})

    def _later(self, message_id: int, job: Callable[[], Any]) -> None:
        def run() -> None:
            try:
                self.answer(message_id, job())
            except Exception as error:
                self.refuse(message_id, plain(error))
                if not isinstance(error, InnerviewError):
                    log.warning("%s: a request failed", type(self).__name__, exc_info=error)

        threading.Thread(target=run, name=f"innerview-{self.bundle}", daemon=True).start()

    def _set(self, name: str, value: Any) -> None:
        if self.comm is not None:
            setattr(self, name, value)

    def _resend(self, name: str) -> None:
        if self.comm is not None:
            self.send_state(name)

    def _say(self, content: dict[str, Any], buffers: list[bytes]) -> None:
        if self.comm is not None:
            self.send(content, buffers)


def plain(error: Exception) -> str:
    """An error as one line; ours say it all, others are named."""
    if isinstance(error, InnerviewError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def number(value: Any, low: float, high: float) -> float:
    """A finite number from the browser, clamped.

    Raises:
        WidgetError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise WidgetError(f"a number from {low:g} to {high:g}, not {str(value)[:40]!r}")
    return min(high, max(low, value))


def whole(value: Any, low: int, high: int) -> int:
    """A whole number from the browser, clamped.

    Raises:
        WidgetError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise WidgetError(f"a whole number from {low} to {high}, not {str(value)[:40]!r}")
    return min(high, max(low, value))


def text(value: Any, limit: int) -> str:
    """A text from the browser, at most `limit` characters.

    Raises:
        WidgetError: It is none, or longer.
    """
    if not isinstance(value, str) or len(value) > limit:
        raise WidgetError(f"a text of at most {limit} characters, not {str(value)[:40]!r}")
    return value


def choice(value: Any, options: tuple[str, ...]) -> str:
    """One of `options`.

    Raises:
        WidgetError: It is none of them.
    """
    if not isinstance(value, str) or value not in options:
        raise WidgetError(f"one of {', '.join(options)}, not {str(value)[:40]!r}")
    return value
