"""PatchGridView: a clicked cell runs again, its answers are the network's own, and what is no longer true says so."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.widgets import wire

METRIC = iv.logit_difference(5, 6)
CLEAN, CORRUPT = [[0, 10, 11, 12]], [[0, 10, 20, 12]]


def grid_of(model: iv.Model, **more: Any) -> iv.PatchGrid:
    return iv.patch_grid(model, CLEAN, CORRUPT, metric=METRIC, progress=False, **more)


def patched_by_hand(model: iv.Model, block: int, pos: int) -> torch.Tensor:
    """Probabilities behind the corrupt prompt with the clean residual stream put in, by torch's own hooks."""
    kept: list[torch.Tensor] = []
    layer = model.module.model.layers[block]
    first = layer.register_forward_hook(
        lambda *given: kept.append(given[-1][0] if isinstance(given[-1], tuple) else given[-1])
    )
    with torch.no_grad():
        model.module(torch.tensor(CLEAN))
    first.remove()

    def put(_: Any, __: Any, output: Any) -> Any:
        new = (output[0] if isinstance(output, tuple) else output).clone()
        new[:, pos] = kept[0][:, pos]
        return (new, *output[1:]) if isinstance(output, tuple) else new

    second = layer.register_forward_hook(put)
    with torch.no_grad():
        logits = model.module(torch.tensor(CORRUPT)).logits[0, -1]
    second.remove()
    return logits.softmax(-1)


def test_a_cell_run_again_says_what_the_network_says(model: iv.Model) -> None:
    found = grid_of(model).rerun(0, 2, k=5)
    expected = patched_by_hand(model, 0, 2)
    assert found.is_same and found.patched.ids == expected.topk(5).indices.tolist()
    assert found.patched.probabilities == pytest.approx(expected.topk(5).values.tolist(), abs=1e-5)
    with torch.no_grad():
        clean = model.module(torch.tensor(CLEAN)).logits[0, -1]
    assert found.clean.ids == clean.topk(5).indices.tolist()
    assert found.metric[0] == pytest.approx(float(clean[5] - clean[6]), abs=1e-4)
    assert found.clean.words == [
        str(model.tokenizer.convert_ids_to_tokens(i)).replace("Ġ", " ").replace("Ċ", "\n") for i in found.clean.ids
    ]


def test_a_click_brings_the_answers_and_a_second_one_replaces_them(
    model: iv.Model, listen: Callable, ask: Callable
) -> None:
    widget = grid_of(model).widget()
    comm = listen(widget)
    for number in (1, 2):
        (answer,) = ask(widget, comm, {"id": number, "kind": "rerun", "row": 1, "column": 2, "pair": 0})
        assert answer["ok"] == {"row": 1, "column": 2, "pair": 0}
    (answered,) = widget.answers
    assert len(answered["patched"]["words"]) == 10
    assert wire.unpack(answered["patched"]["p"]).sum() <= 1.0001


def test_a_network_that_changed_makes_the_cell_stale(model: iv.Model, direction: iv.Direction) -> None:
    grid = grid_of(model)
    assert grid.rerun(1, 3).is_same
    iv.attach(model, [iv.Add(direction, 3.0)], name="up")
    try:
        found = grid.rerun(1, 3)
    finally:
        iv.detach(model)
    assert not found.is_same and found.attached == ["up"] and grid.attached == []


def test_effects_of_each_pair_cross_with_the_grid(model: iv.Model) -> None:
    both = iv.patch_grid(model, CLEAN * 2, [*CORRUPT, [0, 10, 30, 12]], metric=METRIC, progress=False)
    widget = both.widget()
    pairs = wire.unpack(widget.effects["pairs"])
    assert pairs.shape == (2, 2, 4)
    frame = both.frame().set_index(["site", "pos", "pair"])["effect"]
    assert pairs[1, 0, 2] == pytest.approx(frame["blocks.0.resid", 2, 1], abs=1e-5)
    assert wire.unpack(widget.do_effects({"pair": 1})["effect"]) == pytest.approx(pairs[1])


def test_a_grid_without_its_forwards_says_so_and_a_cell_that_is_not_there_is_refused(model: iv.Model) -> None:
    grid = grid_of(model)
    with pytest.raises(iv.PatchError, match=r"no row 9; the grid has 2, counted from 0"):
        grid.rerun(9, 0)
    bare = iv.PatchGrid(**{**vars(grid), "study": None})
    assert bare.widget().grid["can_rerun"] is False
    with pytest.raises(iv.PatchError, match="does not know its forwards"):
        bare.rerun(0, 0)


def test_it_shows_itself_with_a_table_and_a_line_beside_it(model: iv.Model) -> None:
    shown, _ = grid_of(model)._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert shown["text/html"].count("<tr>") == 3 and "blocks.1.resid" in shown["text/html"]
    assert shown["text/plain"].startswith("PatchGrid(denoise")
    json.dumps(grid_of(model).widget().grid)
