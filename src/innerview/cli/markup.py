"""Foreign HTML, reduced to what a page without scripts and styles may hold."""

from __future__ import annotations

import html
from html.parser import HTMLParser

TAGS = frozenset(
    [
        "a",
        "abbr",
        "b",
        "blockquote",
        "br",
        "caption",
        "code",
        "col",
        "colgroup",
        "dd",
        "del",
        "details",
        "div",
        "dl",
        "dt",
        "em",
        "figcaption",
        "figure",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "hr",
        "i",
        "img",
        "kbd",
        "li",
        "mark",
        "ol",
        "p",
        "pre",
        "q",
        "s",
        "samp",
        "small",
        "span",
        "strong",
        "sub",
        "summary",
        "sup",
        "table",
        "tbody",
        "td",
        "tfoot",
        "th",
        "thead",
        "tr",
        "u",
        "ul",
        "var",
    ]
)
EMPTY = frozenset({"br", "col", "hr", "img"})
DROPPED = frozenset({"script", "style", "template", "iframe", "object", "noscript", "title", "head", "svg", "math"})
ATTRIBUTES = frozenset({"alt", "align", "colspan", "dir", "lang", "open", "rowspan", "scope", "start"})


class Sanitiser(HTMLParser):
    """Copies the allowed tags and attributes; drops the rest, scripts and styles with their content."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.kept: list[str] = []
        self.open: list[str] = []
        self.dropping: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in DROPPED:
            self.dropping.append(tag)
        if self.dropping or tag not in TAGS:
            return
        self.kept.append(f"<{tag}{''.join(attribute(tag, name, value) for name, value in attrs)}>")
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in DROPPED:
            self.handle_starttag(tag, attrs)
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.dropping:
            if self.dropping[-1] == tag:
                self.dropping.pop()
            return
        if tag in self.open:
            while self.open:
                closed = self.open.pop()
                self.kept.append(f"</{closed}>")
                if closed == tag:
                    return

    def handle_data(self, data: str) -> None:
        if not self.dropping:
            self.kept.append(html.escape(data, quote=False))


def attribute(tag: str, name: str, value: str | None) -> str:
    """One attribute with its space before, or nothing when it is not allowed there."""
    value = value or ""
    is_link = tag == "a" and name == "href" and value.startswith(("https://", "http://", "#"))
    is_picture = tag == "img" and name == "src" and value.startswith(("data:image/png", "data:image/jpeg"))
    if name in ATTRIBUTES or is_link or is_picture:
        return f' {name}="{html.escape(value)}"'
    return ""


def sanitise(text: str) -> str:
    """`text` as balanced HTML of the allowed tags; anything else is dropped or shown as text."""
    sanitiser = Sanitiser()
    sanitiser.feed(text)
    sanitiser.close()
    return "".join(sanitiser.kept) + "".join(f"</{tag}>" for tag in reversed(sanitiser.open))
