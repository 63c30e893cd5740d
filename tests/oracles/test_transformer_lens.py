"""Sites, heads and patterns against TransformerLens's bridge over the same random weights, in float32."""

from functools import cache
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.bundled import bundled_folder
from tests.models.kin import network
from tests.oracles.agreement import FAMILIES, LAYERS, TOKENS, differ, visible

pytest.importorskip("transformer_lens")

from transformer_lens.model_bridge import TransformerBridge  # pyright: ignore[reportMissingImports]
from transformers import AutoTokenizer

HOOKS = (
    "hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "ln1.hook_scale", "ln2.hook_scale", "ln1.hook_out",
    "ln2.hook_out", "attn.hook_in", "mlp.hook_in", "attn.hook_q", "attn.hook_k", "attn.hook_v", "attn.hook_z", "attn.hook_attn_scores",
    "attn.hook_pattern", "mlp.hook_pre", "mlp.hook_pre_linear", "mlp.hook_post",
)  # fmt: skip


@cache
def both(name: str) -> tuple[iv.Model, dict[str, Any]]:
    """Our network and TransformerLens's cache of the same one."""
    model = iv.open_model(network(name, kernel="eager"))
    # It does not boot without a tokenizer; ids are given, so any will do.
    tokenizer = AutoTokenizer.from_pretrained(bundled_folder("pocket"))
    try:
        bridge = TransformerBridge.boot_transformers(
            "random-weights", hf_model=network(name, kernel="eager"), tokenizer=tokenizer, device="cpu"
        )
    except ValueError:
        pytest.skip(f"TransformerLens does not know {name} from its config")
    with torch.no_grad():
        _, seen = bridge.run_with_cache(TOKENS)
    return model, {key: value.clone() for key, value in seen.items() if isinstance(value, torch.Tensor)}


def is_pattern_again(seen: dict[str, Any], key: str) -> bool:
    """Whether TransformerLens gives the pattern under the scores' name, as it does for OPT, GPT-J and GPT-Neo."""
    return "scores" in key and torch.equal(seen[key], seen[key.replace("attn_scores", "pattern")])


@pytest.mark.parametrize("name", FAMILIES)
def test_sites_heads_and_patterns_agree_with_transformerlens_by_its_own_names(name: str) -> None:
    model, seen = both(name)
    wrong: dict[str, float] = {}
    compared = 0
    for layer in LAYERS:
        for hook in HOOKS:
            key = f"blocks.{layer}.{hook}"
            site = model._alias(key)
            if key not in seen or site not in model.table or is_pattern_again(seen, key):
                continue
            found, wanted = iv.capture(model, TOKENS, key)[key], seen[key]
            # TransformerLens leaves heads flat here and there, and OPT's tokens of the batch in one axis.
            found = found.reshape(wanted.shape) if found.numel() == wanted.numel() else found
            off = visible(found, wanted) if "scores" in hook else differ(found, wanted)
            compared += 1
            if off > 1e-4:
                wrong[key] = off
    assert not wrong
    assert compared >= 2 * 14


@pytest.mark.parametrize("name", FAMILIES)
def test_the_ends_of_the_network_agree_with_transformerlens(name: str) -> None:
    model, seen = both(name)
    for key in ("embed.hook_out", "ln_final.hook_out", "unembed.hook_out"):
        if key == "unembed.hook_out" and name == "gemma2":
            # TransformerLens's is before the cap.
            continue
        assert differ(iv.capture(model, TOKENS, key)[key], seen[key]) <= 1e-4
