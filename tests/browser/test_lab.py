"""The tour in JupyterLab with a live kernel, as a person meets it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

pytestmark = pytest.mark.timeout(300)

NOTEBOOK = "01_first_light.ipynb"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady === true"
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code').map(cell => ({
  count: cell.model.executionCount,
  errors: cell.model.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
}))"""
IN_KERNEL = """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({code}).done
  .then(reply => reply.content.status)"""
# A user's own hook makes each forward slow enough that a person, or a test, can press stop in the middle.
SLOWLY = "import time; slow = model.module.register_forward_pre_hook(lambda *_: time.sleep(0.15))"


@pytest.fixture(scope="module")
def page(browser: Browser, lab: object) -> Iterator[Page]:
    """The tour, opened and run from top to bottom."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(lab.url(NOTEBOOK))  # type: ignore[attr-defined]
    page.wait_for_function(READY, timeout=60_000)
    run_all(page)
    yield page
    page.close()


def run_all(page: Page) -> list[dict]:
    """Runs every cell as the menu does; gives each code cell's count and errors."""
    command(page, "notebook:run-all-cells")
    page.wait_for_function(f"({CELLS})().every(cell => cell.count !== null)", timeout=120_000)
    return page.evaluate(CELLS)


def command(page: Page, name: str, **arguments: str) -> None:
    page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])


def in_kernel(page: Page, code: str) -> None:
    assert page.evaluate(IN_KERNEL, code) == "ok", code


def steer(page: Page) -> Locator:
    return page.locator("section.iv-steer").first


def column(page: Page, name: str) -> Locator:
    return steer(page).locator(f"[data-column={name}]")


def written(page: Page, name: str) -> str:
    """The words of a column, as one text."""
    return "".join(column(page, name).locator("[data-i]").all_text_contents()).replace("␣", " ")


def settle(page: Page) -> None:
    """Waits until both columns have come to their end."""
    for name in ("plain", "edited"):
        expect(column(page, name)).to_have_attribute("data-state", "done", timeout=30_000)


def slide(page: Page, value: float) -> str:
    """Moves the mood slider; gives the edited column's text once it is written."""
    slider = steer(page).get_by_label("good mood, in natural steps")
    slider.fill(str(value))
    steer(page).get_by_role("button", name="run", exact=True).click()
    page.wait_for_timeout(200)
    settle(page)
    return written(page, "edited")


def count(text: str, words: set[str]) -> int:
    return sum(word in words for word in re.findall(r"[a-z]+", text.lower()))


def test_every_cell_of_the_tour_runs_and_every_widget_is_drawn(page: Page) -> None:
    cells = page.evaluate(CELLS)
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell["errors"] for cell in cells if cell["errors"]]
    for name in ("lens", "strip", "steer"):
        expect(page.locator(f"section.iv-{name}").first).to_be_visible()
    assert page.locator(".iv-note-bad").count() == 0


def test_the_mood_slider_changes_the_words_of_the_edited_column_both_ways(
    page: Page, moods: dict[str, set[str]]
) -> None:
    settle(page)
    up, down = slide(page, 3), slide(page, -3)
    plain = written(page, "plain")
    assert up != down
    assert plain not in (up, down)
    assert count(up, moods["good"]) > count(up, moods["bad"])
    assert count(down, moods["bad"]) > count(down, moods["good"])


def run_until_a_few_words_stand(page: Page) -> None:
    """Presses run, and returns with the edited column begun and not ended."""
    steer(page).get_by_role("button", name="run", exact=True).click()
    expect(column(page, "edited")).to_have_attribute("data-state", "running")
    page.wait_for_function("document.querySelectorAll('section.iv-steer [data-column=edited] [data-i]').length > 8")


def test_a_slider_moved_while_it_writes_changes_what_comes_next(page: Page) -> None:
    up = slide(page, 3)
    in_kernel(page, SLOWLY)
    try:
        run_until_a_few_words_stand(page)
        kept = written(page, "edited")
        steer(page).get_by_label("good mood, in natural steps").fill("-3")
        settle(page)
    finally:
        in_kernel(page, "slow.remove()")
    whole = written(page, "edited")
    assert "moved while it wrote" in column(page, "edited").inner_text()
    assert whole != up
    assert whole[: len(kept) // 2] == up[: len(kept) // 2]


def test_stop_in_the_middle_keeps_the_text_that_was_written(page: Page) -> None:
    whole = slide(page, 2)
    in_kernel(page, SLOWLY)
    try:
        run_until_a_few_words_stand(page)
        steer(page).get_by_role("button", name="stop").click()
        expect(column(page, "edited")).to_have_attribute("data-state", "stopped", timeout=10_000)
    finally:
        in_kernel(page, "slow.remove()")
    kept = written(page, "edited")
    assert kept
    assert len(kept) < len(whole)
    assert whole.startswith(kept)
    page.wait_for_timeout(500)
    assert written(page, "edited") == kept


@pytest.mark.parametrize(("scheme", "theme"), [("light", "JupyterLab Light"), ("dark", "JupyterLab Dark")])
@pytest.mark.parametrize(("size", "width"), [("narrow", 760), ("wide", 1400)])
def test_it_is_drawn_light_and_dark_narrow_and_wide(
    page: Page, screens: Path, scheme: str, theme: str, size: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    command(page, "apputils:change-theme", theme=theme)
    light = "true" if scheme == "light" else "false"
    page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
    for name in ("lens", "strip", "steer"):
        section = page.locator(f"section.iv-{name}").first
        section.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        page.screenshot(path=screens / f"lab_{name}_{scheme}_{size}.png")
        assert ("iv-dark" in (section.get_attribute("class") or "")) == (scheme == "dark")
    page.set_viewport_size({"width": 1400, "height": 1000})
    command(page, "apputils:change-theme", theme="JupyterLab Light")


def test_after_a_restart_everything_runs_again(page: Page) -> None:
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()")
    page.wait_for_function("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.status === 'idle'")
    command(page, "notebook:clear-all-cell-outputs")
    cells = run_all(page)
    assert [cell["count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not [cell["errors"] for cell in cells if cell["errors"]]
    settle(page)
    assert written(page, "edited")
