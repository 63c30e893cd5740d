"""A notebook as one page: prose, code, and outputs with their widgets alive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from innerview.cli.execution import needed
from innerview.cli.outputs import still, view_of
from innerview.widgets import static_page

STATE = "application/vnd.jupyter.widget-state+json"


def html(notebook: Any, *, title: str) -> str:
    """The whole page, complete in one file.

    Args:
        notebook: nbformat 4, with its outputs and widget state when it was run.
    """
    return static_page.page(title, list(parts(notebook)))


def title(notebook: Any, otherwise: str) -> str:
    """The first heading of the first cell that has one."""
    for cell in notebook.cells:
        for line in cell.source.splitlines() if cell.cell_type == "markdown" else ():
            if line.startswith("#"):
                return line.lstrip("#").strip()
    return otherwise


def parts(notebook: Any) -> Iterator[static_page.Html | static_page.Saved]:
    """What the page shows, from top to bottom."""
    prose, code = prose_renderer(), code_renderer()
    saved = static_page.parts_from_widget_state(notebook.metadata.get("widgets", {}).get(STATE, {}))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            yield static_page.Html(prose(cell.source))
        elif cell.cell_type == "code" and cell.source.strip():
            yield static_page.Html(code(cell.source))
            for output in cell.outputs:
                yield alive(output, saved) or static_page.Html(still(output))


def alive(output: Any, saved: dict[str, static_page.Saved]) -> static_page.Saved | None:
    """The widget that `output` shows, above its plain table for a reader without JavaScript; None when it is not ours."""
    widget = saved.get(view_of(output) or "")
    return replace(widget, fallback=still(output)) if widget else None


def prose_renderer() -> Any:
    """Markdown to HTML; raw HTML in it is shown as text."""
    return needed("mistune").create_markdown(escape=True, plugins=["table", "strikethrough", "footnotes", "url"])


def code_renderer() -> Any:
    """Python to HTML with its parts of speech in classes."""
    pygments = needed("pygments")
    lexer = needed("pygments.lexers").PythonLexer()
    formatter = needed("pygments.formatters").HtmlFormatter(nowrap=True, classprefix="iv-py-")
    return lambda source: f'<pre class="iv-cell">{pygments.highlight(source, lexer, formatter)}</pre>'
