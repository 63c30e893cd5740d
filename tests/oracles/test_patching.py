"""Patching against TransformerLens' own helpers, on shared random weights. Skipped where TransformerLens is not installed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from tests import networks
from tests.networks import ids

bridge = pytest.importorskip("transformer_lens.model_bridge", reason="TransformerLens is not installed here")
patching = pytest.importorskip("transformer_lens.patching", reason="TransformerLens is not installed here")

RIGHT, WRONG = 5, 9


def difference(logits: Tensor) -> Tensor:
    """Logit difference at the last token, mean over the rows."""
    return (logits[:, -1, RIGHT] - logits[:, -1, WRONG]).mean()


@pytest.fixture(params=networks.FAMILIES)
def both(request: pytest.FixtureRequest) -> tuple[iv.Model, Any]:
    """One set of random weights, opened here and there."""
    tokenizer = networks.tokenizer()
    # With a BOS it would load the tokenizer anew, from where it never was.
    tokenizer.bos_token = None
    theirs = bridge.TransformerBridge.boot_transformers(
        "random-weights", hf_model=networks.module(request.param, layers=2), tokenizer=tokenizer, device="cpu"
    )
    return iv.open_model(networks.module(request.param, layers=2), tokenizer=tokenizer), theirs


@pytest.mark.parametrize(
    ("site", "name", "over"),
    [
        ("blocks.*.resid_in", "get_act_patch_resid_pre", "pos"),
        ("blocks.*.attn.out", "get_act_patch_attn_out", "pos"),
        ("blocks.*.mlp.out", "get_act_patch_mlp_out", "pos"),
        ("blocks.*.attn.heads", "get_act_patch_attn_head_out_all_pos", "head"),
    ],
)
def test_a_grid_is_that_of_transformerlens(both: tuple[iv.Model, Any], site: str, name: str, over: Any) -> None:
    ours, theirs = both
    clean = ids(2, 6, seed=3)
    corrupt = clean.clone()
    corrupt[:, 2] = ids(2, 1, seed=9)[:, 0]
    with torch.no_grad():
        _, cache = theirs.run_with_cache(clean)
        expected = getattr(patching, name)(theirs, corrupt, cache, difference)
    grid = iv.patch_grid(ours, clean, corrupt, site, metric=iv.logit_difference(RIGHT, WRONG), over=over)
    torch.testing.assert_close(grid.patched.mean(dim=-1).float(), expected.float(), atol=1e-4, rtol=1e-4)
