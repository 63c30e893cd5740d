"""Attention: the weights are the network's own, whole or in pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.widgets import patterns, wire

TEXT = "A text to read, with a few more words."


def by_transformers(model: iv.Model) -> np.ndarray:
    """Weights that transformers itself returns, shape [head, query, key]."""
    ids = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    implementation = model.module.config._attn_implementation
    model.module.set_attn_implementation("eager")
    with torch.no_grad():
        found = model.module(torch.tensor([[0, *ids]]), output_attentions=True).attentions
    model.module.set_attn_implementation(implementation)
    return torch.cat([layer[0] for layer in found]).numpy()


def ids_of(model: iv.Model) -> list[int]:
    return [0, *model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]]


def test_the_weights_are_those_of_transformers(model: iv.Model) -> None:
    widget = iv.Attention(model, ids_of(model))
    expected = by_transformers(model)
    assert widget.patterns is not None
    np.testing.assert_allclose(wire.unpack(widget.patterns), expected, atol=1e-5)
    assert widget.about["heads"] == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3]]
    assert widget.token == len(ids_of(model)) - 1


def test_captured_patterns_of_a_padded_row_are_shown_without_its_pads(model: iv.Model) -> None:
    long, short = ids_of(model), ids_of(model)[:9]
    acts = iv.capture(model, [long, short], "blocks.*.attn.pattern")
    shown, alone = iv.Attention(acts, row=1), iv.Attention(model, short)
    assert shown.about["words"] == alone.about["words"] and len(shown.about["words"]) == 9
    assert shown.patterns is not None and alone.patterns is not None
    np.testing.assert_allclose(wire.unpack(shown.patterns), wire.unpack(alone.patterns), atol=1e-5)


@pytest.mark.parametrize(("kept_bytes", "block"), [(2**30, 2**25), (6000, 4 * 39 * 7)])
def test_a_long_text_is_read_a_layer_at_a_time_from_and_to_any_token(
    kept_bytes: int, block: int, model: iv.Model, listen: Callable, ask: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_transformers(model)
    monkeypatch.setattr(patterns, "HELD", 10)
    monkeypatch.setattr(patterns, "KEPT_BYTES", kept_bytes)
    monkeypatch.setattr(patterns, "BLOCK", block)
    widget = iv.Attention(model, ids_of(model))
    comm = listen(widget)
    assert widget.patterns is None and not widget.about["is_held"]
    heads = [[0, 1, 2, 3], [4, 5, 6, 7]]
    asked = [(3, "from", 0), (20, "to", 0), (37, "from", 1), (0, "to", 1), (38, "to", 0), (20, "from", 0)]
    for number, (token, side, layer) in enumerate(asked):
        message = {
            "id": number,
            "kind": "weights",
            "token": token,
            "side": side,
            "layer": layer,
            "first": 4,
            "count": 30,
        }
        (answer,) = ask(widget, comm, message)
        answered = answer["ok"]["weights"]
        sent = next(m for m in comm.sent if m.get("content", {}).get("id") == number)
        found = np.frombuffer(sent["buffers"][0], np.float32).reshape(answered["shape"])
        line = expected[heads[layer], token] if side == "from" else expected[heads[layer], :, token]
        np.testing.assert_allclose(found, line[:, 4:34], atol=1e-5)
    assert sum(one.numel() * one.element_size() for one in widget._patterns._read.values()) <= kept_bytes
    (refused,) = ask(widget, comm, {"id": 9, "kind": "weights", "token": 3, "side": "to", "first": 0, "count": 5})
    assert "a layer at a time" in refused["error"]


def test_a_long_text_reads_a_layer_once(model: iv.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "HELD", 10)
    forwards: list[str] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        forwards.append(args[2])
        return iv.capture(*args, **kwargs)

    monkeypatch.setattr(patterns, "capture", counted)
    widget = iv.Attention(model, ids_of(model))
    for token in (0, 3, 20, 38):
        for side in ("from", "to"):
            widget._patterns.weights(token, side, 1)
    widget.html_table()
    assert forwards == ["blocks.*.attn.pattern", "blocks.0.attn.pattern", "blocks.1.attn.pattern"]


def test_the_pinned_line_of_a_long_text_follows_token_side_and_layer(
    model: iv.Model, listen: Callable, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = by_transformers(model)
    monkeypatch.setattr(patterns, "HELD", 10)
    widget = iv.Attention(model, ids_of(model))
    listen(widget)
    widget.set_state({"token": 5, "side": "to", "layer": 1})
    assert until(
        lambda: (
            widget.pinned and (widget.pinned["token"], widget.pinned["side"], widget.pinned["layer"]) == (5, "to", 1)
        )
    )
    np.testing.assert_allclose(wire.unpack(widget.pinned["weights"]), expected[4:, :, 5], atol=1e-5)
    assert widget.html_table().count("<tr>") == 1 + 4


def test_a_pinned_token_of_a_text_that_is_not_sent_whole_is_kept(
    model: iv.Model, listen: Callable, until: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("innerview.widgets.attention.TRAIT_BYTES", 4000)
    widget = iv.Attention(model, ids_of(model))
    assert widget.patterns is None
    listen(widget)
    widget.set_state({"token": 5})
    assert until(lambda: widget.pinned and widget.pinned["token"] == 5)
    np.testing.assert_allclose(wire.unpack(widget.pinned["weights"]), by_transformers(model)[:, 5], atol=1e-5)


def test_what_holds_no_patterns_is_refused_with_the_way(model: iv.Model) -> None:
    acts = iv.capture(model, "A text", "blocks.0.resid")
    with pytest.raises(iv.WidgetError, match=r"no attention patterns among blocks.0.resid; capture 'blocks"):
        iv.Attention(acts)
    with pytest.raises(iv.WidgetError, match="needs a text"):
        iv.Attention(model)
    with pytest.raises(iv.WidgetError, match="takes a Model and a text, or what"):
        iv.Attention("pocket")  # type: ignore[arg-type]
    with pytest.raises(iv.WidgetError, match="no token 99; the text has 2"):
        iv.Attention(model, [0, 5], token=99)
    some = iv.capture(model, [[0, 5, 6]], "blocks.*.attn.pattern", positions=[1])
    with pytest.raises(iv.WidgetError, match="whole texts"):
        iv.Attention(some)
    whole = iv.capture(model, [[0, 5, 6]], "blocks.*.attn.pattern")
    with pytest.raises(iv.WidgetError, match="no row 3; 1 texts were captured"):
        iv.Attention(whole, row=3)


def test_its_table_names_what_each_head_attends_to_most(model: iv.Model) -> None:
    widget = iv.Attention(model, ids_of(model))
    expected = by_transformers(model)[5, -1]
    assert f"({expected.argmax()}) {expected.max():.2f}" in widget.html_table()
    assert "8 heads over 39 tokens" in widget.plain_text()
