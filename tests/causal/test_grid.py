"""Grids of patches: each cell is the patch by hand, whatever the batches; stops keep what was measured; hostile tokens stay text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from tests import networks
from tests.causal.test_patching import METRIC, RIGHT, WRONG, at, by_hand, corrupted
from tests.networks import opened, ragged

CLEAN = ragged((5, 5, 5), seed=8)
CORRUPT = corrupted(CLEAN)


def by_hand_mean(model: iv.Model, site: str, change: Any) -> float:
    """The normalised effect of one cell, pair by pair with hooks, their means divided."""
    sides = []
    for row in (*CLEAN, *CORRUPT):
        with torch.no_grad():
            logits = model.module(input_ids=torch.tensor([row])).logits[0, -1]
        sides.append(float(logits[RIGHT] - logits[WRONG]))
    clean, corrupt = sum(sides[:3]) / 3, sum(sides[3:]) / 3
    patched = sum(by_hand(model.module, a, b, site, change) for a, b in zip(CLEAN, CORRUPT, strict=True)) / 3
    return (patched - corrupt) / (clean - corrupt)


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_each_cell_of_a_grid_over_positions_is_a_patch_by_hand(family: str, batch_size: int) -> None:
    model = opened(family, layers=2)
    grid = iv.patch_grid(model, CLEAN, CORRUPT, metric=METRIC, batch_size=batch_size)
    assert grid.sites == ["blocks.0.resid", "blocks.1.resid"] and len(grid.columns) == 5 and grid.over == "pos"
    for i, site in enumerate(grid.sites):
        for pos in range(5):
            assert grid.effect[i, pos] == pytest.approx(by_hand_mean(model, site, at([pos])), abs=1e-4)


@pytest.mark.parametrize("family", networks.FAMILIES)
def test_each_cell_of_a_grid_over_heads_is_a_patch_by_hand(family: str) -> None:
    model = opened(family, layers=2)
    grid = iv.patch_grid(model, CLEAN, CORRUPT, "blocks.*.attn.heads", metric=METRIC, batch_size=5)
    last = iv.patch_grid(model, CLEAN, CORRUPT, "blocks.*.attn.heads", metric=METRIC, positions=-1)
    assert grid.over == "head" and [column.label for column in grid.columns] == ["0", "1", "2", "3"]
    width = networks.WIDTH // 4
    for i, site in enumerate(grid.sites):
        for head in range(4):
            piece = slice(head * width, (head + 1) * width)

            def change(x: Tensor, value: Tensor, piece: slice = piece, rows: slice = slice(None)) -> Tensor:
                new = x.clone()
                new[:, rows, piece] = value[:, rows, piece]
                return new

            assert grid.effect[i, head] == pytest.approx(by_hand_mean(model, site, change), abs=1e-4)
            end = by_hand_mean(model, site, lambda x, value, change=change: change(x, value, rows=slice(-1, None)))
            assert last.effect[i, head] == pytest.approx(end, abs=1e-4)


def test_a_grid_over_positions_takes_all_heads_of_a_token_together() -> None:
    model = opened("llama", layers=2)
    grid = iv.patch_grid(model, CLEAN, CORRUPT, "blocks.1.attn.heads", metric=METRIC, over="pos", positions=[-1, 0])
    assert grid.effect.shape == (1, 2)
    assert grid.effect[0, 0] == pytest.approx(by_hand_mean(model, "blocks.1.attn.heads", at([4])), abs=1e-4)


def test_the_patterns_of_heads_are_patched_one_by_one() -> None:
    model = opened("llama", layers=2)
    model.module.set_attn_implementation("eager")
    grid = iv.patch_grid(model, CLEAN, CORRUPT, "blocks.*.attn.pattern", metric=METRIC, batch_size=4)
    assert grid.over == "head" and grid.effect.shape == (2, 4)
    one = iv.patch_grid(model, CLEAN, CORRUPT, "blocks.*.attn.pattern", metric=METRIC, batch_size=100)
    torch.testing.assert_close(grid.effect, one.effect, atol=1e-4, rtol=0)
    assert grid.effect.abs().max() > 1e-3


def test_a_grid_is_the_single_patches() -> None:
    model = opened("gpt2", layers=2)
    grid = iv.patch_grid(model, CLEAN[0], CORRUPT[0], ["embed", "blocks.1.mlp.out"], metric=METRIC, direction="noise")
    for i, site in enumerate(grid.sites):
        for pos in range(5):
            one = iv.patch(model, CLEAN[0], CORRUPT[0], site, pos, metric=METRIC, direction="noise")
            assert grid.effect[i, pos] == pytest.approx(one.effect, abs=1e-4)


def test_pairs_of_several_lengths_share_positions_from_the_end() -> None:
    model = opened("llama", layers=2)
    clean = ragged((6, 4), seed=1)
    corrupt = corrupted(clean)
    with pytest.raises(iv.PatchError, match=r"pairs of 4 to 6 tokens share no positions; .*range\(-4, 0\)"):
        iv.patch_grid(model, clean, corrupt, metric=METRIC)
    grid = iv.patch_grid(model, clean, corrupt, metric=METRIC, positions=range(-3, 0), batch_size=3)
    for pair in range(2):
        alone = iv.patch_grid(model, clean[pair], corrupt[pair], metric=METRIC, positions=range(-3, 0))
        torch.testing.assert_close(grid.patched[:, :, pair], alone.patched[:, :, 0], atol=1e-4, rtol=0)
    assert grid.frame()["pos"].tolist()[:2] == [3, 1]


class _Stops:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, logits: Tensor) -> Tensor:
        self.n -= 1
        if self.n < 0:
            raise KeyboardInterrupt
        return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


def test_an_interrupt_leaves_the_cells_that_were_measured() -> None:
    model = opened("llama", layers=2)
    # Two calls for the two sides, then a cell each.
    grid = iv.patch_grid(model, CLEAN, CORRUPT, metric=_Stops(2 + 7), batch_size=3)
    whole = iv.patch_grid(model, CLEAN, CORRUPT, metric=METRIC, batch_size=3)
    assert not grid.is_whole and whole.is_whole
    torch.testing.assert_close(grid.effect.flatten()[:7], whole.effect.flatten()[:7], atol=1e-5, rtol=0)
    assert grid.effect.flatten()[7:].isnan().all()
    assert "stopped: 7 of 10 cells measured" in repr(grid)
    assert "stopped" in str(grid.figure().layout.title.text)
    with pytest.raises(KeyboardInterrupt):
        iv.patch_grid(model, CLEAN, CORRUPT, metric=_Stops(2), batch_size=3)


HOSTILE = ["<script>alert(1)</script>", "<b>", '<a href="javascript:x">', "a" * 300, "\u202e", "\n"]


def test_hostile_tokens_stay_text(tmp_path: Path) -> None:
    text = networks.tokenizer()
    text.add_tokens(HOSTILE)
    model = iv.open_model(networks.module("gpt2", layers=2), tokenizer=text)
    clean, corrupt = [[3, 4, 5, 6, 7, 8, 9]], [[10, 4, 5, 6, 7, 8, 9]]
    grid = iv.patch_grid(model, clean, corrupt, metric=METRIC)
    columns = [iv_column.__class__(f"{i} {word}", iv_column.positions, None, ((word, word),))
               for i, (word, iv_column) in enumerate(zip(HOSTILE, grid.columns, strict=False))]  # fmt: skip
    hostile = type(grid)(
        **{**vars(grid), "columns": [*columns, *grid.columns[len(columns) :]], "model_name": "<img src=x>"}
    )
    shown = hostile._repr_mimebundle_()[0]
    drawn = hostile.figure().to_json() or ""
    assert json.loads(drawn)
    for part in ("<script", "<b>", "<a href", "<img", "\u202e", "a" * 200):
        assert part not in drawn, part
        assert part not in shown["text/html"] or part in ("\u202e", "a" * 200), part
    page = hostile.to_html(tmp_path / "grid.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "alert(1)</script" not in page


def test_a_grid_shows_itself_as_figure_table_and_frame() -> None:
    model = opened("gpt2", layers=2)
    grid = iv.patch_grid(model, ["w1 w2 w3"], ["w1 w4 w3"], metric=METRIC)
    figure = grid.figure()
    assert list(figure.layout.xaxis.ticktext) == ["0 w1", "1 w2|w4", "2 w3"]
    assert list(figure.layout.yaxis.ticktext) == ["0", "1"] and figure.layout.yaxis.title.text == "layer, resid"
    assert grid.summary().index.tolist() == ["blocks.1.resid", "blocks.0.resid"]
    frame = grid.frame()
    assert len(frame) == 6 and frame["clean_token"].tolist()[:3] == ["w1", "w2", "w3"]
    assert frame["corrupt_token"].tolist()[1] == "w4"
    assert figure.data[0].zmax == pytest.approx(float(grid.effect.abs().max()))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sites": []}, "no site to patch: the list is empty"),
        ({"over": "head"}, "'blocks.0.resid' has no heads to go over"),
        ({"over": "layer"}, "no columns 'layer'; over= is 'pos' or 'head'"),
        ({"positions": []}, "each pair has the same columns, at least one"),
        ({"sites": ["blocks.0.attn.k", "blocks.0.attn.q"]}, "the sites have 2 and 4 heads; make a grid for each kind"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(iv.PatchError, match=message):
        iv.patch_grid(opened("llama"), CLEAN, CORRUPT, **({"metric": METRIC} | asked))
