"""What holds for each widget: a small bundle, a table and a line beside it, a page of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

import innerview as iv
from innerview.widgets import static_page
from tests.widgets.made import MADE
from tests.widgets.worlds import world

LIMIT = 100_000


def test_each_bundle_is_small_and_each_widget_has_one(root: Path) -> None:
    sources = {path.stem for path in (root / "js/widgets").glob("*.tsx")}
    assert set(static_page.BUNDLES) == sources
    for name in static_page.BUNDLES:
        for kind in ("js", "css", "page.js"):
            size = len(static_page.built(f"{name}.{kind}").encode())
            assert 0 < size <= LIMIT, f"{name}.{kind} has {size} bytes"


def test_every_widget_is_in_the_table_of_the_tests() -> None:
    assert set(MADE) == set(static_page.BUNDLES)


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_table_and_a_line_stand_beside_it(name: str, tmp_path: Path) -> None:
    widget = MADE[name](world(tmp_path))
    shown = widget._repr_mimebundle_()
    bundle = shown[0] if isinstance(shown, tuple) else shown
    assert bundle["text/html"].startswith("<table") and bundle["text/html"].count("<tr>") >= 1
    assert bundle["text/plain"].strip() and "<" not in bundle["text/plain"].split("\n")[0].replace("<s>", "")
    widget.close()


def test_all_of_them_make_one_small_page(tmp_path: Path) -> None:
    widgets = [make(world(tmp_path)) for make in MADE.values()]
    page = iv.page(["# Everything", *widgets]).to_html(tmp_path / "all.html")
    assert page.stat().st_size < 1_500_000
    text = page.read_text("utf-8")
    assert text.count('class="iv-saved"') == len(MADE) and text.count("<script>") == len(MADE) + 1
