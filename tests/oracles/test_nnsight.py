"""Modules' inputs and outputs, and an added vector, against nnsight over the same random weights, in float32."""

from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from tests.models.kin import WIDTH, network
from tests.oracles.agreement import FAMILIES, LAYERS, TOKENS, differ

pytest.importorskip("nnsight")

from nnsight import NNsight  # pyright: ignore[reportMissingImports]


def tensor(value: Any) -> Tensor:
    """The tensor in what a module handles."""
    return value[0] if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_and_heads_agree_with_nnsight(name: str) -> None:
    model = iv.open_model(network(name))
    traced: Any = NNsight(network(name))
    for layer in LAYERS:
        block = traced.get(model.table[f"blocks.{layer}.resid"].module)
        projection = traced.get(model.table[f"blocks.{layer}.attn.heads"].module)
        with torch.no_grad(), traced.trace(TOKENS, use_cache=False):
            heads = projection.input.save()
            resid = block.output.save()
        acts = iv.capture(model, TOKENS, [f"blocks.{layer}.attn.heads", f"blocks.{layer}.resid"])
        assert differ(acts[f"blocks.{layer}.attn.heads"].flatten(2), tensor(heads)) <= 1e-4
        assert differ(acts[f"blocks.{layer}.resid"], tensor(resid)) <= 1e-4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_vector_added_behind_a_block_agrees_with_nnsight(name: str) -> None:
    model = iv.open_model(network(name))
    traced: Any = NNsight(network(name))
    delta = torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))
    direction = iv.Direction.from_vector(delta, "blocks.0.resid")
    block = traced.get(model.table["blocks.0.resid"].module)
    is_tuple = name in ("bloom", "gptj", "gpt_neo")
    with torch.no_grad(), traced.trace(TOKENS, use_cache=False):
        if is_tuple:
            block.output = (block.output[0] + delta, *block.output[1:])
        else:
            block.output = block.output + delta
        logits = traced.output.logits.save()
    edit = iv.Add(direction, float(delta.norm()), unit="raw")
    assert differ(iv.capture(model, TOKENS, "logits", edits=[edit])["logits"], logits) <= 1e-4
