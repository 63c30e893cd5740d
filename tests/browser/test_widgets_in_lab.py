"""The widgets of results in JupyterLab: driven with a live kernel, and what they say when it dies, restarts, or was never there."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.widget_cells import CELLS, TRAINING, write_notebook

pytestmark = pytest.mark.timeout(300)

NOTEBOOK = "widgets.ipynb"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady === true"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
COUNTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code').map(cell => ({
  count: cell.model.executionCount,
  errors: cell.model.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
}))"""
OF_KERNEL = f"""code => {KERNEL}.requestExecute({{
  code: '', silent: true, user_expressions: {{found: code}}}}).done.then(reply => reply.content.user_expressions.found)"""
SILENT = "no answer from the kernel"


@pytest.fixture(scope="module")
def page(browser: Browser, lab: Any) -> Iterator[Page]:
    """The notebook, opened and run from top to bottom."""
    write_notebook(lab.folder / NOTEBOOK)
    # Widgets are saved with the notebook, as whoever shares one with its pictures chooses.
    settings = lab.folder.parent / "settings/@jupyter-widgets/jupyterlab-manager/plugin.jupyterlab-settings"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text('{"saveState": true}')
    page = browser.new_page(viewport={"width": 1300, "height": 1000})
    page.goto(lab.url(NOTEBOOK))
    page.wait_for_function(READY, timeout=60_000)
    run_all(page)
    yield page
    page.close()


def run_all(page: Page) -> None:
    command(page, "notebook:run-all-cells")
    page.wait_for_function(f"({COUNTS})().every(cell => cell.count !== null)", timeout=120_000)


def command(page: Page, name: str, **arguments: Any) -> None:
    page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])


def told(page: Page, expression: str) -> Any:
    """A value of the kernel, as JSON."""
    found = page.evaluate(OF_KERNEL, f"__import__('json').dumps({expression})")
    assert found["status"] == "ok", found
    return json.loads(ast.literal_eval(found["data"]["text/plain"]))


def in_kernel(page: Page, code: str) -> None:
    assert (
        page.evaluate(f"code => {KERNEL}.requestExecute({{code}}).done.then(reply => reply.content.status)", code)
        == "ok"
    ), code


def widget(page: Page, name: str) -> Locator:
    return page.locator(f"section.iv-{name}").first


def test_every_widget_is_drawn_without_an_error(page: Page) -> None:
    assert not [one["errors"] for one in page.evaluate(COUNTS) if one["errors"]]
    for name in CELLS:
        expect(widget(page, name)).to_be_visible()
    assert page.locator(".iv-note-bad").count() == 0


def test_a_clicked_cell_is_run_again_and_both_answers_are_read(page: Page) -> None:
    # The panel's cell, further down, attached an edit since the grid was measured.
    in_kernel(page, "handle.enabled = False")
    grid = widget(page, "patch")
    grid.locator('[data-at="2,4"]').click()
    answers = grid.locator(".iv-answers section")
    expect(answers).to_have_count(3, timeout=20_000)
    first = [one.locator("li").first.inner_text() for one in answers.all()]
    assert "Paris" in first[0] and "Paris" in first[1] and "Tokyo" in first[2]
    assert grid.locator("[role=alert]").count() == 0
    in_kernel(page, "handle.enabled = True")


def test_a_cell_read_while_an_edit_is_attached_says_that_it_is_stale(page: Page) -> None:
    grid = widget(page, "patch")
    assert told(page, "[one.name for one in iv.attached(model)]") == ["good mood"]
    in_kernel(page, "handle.update(model, [iv.Add(mood, 3.0)])")
    grid.locator('[data-at="5,5"]').click()
    expect(grid.locator("[role=alert]")).to_contain_text("stale", timeout=20_000)
    expect(grid.locator("[role=alert]")).to_contain_text("attached now: good mood; then: nothing")
    in_kernel(page, "handle.update(model, [iv.Add(mood, 1.0)])")


def test_a_head_and_a_token_are_pinned_in_the_kernel_too(page: Page) -> None:
    shown = widget(page, "attention")
    # Only the rows in sight stand in the document, the last head on top.
    shown.locator(".iv-grid-box").hover()
    page.mouse.wheel(0, 350)
    shown.locator('[data-at="40,4"]').click()
    shown.locator("[data-i='3']").click()
    page.wait_for_function("document.querySelector('section.iv-attention .iv-picked')?.dataset.i === '3'")
    assert told(page, "[attention.head, attention.token]") == [40, 3]
    expect(shown.locator(".iv-stretch")).to_contain_text("head 5.0, token 3")


def test_a_control_opens_its_plot_by_the_keyboard(page: Page) -> None:
    card = widget(page, "evidence")
    card.locator(".iv-open").first.focus()
    page.keyboard.press("Enter")
    expect(card.locator("svg.iv-compared")).to_be_visible()
    expect(card.locator(".iv-verdict")).to_contain_text(["holds", "flagged", "not run"])


def test_the_panel_switches_and_slides_the_edit_and_sees_what_python_does(page: Page) -> None:
    panel = widget(page, "panel")
    panel.get_by_role("switch").click()
    expect(panel.get_by_role("switch")).to_have_attribute("aria-checked", "false")
    assert told(page, "handle.enabled") is False
    panel.get_by_role("switch").click()
    panel.locator("input[type=range]").fill("2.5")
    expect(panel.locator(".iv-panel-strength .iv-num")).to_contain_text("+2.50 steps")
    page.wait_for_timeout(500)
    assert told(page, "[handle.enabled, handle.edits[0].coefficient]") == [True, 2.5]
    in_kernel(page, "iv.attach(model, [iv.ProjectOut(mood)], name='no mood')")
    expect(panel.get_by_role("switch")).to_have_count(2, timeout=10_000)
    in_kernel(
        page,
        "board = iv.dashboard(iv.load_dictionary('pocket', site='blocks.3.resid'), model).with_labels({17: 'seventeen'})",
    )
    expect(panel.get_by_role("button", name="17 seventeen")).to_be_visible(timeout=10_000)
    panel.get_by_role("button", name="17 seventeen").click()
    expect(panel.get_by_role("alert")).to_contain_text("no page of this dictionary is open")
    panel.get_by_role("button", name="detach all").click()
    expect(panel.get_by_role("switch")).to_have_count(0, timeout=10_000)
    assert told(page, "[one.name for one in iv.attached(model)]") == []


def test_keys_pressed_on_a_control_are_its_own_and_no_command_of_the_notebook(page: Page) -> None:
    in_kernel(page, "handle = iv.attach(model, [iv.Add(mood, 1.0)], name='good mood')")
    panel, shown = widget(page, "panel"), widget(page, "attention")
    slider = panel.locator("input[type=range]")
    expect(slider).to_be_visible(timeout=10_000)
    page.evaluate("window.jupyterapp.commands.execute('notebook:enter-command-mode')")
    cells = page.locator(".jp-CodeCell").count()
    for control in (
        slider,
        panel.get_by_role("switch"),
        shown.get_by_role("combobox"),
        shown.locator("[data-at][tabindex='0']"),
    ):
        control.focus()
        for key in ("b", "a", "m", "ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
            expect(control).to_be_focused()
    assert page.locator(".jp-Cell").count() == cells
    in_kernel(page, "iv.detach(model)")


def test_a_training_is_watched_and_stopped(page: Page) -> None:
    shown = widget(page, "training")
    expect(shown).to_contain_text("no training has begun")
    in_kernel(page, TRAINING)
    expect(shown.locator("[role=status]")).to_contain_text("running", timeout=30_000)
    expect(shown.locator("figure")).to_have_count(4)
    expect(shown.locator(".iv-train-example").first).to_be_visible(timeout=30_000)
    shown.get_by_role("button", name="stop").click()
    expect(shown.locator("[role=status]")).to_contain_text("stopped", timeout=30_000)
    in_kernel(page, "training.join()")
    assert told(page, "0 < trained[0].tokens < 10_000_000") is True


@pytest.mark.parametrize(("scheme", "theme"), [("light", "JupyterLab Light"), ("dark", "JupyterLab Dark")])
@pytest.mark.parametrize(("size", "width"), [("narrow", 760), ("wide", 1300)])
def test_they_are_drawn_light_and_dark_narrow_and_wide(
    page: Page, screens: Path, scheme: str, theme: str, size: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    command(page, "apputils:change-theme", theme=theme)
    page.wait_for_selector(f"body[data-jp-theme-light={'true' if scheme == 'light' else 'false'}]", state="attached")
    for name in CELLS:
        section = widget(page, name)
        section.scroll_into_view_if_needed()
        page.wait_for_timeout(150)
        section.screenshot(path=screens / f"lab_{name}_{scheme}_{size}.png")
        assert ("iv-dark" in (section.get_attribute("class") or "")) == (scheme == "dark")
    page.set_viewport_size({"width": 1300, "height": 1000})
    command(page, "apputils:change-theme", theme="JupyterLab Light")


def nothing_is_called_live(page: Page) -> None:
    """Each widget says that nobody answers, its numbers stand, and what needs a kernel cannot be pressed."""
    for name in CELLS:
        expect(widget(page, name).locator(".iv-foot")).to_contain_text(SILENT, timeout=30_000)
    expect(widget(page, "panel").locator("h3")).to_have_text("Was open in the kernel")
    assert widget(page, "panel").locator("button:not(:disabled), input:not(:disabled)").count() == 0
    training = widget(page, "training")
    assert training.locator("button:not(:disabled)").count() == 0
    assert "running ·" not in training.inner_text() and "in the next cell" not in training.inner_text()
    assert widget(page, "patch").locator("[data-at]").count() > 0


def test_a_connection_that_breaks_silences_the_widgets_and_one_that_is_back_revives_them(page: Page) -> None:
    page.evaluate(f"{KERNEL}._ws.close(4000)")
    for name in CELLS:
        expect(widget(page, name).locator(".iv-foot")).not_to_contain_text(SILENT, timeout=30_000)
    page.evaluate(f"{KERNEL}._updateConnectionStatus('disconnected')")
    nothing_is_called_live(page)
    page.evaluate(f"{KERNEL}._updateConnectionStatus('connected')")
    for name in CELLS:
        expect(widget(page, name).locator(".iv-foot")).not_to_contain_text(SILENT, timeout=30_000)
    expect(widget(page, "panel").locator("h3")).to_have_text("Open in this kernel", timeout=30_000)


def test_a_notebook_that_is_opened_again_shows_its_saved_widgets_and_calls_none_live(
    page: Page, browser: Browser, lab: Any, screens: Path
) -> None:
    widget(page, "patch").locator('[data-at="7,5"]').click()
    expect(widget(page, "patch").locator(".iv-answers section")).to_have_count(3, timeout=20_000)
    command(page, "docmanager:save")
    page.wait_for_function("!window.jupyterapp.shell.currentWidget.context.model.dirty")
    saved = json.loads((lab.folder / NOTEBOOK).read_text("utf-8"))
    assert len(saved["metadata"]["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]) >= len(CELLS)
    (lab.folder / "again.ipynb").write_text(json.dumps(saved), "utf-8")
    again = browser.new_page(viewport={"width": 1300, "height": 1000})
    try:
        # A workspace of its own, or JupyterLab would open the live notebook beside it.
        again.goto(f"{lab.address}/lab/workspaces/again/tree/again.ipynb?token={lab.token}")
        again.wait_for_function(READY, timeout=60_000)
        again.locator("section.iv").first.wait_for(timeout=30_000)
        again.wait_for_timeout(2000)
        # JupyterLab's manager may call itself restored before it has read the notebook, and an output that asks in between is told
        # that there is no such widget, for good; read again from the disk, each finds its own.
        again.evaluate("window.jupyterapp.shell.currentWidget.context.revert()")
        nothing_is_called_live(again)
        again.screenshot(path=screens / "lab_opened_again.png")
        # It is read without a kernel, and a cell that was read keeps its answers.
        assert widget(again, "patch").locator(".iv-answers section").count() == 3
        assert widget(again, "evidence").locator(".iv-verdict").count() == 3
    finally:
        again.close()


def test_a_kernel_that_dies_leaves_numbers_that_nobody_calls_live(page: Page) -> None:
    page.evaluate(f"() => {{ {KERNEL}.requestExecute({{code: 'import os; os._exit(1)'}}).done.catch(() => null); }}")
    nothing_is_called_live(page)


def test_after_a_restart_the_old_widgets_stay_silent_and_new_ones_live(page: Page) -> None:
    page.wait_for_function(f"{KERNEL}.status === 'idle'", timeout=60_000)
    nothing_is_called_live(page)
    run_all(page)
    expect(widget(page, "panel").locator("h3")).to_have_text("Open in this kernel", timeout=30_000)
    for name in CELLS:
        expect(widget(page, name).locator(".iv-foot")).not_to_contain_text(SILENT)
