"""Panel: what is open, and edits that are switched, slid and taken off while the network stays itself."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.hooks import board_of
from innerview.opened import opened


@pytest.fixture
def panel(model: iv.Model) -> Iterator[Any]:
    yield iv.panel()
    iv.detach(model)


def small_dictionary() -> iv.Dictionary:
    rows = torch.nn.functional.normalize(torch.randn(12, 32, generator=torch.Generator().manual_seed(1)), dim=1)
    weights = iv.Weights(rows.clone(), torch.zeros(12), rows.clone(), torch.zeros(32))
    said = iv.Manifest(False, iv.Normalisation(), site="blocks.0.resid", model="the panel's", source="rows")
    return iv.Dictionary(weights, iv.TopK(3), said)


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
    panel: Any, model: iv.Model, seen: Callable, until: Callable
) -> None:
    def names() -> list[str]:
        seen()
        return [one["name"] for one in panel.seen["directions"]]

    found = iv.contrast(
        model, ["good one", "nice one"], ["bad one", "poor one"], site="blocks.0.resid", name="listed here"
    )
    assert "listed here" in names()
    assert found.name == "listed here"
    del found
    # Whoever was just told of it may hold it a moment longer.
    assert until(lambda: "listed here" not in names())


def test_a_dictionary_that_was_just_trained_is_listed_once_for_as_long_as_it_lives(
    panel: Any, model: iv.Model, seen: Callable, until: Callable
) -> None:
    def listed() -> list[str]:
        seen()
        return [one["said"] for one in panel.seen["dictionaries"] if one["said"].startswith("37 features")]

    spec = iv.DictionarySpec("blocks.0.resid", iv.TopK(4), n_features=37)
    settings = iv.TrainingSettings(n_tokens=200, batch_tokens=50, buffer_tokens=100)
    trained = iv.train_dictionaries(model, [spec], texts=[[0, 5, 6, 7, 8, 9]] * 60, settings=settings, progress=False)
    measured = trained.dictionaries[0].measured(torch.randn(40, 32))
    assert len(listed()) == 1 and "TopK" in listed()[0]
    del trained, measured
    gc.collect()
    # The panel's own thread may hold it for the moment in which it looks.
    assert until(lambda: listed() == [])


def test_dashboards_are_listed_with_their_named_features_which_open_their_pages(
    panel: Any, model: iv.Model, seen: Callable, listen: Callable, ask: Callable, until: Callable
) -> None:
    sae = small_dictionary()
    board = iv.dashboard(sae, model, [[0, 5, 6, 7, 8, 9]], progress=False)
    named = board.with_labels({3: "three", 1: "one"})
    seen()
    (line,) = [one for one in panel.seen["dashboards"] if one["name"].startswith("the panel's")]
    assert line["said"].endswith("2 named") and [one["text"] for one in line["named"]] == ["one", "three"]
    assert "2 named" in panel.plain_text()
    comm = listen(panel)
    page = iv.FeaturePage(named, 1)
    listen(page)
    open_three = {"id": 1, "kind": "open", "dashboard": line["key"], "feature": 3}
    assert ask(panel, comm, open_three)[0]["ok"] == {"feature": 3}
    page._writer.wait()
    assert until(lambda: page.view is not None and page.view["feature"] == 3)
    page.close()
    assert "no page of this dictionary is open" in ask(panel, comm, open_three | {"id": 2})[0]["error"]
    assert "is gone" in ask(panel, comm, open_three | {"id": 3, "dashboard": 2**30})[0]["error"]


def test_a_features_direction_and_a_named_one_are_listed_once_each(panel: Any, model: iv.Model, seen: Callable) -> None:
    sae = small_dictionary()
    held = [sae.direction(5), sae.direction(5), sae.direction(5).named("Mondays, perhaps")]
    seen()
    names = [one["name"] for one in panel.seen["directions"]]
    assert names.count("feature 5") == 1 and names.count("Mondays, perhaps") == 1
    assert len(held) == 3


def test_the_panel_is_told_and_never_asks(
    model: iv.Model, direction: iv.Direction, until: Callable, listen: Callable
) -> None:
    made = iv.Panel()
    listen(made)

    def names() -> list[str]:
        return [edit["name"] for line in made.seen["models"] for edit in line["edits"]]

    try:
        handle = iv.attach(model, [iv.Add(direction, 1.0)], name="told of this")
        assert until(lambda: "told of this" in names())
        handle.enabled = False
        assert until(
            lambda: not next(e["on"] for m in made.seen["models"] for e in m["edits"] if e["name"] == "told of this")
        )
        handle.detach()
        assert until(lambda: "told of this" not in names())
        found = iv.Direction.from_vector(torch.ones(32), "blocks.0.resid", name="told of that")
        assert until(lambda: "told of that" in [one["name"] for one in made.seen["directions"]])
        del found
        gc.collect()
        assert until(lambda: "told of that" not in [one["name"] for one in made.seen["directions"]])
        run = iv.generate(model, [[0, 5, 6]], max_new_tokens=3)
        run.wait()
        assert until(lambda: made.seen["runs"] == [])
    finally:
        made.close()


def test_a_panel_that_was_closed_leaves_no_thread_and_no_watcher(until: Callable) -> None:
    watching, threads = len(opened._watchers), threading.active_count()
    made = iv.Panel()
    assert len(opened._watchers) == watching + 1
    made.close()
    assert len(opened._watchers) == watching
    assert until(lambda: threading.active_count() <= threads)
