"""The tour as a page from the disk: no network, no kernel, and still it answers the mouse."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from innerview.cli.main import main

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="session")
def tour(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page that `make tour` writes."""
    folder = tmp_path_factory.mktemp("tour")
    notebook = folder / "01_first_light.ipynb"
    notebook.write_bytes((root / "notebooks/tutorials/01_first_light.ipynb").read_bytes())
    assert main(["page", str(notebook), "--execute", "--output", str(folder / "tour.html")]) == 0
    return folder / "tour.html"


Opener = Callable[..., tuple[Page, list[str]]]


@pytest.fixture
def opened(browser: Browser, tour: Path) -> Iterator[Opener]:
    """Opens the page in a profile that has no network; gives it, and what it says from its first moment on."""
    contexts: list[BrowserContext] = []

    def open_page(**options: Any) -> tuple[Page, list[str]]:
        contexts.append(browser.new_context(offline=True, **options))
        page, said = contexts[-1].new_page(), list[str]()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"thrown: {error}"))
        page.on("request", lambda request: is_foreign(request.url, tour) and said.append(f"asked for {request.url}"))
        page.goto(tour.as_uri())
        return page, said

    yield open_page
    for context in contexts:
        context.close()


def printed(page: Page) -> str:
    """What the cells printed."""
    return "\n".join(page.locator("pre.iv-stream").all_text_contents())


def said_of(text: str, start: str) -> list[str]:
    """What follows `start` on the lines that begin with it."""
    return [line.strip().removeprefix(start) for line in text.splitlines() if line.strip().startswith(start)]


def mood_words(text: str, words: set[str]) -> int:
    return sum(word in words for word in re.findall(r"[a-z]+", text.lower()))


def is_refusal(text: str, marks: list[str]) -> bool:
    return any(mark in text for mark in marks)


def is_foreign(url: str, tour: Path) -> bool:
    """Anything but the file itself and what it holds."""
    return url != tour.as_uri() and not url.startswith("data:")


def test_it_opens_with_the_network_cut_answers_the_mouse_and_says_nothing(opened: Opener) -> None:
    page, said = opened()
    lens = page.locator("section.iv-lens").first
    look = lens.locator(".iv-look-words")
    read = []
    for cell in lens.locator("[data-at]").all():
        cell.hover()
        read.append(look.inner_text())
    assert len(set(read)) > len(read) // 2
    assert any("Wednesday" in words for words in read)
    assert not said


def test_every_widget_of_the_tour_is_alive_in_it_and_none_shows_an_error(opened: Opener) -> None:
    page, said = opened()
    for name in ("lens", "strip", "steer"):
        assert page.locator(f"section.iv-{name}").count() >= 1, name
    assert page.locator(".iv-note-bad").count() == 0
    assert page.locator(".iv-error").count() == 0
    assert page.locator(".iv-saved").count() == page.locator(".iv-saved > section.iv").count()
    assert not said


def test_the_model_does_what_the_words_of_the_tour_promise(
    opened: Opener, moods: dict[str, set[str]], refusal_marks: list[str]
) -> None:
    page, _ = opened()
    text = printed(page)
    (down,), (up,) = said_of(text, "-2 steps: The film"), said_of(text, "+2 steps: The film")
    good, bad = ({mood: mood_words(line, moods[mood]) for mood in moods} for line in (up, down))
    assert good["good"] > good["bad"]
    assert bad["bad"] > bad["good"]
    plain = said_of(text, "plain:")
    edited = [line for line in said_of(text, "-2 steps:") + said_of(text, "+2 steps:") if "The film" not in line]
    assert [is_refusal(line, refusal_marks) for line in plain] == [True, True, False, False]
    assert [is_refusal(line, refusal_marks) for line in edited] == [False, False, True, True]


def test_a_click_pins_a_cell_and_escape_lets_it_go(opened: Opener) -> None:
    page, _ = opened()
    lens = page.locator("section.iv-lens").first
    lens.locator('[data-at="0,0"]').click()
    page.mouse.move(0, 0)
    assert "pinned" in lens.locator(".iv-look-where").inner_text()
    page.keyboard.press("Escape")
    assert "pinned" not in lens.locator(".iv-look-where").inner_text()


def test_the_keyboard_alone_reads_the_lens(opened: Opener) -> None:
    page, _ = opened()
    lens = page.locator("section.iv-lens").first
    lens.locator("[data-at][tabindex='0']").focus()
    top = lens.locator(".iv-look-words").inner_text()
    for _press in range(3):
        page.keyboard.press("ArrowDown")
    assert lens.locator(".iv-look-words").inner_text() != top


def test_without_javascript_the_tables_and_the_prose_are_there(opened: Opener) -> None:
    page, said = opened(java_script_enabled=False)
    assert page.locator("h1").inner_text() == "First light"
    tables = page.locator(".iv-saved table")
    assert tables.count() >= 2
    assert "Wednesday" in tables.first.inner_text()
    assert page.locator("section.iv").count() == 0
    assert not said


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("size", "width"), [("narrow", 420), ("wide", 1280)])
def test_it_fits_its_window_light_and_dark(opened: Opener, screens: Path, scheme: str, size: str, width: int) -> None:
    page, said = opened(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.wait_for_selector("section.iv")
    page.screenshot(path=screens / f"tour_{scheme}_{size}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    red = int(background.removeprefix("rgba(").removeprefix("rgb(").split(",")[0])
    assert (red < 80) == (scheme == "dark")
    assert not said
