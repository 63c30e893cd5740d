"""Sites, heads and patterns against interp-engine over the same random weights, in float32."""

from functools import cache
from typing import Any

import pytest

import innerview as iv
from tests.models.kin import network
from tests.oracles.agreement import FAMILIES, LAYERS, TOKENS, differ, visible

interp_engine = pytest.importorskip("interp_engine")

from interp_engine.capture import head_contributions  # noqa: E402  # pyright: ignore[reportMissingImports]

# It finds no output projection in GPT-Neo.
KNOWN = [name for name in FAMILIES if name != "gpt_neo"]
POINTS = {
    "resid_pre": "resid_in", "resid_mid": "resid_mid", "resid_post": "resid", "attn_in": "attn.in", "attn_out_post": "attn.out",
    "mlp_in": "mlp.in", "mlp_out_post": "mlp.out", "value": "attn.v", "z": "attn.heads", "attn_probs": "attn.pattern",
    "attn_scores": "attn.scores", "mlp_pre": "mlp.gate|mlp.pre", "mlp_pre_linear": "mlp.pre", "mlp_act": "mlp.hidden",
}  # fmt: skip


class _NoWords:
    """What interp-engine asks of a tokenizer."""

    eos_token_id = None
    bos_token_id = None
    all_special_ids: tuple[int, ...] = ()


@cache
def both(name: str) -> tuple[iv.Model, Any]:
    """Our network and interp-engine's of the same weights."""
    ours = iv.open_model(network(name, kernel="eager"))
    theirs = interp_engine.EagerModel(
        "random-weights", hf_model=network(name, kernel="eager"), tokenizer=_NoWords(), device="cpu"
    )
    return ours, theirs


def taken(engine: Any, point: str) -> Any:
    """A point of interp-engine, None where it refuses it for this network."""
    try:
        return interp_engine.capture(engine, TOKENS, [point])[point]
    except (ValueError, KeyError, NotImplementedError, RuntimeError):
        return None


@pytest.mark.parametrize("name", KNOWN)
def test_sites_heads_and_patterns_agree_with_interp_engine(name: str) -> None:
    model, engine = both(name)
    wrong: dict[str, float] = {}
    compared = 0
    for layer in LAYERS:
        for point, sites in POINTS.items():
            wanted = taken(engine, f"{point}.{layer}")
            site = next((f"blocks.{layer}.{s}" for s in sites.split("|") if f"blocks.{layer}.{s}" in model.table), None)
            if site is None or wanted is None:
                continue
            found = iv.capture(model, TOKENS, site)[site]
            found = found.reshape(wanted.shape) if found.numel() == wanted.numel() else found
            off = visible(found, wanted) if point == "attn_scores" else differ(found, wanted)
            compared += 1
            if off > 1e-4:
                wrong[f"{point}.{layer}"] = off
    assert not wrong
    assert compared >= 2 * 8


@pytest.mark.parametrize("name", KNOWN)
def test_results_of_heads_agree_with_interp_engine(name: str) -> None:
    model, engine = both(name)
    for layer in LAYERS:
        wanted = head_contributions(engine, interp_engine.capture(engine, TOKENS, [f"z.{layer}"]), layer)
        site = f"blocks.{layer}.attn.result"
        assert differ(iv.capture(model, TOKENS, site)[site], wanted.detach()) <= 1e-4
