"""A set of widgets as one offline page: a list of contents, then each of them, linked as they are in a notebook."""

import html
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from innerview.errors import WidgetError
from innerview.glyphs import visible
from innerview.widgets import static_page, wire
from innerview.widgets.base import Widget
from innerview.widgets.static_page import Html, Saved

TITLE_LENGTH = 120


class Page:
    """Widgets and words that are written as one page, which needs no network and no kernel.

    Attributes:
        title: The page's title.
        parts: Widgets, and texts between them.
    """

    def __init__(self, parts: Iterable[Any], title: str = "innerview") -> None:
        if not isinstance(title, str):
            raise WidgetError(f"a page's title is a text, not {title!r} of type {type(title).__name__}")
        if isinstance(parts, (str, bytes, Mapping)) or not isinstance(parts, Iterable):
            raise WidgetError(f"a page is made of a list of widgets, results and texts, not {type(parts).__name__}")
        self.title = title
        self.parts = [_part(part) for part in parts]
        if not self.parts:
            raise WidgetError(
                "nothing to put on a page: the list is empty; give widgets, or results that show themselves"
            )

    def html(self) -> str:
        """The whole page."""
        widgets = [part for part in self.parts if isinstance(part, Widget)]
        # Each widget once: a second copy would share its anchor.
        saved = {id(widget): widget.saved() for widget in widgets}
        body: list[Html | Saved] = [Html(f"<h1>{_said(self.title)}</h1>")]
        if len(self.parts) > 1:
            body.append(Html(self._contents(first=2)))
        for nth, part in enumerate(self.parts):
            body.append(saved[id(part)] if isinstance(part, Widget) else Html(_prose(part, nth + 2)))
        return static_page.page(self.title, body)

    def to_html(self, path: str | Path) -> Path:
        """Write the page as one file; returns the path.

        Raises:
            WidgetError: The path is a folder, lies in none, or cannot be written.
        """
        return static_page.write(path, self.html(), "report.html")

    def _contents(self, first: int) -> str:
        has_headings = any(isinstance(part, str) and _is_heading(part) for part in self.parts)
        lines = []
        for nth, part in enumerate(self.parts):
            if isinstance(part, Widget):
                words, under = part.page_title(), has_headings
            elif _is_heading(part):
                words, under = _heading(part), False
            else:
                continue
            short = words if len(words) <= TITLE_LENGTH else words[: TITLE_LENGTH - 1] + "…"
            lines.append(
                f'<li{" class=iv-under" if under else ""}><a href="#part-{nth + first}">{_said(short)}</a></li>'
            )
        return f'<nav class="iv-contents" aria-label="contents"><ol>{"".join(lines)}</ol></nav>'

    def __repr__(self) -> str:
        return f"Page({self.title!r}, {len(self.parts)} parts; .to_html('report.html') writes it)"


def page(parts: Iterable[Any], title: str = "innerview") -> Page:
    """A page of several widgets, for `.to_html("report.html")`: one file, no network, with contents, its parts linked.

    Args:
        parts: Widgets, results that show themselves (a lens, a grid, a feature's page), and texts; a text that begins with `# ` is a heading.
        title: The page's title.
    Raises:
        WidgetError: A part is none of these, or there is none.
    """
    return Page(parts, title)


def _part(part: Any) -> Widget | str:
    if isinstance(part, (Widget, str)):
        return part
    # A result knows its widget; a plain object has no such method.
    shown = part.widget() if callable(getattr(part, "widget", None)) else part
    if not isinstance(shown, Widget):
        raise WidgetError(
            f"no part of a page: {type(part).__name__}; give widgets, results that show themselves, or texts"
        )
    return shown


def _is_heading(text: str) -> bool:
    return text.startswith("# ")


def _heading(text: str) -> str:
    return text[2:].partition("\n")[0].strip()


def _prose(text: str, number: int) -> str:
    """A heading, and paragraphs between empty lines."""
    head = f'<h2 id="part-{number}">{_said(_heading(text))}</h2>' if _is_heading(text) else ""
    rest = text.partition("\n")[2] if head else text
    return head + "".join(f"<p>{_said(block)}</p>" for block in rest.split("\n\n") if block.strip())


def _said(text: str) -> str:
    """Text with its invisible characters seen and its spaces and line ends left alone."""
    shown = (character if character in " \n" else visible(character) for character in wire.sendable(text))
    return html.escape("".join(shown))
