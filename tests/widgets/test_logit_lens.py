"""LogitLens: the numbers of the lens reach the browser, its table and its page."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.widgets import logit_lens as file
from innerview.widgets import wire


def test_the_browser_gets_the_numbers_of_the_lens(model: iv.Model) -> None:
    lens = iv.logit_lens(model, "A text")
    sent = iv.LogitLens(lens).lens
    assert sent["words"] == lens.words
    assert np.array_equal(wire.unpack(sent["ids"]), lens.top_ids.numpy())
    assert np.allclose(wire.unpack(sent["logprobs"]), lens.top_logprobs.numpy())
    assert np.allclose(wire.unpack(sent["kl"])[-1], 0, atol=1e-5)


def test_the_saved_curve_of_each_last_word_is_its_rank_in_every_layer(model: iv.Model) -> None:
    lens = iv.logit_lens(model, "A text with words")
    ranks = wire.unpack(iv.LogitLens(lens).lens["final_rank"])
    for pos in range(len(lens.words)):
        assert ranks[:, pos].tolist() == lens.rank(int(lens.top_ids[-1, pos, 0]))[:, pos].tolist()
    assert not ranks[-1].any()
    assert ranks[0].any()


def test_a_rank_is_computed_on_demand(model: iv.Model, listen: Callable, ask: Callable) -> None:
    lens = iv.logit_lens(model, "A text")
    widget = iv.LogitLens(lens)
    comm = listen(widget)
    answer = ask(widget, comm, {"id": 1, "kind": "rank", "token": 40, "which": "this"})[0]["ok"]["ranks"]
    buffers = next(m["buffers"] for m in comm.sent if m["method"] == "custom")
    ranks = wire.unpack({"data": buffers[answer["buffer"]], **answer})
    assert np.array_equal(ranks, lens.rank(40).numpy())


def test_edited_less_unedited_is_the_probability_that_the_top_words_gained(
    model: iv.Model, direction: iv.Direction
) -> None:
    lens = iv.logit_lens(model, "A text", edits=[iv.Add(direction, 2.0)])
    widget = iv.LogitLens(lens)
    assert lens.other is not None
    gain = wire.unpack(widget.other["gain"])
    for layer in range(2):
        before, after = (torch.softmax(one.logits(layer), dim=-1) for one in (lens, lens.other))
        for pos in range(len(lens.words)):
            top = int(lens.other.top_ids[layer, pos, 0])
            assert gain[layer, pos] == pytest.approx(float(after[pos, top] - before[pos, top]), abs=1e-5)
    assert (widget.lens["label"], widget.other["label"]) == ("unedited", "edited")


def test_two_texts_of_different_length_have_no_difference(model: iv.Model) -> None:
    widget = iv.LogitLens(model, "A text", compare="A longer text")
    assert widget.other["gain"] is None
    assert len(widget.other["words"]) > len(widget.lens["words"])


def test_a_second_text_from_the_browser_is_read_and_can_be_dropped(
    model: iv.Model, listen: Callable, ask: Callable, until: Callable
) -> None:
    widget = iv.LogitLens(model, "A text")
    comm = listen(widget)
    ask(widget, comm, {"id": 1, "kind": "compare", "text": "B text"})
    assert until(lambda: widget.other is not None)
    assert widget.other["text"] == "B text"
    ask(widget, comm, {"id": 2, "kind": "compare", "text": ""})
    assert until(lambda: widget.other is None)
    assert widget.show == "this"


def test_a_second_text_that_cannot_be_read_shows_as_an_error(
    model: iv.Model, listen: Callable, ask: Callable, until: Callable
) -> None:
    widget = iv.LogitLens(model, "A text")
    ask(widget, listen(widget), {"id": 1, "kind": "compare", "text": "x" * 1000})
    assert until(lambda: widget.status["state"] == "error")
    assert "longer than the context" in widget.status["message"]


def test_a_long_text_is_sent_with_fewer_words_a_cell_and_the_rest_on_demand(
    model: iv.Model, monkeypatch: pytest.MonkeyPatch, listen: Callable, ask: Callable
) -> None:
    monkeypatch.setattr(file, "TRAIT_BYTES", 400)
    lens = iv.logit_lens(model, "A text with words")
    widget = iv.LogitLens(lens)
    assert widget.lens["ids"]["shape"] == [2, len(lens.words), 1]
    answer = ask(widget, listen(widget), {"id": 1, "kind": "cell", "layer": 1, "pos": 0, "which": "this"})[0]["ok"]
    assert answer["ids"]["shape"] == [10]
    assert len(answer["texts"]) == 10


def test_where_no_javascript_runs_there_is_a_table_with_the_last_layer_on_top(model: iv.Model) -> None:
    lens = iv.logit_lens(model, "<b>")
    widget = iv.LogitLens(lens)
    table = widget.html_table()
    assert "<b>" not in table
    assert table.index("<th>1</th>") < table.index("<th>0</th>")
    bundle, _ = widget._repr_mimebundle_()
    assert {"text/html", "text/plain", "application/vnd.jupyter.widget-view+json"} <= set(bundle)
    assert bundle["text/html"] == table


def test_a_lens_shows_itself_as_the_widget(model: iv.Model) -> None:
    assert isinstance(iv.logit_lens(model, "A text").widget(), iv.LogitLens)


def test_what_is_no_lens_is_refused_with_the_way_out(model: iv.Model) -> None:
    with pytest.raises(iv.WidgetError, match=r"not str; try iv.LogitLens\(model"):
        iv.LogitLens("A text")
    with pytest.raises(iv.WidgetError, match="needs a text"):
        iv.LogitLens(model)


def test_what_the_widget_reads_itself_leaves_out_what_is_attached(
    model: iv.Model, direction: iv.Direction, listen: Callable, ask: Callable, until: Callable
) -> None:
    alone, second = iv.logit_lens(model, "A text"), iv.logit_lens(model, "Another one")
    late = iv.Replace(torch.linspace(-3, 3, 32), site="final_norm")
    handle = iv.attach(model, [iv.Add(direction, 4.0), late], name="loud")
    try:
        with iv.editing(model, [iv.Add(direction, 4.0)]):
            widget = iv.LogitLens(model, "A text", compare="Another one")
        comm = listen(widget)
        assert widget.lens["ignored"] == ["loud"] and widget.lens["attached"] == []
        assert np.array_equal(wire.unpack(widget.lens["logprobs"]), alone.top_logprobs.numpy())
        assert np.array_equal(wire.unpack(widget.other["logprobs"]), second.top_logprobs.numpy())
        ask(widget, comm, {"id": 2, "kind": "compare", "text": ""})
        assert until(lambda: widget.other is None)
        ask(widget, comm, {"id": 1, "kind": "compare", "text": "Another one"})
        assert until(lambda: widget.other is not None)
        assert np.array_equal(wire.unpack(widget.other["logprobs"]), second.top_logprobs.numpy())
        assert np.array_equal(
            wire.unpack(widget.lens["final_rank"]), wire.unpack(iv.LogitLens(alone).lens["final_rank"])
        )
    finally:
        handle.detach()


def test_a_lens_read_with_edits_in_force_is_not_compared_with_one_without(
    model: iv.Model, direction: iv.Direction, listen: Callable, ask: Callable
) -> None:
    handle = iv.attach(model, [iv.Add(direction, 4.0)], name="loud")
    try:
        widget = iv.LogitLens(iv.logit_lens(model, "A text"))
    finally:
        handle.detach()
    answer = ask(widget, listen(widget), {"id": 1, "kind": "compare", "text": "Another one"})[0]
    assert "was read with edits in force (loud)" in answer["error"]
    assert widget.other is None
