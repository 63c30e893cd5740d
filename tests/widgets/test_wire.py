"""Arrays and token text as they cross, against the golden files that vitest reads too."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from innerview.widgets import wire

GOLDEN = Path(__file__).parent.parent / "wire"


def golden(name: str) -> list:
    return json.loads((GOLDEN / name).read_text("utf-8"))


@pytest.mark.parametrize("case", golden("arrays.json"), ids=lambda case: f"{case['dtype']}{case['shape']}")
def test_an_array_crosses_as_bytes_dtype_and_shape(case: dict) -> None:
    values = np.array(case["values"]).reshape(case["shape"])
    packed = wire.pack(values, case["dtype"])
    assert base64.b64encode(packed["data"]).decode() == case["data"]
    assert packed["shape"] == case["shape"]
    assert np.array_equal(wire.unpack(packed), values)


def test_a_transposed_tensor_crosses_in_row_order() -> None:
    packed = wire.pack(torch.arange(6.0).reshape(2, 3).T, "float32")
    assert wire.unpack(packed).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_dtype_that_does_not_cross_is_refused() -> None:
    with pytest.raises(ValueError, match="not 'int64'"):
        wire.pack([1], "int64")


@pytest.mark.parametrize("case", golden("glyphs.json"), ids=lambda case: ascii(case["text"]))
def test_every_character_of_a_token_is_seen(case: dict) -> None:
    assert wire.visible(case["text"]) == case["shown"]


def test_arrays_inside_an_answer_become_numbered_buffers() -> None:
    one, two = wire.pack([1], "uint8"), wire.pack([2, 3], "uint8")
    content, buffers = wire.detach({"id": 1, "ok": {"a": one, "list": [two, "text"]}})
    assert buffers == [b"\x01", b"\x02\x03"]
    assert content["ok"]["a"] == {"buffer": 0, "dtype": "uint8", "shape": [1]}
    assert content["ok"]["list"] == [{"buffer": 1, "dtype": "uint8", "shape": [2]}, "text"]


def test_a_table_escapes_what_stands_in_it() -> None:
    table = wire.html_table(["", "<b>"], [["</td>", "&"]], "<script>")
    assert "<b>" not in table and "<script>" not in table
    assert "&lt;/td&gt;" in table


def test_a_tensor_in_half_precision_crosses() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        assert wire.unpack(wire.pack(torch.tensor([1.5, -2.0], dtype=dtype), "float32")).tolist() == [1.5, -2.0]
