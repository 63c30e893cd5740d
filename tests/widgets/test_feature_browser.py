"""FeatureBrowser: what a query finds, pages of rows, and a set that is selected."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import innerview as iv
from innerview.widgets import wire
from innerview.widgets.feature_table import Query
from tests.widgets.feature_views import dashboard, sae

N = 20_000


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "label": [f"Word {i}" if i % 3 else "" for i in range(N)],
            "density": random.random(N) ** 4,
            "max": np.where(np.arange(N) % 100 == 7, np.nan, random.random(N) * 9),
        }
    )


@pytest.fixture
def browser(frame: pd.DataFrame) -> iv.FeatureBrowser:
    return iv.FeatureBrowser(frame)


def query(**fields: Any) -> dict[str, Any]:
    return Query(**fields).to_dict()


def rows(answer: dict[str, Any], comm: Any) -> np.ndarray:
    buffers = next(m["buffers"] for m in comm.sent if m.get("content", {}).get("id") == answer["id"])
    packed = answer["ok"]["features"]
    return wire.unpack({**packed, "data": buffers[packed["buffer"]]})


@pytest.mark.parametrize("descending", [True, False])
def test_sorting_is_pandas_own_and_what_is_not_known_comes_last(
    browser: iv.FeatureBrowser, frame: pd.DataFrame, descending: bool
) -> None:
    browser.query = query(sort="max", descending=descending)
    largest = pd.Series(np.asarray(frame["max"], np.float32))
    expected = largest.sort_values(ascending=not descending, kind="stable").index
    assert browser.found().tolist() == expected.tolist()


def test_the_best_fit_comes_first_and_of_equals_what_fires_most() -> None:
    said = pd.DataFrame(
        {
            "label": ["on a Monday", "Mondays", "", "monday", "", "", ""],
            "fires_on": ["", "", " Tuesday · Monday", "", "Monday · Friday", "Monday · x", " xMonday"],
            "density": [0.9, 0.8, 0.7, 0.1, 0.2, 0.3, 0.9],
        }
    )
    browser = iv.FeatureBrowser(said)
    browser.query = query(sort="fit", text=" Monday")
    assert browser.found().tolist() == [3, 1, 0, 5, 4, 6, 2]
    browser.query = query(sort="fit", text="4")
    assert browser.found().tolist() == [4]


def test_a_search_finds_parts_of_labels_whatever_their_case_and_numbers(browser: iv.FeatureBrowser) -> None:
    browser.query = query(text="wORD 1999")
    assert browser.found().tolist() == [1999, *[i for i in range(19990, 20000) if i % 3]]
    browser.query = query(text="12,345")
    assert browser.found().tolist() == [12345]


def test_a_feature_without_a_label_is_known_and_found_by_what_it_fires_on(model: iv.Model) -> None:
    board = dashboard(model, labels={0: "zero"})
    browser = iv.FeatureBrowser(board)
    fires_on = board.frame(words=True)["fires_on"]
    browser.query = query(text=fires_on[3])
    assert 3 in browser.found()
    page = browser._table.rows(Query(), 0, 4)
    assert page["labels"][0] == "zero" and page["hints"][3] == fires_on[3]


def test_density_filters_on_both_sides(browser: iv.FeatureBrowser, frame: pd.DataFrame) -> None:
    browser.query = query(low=0.1, high=0.2)
    density = np.asarray(frame["density"], np.float32)
    assert browser.found().tolist() == np.flatnonzero((density >= 0.1) & (density <= 0.2)).tolist()


def test_a_page_of_rows_is_what_the_whole_order_says(
    browser: iv.FeatureBrowser, listen: Callable, ask: Callable
) -> None:
    comm = listen(browser)
    wanted = query(sort="density", descending=True, text="word")
    answer = ask(browser, comm, {"id": 1, "kind": "rows", "query": wanted, "start": 300, "count": 100})[0]
    browser.query = wanted
    assert rows(answer, comm).tolist() == browser.found()[300:400].tolist()
    assert answer["ok"]["total"] == len(browser.found())
    beyond = ask(browser, comm, {"id": 2, "kind": "rows", "query": wanted, "start": N, "count": 10**9})[0]
    assert beyond["ok"]["features"]["shape"] == [0]


def test_a_changed_query_sends_its_first_rows(browser: iv.FeatureBrowser) -> None:
    browser.set_state({"query": query(sort="max", descending=True)})
    browser.wait()
    assert browser.first["query"] == browser.query
    assert wire.unpack(browser.first["features"]).tolist() == browser.found()[:100].tolist()
    assert wire.unpack(browser.first["values"]).shape == (2, 100)


def test_a_set_is_selected_by_bytes_each_feature_once(browser: iv.FeatureBrowser) -> None:
    sent = np.array([5, 3, 3, -1, N, 7], np.int32)
    browser.set_state({"selected": {"data": memoryview(sent.tobytes()), "dtype": "int32", "shape": [6]}})
    assert browser.selection.tolist() == [3, 5, 7]
    for wrong in (
        {"data": b"abc", "dtype": "int32", "shape": [1]},
        {"dtype": "int32"},
        [1, 2],
        {"data": "x", "dtype": "int32"},
    ):
        browser.set_state({"selected": wrong})
        assert browser.selection.tolist() == [3, 5, 7]
    browser.selection = np.array([9, 2])
    assert browser.selection.tolist() == [2, 9]
    with pytest.raises(iv.WidgetError, match="features are 0 to 19999; received 1 to 20000"):
        browser.selection = np.array([1, 20000])


def test_all_that_a_query_finds_can_be_selected(browser: iv.FeatureBrowser, listen: Callable, ask: Callable) -> None:
    comm = listen(browser)
    answer = ask(browser, comm, {"id": 1, "kind": "select", "query": query(text="word 77")})[0]
    assert answer["ok"]["count"] == len(browser.selection) > 10
    assert all("77" in str(i) for i in browser.selection)


def test_features_are_compared_with_a_direction_and_with_one_another(model: iv.Model) -> None:
    own = sae()
    board = dashboard(model, own)
    vector = own.weights.decoder[11] + 0.1 * own.weights.decoder[4]
    browser = iv.FeatureBrowser(board, directions=iv.Direction.from_vector(vector, own.site, name="near 11"))
    cosines = torch.nn.functional.cosine_similarity(own.weights.decoder, vector[None])
    browser.query = query(sort="similarity", descending=True, direction=0, cosine=0.2)
    assert browser.found().tolist() == [i for i in cosines.argsort(descending=True).tolist() if cosines[i] >= 0.2]
    browser.query = query(sort="similarity", descending=True, feature=7)
    assert browser.found()[0] == 7
    browser.wait()
    assert wire.unpack(browser.first["values"]).shape[0] == len(browser.about["columns"]) + 1


def test_a_page_opens_beneath_where_no_other_is_open(model: iv.Model, listen: Callable, ask: Callable) -> None:
    browser = iv.FeatureBrowser(dashboard(model))
    comm = listen(browser)
    answer = ask(browser, comm, {"id": 1, "kind": "follow", "feature": 4})[0]
    browser.wait()
    assert answer["ok"] == {"feature": 4, "here": True}
    assert browser.view["feature"] == 4


def test_a_dashboard_shows_itself_as_its_browser(model: iv.Model, tmp_path: Path) -> None:
    browser = dashboard(model, labels=dict.fromkeys(range(48), "<script>two</script>")).widget()
    assert isinstance(browser, iv.FeatureBrowser)
    assert "&lt;script&gt;two" in browser.html_table() and "<script>" not in browser.html_table()
    assert "48 features" in browser.plain_text()
    assert (browser.to_html(tmp_path / "all.html")).stat().st_size < 200_000
    assert browser.saved().traits["first"]["total"] == 48


def test_what_is_no_table_is_refused(model: iv.Model) -> None:
    with pytest.raises(iv.WidgetError, match="takes a dashboard or a table of one row a feature, not int"):
        iv.FeatureBrowser(3)
    with pytest.raises(iv.WidgetError, match=r"column 'x' holds (str|object)"):
        iv.FeatureBrowser(pd.DataFrame({"x": ["a"]}))
    with pytest.raises(iv.WidgetError, match="is 8 wide, and the dictionary writes 32"):
        iv.FeatureBrowser(dashboard(model), directions=iv.Direction.from_vector(torch.ones(8), "blocks.0.resid"))
    with pytest.raises(iv.WidgetError, match="give it with dictionary="):
        iv.FeatureBrowser(
            pd.DataFrame({"x": [1.0]}), directions=iv.Direction.from_vector(torch.ones(8), "blocks.0.resid")
        )
