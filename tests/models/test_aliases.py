"""Names of TransformerLens, wildcards and module paths, wherever a site is taken."""

import pytest
import torch

import innerview as iv
from innerview.errors import SiteError
from innerview.models.aliases import TRANSFORMERLENS_BLOCK, TRANSFORMERLENS_MODEL
from tests.models.kin import CONFIGS, network
from tests.networks import ids

X = ids(2, 5)
GATED = {"llama", "gemma2"}
BLOCK = {
    "hook_resid_pre": "resid_in", "hook_resid_mid": "resid_mid", "hook_resid_post": "resid", "hook_in": "resid_in", "hook_out": "resid",
    "hook_mlp_in": "resid_mid", "hook_attn_out": "attn.out", "hook_mlp_out": "mlp.out", "ln1.hook_scale": "norm1.scale",
    "ln1.hook_normalized": "attn.in", "ln1.hook_out": "attn.in", "ln2.hook_scale": "norm2.scale", "ln2.hook_normalized": "mlp.in",
    "ln2.hook_out": "mlp.in", "attn.hook_in": "attn.in", "attn.hook_q": "attn.q", "attn.hook_k": "attn.k", "attn.hook_v": "attn.v",
    "attn.hook_z": "attn.heads", "attn.hook_attn_scores": "attn.scores", "attn.hook_pattern": "attn.pattern",
    "attn.hook_result": "attn.result", "mlp.hook_in": "mlp.in", "mlp.hook_pre_linear": "mlp.pre", "mlp.hook_post": "mlp.hidden",
}  # fmt: skip


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_every_name_of_transformerlens_is_understood_alone_and_over_layers(name: str) -> None:
    model = iv.open_model(network(name))
    wanted = BLOCK | {"mlp.hook_pre": "mlp.gate" if name in GATED else "mlp.pre"}
    assert set(wanted) == set(TRANSFORMERLENS_BLOCK)
    for alias, site in wanted.items():
        assert model.site(f"blocks.1.{alias}").name == f"blocks.1.{site}"
        assert [s.name for s in model.expand(f"blocks.*.{alias}")] == [f"blocks.{i}.{site}" for i in range(2)]
    for alias in TRANSFORMERLENS_MODEL:
        assert model.site(alias).name in ("embed", "final_norm", "logits")


def test_a_name_of_transformerlens_is_taken_by_captures_edits_and_directions() -> None:
    model = iv.open_model(network("llama"))
    acts = iv.capture(model, X, ["blocks.*.hook_resid_post", "ln_final.hook_normalized", "hook_embed"])
    assert acts.sites == ["blocks.0.resid", "blocks.1.resid", "final_norm", "embed"]
    assert torch.equal(acts["blocks.1.hook_resid_post"], acts["blocks.1.resid"])
    assert torch.equal(acts.stack("blocks.*.hook_resid_post"), acts.stack("blocks.*.resid"))
    places = ("blocks.0.attn.hook_z", "blocks.0.attn.heads", "module:model.layers.0.self_attn.o_proj@input")
    put = [iv.Replace(torch.zeros(32), site=site) for site in places]
    by_alias, by_name, by_path = (iv.capture(model, X, "logits", edits=[edit])["logits"] for edit in put)
    assert torch.equal(by_alias, by_name) and torch.equal(by_name, by_path)
    step = iv.Direction.from_vector(torch.ones(32), "blocks.0.hook_resid_post")
    same = iv.Direction.from_vector(torch.ones(32), "blocks.0.resid")
    found = [iv.capture(model, X, "logits", edits=[iv.Add(d, 2.0, unit="raw")])["logits"] for d in (step, same)]
    assert torch.equal(*found)


def test_wildcards_match_sites_and_module_paths() -> None:
    model = iv.open_model(network("gpt2"))
    assert [s.name for s in model.expand("blocks.0.attn.*")] == [
        f"blocks.0.attn.{part}" for part in ("in", "q", "k", "v", "scores", "pattern", "heads", "result", "out")
    ]
    assert len(model.expand("*.norm?.scale")) == 4
    assert [s.module for s in model.expand("module:transformer.h.*.mlp.act")] == [
        f"transformer.h.{i}.mlp.act" for i in range(2)
    ]


def test_a_name_that_the_network_lacks_is_refused_with_the_nearest() -> None:
    parallel = iv.open_model(network("gptj"))
    with pytest.raises(SiteError, match=r"no site 'blocks.0.hook_resid_mid' in gptj; nearest is 'blocks.0.resid_in'"):
        parallel.site("blocks.0.hook_resid_mid")
    with pytest.raises(SiteError, match=r"no layer 7 for site 'blocks.7.attn.hook_z'"):
        parallel.site("blocks.7.attn.hook_z")


@pytest.mark.parametrize("name", list(CONFIGS))
def test_the_table_of_sites_has_a_row_for_each_with_its_shape(name: str) -> None:
    table = iv.open_model(network(name)).sites()
    assert list(table.columns) == ["layer", "module", "side", "shape"] and table.index.is_unique
    assert table["shape"].str.match(r"\[batch, (head, )?pos, [a-z_]+(=\d+)?(, [a-z_]+=\d+)?\]").all()
    assert (table["layer"].isna() == ~table.index.str.startswith("blocks.")).all()
