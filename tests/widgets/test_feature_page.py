"""FeaturePage: what crosses of a feature, a text that is typed, and the ways to other features."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import innerview as iv
from innerview.features.view import Label
from innerview.widgets import wire
from innerview.widgets.newest import Newest
from tests.dictionaries.made import dictionary
from tests.widgets.feature_views import TEXTS, dashboard, sae, view, written

GOLDEN = Path(__file__).parent.parent / "wire/feature_view.json"


@pytest.fixture(scope="module")
def own(model: iv.Model) -> iv.Dictionary:
    return sae()


@pytest.fixture(scope="module")
def board(model: iv.Model, own: iv.Dictionary) -> Any:
    return dashboard(model, own, {3: "threes"})


def test_what_crosses_of_a_view_is_the_golden_file() -> None:
    assert written(iv.FeaturePage(view()).view) == json.loads(GOLDEN.read_text("utf-8"))


def test_examples_come_apart_again_at_their_ends() -> None:
    examples = iv.FeaturePage(view()).view["examples"]
    ends = wire.unpack(examples["ends"]).tolist()
    assert ends == [3, 5, 6]
    assert examples["words"][ends[0] : ends[1]] == ["<b>x</b>", " week"]
    effects = wire.unpack(examples["effects"])
    assert np.isnan(effects[3:5]).all() and effects[5] == 0.125
    assert wire.unpack(examples["stretch"]).tolist() == [0, 1, 1]


def test_a_view_without_effects_sends_none() -> None:
    bare = view(stretches=(), quantiles={}, label=None)
    crossed = iv.FeaturePage(bare).view
    assert crossed["examples"]["effects"] is None and crossed["examples"]["words"] == []
    assert crossed["label"] is None


def test_typed_text_is_read_as_the_dictionary_encodes_it(model: iv.Model, own: iv.Dictionary, board: Any) -> None:
    page = iv.FeaturePage(board, 5)
    values = page.read("four two")
    acts = iv.capture(model, "four two", own.site)
    dense = own.encode_dense(acts[own.site])[0, :, 5]
    assert np.allclose(values, dense, atol=1e-5)
    assert page.own["words"] == list("four two")
    assert page.typed == page.own["text"] == "four two"


def test_typing_lights_the_newest_text_and_going_on_reads_it_again(board: Any) -> None:
    page = iv.FeaturePage(board, 5)
    for text in ("o", "on", "one"):
        page.set_state({"typed": text})
    page.wait()
    assert (page.own["text"], page.own["feature"]) == ("one", 5)
    page.show_feature(6)
    page.wait()
    assert (page.own["text"], page.own["feature"]) == ("one", 6)
    assert page.view["feature"] == page.feature == 6
    assert page.opened == 1
    page.set_state({"typed": "  "})
    page.wait()
    assert page.own is None


def test_a_text_that_cannot_be_read_says_so_where_it_is_typed(board: Any) -> None:
    page = iv.FeaturePage(board, 5)
    page.set_state({"typed": "x" * 2000})
    page.wait()
    assert "2001" in page.own["error"] or "2000" in page.own["error"]
    assert page.status["state"] == "ready"


def test_of_many_jobs_the_newest_and_the_first_alone_are_run() -> None:
    gate, ran, newest = threading.Event(), list[int](), Newest("test")
    newest.put(lambda: (gate.wait(10), ran.append(0))[1])
    for i in range(1, 50):
        newest.put(lambda i=i: ran.append(i))
    assert newest.is_overtaken
    gate.set()
    assert newest.wait(10)
    assert ran == [0, 49]


def test_a_view_alone_cannot_go_on_and_says_what_can(listen: Callable, ask: Callable) -> None:
    page = iv.FeaturePage(view())
    comm = listen(page)
    assert page.view["live"] == {"read": False, "go": False, "steer": False, "effects": False}
    assert (
        "iv.dashboard(dictionary, model, texts)" in ask(page, comm, {"id": 1, "kind": "go", "feature": 3})[0]["error"]
    )
    assert "give it with dictionary=" in ask(page, comm, {"id": 2, "kind": "steer"})[0]["error"]


def test_what_is_lost_without_the_feature_is_measured_on_demand(board: Any, listen: Callable, ask: Callable) -> None:
    page = iv.FeaturePage(board, 5)
    assert page.view["examples"]["effects"] is None
    assert ask(page, listen(page), {"id": 1, "kind": "effects"})[0] == {"id": 1, "ok": {}}
    page.wait()
    expected = board.effects(5).stretches[0].examples[0].effects
    crossed = wire.unpack(page.view["examples"]["effects"])[: len(expected)]
    assert np.allclose(crossed, expected, equal_nan=True) and np.isfinite(crossed).any()
    assert page.status["state"] == "ready"


def test_what_has_no_page_is_refused(board: Any) -> None:
    with pytest.raises(iv.WidgetError, match="takes a feature's view or a dashboard, not DataFrame"):
        iv.FeaturePage(board.frame(), 3)
    with pytest.raises(iv.WidgetError, match=r"takes a feature's view or a dashboard, not list"):
        iv.FeaturePage([1, 2])
    with pytest.raises(iv.WidgetError, match=r"needs a feature's number"):
        iv.FeaturePage(board)
    with pytest.raises(iv.WidgetError, match=r"is of feature 17, not 3"):
        iv.FeaturePage(view(), 3)
    with pytest.raises(iv.WidgetError, match=r"no feature 99; the dictionary has 48"):
        iv.FeaturePage(board, 5).show_feature(99)


def test_a_view_shows_itself_and_its_table_and_text_name_what_matters(tmp_path: Path) -> None:
    page = view().widget()
    assert isinstance(page, iv.FeaturePage)
    table, said = page.html_table(), page.plain_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in table and "<b>x" not in table
    assert "[␣Monday]" in table and "+0.5" in table
    assert "Feature 17 · days of the week" in said and "␣Tuesday +1.5" in said
    text = page.to_html(tmp_path / "page.html").read_text("utf-8")
    assert "<title>Feature 17 · days of the week" in text


def test_no_character_of_a_label_turns_or_hides_what_stands_around_it() -> None:
    label = Label(17, "days \u202eof\x1b[31m the week")
    page = iv.FeaturePage(view(label=label))
    for told in (page.plain_text(), page.html_table()):
        assert "days ⟨U+202E⟩of␛[31m the week" in told and "\u202e" not in told and "\x1b" not in told


def test_the_direction_of_a_feature_has_its_median_as_step(board: Any, own: iv.Dictionary) -> None:
    page = iv.FeaturePage(board, 3)
    direction = page.direction()
    median = board[3].quantiles[0.5]
    assert direction.name == "feature 3 · threes"
    assert direction.scale == pytest.approx(median * float(own.weights.decoder[3].norm()))
    assert (direction.scale_kind, direction.scale_n) == ("median non-zero activation × ‖W_dec row‖", board[3].n_active)


@pytest.mark.parametrize("kind", ["constant", "constant, not undone", "layer_norm", "unit_norm"])
def test_the_step_of_a_normalised_dictionarys_feature_is_in_the_activations_own_units(
    model: iv.Model, kind: str
) -> None:
    own = dictionary("relu", kind, site="blocks.0.resid")
    board = dashboard(model, own)
    scales = []
    for text in TEXTS:
        x = iv.capture(model, text, "blocks.0.resid")["blocks.0.resid"][0].double()
        each = {"layer_norm": x.std(dim=1) + 1e-5, "unit_norm": x.norm(dim=1) / x.shape[1] ** 0.5}.get(kind)
        constant = 1 / 0.37 if kind == "constant" else 1.0
        scales.append(constant if each is None else float(each.median()))
    for feature in range(3):
        if board[feature].n_active:
            direction = iv.FeaturePage(board, feature).direction()
            step = board[feature].quantiles[0.5] * float(own.weights.decoder[feature].norm())
            assert step * min(scales) * 0.9 < direction.scale < step * max(scales) * 1.1
