"""Widgets that show one model and one dictionary find one another, and nothing else keeps them."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.widgets import links
from tests.widgets.feature_views import dashboard, sae


@pytest.fixture
def own() -> iv.Dictionary:
    return sae()


@pytest.fixture
def board(model: iv.Model, own: iv.Dictionary) -> Any:
    return dashboard(model, own, {3: "threes"})


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    """No widget of another test is linked."""
    kept, links._joined[:] = list(links._joined), []
    yield
    links._joined[:] = kept


@pytest.fixture
def steer(model: iv.Model, direction: iv.Direction) -> Iterator[iv.Steer]:
    made = iv.Steer(model, [direction], "A text", max_new_tokens=3).wait()
    yield made
    made.stop()
    made.wait()


def shown_in(answer: dict[str, Any], comm: Any, name: str = "features") -> list[float]:
    """The numbers of the first group of an answer."""
    buffers = next(m["buffers"] for m in comm.sent if m.get("content", {}).get("id") == answer["id"])
    packed = answer["ok"]["groups"][0]["features"][name]
    kind = {"int32": torch.int32, "float32": torch.float32}[packed["dtype"]]
    return torch.frombuffer(bytearray(buffers[packed["buffer"]]), dtype=kind).tolist()


def test_a_feature_clicked_in_a_browser_opens_in_the_page_of_the_same_dictionary(
    model: iv.Model, board: Any, listen: Callable, ask: Callable
) -> None:
    page, other = iv.FeaturePage(board, 1), iv.FeaturePage(dashboard(model, sae(seed=1)), 1)
    browser = iv.FeatureBrowser(board)
    answer = ask(browser, listen(browser), {"id": 1, "kind": "follow", "feature": 9})[0]
    page.wait()
    assert answer["ok"] == {"feature": 9, "here": False}
    assert (page.feature, page.opened, other.feature, browser.feature) == (9, 1, 1, None)


def test_a_dictionary_that_was_measured_is_still_the_same(model: iv.Model, own: iv.Dictionary) -> None:
    measured = own.measured(iv.capture(model, "some text", own.site))
    page = iv.FeaturePage(dashboard(model, measured), 1)
    assert links.open_feature(model, links.key_of(own), 4) is page


def test_a_set_that_is_selected_is_selected_in_every_view_of_the_same_features(model: iv.Model, board: Any) -> None:
    browser, shown, other = iv.FeatureBrowser(board), iv.FeatureMap(board), iv.FeatureMap(dashboard(model, sae(seed=1)))
    sent = np.array([5, 2], np.int32)
    shown.set_state({"selected": {"data": memoryview(sent.tobytes()), "dtype": "int32", "shape": [2]}})
    assert browser._writer.wait() and browser.selection.tolist() == [2, 5]
    browser.selection = [7]
    assert shown._writer.wait() and shown.selection.tolist() == [7]
    assert other.selection.tolist() == []


def test_what_was_read_from_files_is_linked_by_what_it_was_read_into(board: Any, tmp_path: Path) -> None:
    bare = iv.load_dashboard(board.save(tmp_path / "saved"))
    page, browser, other = iv.FeaturePage(bare, 1), iv.FeatureBrowser(bare), iv.FeaturePage(board, 1)
    assert browser.do_follow({"feature": 5}) == {"feature": 5, "here": False}
    page.wait()
    assert (page.feature, other.feature) == (5, 1)


def test_a_page_sends_its_feature_to_steer_as_a_row_of_one_step(
    board: Any, steer: iv.Steer, own: iv.Dictionary, listen: Callable, ask: Callable
) -> None:
    page = iv.FeaturePage(board, 3)
    answer = ask(page, listen(page), {"id": 1, "kind": "steer"})[0]
    steer._writer.wait()
    assert answer["ok"] == {"name": "feature 3 · threes"}
    assert [known["name"] for known in steer.setup["directions"]] == ["good mood", "feature 3 · threes"]
    (edit,) = steer.active_edits()
    assert isinstance(edit, iv.Add) and edit.coefficient == 1.0
    assert torch.allclose(
        edit.direction.vector, torch.nn.functional.normalize(own.weights.decoder[3], dim=0), atol=1e-6
    )
    page.send_to_steer()
    steer._writer.wait()
    assert len(steer.forms) == 2


def test_a_feature_that_steer_knows_and_holds_at_none_is_turned_on_by_one_step(
    board: Any, steer: iv.Steer, listen: Callable
) -> None:
    page = iv.FeaturePage(board, 3)
    listen(page)
    page.send_to_steer()
    steer._writer.wait()
    for coefficient, becomes in ((0.0, 1.0), (-2.5, -2.5)):
        sent = [form.to_dict() for form in steer.forms]
        sent[-1] |= {"coefficient": coefficient, "on": False}
        steer.edits = sent
        page.send_to_steer()
        steer._writer.wait()
        assert (steer.forms[-1].coefficient, steer.forms[-1].on) == (becomes, True)


def test_without_a_steer_the_page_says_how_to_open_one(board: Any) -> None:
    with pytest.raises(
        iv.WidgetError, match=r"no Steer of this model is open to take 'feature 3 · threes'; run iv.Steer"
    ):
        iv.FeaturePage(board, 3).send_to_steer()


def test_a_token_of_steer_names_its_features_and_opens_their_page(
    model: iv.Model, own: iv.Dictionary, board: Any, steer: iv.Steer, listen: Callable, ask: Callable
) -> None:
    page = iv.FeaturePage(board, 0)
    comm = listen(steer)
    answer = ask(steer, comm, {"id": 1, "kind": "features", "column": "plain", "index": 4})[0]
    run = steer._columns["plain"].run
    assert run is not None
    acts = iv.capture(model, [[*run.prompt_tokens[0], *run.tokens_so_far[0]]], own.site)
    dense = own.encode_dense(acts[own.site])[0, 4]
    expected = [i for i in dense.argsort(descending=True).tolist()[:12] if dense[i] > 0]
    assert shown_in(answer, comm) == expected
    assert ask(steer, comm, {"id": 2, "kind": "follow", "dictionary": 0, "feature": expected[0]})[0]["ok"]
    page.wait()
    assert page.feature == expected[0]


def test_a_lens_cell_names_the_features_that_wrote_its_word(
    model: iv.Model, own: iv.Dictionary, board: Any, listen: Callable, ask: Callable
) -> None:
    page = iv.FeaturePage(board, 0)
    lens = iv.logit_lens(model, "A text")
    widget = lens.widget()
    comm = listen(widget)
    answer = ask(widget, comm, {"id": 1, "kind": "features", "layer": 0, "pos": 3, "token": 9})[0]
    # Taking a feature's part out of the stream moves the word's logit by as much, the norm's size held still.
    stream = lens.residual[0, 3].double()
    codes = own.encode_dense(lens.residual[0, 3][None])[0].double()
    norm, head = model.module.model.norm.weight.double(), model.module.lm_head.weight[9].double()
    size = (stream.square().mean() + model.module.config.rms_norm_eps).sqrt()
    added = codes * ((own.weights.decoder.double() * norm / size) @ head)
    expected = [i for i in added.argsort(descending=True).tolist()[:12] if added[i] > 0]
    assert shown_in(answer, comm) == expected
    assert shown_in(answer, comm, "values") == pytest.approx(added.detach()[expected].tolist(), rel=1e-3)
    ask(widget, comm, {"id": 2, "kind": "follow", "dictionary": 0, "feature": expected[1]})
    page.wait()
    assert page.feature == expected[1]


def test_a_cell_below_the_dictionary_says_so(model: iv.Model, listen: Callable, ask: Callable) -> None:
    high = sae().at("blocks.1.resid")
    kept = iv.FeaturePage(dashboard(model, high), 0)
    widget = iv.LogitLens(model, "A text")
    answer = ask(widget, listen(widget), {"id": 1, "kind": "features", "layer": 0, "pos": 1})[0]
    assert "this cell is of layer 0, and the dictionary writes at blocks.1.resid" in answer["error"]
    assert kept.feature == 0


def test_without_a_dictionary_at_hand_a_token_says_what_opens_one(
    steer: iv.Steer, listen: Callable, ask: Callable
) -> None:
    answer = ask(steer, listen(steer), {"id": 1, "kind": "features", "column": "edited", "index": 0})[0]
    assert "iv.FeatureBrowser(dashboard)" in answer["error"]


def test_a_closed_widget_is_linked_no_more_and_nothing_is_held(model: iv.Model, board: Any, own: iv.Dictionary) -> None:
    page = iv.FeaturePage(board, 1)
    assert links.sharing("show_feature", model, links.key_of(own)) == [page]
    page.close()
    assert links.sharing("show_feature", model, links.key_of(own)) == []
    held = weakref.ref(own.weights)
    assert links.dictionaries_of(model) == []
    assert held() is not None
    gc.collect()
