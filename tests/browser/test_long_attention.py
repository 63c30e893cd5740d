"""Attention over 4,096 tokens in JupyterLab: scrolled, pinned by number, both ways, by the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.test_widgets_in_lab import KERNEL, READY, run_all, told
from tests.browser.widget_cells import notebook

pytestmark = pytest.mark.timeout(300)

NOTEBOOK = "long.ipynb"
SETTING = """
import torch, transformers
import innerview as iv
torch.manual_seed(0)
config = transformers.LlamaConfig(
    vocab_size=101, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=4,
    max_position_embeddings=8192, initializer_range=0.4)
pocket = iv.open_model("pocket")
model = iv.open_model(transformers.LlamaForCausalLM(config).eval(), tokenizer=pocket.tokenizer)
ids = [0] + torch.randint(3, 100, (4095,)).tolist()
""".strip()


@pytest.fixture(scope="module")
def page(browser: Browser, lab: Any) -> Iterator[Page]:
    """The notebook, run from top to bottom."""
    (lab.folder / NOTEBOOK).write_text(notebook([SETTING, "shown = iv.Attention(model, ids)\nshown"]), "utf-8")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    page.goto(lab.url(NOTEBOOK))
    page.wait_for_function(READY, timeout=60_000)
    run_all(page)
    shown(page).wait_for(timeout=60_000)
    yield page
    page.evaluate(f"{KERNEL}.shutdown()")
    page.close()


def shown(page: Page) -> Locator:
    return page.locator("section.iv-attention").first


def cell(page: Page, head: int, pos: int) -> Locator:
    """The cell of a head of the layer in sight, counted from the bottom."""
    return shown(page).locator(f'[data-at="{head},{pos}"]')


def weight(page: Page, layer: int, head: int, side: str, token: int, pos: int) -> float:
    """What a capture of one layer says of two tokens."""
    a, b = (token, pos) if side == "from" else (pos, token)
    return told(
        page,
        f"float(iv.capture(model, [ids], 'blocks.{layer}.attn.pattern')['blocks.{layer}.attn.pattern'][0, {head}, {a}, {b}])",
    )


def reads(page: Page, where: Locator, value: float) -> None:
    said = "·" if value < 0.005 else f"{value:.2f}".removeprefix("0")
    expect(where).to_have_text(said, timeout=30_000)


def test_the_pinned_token_is_in_sight_and_few_cells_are_drawn(page: Page) -> None:
    expect(cell(page, 1, 4090)).to_be_visible()
    expect(cell(page, 1, 4090)).not_to_have_text("…", timeout=30_000)
    assert shown(page).locator("[data-at]").count() < 4 * 60
    assert shown(page).locator(".iv-shaded").count() == 384


def test_a_token_is_pinned_by_its_number_and_read_both_ways(page: Page) -> None:
    field = shown(page).get_by_label("pin token")
    field.fill("2000")
    field.press("Enter")
    expect(shown(page).locator(".iv-picked")).to_have_attribute("data-i", "192")
    expect(shown(page).locator(".iv-stretch")).to_contain_text("token 2000")
    reads(page, cell(page, 1, 2000), weight(page, 0, 1, "from", 2000, 2000))
    # Nothing is read ahead of the token, and later ones read it.
    reads(page, cell(page, 1, 2003), 0.0)
    largest = shown(page).get_by_role("group", name="the largest weights").get_by_role("button")
    expect(largest.first).to_be_visible(timeout=30_000)
    shown(page).get_by_role("button", name="is attended to by").click()
    reads(page, cell(page, 1, 2003), weight(page, 0, 1, "to", 2000, 2003))
    reads(page, cell(page, 1, 1995), 0.0)


def test_another_layer_a_head_and_a_hovered_cell(page: Page) -> None:
    shown(page).get_by_role("combobox", name="layer").select_option("2")
    reads(page, cell(page, 3, 2003), weight(page, 2, 3, "to", 2000, 2003))
    cell(page, 3, 2003).click()
    expect(shown(page).locator(".iv-stretch")).to_contain_text("head 2.3, token 2000")
    cell(page, 2, 2001).hover()
    expect(shown(page).locator(".iv-said")).to_contain_text("head 2.2 · token 2001")
    shown(page).get_by_role("combobox", name="layer").select_option("1")
    expect(shown(page).locator(".iv-stretch")).to_contain_text("mean of the heads shown")
    reads(page, cell(page, 0, 2003), weight(page, 1, 0, "to", 2000, 2003))


def test_it_is_scrolled_and_walked_by_the_keyboard(page: Page, screens: Path) -> None:
    box = shown(page).locator(".iv-grid-box")
    box.evaluate("el => { el.scrollLeft = 56 * 3000; }")
    reads(page, cell(page, 2, 3005), weight(page, 1, 2, "to", 2000, 3005))
    cell(page, 2, 3005).focus()
    page.keyboard.press("End")
    expect(cell(page, 2, 4095)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    expect(shown(page).locator(".iv-said")).to_contain_text("token 4094")
    page.screenshot(path=screens / "lab_long_attention.png")
