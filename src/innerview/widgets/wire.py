"""What crosses to the browser: arrays as bytes, and token text with its invisible characters shown."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from innerview.glyphs import glyph as glyph
from innerview.glyphs import legible as legible
from innerview.glyphs import visible as visible

DTYPES = ("float32", "float64", "int32", "uint8")


def pack(values: Any, dtype: str) -> dict[str, Any]:
    """An array as `{data, dtype, shape}`, little-endian and in row order.

    Args:
        values: A tensor, an array or nested lists.
        dtype: One of `DTYPES`.
    Raises:
        ValueError: No such dtype crosses.
    """
    if dtype not in DTYPES:
        raise ValueError(f"arrays cross as {', '.join(DTYPES)}, not {dtype!r}")
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        # numpy has no bfloat16.
        values = (values.float() if values.is_floating_point() and values.element_size() < 4 else values).numpy()
    array = np.ascontiguousarray(np.asarray(values), dtype=np.dtype(dtype).newbyteorder("<"))
    return {"data": array.tobytes(), "dtype": dtype, "shape": list(array.shape)}


def unpack(packed: dict[str, Any]) -> np.ndarray:
    """The array behind `{data, dtype, shape}`."""
    flat = np.frombuffer(bytes(packed["data"]), np.dtype(packed["dtype"]).newbyteorder("<"))
    return flat.reshape(packed["shape"])


def detach(content: Any) -> tuple[Any, list[bytes]]:
    """A message whose packed arrays are numbered buffers, `{buffer, dtype, shape}`, and those buffers."""
    buffers: list[bytes] = []

    def walk(value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("data"), bytes):
            buffers.append(value["data"])
            return {"buffer": len(buffers) - 1, "dtype": value["dtype"], "shape": value["shape"]}
        if isinstance(value, dict):
            return {key: walk(inner) for key, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [walk(inner) for inner in value]
        return value

    return walk(content), buffers


def sendable(text: str) -> str:
    """Text with U+FFFD for each half of a character, which no message can carry; two halves that belong together are joined."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def html_table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A plain table, escaped, for where no JavaScript runs."""
    line = "".join(f"<th>{html.escape(word)}</th>" for word in head)
    body = "".join(
        f"<tr><th>{html.escape(row[0])}</th>{''.join(f'<td>{html.escape(word)}</td>' for word in row[1:])}</tr>"
        for row in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr>{line}</tr></thead><tbody>{body}</tbody></table>"
    )
