"""Pages without a kernel: what stands in them, what their policy allows, and what becomes of a notebook's saved state."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

import innerview as iv
from innerview.widgets import static_page, wire
from innerview.widgets.static_page import Html, Saved

EVIL = "</script><script>alert(1)</script><!--<script>\u2028&"


def strip(word: str = "a") -> Saved:
    return iv.TokenStrip([word], [1.0]).saved()


def saved_in(page: str) -> list[dict[str, Any]]:
    found = re.findall(r'<script type="application/json" id="saved-\d+">(.*?)</script>', page, re.DOTALL)
    return [json.loads(text) for text in found]


def test_a_page_names_the_hash_of_each_script_and_allows_nothing_else() -> None:
    page = static_page.page("A page", [strip()])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    styles = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert len(scripts) == 2 and len(styles) == 1
    rules = dict(rule.strip().split(" ", 1) for rule in policy[1].split(";"))
    hashes = [f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts]
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == " ".join(hashes)
    assert rules["style-src"].count("sha256") == 1
    assert "connect-src" not in rules and "unsafe" not in policy[1]


def test_a_page_fetches_nothing() -> None:
    page = static_page.page("A page", [strip(), Html("<p>prose</p>")])
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)
    assert not re.search(r"@import|url\(\s*['\"]?https?:|\bimport\(", page)


def test_a_bundle_stands_in_a_page_once_however_many_widgets_use_it() -> None:
    page = static_page.page("A page", [strip("a"), strip("b"), strip("c")])
    assert len(re.findall(r"<script>", page)) == 2
    assert [saved["traits"]["words"] for saved in saved_in(page)] == [["a"], ["b"], ["c"]]


def test_nothing_in_a_trait_or_a_title_can_leave_its_place() -> None:
    page = static_page.page(EVIL, [strip(EVIL)])
    assert "alert(1)</script>" not in page
    assert saved_in(page)[0]["traits"]["words"] == [EVIL]


def test_arrays_come_back_from_a_page_as_they_were() -> None:
    saved = saved_in(static_page.page("A page", [strip()]))[0]
    (buffer,) = saved["buffers"]
    assert buffer["path"] == ["values", "data"]
    packed = {**saved["traits"]["values"], "data": base64.b64decode(buffer["data"])}
    assert wire.unpack(packed).tolist() == [[1.0]]


def test_a_widget_writes_its_own_page_and_says_where(tmp_path: Path, model: iv.Model) -> None:
    path = iv.logit_lens(model, "A text").to_html(tmp_path / "lens.html")
    assert path == tmp_path / "lens.html"
    text = path.read_text("utf-8")
    assert "<title>Logit lens" in text
    assert "<table>" in text
    with pytest.raises(iv.WidgetError, match="no folder"):
        iv.TokenStrip(["a"], [1]).to_html(tmp_path / "missing/page.html")


def test_what_is_no_part_of_a_page_is_refused() -> None:
    with pytest.raises(iv.WidgetError, match="not str"):
        static_page.page("A page", ["<p>text</p>"])  # type: ignore[list-item]
    with pytest.raises(iv.WidgetError, match=r"no widget '\.\./host'"):
        static_page.page("A page", [Saved("../host", {})])


def test_without_the_built_front_end_the_command_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(static_page, "STATIC", tmp_path)
    static_page._read.cache_clear()
    try:
        with pytest.raises(iv.WidgetError, match="npm ci && npm run build"):
            iv.TokenStrip(["a"], [1.0])
    finally:
        static_page._read.cache_clear()


def notebook_state() -> dict[str, Any]:
    """Widget state as nbclient saves it: our strip, a foreign slider, and a link of ours with itself."""
    data = wire.pack([[1.0, 2.0]], "float32")
    strip = {
        "_anywidget_id": "innerview.widgets.token_strip.TokenStrip",
        "_esm": "alert(1)",
        "layout": "IPY_MODEL_layout",
        "words": ["a", "b"],
        "labels": ["x"],
        "ids": [],
        "about": {"unit": "", "what": "", "starts": []},
        "series": 0,
        "status": {"state": "ready", "message": ""},
        "values": {"dtype": "float32", "shape": [1, 2]},
    }
    buffers = [
        {"encoding": "base64", "path": ["values", "data"], "data": base64.b64encode(data["data"]).decode()},
        {"encoding": "base64", "path": ["gone", "data"], "data": "AAAA"},
    ]
    link = {"source": ["IPY_MODEL_one", "series"], "target": ["IPY_MODEL_two", "series"]}
    return {
        "version_major": 2,
        "state": {
            "one": {"model_name": "AnyModel", "model_module": "anywidget", "state": strip, "buffers": buffers},
            "two": {"model_name": "AnyModel", "model_module": "anywidget", "state": dict(strip)},
            "link": {"model_name": "LinkModel", "model_module": "@jupyter-widgets/controls", "state": link},
            "foreign": {"model_name": "IntSliderModel", "model_module": "@jupyter-widgets/controls", "state": {}},
            "other": {"model_name": "AnyModel", "state": {"_anywidget_id": "evil.widgets.token_strip.TokenStrip"}},
            "unknown": {"model_name": "AnyModel", "state": {"_anywidget_id": "innerview.widgets.host.Host"}},
        },
    }


def test_the_saved_state_of_a_notebook_becomes_parts_of_a_page() -> None:
    parts = static_page.parts_from_widget_state(notebook_state())
    assert set(parts) == {"one", "two"}
    one = parts["one"]
    assert one.widget == "token_strip"
    assert wire.unpack(one.traits["values"]).tolist() == [[1.0, 2.0]]
    assert "_esm" not in one.traits and "layout" not in one.traits and "gone" not in one.traits
    assert one.links == {"series": "link"} == parts["two"].links
    assert "alert(1)" not in static_page.page("A page", list(parts.values()))


def test_a_notebook_without_widgets_has_no_parts() -> None:
    assert static_page.parts_from_widget_state({}) == {}
    whole = {static_page.STATE_MIME: notebook_state()}
    assert set(static_page.parts_from_widget_state(whole)) == {"one", "two"}


def test_half_a_character_does_not_keep_a_page_from_being_written(tmp_path: Path) -> None:
    page = static_page.page("a\ud800", [Html("<p>\udfff</p>"), Saved("token_strip", {"words": ["\ud800"]})])
    (tmp_path / "page.html").write_text(page, "utf-8")
    assert "<title>a&#55296;</title>" in page and "<p>&#57343;</p>" in page
