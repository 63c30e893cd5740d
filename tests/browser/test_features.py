"""The feature widgets in JupyterLab with a live kernel, and on a page from the disk with the network cut."""

from __future__ import annotations

import ast
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.feature_cells import CELLS, SETTING, write_notebook

pytestmark = pytest.mark.timeout(300)

NOTEBOOK = "features.ipynb"
READY = "window.jupyterapp?.shell.currentWidget?.sessionContext?.isReady === true"
COUNTS = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code').map(cell => ({
  count: cell.model.executionCount,
  errors: cell.model.outputs.toJSON().filter(output => output.output_type === 'error').map(output => output.evalue),
}))"""
OF_KERNEL = """code => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.requestExecute({
  code: '', silent: true, user_expressions: {found: code}}).done.then(reply => reply.content.user_expressions.found)"""


@pytest.fixture(scope="module")
def page(browser: Browser, lab: Any) -> Iterator[Page]:
    """The notebook, opened and run from top to bottom."""
    write_notebook(lab.folder / NOTEBOOK)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(lab.url(NOTEBOOK))
    page.wait_for_function(READY, timeout=60_000)
    command(page, "notebook:run-all-cells")
    page.wait_for_function(f"({COUNTS})().every(cell => cell.count !== null)", timeout=120_000)
    yield page
    page.close()


def command(page: Page, name: str, **arguments: str) -> None:
    page.evaluate("([name, args]) => window.jupyterapp.commands.execute(name, args)", [name, arguments])


def told(page: Page, expression: str) -> Any:
    """A value of the kernel, as JSON."""
    found = page.evaluate(OF_KERNEL, f"__import__('json').dumps({expression})")
    assert found["status"] == "ok", found
    # Jupyter gives the repr of a text.
    return json.loads(ast.literal_eval(found["data"]["text/plain"]))


def comes_to(page: Page, expression: str, value: Any, timeout_s: float = 10.0) -> bool:
    """Whether a value of the kernel comes to be another's within a while: the browser tells it 20 times a second at most."""
    end = time.monotonic() + timeout_s
    while told(page, expression) != value and time.monotonic() < end:
        page.wait_for_timeout(50)
    return told(page, expression) == value


def cell(page: Page, name: str) -> Locator:
    """The widget of one of `CELLS`."""
    nth = 1 + list(CELLS).index(name)
    return page.locator(".jp-CodeCell").nth(nth).locator("section.iv").first


def number(text: str) -> int:
    found = re.search(r"Feature ([\d,]+)", text)
    assert found is not None, text
    return int(found[1].replace(",", ""))


def shown(page: Page) -> int:
    """The feature on the page of features."""
    return number(cell(page, "page").locator("h3").inner_text())


def strip(where: Locator) -> str:
    return "".join(where.locator(".iv-own [data-i]").all_text_contents())


def test_every_widget_is_drawn_without_an_error(page: Page) -> None:
    cells = page.evaluate(COUNTS)
    assert not [one["errors"] for one in cells if one["errors"]]
    for name in CELLS:
        expect(cell(page, name)).to_be_visible()
    assert page.locator(".iv-note-bad").count() == 0
    assert shown(page) == told(page, "first")


def test_typing_lights_the_text_as_the_dictionary_reads_it(page: Page) -> None:
    own = cell(page, "page")
    own.get_by_label("a text of your own").press_sequentially("The capital of Japan is Tokyo.", delay=15)
    expect(own.locator(".iv-own .iv-said")).not_to_have_text("reading…", timeout=15_000)
    page.wait_for_function("!document.querySelector('section.iv-feature .iv-own').classList.contains('iv-stale')")
    assert strip(own).endswith("The capital of Japan is Tokyo.")
    values = told(page, "[float(v) for v in iv.feature_on_text(model, sae, page.feature, page.typed).values]")
    lit = [i for i, one in enumerate(own.locator(".iv-own [data-i]").all()) if one.get_attribute("style")]
    assert lit == [i for i, value in enumerate(values) if value > 0]


def test_the_next_feature_and_one_by_number_are_opened_and_read_on_the_typed_text(page: Page) -> None:
    own = cell(page, "page")
    before = shown(page)
    own.get_by_role("button", name="›").click()
    expect(own.locator("h3")).to_contain_text(f"Feature {before + 1}")
    own.get_by_label("go to feature number").fill("7")
    own.get_by_label("go to feature number").press("Enter")
    expect(own.locator("h3")).to_have_text("Feature 7 · seven")
    page.wait_for_function("!document.querySelector('section.iv-feature .iv-own').classList.contains('iv-stale')")
    assert comes_to(page, "page.own['feature']", 7)


def test_a_label_that_is_markup_stays_text(page: Page) -> None:
    own = cell(page, "page")
    own.get_by_label("go to feature number").fill("9")
    own.get_by_label("go to feature number").press("Enter")
    expect(own.locator("h3")).to_contain_text("<img src=x onerror=document.pwned=1>")
    assert page.evaluate("document.pwned") is None


def test_a_partner_opens_its_page(page: Page) -> None:
    own = cell(page, "page")
    partner = own.locator("ul[aria-label^=nearest] button").first
    wanted = int(partner.locator("span").first.inner_text().replace(",", ""))
    partner.click()
    expect(own.locator("h3")).to_contain_text(f"Feature {wanted}")


def test_a_row_of_the_browser_opens_the_page_of_the_same_dictionary(page: Page) -> None:
    table = cell(page, "browser")
    table.get_by_label("search labels and words, or a feature's number").fill("seven")
    expect(table.locator("[data-row]")).to_have_count(1)
    table.locator("[data-row] .iv-row-label").click()
    expect(cell(page, "page").locator("h3")).to_have_text("Feature 7 · seven")
    assert table.locator(".iv-browser-page").count() == 0
    table.get_by_label("search labels and words, or a feature's number").fill("")
    expect(table.locator("[data-row='5']")).to_be_visible()


def test_the_browser_sorts_compares_and_selects(page: Page) -> None:
    table = cell(page, "browser")
    table.get_by_label("compare features with").select_option("0")
    expect(table.locator("[data-row='0'] .iv-row-number")).to_have_text("5")
    expect(table.locator("[data-row='0'] .iv-num").last).to_have_text("1.00")
    table.locator("[data-row='0']").focus()
    for key in (" ", "ArrowDown", " "):
        page.keyboard.press(key)
    expect(table).to_contain_text("2 selected")
    assert comes_to(page, "len(browser.selection)", 2)
    assert 5 in told(page, "[int(i) for i in browser.selection]")
    table.get_by_label("compare features with").select_option("-1")


def test_a_hundred_thousand_rows_scroll_and_find(page: Page) -> None:
    many = cell(page, "many")
    many.scroll_into_view_if_needed()
    box = many.locator(".iv-rows-box")
    box.evaluate("el => { el.scrollTop = 60_000 * 22; }")
    row = many.locator("[data-row='60003']")
    expect(row.locator(".iv-row-label")).to_have_text(re.compile(r"word \d+"), timeout=10_000)
    expected = told(page, "int(many.found()[60003])")
    assert row.locator(".iv-row-number").inner_text() == f"{expected:,}"
    assert many.locator("[data-row]").count() < 60
    many.get_by_label("search labels and words, or a feature's number").fill("word 4711")
    expect(many).to_contain_text("11 of 100,000 features")


def test_a_feature_is_sent_to_steer_and_steers(page: Page) -> None:
    own, steer = cell(page, "page"), cell(page, "steer")
    own.get_by_role("button", name="send to Steer").click()
    expect(own).to_contain_text("Steer took “feature 7 · seven”")
    expect(steer.locator(".iv-edit")).to_have_count(1)
    expect(steer.locator("[data-column=edited]")).to_have_attribute("data-state", "done", timeout=30_000)
    assert comes_to(page, "[edit.coefficient for edit in steer.active_edits()]", [1.0])


def test_a_token_of_steer_opens_a_feature(page: Page) -> None:
    steer = cell(page, "steer")
    steer.locator("[data-column=plain] [data-i='2']").click()
    feature = steer.locator(".iv-acting .iv-partner").first
    expect(feature).to_be_visible(timeout=10_000)
    wanted = int(feature.locator("span").first.inner_text().replace(",", ""))
    feature.click()
    expect(cell(page, "page").locator("h3")).to_contain_text(f"Feature {wanted}")


def test_a_cell_of_the_lens_opens_a_feature_that_wrote_it(page: Page) -> None:
    lens = cell(page, "lens")
    lens.locator("[data-at='5,5']").click()
    lens.get_by_role("button", name="which features wrote it?").click()
    feature = lens.locator(".iv-acting .iv-partner").first
    expect(feature).to_be_visible(timeout=10_000)
    wanted = int(feature.locator("span").first.inner_text().replace(",", ""))
    feature.click()
    expect(cell(page, "page").locator("h3")).to_contain_text(f"Feature {wanted}")


def test_the_map_says_what_is_under_the_pointer_and_takes_a_set_drawn_round(page: Page) -> None:
    where = cell(page, "map").locator(".iv-map")
    where.scroll_into_view_if_needed()
    where.focus()
    page.keyboard.press("ArrowRight")
    expect(cell(page, "map").locator(".iv-said")).to_contain_text("feature ")
    size = where.bounding_box()
    assert size is not None
    left, top, width, height = size["x"], size["y"], size["width"], size["height"]
    page.mouse.move(left + 2, top + 2)
    page.mouse.down()
    for x, y in ((width - 2, 2), (width - 2, height - 2), (2, height - 2)):
        page.mouse.move(left + x, top + y, steps=4)
    page.mouse.up()
    expect(cell(page, "map")).to_contain_text("128 selected")
    assert comes_to(page, "len(shown.selection)", 128)


@pytest.mark.parametrize(("scheme", "theme"), [("light", "JupyterLab Light"), ("dark", "JupyterLab Dark")])
@pytest.mark.parametrize(("size", "width"), [("narrow", 760), ("wide", 1400)])
def test_they_are_drawn_light_and_dark_narrow_and_wide(
    page: Page, screens: Path, scheme: str, theme: str, size: str, width: int
) -> None:
    page.set_viewport_size({"width": width, "height": 1000})
    command(page, "apputils:change-theme", theme=theme)
    light = "true" if scheme == "light" else "false"
    page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
    for name in ("page", "browser", "map", "steer"):
        section = cell(page, name)
        section.scroll_into_view_if_needed()
        page.wait_for_timeout(400)
        page.screenshot(path=screens / f"lab_features_{name}_{scheme}_{size}.png")
        assert ("iv-dark" in (section.get_attribute("class") or "")) == (scheme == "dark")
        assert section.evaluate("el => el.scrollWidth <= el.clientWidth + 1")
    page.set_viewport_size({"width": 1400, "height": 1000})
    command(page, "apputils:change-theme", theme="JupyterLab Light")


def test_when_the_kernel_is_gone_nothing_old_is_shown_as_new(page: Page) -> None:
    page.evaluate("window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.shutdown()")
    page.wait_for_timeout(500)
    own = cell(page, "page")
    own.get_by_label("a text of your own").fill("something else")
    expect(own.locator(".iv-own .iv-said")).to_have_text("not read: no answer from the kernel", timeout=15_000)
    expect(own.locator(".iv-own")).to_have_class(re.compile("iv-stale"))
    expect(own).to_contain_text("no answer from the kernel: this is what was saved")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pages of features, the browser, the map and Steer, as one file."""
    space: dict[str, Any] = {}
    exec(SETTING, space)
    iv, board = space["iv"], space["board"]
    model, first = space["model"], space["first"]
    near = board[first].nearest[0].index
    pages = [iv.FeaturePage(board, feature) for feature in dict.fromkeys((first, near, 9))]
    pages[0].read("The capital of Japan is Tokyo.")
    steer = iv.Steer(model, [pages[0].direction()], "The film was", max_new_tokens=4).wait()
    parts = [iv.FeatureBrowser(board), *pages, iv.FeatureMap(board), steer]
    return iv.page(parts, "Features").to_html(tmp_path_factory.mktemp("report") / "report.html")


def test_on_a_page_from_the_disk_the_widgets_are_alive_and_linked(
    browser: Browser, report: Path, screens: Path
) -> None:
    context = browser.new_context(offline=True, viewport={"width": 1100, "height": 900})
    page, said = context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
    page.on("request", lambda request: None if request.url.startswith("file:") else said.append(request.url))
    page.goto(report.as_uri())
    table, pages = page.locator("section.iv-browser"), page.locator("section.iv-feature")
    expect(pages).to_have_count(3)
    assert strip(pages.first).endswith("The capital of Japan is Tokyo.")

    second = number(pages.nth(1).locator("h3").inner_text())
    pages.first.locator("ul[aria-label^=nearest] button").first.click()
    expect(pages.nth(1)).to_be_focused()
    table.get_by_label("search labels and words, or a feature's number").fill(str(second))
    table.locator(".iv-row-number").get_by_text(str(second), exact=True).click()
    expect(pages.nth(1)).to_be_focused()
    table.get_by_label("search labels and words, or a feature's number").fill("seven")
    table.locator("[data-row]").first.click()
    expect(table).to_contain_text("the page of feature 7 is not on this page")

    pages.first.get_by_role("button", name="send to Steer").click()
    expect(page.locator("section.iv-steer")).to_be_in_viewport()
    page.locator("section.iv-map .iv-map").focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("section.iv-map .iv-said")).to_contain_text("feature ")
    page.keyboard.press(" ")
    expect(table).to_contain_text("1 selected")
    page.screenshot(path=screens / "features_page.png", full_page=True)
    assert page.evaluate("document.pwned") is None
    assert said == []
    context.close()
