"""What watches for hostile texts sees them: a payload that runs, asks, or becomes an element fails the row."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.browser.hostile_rows import opened
from tests.widgets.hostile_texts import TAGS, texts


@pytest.mark.parametrize(
    ("markup", "caught"),
    [
        ("<img src=data:, onerror=document.pwned=1>", "a payload ran"),
        ("<script>document.pwned=1</script>", "a payload ran"),
        ("<main><img src=data:,></main>", "became an element"),
        ("<table><tr><td><link rel=stylesheet></table>", "became an element"),
        ("<p style='background:url(http://evil.invalid/x)'>x</p>", "asked for http://evil.invalid/x"),
        ("<script>console.log(1)</script>", "log: 1"),
    ],
)
def test_the_watch_catches_what_succeeds(browser: Browser, tmp_path: Path, markup: str, caught: str) -> None:
    path = tmp_path / "page.html"
    path.write_text(f"<!doctype html><meta charset=utf-8><title>x</title>{markup}", "utf-8")
    with pytest.raises(AssertionError, match=caught), opened(browser, path, "it"):
        pass


def test_the_texts_are_five_hundred_and_of_every_kind() -> None:
    found = texts(500)
    assert len(found) == 500 and len(set(found)) > 450
    # Five long ones stand where others would.
    assert len(set(TAGS) - set(found)) <= 5
    assert sum(len(one) >= 100_000 for one in found) == 5
    joined = "".join(found)
    for part in ("\u202e", "\x1b[", "\ud800", "👨‍👩‍👧‍👦", "\x00", "\u0645", "<!--<script>", "onerror", "</script>"):
        assert part in joined
