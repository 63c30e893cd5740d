"""Panel: what is open, and edits that are switched, slid and taken off while the network stays itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.hooks import board_of


@pytest.fixture
def panel(model: iv.Model) -> Iterator[Any]:
    yield iv.panel()
    iv.detach(model)


def logits(model: iv.Model) -> torch.Tensor:
    with torch.no_grad():
        return model.module(torch.tensor([[0, 5, 6, 7]])).logits


def line(panel: Any, model: iv.Model) -> dict[str, Any]:
    panel.refresh()._writer.wait()
    key = panel._keys[model.module]
    return next(one for one in panel.seen["models"] if one["key"] == key)


@pytest.fixture
def seen(panel: Any, model: iv.Model) -> Callable[[], dict[str, Any]]:
    return lambda: line(panel, model)


def test_there_is_one_panel_and_it_lists_what_is_open(panel: Any, model: iv.Model, seen: Callable) -> None:
    assert iv.panel() is panel
    iv.attach(model, [iv.Scale(0.5, site="blocks.0.mlp.out")], name="half")
    found = seen()
    assert found["edits"] == [
        {"name": "half", "on": True, "edits": [{"label": "0.5 × at blocks.0.mlp.out", "slider": {"value": 0.5, "low": 0.0, "high": 2.0, "step": 0.025, "unit": "×"}}]}
    ]  # fmt: skip
    assert "half" in panel.plain_text() and "half" in panel.html_table()


def test_a_switch_a_slider_and_detach_all_do_what_they_say(
    panel: Any, model: iv.Model, direction: iv.Direction, seen: Callable, listen: Callable, ask: Callable
) -> None:
    plain = logits(model)
    handle = iv.attach(model, [iv.Add(direction, 1.0)], name="up")
    first = logits(model)
    key = seen()["key"]
    comm = listen(panel)
    at = {"model": key, "name": "up"}
    assert ask(panel, comm, {"id": 1, "kind": "switch", **at, "on": False})[0]["ok"] == {}
    assert torch.equal(logits(model), plain)
    assert ask(panel, comm, {"id": 2, "kind": "switch", **at, "on": True})[0]["ok"] == {}
    assert torch.equal(logits(model), first)
    assert ask(panel, comm, {"id": 3, "kind": "slide", **at, "edit": 0, "value": 3.0})[0]["ok"] == {}
    assert seen()["edits"][0]["edits"][0]["slider"]["value"] == 3.0
    moved = logits(model)
    iv.detach(model)
    with iv.editing(model, [iv.Add(direction, 3.0)]):
        assert torch.equal(logits(model), moved)
    iv.attach(model, [iv.Add(direction, 1.0)], name="one")
    iv.attach(model, [iv.ProjectOut(direction)], name="two")
    assert ask(panel, comm, {"id": 4, "kind": "detach_all"})[0]["ok"]["detached"] >= 2
    assert iv.attached(model) == [] and torch.equal(logits(model), plain)
    handle.detach()


def test_a_slider_keeps_the_users_own_handle_and_leaves_no_hook_behind(
    panel: Any, model: iv.Model, direction: iv.Direction, seen: Callable, listen: Callable, ask: Callable
) -> None:
    hooks = dict(board_of(model)._hooks)
    handle = iv.attach(model, [iv.Add(direction, 1.0)], name="up")
    key, comm = seen()["key"], listen(panel)
    for number in range(5):
        ask(panel, comm, {"id": number, "kind": "slide", "model": key, "name": "up", "edit": 0, "value": float(number)})
    (edit,) = handle.edits
    assert edit.coefficient == 4.0
    handle.detach()
    assert iv.attached(model) == [] and board_of(model)._hooks == hooks


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"kind": "switch", "name": "up", "on": 1}, "true or false"),
        ({"kind": "switch", "name": "down", "on": True}, "nothing named 'down' is attached"),
        ({"kind": "switch", "name": "up", "on": True, "model": 99}, "not open any more"),
        ({"kind": "slide", "name": "up", "edit": 0, "value": "2"}, "a number from"),
        ({"kind": "slide", "name": "up", "edit": 0, "value": float("nan")}, "a number from"),
        ({"kind": "slide", "name": "out", "edit": 0, "value": 1.0}, "has no slider"),
        ({"kind": "detach", "name": ["up"]}, "a text of at most"),
    ],
)
def test_what_cannot_be_done_is_refused(
    message: dict, error: str, panel: Any, model: iv.Model, direction: iv.Direction, seen: Callable, listen: Callable, ask: Callable
) -> None:  # fmt: skip
    iv.attach(model, [iv.Add(direction, 1.0)], name="up")
    iv.attach(model, [iv.ProjectOut(direction)], name="out")
    key, comm = seen()["key"], listen(panel)
    (answer,) = ask(panel, comm, {"id": 1, "model": key, **message})
    assert error in answer["error"]
    assert [(one.name, one.enabled) for one in iv.attached(model)] == [("up", True), ("out", True)]


def test_a_value_beyond_a_slider_is_clamped(
    panel: Any, model: iv.Model, direction: iv.Direction, seen: Callable, listen: Callable, ask: Callable
) -> None:
    handle = iv.attach(model, [iv.Add(direction, 1.0)], name="up")
    key, comm = seen()["key"], listen(panel)
    ask(panel, comm, {"id": 1, "kind": "slide", "model": key, "name": "up", "edit": 0, "value": 1e5})
    assert handle.edits[0].coefficient == 4.0


def test_edits_that_were_taken_off_cannot_be_put_in_place_of_others(model: iv.Model, direction: iv.Direction) -> None:
    handle = iv.attach(model, [iv.Add(direction, 1.0)], name="up")
    with pytest.raises(iv.EditError, match="the list of edits is empty"):
        handle.update(model, [])
    handle.detach()
    with pytest.raises(iv.EditError, match=r"'up' is not attached to .* any more"):
        handle.update(model, [iv.Add(direction, 2.0)])


def test_a_direction_that_was_found_is_listed_for_as_long_as_it_lives(
    panel: Any, model: iv.Model, seen: Callable
) -> None:
    found = iv.contrast(
        model, ["good one", "nice one"], ["bad one", "poor one"], site="blocks.0.resid", name="listed here"
    )
    seen()
    assert "listed here" in [one["name"] for one in panel.seen["directions"]]
    assert found.name == "listed here"
    del found
    seen()
    assert "listed here" not in [one["name"] for one in panel.seen["directions"]]
