"""Row 20 of the scoreboard: hostile texts in every widget, page and table, in a real Chromium."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

import innerview as iv
from innerview.glyphs import glyph
from innerview.models.text import words
from scripts.browsing import chromium
from tests.widgets.hostile_texts import texts
from tests.widgets.made import MADE, World
from tests.widgets.worlds import world

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
           "--disable-component-update", "--disable-sync"]  # fmt: skip
# Texts of one world: the prompt holds a token of each.
EACH = 40
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>\n')
# What no widget, page or table of ours has in it.
FOREIGN = ":is(section, table, main) :is(script, style, iframe, object, embed, img, video, audio, form[action], marquee, base, meta), link, base, iframe"
# Moves the mouse over everything, as a person might, and presses what can be pressed.
STIR = """() => {
  for (const el of [...document.querySelectorAll('section.iv *')].slice(0, 3000)) {
    for (const kind of ['mouseover', 'mouseenter', 'focus']) el.dispatchEvent(new MouseEvent(kind, {bubbles: true}));
  }
  for (const el of [...document.querySelectorAll('section.iv [data-at], section.iv [data-i], section.iv button')].slice(0, 60)) el.click();
}"""


def row_20(count: int) -> None:
    """Hostile tokens, names and labels in every widget, with and without a policy, in pages and in the tables."""
    found = texts(count)
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=chromium(), args=OPTIONS)
        for first in range(0, count, EACH):
            part = found[first : first + EACH]
            check(browser, world(Path(folder), part, tokens=min(EACH, len(part)) + 1), Path(folder))
        browser.close()


def check(browser: Browser, place: World, folder: Path) -> None:
    """Every widget of one world: its page, the same without a policy, its table alone, and all of them on one page."""
    made = {name: make(place) for name, make in MADE.items()}
    for name, widget in made.items():
        path = folder / f"{name}.html"
        with opened(browser, widget.to_html(path), name) as page:
            is_whole(page, name, place)
        # In a notebook no policy helps.
        path.write_text(POLICY.sub("", path.read_text("utf-8")), "utf-8")
        with opened(browser, path, f"{name} without a policy") as page:
            is_whole(page, name, place)
        bare = folder / "bare.html"
        table = f"<!doctype html><meta charset=utf-8><title>x</title>{widget.html_table()}"
        bare.write_bytes(table.encode("utf-8", "xmlcharrefreplace"))
        with opened(browser, bare, f"table of {name}"):
            pass
    every = iv.page([f"# {place.text(0)}\n{place.text(1)}", *made.values()], place.text(2)).to_html(
        folder / "every.html"
    )
    with opened(browser, every, "all on one page") as page:
        assert page.locator("section.iv").count() == len(made)
    for widget in made.values():
        widget.close()


@contextmanager
def opened(browser: Browser, path: Path, what: str) -> Iterator[Page]:
    """A page from the disk, its network cut; whatever it says, runs or asks for fails."""
    context, said = browser.new_context(offline=True), list[str]()
    page = context.new_page()
    page.on("console", lambda message: said.append(f"{message.type}: {message.text[:300]}"))
    page.on("pageerror", lambda error: said.append(f"thrown: {str(error)[:300]}"))
    page.on("request", lambda request: said.extend(asked(request.url, path)))
    page.on("dialog", lambda dialog: said.append(f"dialog: {dialog.message}"))
    page.on("dialog", lambda dialog: dialog.dismiss())
    try:
        page.goto(path.as_uri())
        page.evaluate(STIR)
        page.wait_for_timeout(30)
        yield page
        assert page.evaluate("document.pwned") is None, f"{what}: a payload ran"
        assert page.url.partition("#")[0] == path.as_uri(), f"{what} went elsewhere: {page.url}"
        assert page.locator(FOREIGN).count() == 0, f"{what}: markup of a text became an element"
        assert not said, f"{what}: {said[:3]}"
    finally:
        context.close()


def asked(url: str, path: Path) -> list[str]:
    """What to say of a request: nothing of the page itself and what it holds."""
    is_own = url.partition("#")[0] == path.as_uri() or url.startswith("data:")
    return [] if is_own else [f"asked for {url[:300]}"]


def is_whole(page: Page, name: str, place: World) -> None:
    """The texts that this widget shows stand there with every character seen."""
    sections = page.locator("section.iv")
    assert sections.count() == 1, name
    text = sections.first.text_content() or ""
    for shown in SHOWN.get(name, lambda _: [])(place):
        assert shown in text, f"{name}: {shown[:80]!a} is not whole"


def prose(text: str) -> str:
    """A text as the front end shows it where spaces are spaces."""
    sent = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return "".join(c if c == " " else glyph(c) + ("\n" if c == "\n" else "") for c in sent) or "∅"


def line(text: str) -> str:
    """The same on one line."""
    return prose(text).replace("\n", " ")


# What must be found, by widget: names and tokens that the widget draws whole.
SHOWN: dict[str, Any] = {
    "token_strip": lambda place: ["".join(map(prose, place.texts[:400]))],
    "evidence_card": lambda place: [line(place.named(1, "a claim")), line(place.named(0, "a"))],
    "panel": lambda place: [line(place.text(0) or "a"), line(place.model.name)],
    "attention": lambda place: [line(place.model.name), "".join(map(prose, words(place.model, place.ids)))],
    "feature_browser": lambda place: [line(place.text(nth)) for nth in range(3) if place.text(nth)],
    "feature_map": lambda place: [line(place.model.name)],
    "feature_page": lambda place: [line(place.model.name), line(place.text(3)) if place.text(3) else "Feature 3"],
    "logit_lens": lambda place: [line(place.model.name)],
    "patch_grid": lambda place: [line(place.model.name)],
    "training_monitor": lambda place: [line(place.model.name), "".join(map(prose, words(place.model, place.ids[:14])))],
}
