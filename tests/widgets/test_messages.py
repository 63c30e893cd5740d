"""What the browser may ask and set, against the golden files; everything else is refused and breaks nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import innerview as iv
from tests.widgets.made import MADE, World

GOLDEN = Path(__file__).parent.parent / "wire"
MESSAGES = json.loads((GOLDEN / "messages.json").read_text("utf-8"))
MALFORMED = json.loads((GOLDEN / "malformed.json").read_text("utf-8"))
STATES = json.loads((GOLDEN / "states.json").read_text("utf-8"))
WIDGETS = tuple(MADE)


@pytest.fixture
def made(model: iv.Model, direction: iv.Direction, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """A widget by the name of its bundle."""
    widgets: list[Any] = []
    ids = model.tokenizer("A text", add_special_tokens=False)["input_ids"]
    world = World(model, direction, tmp_path, [0, *ids], ["a", "one", "two", "", "b"])

    def make(name: str) -> Any:
        widgets.append(MADE[name](world))
        return widgets[-1]

    yield make
    for widget in widgets:
        if isinstance(widget, iv.Steer):
            widget.stop()
            widget.wait()


def state_of(widget: Any) -> dict[str, Any]:
    return {name: getattr(widget, name) for name in widget.own_traits()}


@pytest.mark.parametrize(
    "case", MESSAGES, ids=lambda case: f"{case['widget']}-{case['ask']['kind']}-{case['ask']['id']}"
)
def test_each_request_has_one_answer(case: dict, made: Callable, listen: Callable, ask: Callable) -> None:
    widget = made(case["widget"])
    comm = listen(widget)
    answers = ask(widget, comm, case["ask"])
    assert len(answers) == 1
    answer = answers[0]
    if "error" in case:
        assert case["error"] in answer["error"]
        assert set(answer) == {"id", "error"}
    else:
        assert set(answer) == {"id", "ok"}
        assert set(answer["ok"]) == set(case["ok"])


@pytest.mark.parametrize("name", WIDGETS)
def test_what_is_no_request_is_dropped_and_the_widget_lives_on(
    name: str, made: Callable, listen: Callable, ask: Callable
) -> None:
    widget = made(name)
    comm = listen(widget)
    before = state_of(widget)
    for message in MALFORMED:
        widget._handle_custom_msg(message, [])
    assert ask(widget, comm, {"id": 4711, "kind": "hello"}) == [{"id": 4711, "ok": {}}]
    assert comm.answers == [{"id": 4711, "ok": {}}]
    assert state_of(widget) == before


@pytest.mark.parametrize("name", WIDGETS)
def test_every_verb_refuses_fields_of_the_wrong_kind_with_an_answer(
    name: str, made: Callable, listen: Callable, ask: Callable
) -> None:
    widget = made(name)
    comm = listen(widget)
    wrong: list[Any] = [None, [], {}, "x" * 100_000, -1e308, True, {"__class__": 1}]
    number = 0
    for verb in widget.verbs:
        if verb in ("run", "stop", "dose", "save"):
            continue
        for value in wrong:
            number += 1
            fields = dict.fromkeys(
                (
                    "token",
                    "layer",
                    "pos",
                    "which",
                    "text",
                    "edit",
                    "path",
                    "row",
                    "column",
                    "pair",
                    "page",
                    "feature",
                    "query",
                    "start",
                    "count",
                    "index",
                    "dictionary",
                ),
                value,
            )
            answers = ask(widget, comm, {"id": number, "kind": verb, **fields})
            assert len(answers) == 1 and ("error" in answers[0]) != ("ok" in answers[0])
    assert ask(widget, comm, {"id": 0, "kind": "hello"})


@pytest.mark.parametrize(("name", "state"), [(n, s) for n in WIDGETS for s in STATES[n]["taken"]], ids=str)
def test_a_state_that_is_allowed_is_taken(name: str, state: dict, made: Callable, listen: Callable) -> None:
    widget = made(name)
    listen(widget)
    widget.set_state(state)
    for trait, value in state.items():
        assert getattr(widget, trait) == value


@pytest.mark.parametrize(("name", "case"), [(n, s) for n in WIDGETS for s in STATES[n]["clamped"]], ids=str)
def test_a_state_out_of_range_is_clamped_and_told_back(
    name: str, case: dict, made: Callable, listen: Callable, until: Callable
) -> None:
    widget = made(name)
    comm = listen(widget)
    state = dict(case)
    becomes = state.pop("becomes")
    (trait,) = state
    widget.set_state(state)
    assert getattr(widget, trait) == becomes
    assert until(lambda: [m for m in comm.sent if m["method"] == "update" and m["state"].get(trait) == becomes])


@pytest.mark.parametrize(
    ("name", "state"), [(n, s) for n in WIDGETS for s in STATES[n]["refused"]], ids=lambda v: ascii(v)[:80]
)
def test_a_state_that_is_not_allowed_changes_nothing(name: str, state: dict, made: Callable, listen: Callable) -> None:
    widget = made(name)
    listen(widget)
    before, script = state_of(widget), widget._esm
    widget.set_state(state)
    assert state_of(widget) == before
    assert widget._esm == script


def test_a_recipe_goes_where_python_said_whatever_the_browser_says(
    made: Callable, listen: Callable, ask: Callable, tmp_path: Path
) -> None:
    widget = made("steer")
    comm = listen(widget)
    answers = ask(widget, comm, {"id": 1, "kind": "save", "path": str(tmp_path / "elsewhere")})
    assert answers[0]["ok"]["path"] == str(tmp_path / "recipe")
    assert (tmp_path / "recipe/recipe.json").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_no_widget_has_more_than_ten_traits_of_its_own(made: Callable) -> None:
    for name in WIDGETS:
        assert 0 < len(type(made(name)).own_traits()) <= 10
