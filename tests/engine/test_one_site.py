"""A capture of one site that asks for nothing else: the same as the capture that goes the long way."""

import copy

import pytest
import torch

import innerview as iv
from innerview.errors import TextError
from innerview.hooks import board_of
from innerview.one_site import capture_one
from tests.networks import attention, blocks, direction, ids


def test_it_leaves_what_the_long_way_leaves(typed: iv.Model) -> None:
    for site in ("blocks.1.resid", "blocks.0.mlp.out", "blocks.2.attn.q", "embed", "logits"):
        found = capture_one(typed, board_of(typed), ids(2, 5), site)
        wanted = iv.capture(typed, ids(2, 5), [site, "blocks.2.resid"])
        assert found is not None and torch.equal(found[site], wanted[site]), site
        assert torch.equal(found.tokens, wanted.tokens) and torch.equal(found.mask, wanted.mask)  # type: ignore[arg-type]
        assert found.tokens is not None and found.tokens.data_ptr() != ids(2, 5).data_ptr()


def test_what_takes_more_than_one_hook_goes_the_long_way(model: iv.Model) -> None:
    for given, site in (
        ("w1 w2", "blocks.1.resid"), (ids(1, 5), ["blocks.0.resid", "blocks.1.resid"]), (ids(1, 5), "blocks.*.resid"),
        (ids(1, 5), "blocks.1.attn.pattern"), (ids(1, 5), "blocks.1.attn.heads"), (ids(30, 20), "blocks.1.resid"),
    ):  # fmt: skip
        assert capture_one(model, board_of(model), given, site) is None


def test_open_blocks_are_asked_and_left_out_when_told(model: iv.Model) -> None:
    site, x = "blocks.1.resid", ids(1, 5)
    plain = iv.capture(model, x, site)[site]
    with iv.editing(model, [iv.Add(direction(), 1.0)]):
        assert not torch.allclose(iv.capture(model, x, site)[site], plain, atol=1e-2)
        assert torch.equal(iv.capture(model, x, site, hermetic=True)[site], plain)


def test_nothing_stays_behind(model: iv.Model) -> None:
    before = [len(part._forward_hooks) for part in model.module.modules()]
    with pytest.raises(TextError, match="no token 5000"):
        iv.capture(model, torch.tensor([[5000]]), "blocks.1.resid")
    iv.capture(model, ids(1, 5), "blocks.1.resid")
    assert [len(part._forward_hooks) for part in model.module.modules()] == before and torch.is_grad_enabled()


def test_a_network_that_writes_over_what_it_returned_is_asked_again(model: iv.Model) -> None:
    # A part that always runs its hooks, and spoils what its block returned once the forward is broken off.
    site, kept = "blocks.1.attn.out", []
    attention(blocks(model.module)[1]).register_forward_hook(lambda m, a, out: kept.append(out[0]))
    blocks(model.module)[1].register_forward_hook(lambda m, a, out: kept[-1].zero_(), always_call=True)
    found = iv.capture(model, ids(1, 5), site)[site]
    assert float(found.abs().sum()) > 0


def test_a_copy_made_inside_the_forward_is_a_network_of_its_own(model: iv.Model) -> None:
    made: list[torch.nn.Module] = []
    handle = blocks(model.module)[0].register_forward_hook(lambda m, a, out: made.append(copy.deepcopy(model.module)))
    wanted = iv.capture(model, ids(1, 5), "blocks.1.resid")["blocks.1.resid"]
    handle.remove()
    logits = made[0](ids(1, 5)).logits
    assert logits.shape[1] == 5 and torch.isfinite(wanted).all()
