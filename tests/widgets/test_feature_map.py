"""FeatureMap: places, columns to colour by, and a set drawn round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import innerview as iv
from innerview.widgets import feature_map, links, wire
from tests.widgets.feature_views import dashboard, sae


def test_features_lie_where_the_layout_puts_their_rows(model: iv.Model) -> None:
    own = sae()
    shown = iv.FeatureMap(dashboard(model, own))
    assert wire.unpack(shown.points).tolist() == iv.PCALayout().points(own.weights.decoder).tolist()
    assert "PCA of decoder directions" in shown.plain_text() and "48 features" in shown.plain_text()
    layout = iv.NeighbourLayout(neighbours=5, epochs=5)
    assert "5 neighbours" in iv.FeatureMap(dashboard(model, own), layout=layout).about["how"]


def test_columns_cross_whole_and_large_ones_when_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, listen: Callable, ask: Callable
) -> None:
    frame = pd.DataFrame({"label": ["x"] * 50, "density": np.linspace(0, 1, 50), "max": np.arange(50.0)})
    points = np.zeros((50, 2))
    small = iv.FeatureMap(frame, points=points)
    assert list(small.columns) == ["density", "max"] and small.labels == ["x"] * 50
    monkeypatch.setattr(feature_map, "COLUMN_BYTES", 300)
    monkeypatch.setattr(feature_map, "LABEL_BYTES", 10)
    large = iv.FeatureMap(frame, points=points)
    assert list(large.columns) == ["density"] and large.labels == []
    comm = listen(large)
    answer = ask(large, comm, {"id": 1, "kind": "column", "name": "max"})[0]
    packed = answer["ok"]["values"]
    buffer = next(m["buffers"] for m in comm.sent if m.get("content", {}).get("id") == 1)[packed["buffer"]]
    assert wire.unpack({**packed, "data": buffer}).tolist() == list(range(50))
    assert ask(large, comm, {"id": 2, "kind": "say", "feature": 7})[0]["ok"] == {"feature": 7, "label": "x"}


def test_a_point_opens_the_page_of_its_feature(model: iv.Model, listen: Callable, ask: Callable) -> None:
    board = dashboard(model)
    page, shown = iv.FeaturePage(board, 1), iv.FeatureMap(board)
    assert links.sharing("show_feature", model, links.key_of(board.dictionary)) == [page]
    assert ask(shown, listen(shown), {"id": 1, "kind": "follow", "feature": 6})[0]["ok"] == {"feature": 6}
    page.wait()
    assert page.feature == 6


def test_a_set_drawn_round_comes_as_bytes(model: iv.Model) -> None:
    shown = iv.FeatureMap(dashboard(model))
    sent = np.array([4, 2, 99], np.int32)
    shown.set_state({"selected": {"data": memoryview(sent.tobytes()), "dtype": "int32", "shape": [3]}})
    assert shown.selection.tolist() == [2, 4]


def test_it_is_saved_and_its_table_says_where_features_lie(model: iv.Model, tmp_path: Path) -> None:
    shown = iv.FeatureMap(dashboard(model, labels=dict.fromkeys(range(48), "<i>")))
    assert "<th>x</th><th>y</th>" in shown.html_table() and "&lt;i&gt;" in shown.html_table()
    assert "data-iv-saved" in shown.to_html(tmp_path / "map.html").read_text("utf-8")


def test_what_has_no_place_is_refused(model: iv.Model) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0]})
    with pytest.raises(iv.WidgetError, match=r"give it with dictionary=, or give points="):
        iv.FeatureMap(frame)
    with pytest.raises(iv.WidgetError, match=r"the table has 2 rows, and the dictionary 48 features"):
        iv.FeatureMap(frame, dictionary=sae())
    with pytest.raises(iv.WidgetError, match=r"points have shape \[2, 2\], not \[2, 3\]"):
        iv.FeatureMap(frame, points=np.zeros((2, 3)))
    with pytest.raises(iv.WidgetError, match=r"points are numbers of shape \[2, 2\], not 'ab'"):
        iv.FeatureMap(frame, points="ab")
    with pytest.raises(iv.WidgetError, match="FeatureMap takes a dashboard or a table"):
        iv.FeatureMap(3)
