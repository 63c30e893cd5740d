"""The outputs of a cell as parts of a page: widgets alive, everything else still."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from innerview.cli.markup import sanitise

VIEW = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"
PICTURES = ("image/png", "image/jpeg")
ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
MOST_ROWS = 200


def still(output: Mapping[str, Any]) -> str:
    """One output as HTML that needs no script; empty when it shows nothing."""
    if output["output_type"] == "stream":
        return pre(output["text"], "iv-stream")
    if output["output_type"] == "error":
        return pre("\n".join(output["traceback"]) or f"{output['ename']}: {output['evalue']}", "iv-error")
    data = output["data"]
    for picture in PICTURES:
        if picture in data:
            return (
                f'<img alt="{html.escape(data.get("text/plain", "picture"))}" src="{data_url(picture, data[picture])}">'
            )
    if PLOTLY in data:
        return figure(data[PLOTLY], data.get("text/html", ""))
    if "text/html" in data:
        return f'<div class="iv-output">{sanitise(data["text/html"])}</div>'
    return pre(data.get("text/plain", ""), "iv-plain")


def view_of(output: Mapping[str, Any]) -> str | None:
    """The model id of the widget that this output shows, or None."""
    view = output.get("data", {}).get(VIEW)
    return view["model_id"] if view else None


def pre(text: str, css_class: str) -> str:
    """Text as it was printed; nothing for no text."""
    text = plain(text).strip("\n")
    return f'<pre class="{css_class}">{html.escape(text)}</pre>' if text else ""


def plain(text: str) -> str:
    """Text without the colours of a terminal."""
    return ANSI.sub("", text)


def data_url(kind: str, content: str) -> str:
    """A picture as a link that holds it; what is no base64 gives an empty one."""
    squeezed = "".join(content.split())
    try:
        base64.b64decode(squeezed, validate=True)
    except ValueError:
        return f"data:{kind};base64,"
    return f"data:{kind};base64,{squeezed}"


def figure(spec: Mapping[str, Any], beside: str = "") -> str:
    """A plotly figure as the numbers it draws; its own script would need 5 MB or a network.

    Args:
        spec: The figure.
        beside: HTML that was given with it; a table in it says the numbers better than the traces do.
    """
    title = text_of(spec.get("layout", {}).get("title")) or "figure"
    if "<table" in beside:
        return f'<details class="iv-output" open><summary>{html.escape(title)}</summary>{sanitise(beside)}</details>'
    tables = "".join(table for trace in spec.get("data", []) for table in trace_table(trace))
    return f'<details class="iv-output"><summary>{html.escape(title)}: the numbers</summary>{tables}</details>'


def trace_table(trace: Mapping[str, Any]) -> Iterator[str]:
    """A table of a trace's columns, cut at `MOST_ROWS`; nothing when it holds no lists."""
    columns = {name: values for name in ("x", "y", "z", "text") if (values := listed(trace.get(name)))}
    if not columns:
        return
    rows = list(zip(*columns.values(), strict=False))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(shown(v))}</td>' for v in row)}</tr>" for row in rows[:MOST_ROWS])
    more = f"<p>and {len(rows) - MOST_ROWS} more rows</p>" if len(rows) > MOST_ROWS else ""
    yield f"<p>{html.escape(str(trace.get('name') or trace.get('type') or ''))}</p>"
    yield f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def listed(values: Any) -> list[Any]:
    """A column's values: a list as it is, plotly's packed array unpacked row by row, else none."""
    if isinstance(values, Mapping) and {"dtype", "bdata"} <= set(values):
        flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=np.dtype(values["dtype"]))
        shape = [int(side) for side in str(values.get("shape", flat.size)).split(",")]
        return flat.reshape(shape).tolist()
    return list(values) if isinstance(values, list | tuple) else []


def shown(value: Any) -> str:
    """A value in a table: numbers with four significant digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return " ".join(map(shown, value)) if isinstance(value, list) else str(value)


def text_of(title: Any) -> str:
    """A plotly title, which is a string or holds one: its first line, without the tags and references that plotly reads in it."""
    said = str(title.get("text", "")) if isinstance(title, Mapping) else str(title or "")
    return html.unescape(said.partition("<br>")[0])
