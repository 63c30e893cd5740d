"""Figures in the style of the house: one that reads on light and on dark paper, with a table and a line beside it."""

import html
import json
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import plotly.graph_objects as go

from innerview.errors import InnerviewError
from innerview.glyphs import visible

# Contrast of 4:1 and more on white and on the notebook's dark paper, so that one figure serves both.
INK = "#808590"
HAIR = "rgba(128, 133, 144, 0.28)"
ACCENT = "#14958a"
# PuOr (ColorBrewer): orange above zero, purple below, told apart with any colour vision. Zero is the paper itself.
# A colour that fades into the paper keeps its hue; mixed with grey it would turn brown.
DIVERGING = (
    (0.0, "rgba(112, 84, 168, 1)"),
    (0.4999, "rgba(112, 84, 168, 0.06)"),
    (0.5001, "rgba(214, 112, 10, 0.06)"),
    (1.0, "rgba(214, 112, 10, 1)"),
)
MOST_ROWS = 60
FIGURE = "application/vnd.plotly.v1+json"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<style>:root{{color-scheme:light dark}}body{{margin:24px;font:13px/18px system-ui,sans-serif;background:Canvas;color:CanvasText}}
table{{border-collapse:collapse}}td,th{{padding:2px 8px;text-align:right;font-variant-numeric:tabular-nums}}</style>
</head><body>{figure}<details><summary>the numbers</summary>{table}</details></body></html>
"""


def said(text: str) -> str:
    """Text as plotly may draw it: invisible characters shown, tags as text. Plotly reads a few tags in whatever it writes."""
    return html.escape(visible(text), quote=False)


def caption(text: str) -> str:
    """The same, its spaces left alone: for names and titles."""
    return said(text).replace("␣", " ")


def drawn(traces: Any, title: str, **layout: Any) -> go.Figure:
    """A figure on see-through paper, its ink readable on light and on dark."""
    axis = {"gridcolor": HAIR, "zerolinecolor": HAIR, "linecolor": HAIR, "automargin": True}
    made = go.Figure(traces)
    made.update_layout(
        template="none",
        title={"text": title, "font": {"size": 14}, "x": 0.01, "xanchor": "left"},
        font={"color": INK, "size": 12},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 60, "r": 24, "t": 56, "b": 56},
        showlegend=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": HAIR, "activecolor": INK},
    )
    made.update_xaxes(**axis)
    made.update_yaxes(**axis)
    return made.update_layout(**layout)


class _Pictured(Protocol):
    def figure(self) -> go.Figure: ...
    def summary(self) -> pd.DataFrame: ...


class ShowsFigure:
    """Gives a result with `.figure()` and `.summary()` its display in a notebook, and `.to_html()`."""

    def to_html(self: _Pictured, path: str | Path) -> Path:
        """Write one offline page with the figure and its numbers; returns the path.

        Raises:
            InnerviewError: The path cannot be written.
        """
        figure, target = self.figure(), Path(path)
        # The figure's title is escaped already, and has its second line in tags.
        title = str(figure.layout.title.text or type(self).__name__).partition("<br>")[0]  # type: ignore[attr-defined]
        drawing = figure.to_html(full_html=False, include_plotlyjs=True)
        try:
            target.write_text(PAGE.format(title=title, figure=drawing, table=_table(self.summary())), encoding="utf-8")
        except OSError as error:
            raise InnerviewError(f"cannot write {str(target)!r}: {error.strerror}; give another path") from error
        return target

    def _repr_mimebundle_(self: _Pictured, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {
            FIGURE: json.loads(self.figure().to_json() or "{}"),
            "text/html": _table(self.summary()),
            "text/plain": repr(self),
        }


def _table(frame: pd.DataFrame) -> str:
    return frame.to_html(max_rows=MOST_ROWS, float_format=lambda x: f"{x:.4g}", escape=True, border=0)
