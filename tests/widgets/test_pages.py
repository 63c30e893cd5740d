"""A set of widgets as one page: contents, prose, and each bundle once."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import innerview as iv


def test_a_page_lists_what_is_on_it_and_each_line_leads_there(tmp_path: Path, model: iv.Model) -> None:
    strip = iv.TokenStrip(["a"], [1.0])
    page = iv.page(["# First\nSome <words>.", strip, "# Second", iv.logit_lens(model, "A text")], "A & B")
    text = page.to_html(tmp_path / "report.html").read_text("utf-8")
    links = re.findall(r'<a href="#(part-\d+)">([^<]*)</a>', text)
    assert [words for _, words in links] == ["First", "Tokens", "Second", f"Logit lens · {model.name} · A text"]
    assert all(text.count(f'id="{anchor}"') == 1 for anchor, _ in links)
    assert "<h1>A &amp; B</h1>" in text and "<p>Some &lt;words&gt;.</p>" in text


def test_bundles_stand_once_and_the_page_stays_small(tmp_path: Path) -> None:
    strips = [iv.TokenStrip([f" word{i}" for i in range(200)], list(range(200))) for _ in range(50)]
    one = iv.page(strips[:1]).to_html(tmp_path / "one.html").stat().st_size
    many = iv.page(strips).to_html(tmp_path / "many.html").stat().st_size
    assert many < 2_000_000 and many - one < 50 * 25_000
    assert (tmp_path / "many.html").read_text("utf-8").count("<script>") == 2


def test_what_is_no_part_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(iv.WidgetError, match="no part of a page: int; give widgets"):
        iv.page([3])
    with pytest.raises(iv.WidgetError, match="the list is empty"):
        iv.page([])
    with pytest.raises(iv.WidgetError, match="a list of widgets, results and texts, not str"):
        iv.page("<script>")
    with pytest.raises(iv.WidgetError, match="title is a text, not 3"):
        iv.page(["x"], 3)  # type: ignore[arg-type]
    with pytest.raises(iv.WidgetError, match=r"is a folder; name a file in it, such as .*report.html"):
        iv.page(["x"]).to_html(tmp_path)


def test_the_same_widget_twice_stands_twice() -> None:
    strip = iv.TokenStrip(["a"], [1.0])
    assert iv.page([strip, strip]).html().count('class="iv-saved"') == 2
