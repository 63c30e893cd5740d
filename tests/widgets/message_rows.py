"""Rows 21 and 22 of the scoreboard: hostile saved state, and malformed messages, for every widget."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import ipywidgets
from ipywidgets.widgets.widget import _instances

import innerview as iv
from innerview.hooks import board_of
from innerview.opened import opened
from innerview.widgets import static_page
from tests.widgets.hostile_texts import RUN, texts
from tests.widgets.made import MADE, World
from tests.widgets.worlds import Comm, world

# Requests that do what they say without a field, so that a malformed one is a good one.
STARTS = {"run", "dose", "save", "stop", "detach_all", "refresh"}
NUMBERS: list[Any] = [0, 1, -1, 0.5, 2**31, 2**53, -(2**63), 1e308, float("nan"), float("inf"), True, "0", "1e5"]


class Kernel:
    """What must stay as it was, whatever a saved notebook holds."""

    def __init__(self, place: World) -> None:
        self.place = place
        self.before = self._now()

    def _now(self) -> tuple[Any, ...]:
        attached = [(one.name, one.enabled, one.edits) for one in iv.attached(self.place.model)]
        runs = [id(run) for run in opened.each("run")]
        return attached, runs, sorted(self.place.folder.rglob("*")), len(board_of(self.place.model)._hooks)

    def is_untouched(self) -> None:
        assert self._now() == self.before, "a saved state had an effect in the kernel"


def row_21(count: int) -> None:
    """Hostile saved widget state: opened with a kernel, written to a page, sent to a living widget."""
    drawn = random.Random(21)
    with tempfile.TemporaryDirectory() as folder:
        place = world(Path(folder))
        widgets = {name: make(place) for name, make in MADE.items()}
        kernel = Kernel(place)
        for nth in range(count):
            name = drawn.choice(list(widgets))
            state = hostile_state(drawn, name, widgets[name])
            _opened_by_a_notebook(state)
            _on_a_page(name, state)
            before, script = _state(widgets[name]), widgets[name]._esm
            # What the browser may set is its own; nothing else moves.
            widgets[name].set_state({k: v for k, v in state.items() if k not in widgets[name].writable})
            assert _state(widgets[name]) == before and widgets[name]._esm == script, f"{name}, round {nth}"
            kernel.is_untouched()
        for widget in widgets.values():
            widget.close()


def _opened_by_a_notebook(state: dict[str, Any]) -> None:
    """A front end asks the kernel to make a widget of a saved state: there is nothing of ours that it could make."""
    before = set(_instances)
    message = {"metadata": {"version": "2.1.0"}, "content": {"data": {"state": state, "buffer_paths": []}}}
    # No class is known by such a name.
    with contextlib.suppress(KeyError):
        ipywidgets.Widget.handle_comm_opened(Comm(), message)
    made = set(_instances) - before
    assert not made, f"a saved state made {made}"


def _on_a_page(name: str, state: dict[str, Any]) -> None:
    """A notebook with this state becomes a page: its script is never taken, and its text cannot leave its place."""
    notebook = {"state": {"a": {"model_name": "AnyModel", "model_module": "anywidget", "state": state}}}
    parts = static_page.parts_from_widget_state(json.loads(json.dumps(notebook, default=str)))
    for part in parts.values():
        page = static_page.page("x", [part])
        assert f"<script>{RUN}" not in page and "export default { render() { document.pwned" not in page


def hostile_state(drawn: random.Random, name: str, widget: Any) -> dict[str, Any]:
    """A saved state with something else in every place."""
    values = [
        *texts(200),
        *NUMBERS[:8],
        None,
        [],
        {},
        [[[]]],
        {"data": "x", "dtype": "float32", "shape": [2**40]},
        "IPY_MODEL_x",
    ]
    state: dict[str, Any] = {trait: drawn.choice(values) for trait in widget.own_traits()}
    return state | {
        "_anywidget_id": drawn.choice([f"innerview.widgets.{name}.X", f"innerview.widgets.../{name}", f"evil.widgets.{name}.X"]),
        "_esm": "export default { render() { document.pwned = 1 } }", "_css": "*{background:url(http://evil.invalid/x)}",
        "_model_module": drawn.choice(["anywidget", "innerview"]), "_model_module_version": "~0.11.*", "_model_name": "AnyModel",
        "_view_module": "anywidget", "_view_module_version": "~0.11.*", "_view_name": "AnyView", "_view_count": None,
    }  # fmt: skip


def row_22(count: int) -> None:
    """Malformed messages: each refused or dropped, with one answer at most, and the widget lives on."""
    drawn = random.Random(22)
    with tempfile.TemporaryDirectory() as folder:
        place = world(Path(folder))
        names = list(MADE)
        for start, name in enumerate(names):
            widget = MADE[name](place)
            comm = widget.comm = Comm()
            before = threading.active_count()
            sent: set[int] = set()
            for nth in range(start, count, len(names)):
                message = malformed(drawn, widget, nth)
                sent |= {message["id"]} if isinstance(message, dict) and type(message.get("id")) is int else set()
                widget._handle_custom_msg(message, drawn.choice([[], [b"x"], [memoryview(b"\0" * 9)]]))
                widget.set_state({drawn.choice([*widget.own_traits(), "_esm", "x", "layout"]): _junk(drawn, 2)})
            widget._handle_custom_msg({"id": 2**52, "kind": "hello"}, [])
            assert _within(lambda c=comm: [a for a in c.answers if a["id"] == 2**52]) == [{"id": 2**52, "ok": {}}], name
            answered = [one["id"] for one in comm.answers]
            assert len(answered) == len(set(answered)) and set(answered) <= sent | {2**52}, (
                f"{name} answered twice, or nobody"
            )
            assert threading.active_count() <= before + 4, f"{name} left threads behind"
            # What stands there can be sent: packed arrays aside, plain JSON.
            assert json.dumps({t: getattr(widget, t) for t in widget.writable}, allow_nan=False, default=bytes.hex), (
                name
            )
            widget.close()


def malformed(drawn: random.Random, widget: Any, number: int) -> Any:
    """A message that is wrong somewhere."""
    kind = drawn.randrange(4)
    if kind == 0:
        return _junk(drawn, 3)
    verbs = [verb for verb in widget.verbs if verb not in STARTS]
    fields = {drawn.choice(FIELDS): _junk(drawn, 1) for _ in range(drawn.randrange(5))}
    if kind == 1:
        return {"id": _junk(drawn, 1), "kind": drawn.choice([*widget.verbs, "hello"]), **fields} | {
            "id": drawn.choice([None, "1", -1, 0.5, True, 2**60, {}])
        }
    if kind == 2 or not verbs:
        return {
            "id": number,
            "kind": drawn.choice(["to_html", "__class__", "_do", "close", "", None, 7, ["hello"], {"kind": "hello"}]),
            **fields,
        }
    # A verb with the wrong fields: each of them, so that no request is a good one by chance.
    wrong = dict.fromkeys(FIELDS, drawn.choice([None, [], {}, "x" * 100_000, float("nan"), True, {"__class__": 1}]))
    return {"id": number, "kind": drawn.choice(verbs), **wrong}


FIELDS = (
    "token", "layer", "pos", "which", "text", "edit", "path", "row", "column", "pair", "side", "first", "count", "model", "name", "value",
    "on", "feature", "sort", "query", "page", "series", "head",
)  # fmt: skip


def _junk(drawn: random.Random, depth: int) -> Any:
    choices = [*NUMBERS, None, "", "x" * 1000, "<script>", "\ud800", b"bytes"]
    if depth and drawn.random() < 0.4:
        many = [_junk(drawn, depth - 1) for _ in range(drawn.randrange(4))]
        return many if drawn.random() < 0.5 else {str(i): one for i, one in enumerate(many)}
    return drawn.choice(choices)


def _state(widget: Any) -> dict[str, Any]:
    return {name: getattr(widget, name) for name in widget.own_traits()}


def _within(found: Any, timeout_s: float = 60.0) -> Any:
    step = threading.Event()
    for _ in range(int(timeout_s / 0.02)):
        if found():
            break
        step.wait(0.02)
    return found()
