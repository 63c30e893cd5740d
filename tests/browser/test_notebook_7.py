"""Three widgets in Notebook 7, driven with a live kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from scripts import browsing
from tests.browser.widget_cells import CELLS, SETTING, notebook

pytestmark = pytest.mark.timeout(300)

READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady === true"
COUNTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code').map(cell => ({
  count: cell.model.executionCount,
  errors: cell.model.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
}))"""
SHOWN = ("patch", "evidence", "panel")


@pytest.fixture(scope="module")
def page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A notebook with three widgets, run from top to bottom."""
    home = tmp_path_factory.mktemp("notebook")
    folder = home / "notebooks"
    folder.mkdir()
    (folder / "three.ipynb").write_text(notebook([SETTING.strip(), *(CELLS[name] for name in SHOWN)]), "utf-8")
    with browsing.jupyter(home, "notebook", OMP_NUM_THREADS="1") as served:
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.goto(f"{served.address}/notebooks/three.ipynb?token={served.token}")
        page.wait_for_function(READY, timeout=60_000)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(f"({COUNTS})().every(cell => cell.count !== null)", timeout=120_000)
        yield page
        page.close()


def widget(page: Page, name: str) -> Any:
    return page.locator(f"section.iv-{name}").first


def test_three_widgets_are_drawn_in_notebook_7(page: Page, screens: Path) -> None:
    assert not [one["errors"] for one in page.evaluate(COUNTS) if one["errors"]]
    for name in SHOWN:
        expect(widget(page, name)).to_be_visible(timeout=30_000)
    assert page.locator(".iv-note-bad").count() == 0
    page.screenshot(path=screens / "notebook_7.png")


def test_a_cell_is_run_again_in_notebook_7(page: Page) -> None:
    widget(page, "patch").locator('[data-at="2,4"]').click()
    expect(widget(page, "patch").locator(".iv-answers section")).to_have_count(3, timeout=20_000)


def test_a_plot_opens_in_notebook_7(page: Page) -> None:
    widget(page, "evidence").locator(".iv-open").first.click()
    expect(widget(page, "evidence").locator("svg.iv-compared")).to_be_visible()


def test_an_edit_is_switched_and_taken_off_in_notebook_7(page: Page) -> None:
    panel = widget(page, "panel")
    panel.get_by_role("switch").click()
    expect(panel.get_by_role("switch")).to_have_attribute("aria-checked", "false", timeout=10_000)
    panel.get_by_role("button", name="detach all").click()
    expect(panel.get_by_role("switch")).to_have_count(0, timeout=10_000)
