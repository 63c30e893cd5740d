"""Patching: against hooks by hand on the raw network, and what must hold of any network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from tests import networks
from tests.networks import attention, blocks, direction, ids, opened, ragged

RIGHT, WRONG = 5, 9
METRIC = iv.logit_difference(RIGHT, WRONG)


def corrupted(rows: list[list[int]], seed: int = 5) -> list[list[int]]:
    """The rows with one token, not the last, exchanged in each."""
    made = copy.deepcopy(rows)
    for i, row in enumerate(made):
        place = (i + seed) % max(1, len(row) - 1)
        row[place] = 3 + (row[place] + 11) % (networks.VOCAB - 3)
    return made


def module_at(root: nn.Module, site: str) -> tuple[nn.Module, bool]:
    """The module that carries a site in the raw network, and whether it is its input."""
    _, layer, kind = site.split(".", 2)
    block = blocks(root)[int(layer)]
    if kind == "resid":
        return block, False
    if kind == "mlp.out":
        return block.mlp, False
    inner = attention(block)
    return (inner.c_proj if hasattr(inner, "c_proj") else inner.o_proj), True


def last_logits(root: nn.Module, row: list[int]) -> Tensor:
    with torch.no_grad():
        return root(input_ids=torch.tensor([row])).logits[0, -1]


def by_hand(
    root: nn.Module, source: list[int], base: list[int], site: str, change: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """The metric of `base` with what `source` has at a site put in by plain hooks; `change(x, value)` gives the new activation."""
    module, is_input = module_at(root, site)
    kept: list[Tensor] = []

    def first(out: Any) -> Tensor:
        return out[0] if isinstance(out, tuple) else out

    def keep(_: nn.Module, args: tuple, out: Any = None) -> None:
        kept.append(first(args if is_input else out))

    def put(_: nn.Module, args: tuple, out: Any = None) -> Any:
        whole = args if is_input else out
        new = change(first(whole), kept[0])
        return (new, *whole[1:]) if isinstance(whole, tuple) else new

    register = module.register_forward_pre_hook if is_input else module.register_forward_hook
    handle = register(keep)
    last_logits(root, source)
    handle.remove()
    handle = register(put)
    logits = last_logits(root, base)
    handle.remove()
    return float(logits[RIGHT] - logits[WRONG])


def at(positions: list[int]) -> Callable[[Tensor, Tensor], Tensor]:
    def change(x: Tensor, value: Tensor) -> Tensor:
        new = x.clone()
        new[:, positions] = value[:, positions]
        return new

    return change


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("way", ["denoise", "noise"])
@pytest.mark.parametrize("site", ["blocks.1.resid", "blocks.0.mlp.out", "blocks.2.attn.heads"])
def test_a_patch_is_that_of_hooks_by_hand(family: str, way: Any, site: str) -> None:
    model = opened(family)
    clean = ragged((6, 4, 9), seed=3)
    corrupt = corrupted(clean)
    found = iv.patch(model, clean, corrupt, site, [0, -2], metric=METRIC, direction=way, batch_size=2)
    for pair, (one, other) in enumerate(zip(clean, corrupt, strict=True)):
        source, base = (one, other) if way == "denoise" else (other, one)
        expected = by_hand(model.module, source, base, site, at([0, len(base) - 2]))
        assert found.patched[pair] == pytest.approx(expected, abs=1e-4)
        plain = [last_logits(model.module, row) for row in (one, other)]
        sides = [float(logits[RIGHT] - logits[WRONG]) for logits in plain]
        assert [float(found.clean[pair]), float(found.corrupt[pair])] == pytest.approx(sides, abs=1e-4)
        start, end = sides if way == "noise" else sides[::-1]
        assert found.effects[pair] == pytest.approx((expected - start) / (end - start), abs=1e-3)


@pytest.mark.parametrize("family", networks.FAMILIES)
@pytest.mark.parametrize("way", ["denoise", "noise"])
def test_everything_put_in_is_the_whole_effect_and_nothing_is_none(family: str, way: Any) -> None:
    model = opened(family)
    clean = ragged((6, 4), seed=1)
    for sites, positions, expected in (
        ("blocks.1.resid", None, 1.0),
        (["embed", "blocks.*.attn.out", "blocks.*.mlp.out"], None, 1.0),
        ("blocks.1.resid", (), 0.0),
        ([], None, 0.0),
    ):
        found = iv.patch(model, clean, corrupted(clean), sites, positions, metric=METRIC, direction=way)
        assert found.effect == pytest.approx(expected, abs=1e-4)
        assert found.effects.tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_half_precision_is_patched_to_the_last_bit_of_its_own() -> None:
    model = opened("llama", torch.bfloat16)
    clean = ragged((6, 6), seed=1)
    found = iv.patch(model, clean, corrupted(clean), "blocks.0.resid", metric=METRIC, batch_size=2)
    assert found.patched.tolist() == found.clean.tolist()


def test_positions_may_differ_from_pair_to_pair() -> None:
    model = opened("llama")
    clean = ragged((6, 4), seed=1)
    both = iv.patch(model, clean, corrupted(clean), "blocks.0.resid", [[1], [0, 2]], metric=METRIC)
    assert both.positions == [(1,), (0, 2)]
    for pair, places in enumerate(([1], [0, 2])):
        alone = iv.patch(
            model, clean[pair : pair + 1], corrupted(clean)[pair : pair + 1], "blocks.0.resid", places, metric=METRIC
        )
        assert both.patched[pair] == pytest.approx(float(alone.patched[0]), abs=1e-5)


def test_a_direction_and_a_function_are_metrics_too() -> None:
    model, reading = opened("gpt2"), direction("blocks.2.resid", seed=4)
    clean = ragged((5, 5, 5), seed=2)
    found = iv.patch(model, clean, corrupted(clean), "blocks.2.resid", -1, metric=reading)
    assert found.effects.tolist() == pytest.approx([1.0] * 3, abs=1e-4)
    rows = torch.tensor([7, 8, 9])
    own = iv.patch(
        model, clean, corrupted(clean), "blocks.0.resid", [0], metric=lambda logits: logits[:, -1].gather(1, rows[:, None])[:, 0], batch_size=2
    )  # fmt: skip
    for pair in range(3):
        alone = iv.patch(
            model, clean[pair], corrupted(clean)[pair], "blocks.0.resid", [0], metric=lambda logits, t=7 + pair: logits[:, -1, t]
        )  # fmt: skip
        assert own.patched[pair] == pytest.approx(float(alone.patched[0]), abs=1e-4)


def test_what_is_attached_is_in_force_on_both_sides() -> None:
    model = opened("llama")
    clean = ragged((5,), seed=2)
    bare = iv.patch(model, clean, corrupted(clean), "blocks.1.resid", [0, 1], metric=METRIC)
    iv.attach(model, [iv.Add(direction("blocks.0.resid"))], name="push")
    try:
        found = iv.patch(model, clean, corrupted(clean), "blocks.1.resid", metric=METRIC)
    finally:
        iv.detach(model, "push")
    assert found.attached == ["push"] and found.effect == pytest.approx(1.0, abs=1e-4)
    assert abs(float(found.clean[0] - bare.clean[0])) > 1e-3


def test_patching_leaves_the_network_as_it_was() -> None:
    model = opened("llama")
    row = ids(1, 6)
    before, hooks = model.module(row).logits, copy.deepcopy(networks.hook_ids(model.module))
    clean = ragged((5,), seed=2)
    iv.patch_grid(model, clean, corrupted(clean), metric=METRIC)
    assert torch.equal(model.module(row).logits, before) and networks.hook_ids(model.module) == hooks


def test_a_network_without_tokens_is_patched_whole() -> None:
    toy = networks.toy("dict")
    model = iv.open_model(toy)
    made = torch.Generator().manual_seed(3)
    clean, corrupt = (torch.randn(2, 3, 8, generator=made) for _ in range(2))
    whole = iv.patch(model, clean, corrupt, "module:first", metric=lambda out: out.sum(dim=(1, 2)))
    assert whole.effects.tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    inside = iv.patch_grid(model, clean, corrupt, ["module:first", "module:second"], metric=lambda out: out[:, 0, 0])
    assert inside.over is None and inside.effect.tolist() == [[pytest.approx(1.0)], [pytest.approx(1.0)]]
    with pytest.raises(iv.PatchError, match="asks for tokens, and this network reads none"):
        iv.patch(model, clean, corrupt, "module:first", 0, metric=lambda out: out[:, 0, 0])


class Handmade(nn.Module):
    """A language model by hand: its forward takes bare ids, and it knows no config."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.mix = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 20)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.mix(self.embed(tokens))[0])


def test_a_language_model_by_hand_is_patched_token_by_token() -> None:
    torch.manual_seed(1)
    module = Handmade().eval()
    model = iv.open_model(module)
    clean, corrupt = torch.randint(0, 20, (2, 3, 5)).unbind()
    grid = iv.patch_grid(model, clean, corrupt, ["module:embed", "module:mix"], metric=METRIC, batch_size=4)
    assert grid.over == "pos" and grid.effect.shape == (2, 5)
    with torch.no_grad():
        for pos in range(5):
            mixed = module.embed(corrupt).clone()
            mixed[:, pos] = module.embed(clean)[:, pos]
            logits = module.head(module.mix(mixed)[0])[:, -1]
            expected = logits[:, RIGHT] - logits[:, WRONG]
            torch.testing.assert_close(grid.patched[0, pos].float(), expected, atol=1e-5, rtol=0)
    assert grid.effect[1].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1.0], abs=1e-5)
    with pytest.raises(iv.MetricError, match="no token 20: this network has logits for ids 0 to 19"):
        iv.patch(model, clean, corrupt, "module:embed", metric=iv.logit_difference(20, 1))


def test_a_patch_shows_itself_as_table_and_text() -> None:
    model = opened("gpt2")
    found = iv.patch(model, "w1 w2 w3", "w1 w4 w3", "blocks.*.resid", metric=METRIC)
    shown = found._repr_mimebundle_()
    assert "<table" in shown["text/html"] and "effect 1 on logit" in shown["text/plain"]
    assert found.frame().columns.tolist() == [
        "pair", "clean_text", "corrupt_text", "clean", "corrupt", "patched", "effect",
    ]  # fmt: skip


def test_prompts_that_do_not_line_up_are_shown_side_by_side() -> None:
    with pytest.raises(iv.PatchError) as refused:
        iv.patch(opened("gpt2"), ["w1", "w5 w6 w7"], ["w2", "w5 w8 w9 w7"], "blocks.0.resid", metric=METRIC)
    lines = str(refused.value).splitlines()
    assert lines[0] == "clean and corrupt do not line up in pair 1: 3 tokens against 4; they part at token 1"
    assert [line.split() for line in lines[1:-1]] == [
        ["pos", "clean", "corrupt"],
        ["0", "'w5'", "'w5'"],
        [">", "1", "'w6'", "'w8'"],
        ["2", "'w7'", "'w9'"],
        ["3", "''", "'w7'"] if "''" in lines[5] else ["3", "'w7'"],
    ]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"corrupt": ["w1 w2 w3"]}, "the same tokens in pair 0: .*; patching would change nothing"),
        ({"corrupt": ["w1 w4 w3", "w1"]}, "1 clean prompts and 2 corrupt ones"),
        ({"positions": 3}, "no position 3 in pair 0, which has 3 tokens; use -3 to 2"),
        ({"positions": [[0], [1]]}, "2 lists of positions for 1 pairs"),
        ({"positions": [0.5]}, "a position is a whole number, not 0.5"),
        ({"direction": "both"}, "no direction 'both' of patching; it is one of denoise, noise"),
        (
            {"metric": lambda logits: logits[:, -1, 5] * 0},
            "does not tell clean from corrupt in pair 0: clean 0, corrupt 0",
        ),
        ({"batch_size": True}, "batch_size is a number of rows from 1, not True"),
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    given = {"clean": ["w1 w2 w3"], "corrupt": ["w1 w4 w3"], "sites": "blocks.0.resid", "metric": METRIC} | asked
    with pytest.raises(iv.PatchError, match=message):
        iv.patch(opened("gpt2"), **given)


def test_pairs_whose_mean_says_nothing_are_refused() -> None:
    model = opened("gpt2")
    clean, corrupt = ["w1 w2 w3", "w1 w4 w3"], ["w1 w4 w3", "w1 w2 w3"]
    with pytest.raises(iv.PatchError, match="does not tell clean from corrupt in the mean of the pairs"):
        iv.patch(model, clean, corrupt, "blocks.0.resid", metric=METRIC)


def test_a_site_that_cannot_be_edited_names_the_one_that_can() -> None:
    with pytest.raises(iv.EditError, match=r"would not reach all that reads it; edit 'blocks.0.attn.heads' instead"):
        iv.patch(opened("gpt2"), "w1 w2 w3", "w1 w4 w3", "blocks.0.attn.result", metric=METRIC)


@pytest.mark.parametrize("family", networks.FAMILIES)
def test_what_an_attention_writes_is_its_pattern_and_its_values(family: str) -> None:
    model = opened(family)
    model.module.set_attn_implementation("eager")
    clean = ragged((6, 4), seed=1)
    for positions in (None, [1, -1]):
        inside = ["blocks.0.attn.pattern", "blocks.0.attn.v"] if positions is None else "blocks.0.attn.heads"
        parts = iv.patch(model, clean, corrupted(clean), inside, positions, metric=METRIC, batch_size=1)
        whole = iv.patch(model, clean, corrupted(clean), "blocks.0.attn.out", positions, metric=METRIC)
        torch.testing.assert_close(parts.patched, whole.patched, atol=1e-4, rtol=0)
