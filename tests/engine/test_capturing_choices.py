"""What of a forward is kept: tokens, heads, reductions, firings, before or after the edits; against indexing by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.errors import CaptureError, EditError
from tests.networks import blocks, direction, ids, padded, ragged

LENGTHS = (3, 6, 4)
# A token of the second row alone.
LONE = next(i for i in ragged(LENGTHS)[1] if i not in ragged(LENGTHS)[0] + ragged(LENGTHS)[2])


def test_positions_come_in_the_order_in_which_they_are_asked_for(model: iv.Model) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, ["blocks.1.resid", "logits"])
    for positions, at in (
        (1, lambda n: [1]),
        (-1, lambda n: [n - 1]),
        ("last", lambda n: [n - 1]),
        ((-1, 0), lambda n: [n - 1, 0]),
        (range(2), lambda n: [0, 1]),
        (torch.tensor([2, -3]), lambda n: [2, n - 3]),
    ):
        for batch_size in (None, 1):
            acts = iv.capture(model, rows, ["blocks.1.resid", "logits"], positions=positions, batch_size=batch_size)
            assert acts.positions is not None and acts.tokens is not None and acts.mask is not None and acts.mask.all()
            for i, row in enumerate(rows):
                wanted = at(len(row))
                assert acts.positions[i].tolist() == wanted
                assert acts.tokens[i].tolist() == [row[p] for p in wanted]
                for site in acts:
                    assert torch.allclose(acts[site][i], whole[site][i, wanted], atol=1e-4)


def test_each_row_may_have_positions_of_its_own(model: iv.Model) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, "blocks.1.resid")["blocks.1.resid"]
    for batch_size in (None, 1, 2):
        acts = iv.capture(model, rows, "blocks.1.resid", positions=[[0], [5, 1, -2], [2, 2]], batch_size=batch_size)
        assert acts.mask is not None and acts.mask.tolist() == [[True, False, False], [True] * 3, [True, True, False]]
        assert torch.allclose(acts["blocks.1.resid"][1], whole[1, [5, 1, 4]], atol=1e-4)
        assert torch.allclose(acts["blocks.1.resid"][2, :2], whole[2, [2, 2]], atol=1e-4)


@pytest.mark.parametrize("left", [True, False], ids=["left pads", "right pads"])
def test_positions_count_real_tokens_of_ready_inputs(model: iv.Model, left: bool) -> None:
    rows = ragged((3, 6))
    x, mask = padded(rows, left=left)
    given = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    whole = iv.capture(model, rows, "blocks.1.resid")["blocks.1.resid"]
    for choice in ({"positions": (0, -1)}, {"where": iv.Where(positions=(0, -1))}):
        acts = iv.capture(model, given, "blocks.1.resid", **choice)  # type: ignore[arg-type]
        assert torch.allclose(acts["blocks.1.resid"][0], whole[0, [0, 2]], atol=1e-4)
        assert torch.allclose(acts["blocks.1.resid"][1], whole[1, [0, 5]], atol=1e-4)
        assert acts.positions is not None and acts.positions.tolist() == [[0, 2], [0, 5]]


def test_where_chooses_as_edits_do(model: iv.Model) -> None:
    texts = ["w5 w7 w9 w7", "w7 w8", "w3 w4 w7 w4 w4"]
    whole = iv.capture(model, texts, "blocks.1.resid")["blocks.1.resid"]
    for where, chosen in (
        (iv.Where(text="w7"), [[1, 3], [0], [2]]),
        (iv.Where(text="w7", nth=-1), [[3], [0], [2]]),
        (iv.Where(tokens=["w7", "w4"]), [[1, 3], [0], [1, 2, 3, 4]]),
        (iv.Where(positions=(0, 1)), [[0, 1], [0, 1], [0, 1]]),
        (iv.Where(), [[0, 1, 2, 3], [0, 1], [0, 1, 2, 3, 4]]),
    ):
        edited = iv.capture(model, texts, "blocks.1.resid", edits=[iv.Add(direction(), where=where)])["blocks.1.resid"]
        acts = iv.capture(model, texts, "blocks.1.resid", where=where)
        assert acts.mask is not None and acts.positions is not None
        for i, wanted in enumerate(chosen):
            assert acts.positions[i][acts.mask[i]].tolist() == wanted
            assert torch.equal(acts["blocks.1.resid"][i][acts.mask[i]], whole[i, wanted])
            changed = (edited[i] != whole[i]).any(-1).nonzero().flatten().tolist()
            assert [p for p in changed if p < len(texts[i].split())] == wanted
        parts = iv.capture(model, texts, "blocks.1.resid", where=where, batch_size=1)
        assert parts.mask is not None and torch.equal(parts.mask, acts.mask)
        assert torch.allclose(parts["blocks.1.resid"][parts.mask], acts["blocks.1.resid"][acts.mask], atol=1e-4)


def test_chosen_tokens_go_on_to_frames_and_projections(model: iv.Model) -> None:
    acts = iv.capture(model, ["w5 w6 w7", "w8 w9"], "blocks.1.resid", positions=-1)
    assert acts.words == [["w7"], ["w9"]]
    assert acts.frame()["pos"].tolist() == [2, 1]
    whole = iv.project(iv.capture(model, ["w5 w6 w7", "w8 w9"], "blocks.1.resid"), direction()).values
    assert torch.allclose(iv.project(acts, direction()).values[:, 0], whole[[0, 1], [2, 1]], atol=1e-5)


def test_a_pattern_keeps_the_queries_that_are_chosen(model: iv.Model) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    last = iv.capture(model, rows, "blocks.1.attn.pattern", positions=-1, batch_size=2)["blocks.1.attn.pattern"]
    assert last.shape == (3, 4, 1, 6)
    for i, n in enumerate(LENGTHS):
        assert torch.allclose(last[i, :, 0, :n], whole[i, :, n - 1, :n], atol=1e-5)


def test_heads_are_chosen_at_sites_that_have_them(model: iv.Model) -> None:
    x = ids(2, 5)
    sites = ["blocks.1.attn.heads", "blocks.1.attn.pattern", "blocks.1.attn.k"]
    whole = iv.capture(model, x, sites)
    for heads in ((1, 0), 1, [-1]):
        listed = [heads] if isinstance(heads, int) else list(heads)
        acts = iv.capture(model, x, sites, heads=heads)
        assert torch.equal(acts["blocks.1.attn.heads"], whole["blocks.1.attn.heads"][:, :, listed])
        assert torch.equal(acts["blocks.1.attn.pattern"], whole["blocks.1.attn.pattern"][:, listed])
        assert torch.equal(acts["blocks.1.attn.k"], whole["blocks.1.attn.k"][:, :, listed])


# Reductions.


@pytest.mark.parametrize("batch_size", [None, 2])
def test_reductions_leave_pads_out(typed: iv.Model, batch_size: int | None) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(typed, rows, "blocks.1.resid")["blocks.1.resid"]
    for kind, of in (
        ("mean", lambda v: v.double().mean(0)),
        ("max", lambda v: v.double().amax(0)),
        ("last", lambda v: v.double()[-1]),
    ):
        acts = iv.capture(typed, rows, "blocks.1.resid", reduce=kind, batch_size=batch_size)
        assert acts["blocks.1.resid"].shape == (3, 32) and acts.tokens is None and acts.mask is None
        for i, n in enumerate(LENGTHS):
            limit = 1e-4 if whole.dtype == torch.float32 else 0.2
            assert torch.allclose(acts["blocks.1.resid"][i].double(), of(whole[i, :n]), atol=limit), kind


def test_reductions_go_over_chosen_tokens(model: iv.Model) -> None:
    rows = ragged(LENGTHS)
    whole = iv.capture(model, rows, "blocks.1.resid")["blocks.1.resid"]
    mean = iv.capture(model, rows, "blocks.1.resid", reduce="mean", positions=(0, -1))["blocks.1.resid"]
    last = iv.capture(model, rows, "blocks.1.resid", reduce="last", where=iv.Where(positions=(0, 1)))["blocks.1.resid"]
    for i, n in enumerate(LENGTHS):
        assert torch.allclose(mean[i], whole[i, [0, n - 1]].mean(0), atol=1e-5)
        assert torch.equal(last[i], whole[i, 1])


def test_projections_equal_those_of_project(typed: iv.Model) -> None:
    rows, found = ragged(LENGTHS), [direction(seed=s, name=f"d{s}") for s in range(3)]
    whole = iv.capture(typed, rows, "blocks.1.resid")
    acts = iv.capture(typed, rows, ["blocks.1.resid", "blocks.2.resid"], reduce=found, batch_size=2)
    assert acts["blocks.1.resid"].shape == (3, 6, 3) and acts.mask is not None
    for i, d in enumerate(found):
        wanted = iv.project(whole, d).values
        limit = 1e-5 if whole["blocks.1.resid"].dtype == torch.float32 else 5e-2
        assert torch.allclose(acts["blocks.1.resid"][..., i][acts.mask], wanted[acts.mask], atol=limit)
    one = iv.capture(typed, rows, "blocks.1.resid", reduce=found[0])["blocks.1.resid"]
    assert one.shape == (3, 6, 1)


def test_a_projection_of_heads_takes_them_together(model: iv.Model) -> None:
    d, x = direction("blocks.1.attn.heads"), ids(2, 4)
    acts = iv.capture(model, x, "blocks.1.attn.heads", reduce=[d])["blocks.1.attn.heads"]
    wanted = iv.project(iv.capture(model, x, "blocks.1.attn.heads"), d).values
    assert torch.allclose(acts[..., 0], wanted, atol=1e-5)


# Before and after the edits; firings; the end of the forward.


def test_before_edits_is_what_arrives_at_a_site(model: iv.Model) -> None:
    x, here, earlier = ids(2, 4), iv.Add(direction("blocks.1.resid")), iv.Add(direction("blocks.0.resid", seed=1))
    without = iv.capture(model, x, "blocks.1.resid", edits=[earlier])["blocks.1.resid"]
    with iv.editing(model, [earlier]):
        before = iv.capture(model, x, ["blocks.1.resid", "logits"], edits=[here], before_edits=True)
        after = iv.capture(model, x, ["blocks.1.resid", "logits"], edits=[here])
    assert torch.equal(before["blocks.1.resid"], without)
    assert not torch.equal(after["blocks.1.resid"], without)
    # The edit still acts behind the site.
    assert torch.equal(before["logits"], after["logits"])


class Loop(nn.Module):
    """A network that runs one of its parts three times."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.part, self.end = nn.Linear(3, 3), nn.Linear(3, 3)
        self.ran = 0
        self.part.register_forward_hook(self._count)

    def _count(self, *_: Any) -> None:
        self.ran += 1

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = torch.tanh(self.part(x))
        return self.end(x)


def test_each_firing_of_a_part_that_runs_several_times_can_be_had() -> None:
    root, x = Loop(), torch.randn(2, 3)
    model = iv.open_model(root)
    with torch.no_grad():
        passes, y = [], x
        for _ in range(3):
            passes.append(root.part(y))
            y = torch.tanh(passes[-1])
    for firing in range(-3, 3):
        root.ran = 0
        found = iv.capture(model, x, "module:part", firing=firing)["module:part"]
        assert torch.equal(found, passes[firing])
        assert root.ran == (firing + 1 if firing >= 0 else 3)
    with pytest.raises(CaptureError, match=r"fired 3 times, so there is no firing 3; use -3 to 2"):
        iv.capture(model, x, "module:part", firing=3)
    with pytest.raises(
        CaptureError, match=r"fired more than once .* say which one counts: firing=0 is the first, -1 the last"
    ):
        iv.capture(model, x, ["module:part", "module:end"])


def test_blocks_behind_the_last_site_do_not_run(model: iv.Model) -> None:
    ran: list[int] = []
    for i, block in enumerate(blocks(model.module)):
        block.register_forward_pre_hook(lambda *_, i=i: ran.append(i))
    for options in (
        {},
        {"batch_size": 1},
        {"positions": -1},
        {"reduce": "mean"},
        {"edits": [iv.Add(direction("blocks.0.resid"))]},
    ):
        ran.clear()
        iv.capture(model, ids(2, 4), "blocks.0.resid", **options)  # type: ignore[arg-type]
        assert set(ran) == {0}, options


def test_choices_that_mean_nothing_are_refused(model: iv.Model) -> None:
    cases: list[tuple[dict, type, str]] = [
        ({"positions": 4}, CaptureError, r"no position 4 in row 0, which has 3 tokens; use -3 to 2"),
        ({"positions": [[0], [-7], [0]]}, CaptureError, r"no position -7 in row 1, which has 6 tokens; use -6 to 5"),
        ({"positions": [[0], [1]]}, CaptureError, r"positions= lists 2 rows for 3 prompts; give one list a row"),
        ({"positions": "first"}, CaptureError, r"positions are whole numbers or 'last', not 'first'"),
        ({"positions": []}, CaptureError, r"positions are whole numbers, 'last', or a list of numbers for each row"),
        ({"positions": True}, CaptureError, r"not True"),
        ({"positions": 1, "where": iv.Where()}, CaptureError, r"where= and positions= both choose tokens"),
        ({"where": -1}, CaptureError, r"where= takes a Where such as iv.Where\(positions=-1\), not -1"),
        ({"where": iv.Where(scope="generated")}, CaptureError, r"scope='generated'\) chooses no token of 3 rows"),
        ({"where": iv.Where(schedule=iv.Ramp(3))}, CaptureError, r"a capture keeps tokens whole and on no condition"),
        ({"where": iv.Where(text="w63")}, EditError, r"the text 'w63' is not in row 0"),
        (
            {"heads": 0},
            CaptureError,
            r"'blocks.1.resid' is \[batch, pos, d_model=32\] without any; capture a site such as attn.heads",
        ),
        ({"heads": "all"}, CaptureError, r"heads are whole numbers, at least one, not 'all'"),
        (
            {"reduce": "sum"},
            CaptureError,
            r"reduce= is one of 'mean', 'max', 'last', or a list of directions, not 'sum'",
        ),
        ({"reduce": [3]}, CaptureError, r"not \[3\]"),
        ({"reduce": direction(width=31)}, EditError, r"a direction 31 wide does not fit an activation of shape"),
        ({"reduce": "mean", "where": iv.Where(tokens=[LONE])}, CaptureError, r"row [02] has no chosen token to reduce"),
    ]
    for options, kind, message in cases:
        with pytest.raises(kind, match=message):
            iv.capture(model, ragged(LENGTHS), "blocks.1.resid", **options)
    with pytest.raises(CaptureError, match=r"no head 4 at 'blocks.1.attn.heads', which has 4; use 0 to 3"):
        iv.capture(model, ids(1, 3), "blocks.1.attn.heads", heads=4)


def test_networks_without_tokens_say_that_none_can_be_chosen() -> None:
    model, x = iv.open_model(nn.Sequential(nn.Linear(3, 3))), torch.randn(2, 5, 3)
    with pytest.raises(CaptureError, match=r"was not called with token ids, so its tokens cannot be chosen"):
        iv.capture(model, x, "module:0", positions=0)
    with pytest.raises(
        CaptureError, match=r"reduce='mean' goes over tokens, and 'module:0' of shape \[2, 5, 3\] has no axis"
    ):
        iv.capture(model, x, "module:0", reduce="mean")
    d = iv.Direction.from_vector(torch.tensor([1.0, 2.0, 2.0]), "module:0")
    found = iv.capture(model, x, "module:0", reduce=d)["module:0"]
    with torch.no_grad():
        assert torch.allclose(found[..., 0], d.project(model.module(x)), atol=1e-6)
