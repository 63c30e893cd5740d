"""Edits in the weights: equal to the live ones to 1e-5, or refused with the reason; the network that was given stays as it is."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import innerview as iv
from innerview.errors import RecipeError
from tests.networks import CONTEXT, VOCAB, WIDTH, direction, hook_ids, ids, opened, ragged, toy

D, E = direction(), direction(seed=1, name="e")
MATRIX = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)) / 8
BIAS = torch.randn(32, generator=torch.Generator().manual_seed(4))
WRITES = ("blocks.0.resid_in", "blocks.*.attn.out", "blocks.*.mlp.out")
SHARED = {
    "vocab_size": VOCAB, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "max_position_embeddings": CONTEXT, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.3,
    "tie_word_embeddings": False,
}  # fmt: skip


def small(kind: Any, config: Any, **given: Any) -> iv.Model:
    torch.manual_seed(0)
    return iv.open_model(kind(config(**{**SHARED, **given})).eval())


def everywhere(*directions: iv.Direction) -> list[Any]:
    """Taken out of every write, and so of the stream at every point."""
    return [iv.ProjectOut(list(directions), site=site) for site in WRITES]


BAKED: dict[str, list[Any]] = {
    "one direction out of every write": everywhere(D),
    "two directions out of every write": everywhere(D, E),
    "out of the stream behind every write": [
        iv.ProjectOut(D, site=s) for s in ("blocks.*.resid_in", "blocks.*.resid_mid", "blocks.*.resid", *WRITES[1:])
    ],
    "out of one write alone": [iv.ProjectOut(D, site="blocks.1.mlp.out")],
    "out of the embedding alone": [iv.ProjectOut(D, site="embed")],
    "added behind a block": [iv.Add(D, 0.2)],
    "added behind every block": [iv.Add(D, 0.1, site="blocks.*.resid"), iv.Add(E, -0.1, site="blocks.1.resid")],
    "added to the stream elsewhere": [
        iv.Add(D, 0.1, site="blocks.0.resid_in"), iv.Add(E, 0.2, site="blocks.2.resid_in"), iv.Add(E, 0.1, site="blocks.1.resid_mid"),
    ],
    "added to writes and the embedding": [iv.Add(D, 0.1, site=s) for s in ("embed", *WRITES[1:])],
    "added, then taken out": [iv.Add(D, 0.3, site="blocks.1.mlp.out"), iv.ProjectOut(D, site="blocks.1.mlp.out")],
    "taken out, then added": [iv.ProjectOut(D, site="blocks.1.mlp.out"), iv.Add(D, 0.3, site="blocks.1.mlp.out")],
    "added in front of a write in the list, and behind it in the network": [
        iv.Add(D, 0.3, site="blocks.1.resid"), iv.ProjectOut(D, site="blocks.1.mlp.out"),
    ],
    "other affine maps of writes": [
        iv.Scale(0.5, site="blocks.0.attn.out"), iv.Scale(-2.0, D, site="blocks.0.mlp.out"), iv.Rotate(E, 50, start=D, site="blocks.1.mlp.out"),
        iv.Transport(MATRIX, BIAS, 0.7, site="blocks.1.attn.out"), iv.Transport(BIAS, BIAS, site="blocks.2.attn.out"),
        iv.Replace(BIAS, site="blocks.2.mlp.out"), iv.Scale(0.0, site="blocks.2.attn.out", neurons=(3, 9)),
    ],
    "nothing": [],
}  # fmt: skip


def difference(model: iv.Model, baked: iv.Model, edits: list[Any], x: Tensor) -> tuple[float, float]:
    """How far the baked network is from the live edits, and how far these are from nothing, of the largest number."""
    names = [f"blocks.{layer}.resid" for layer in range(model.n_layers or 0)] + ["logits"]
    if any(edit.site.endswith("resid_in") for edit in edits):
        # What is live at the entrance of a block is not seen at the exit of the one before, where its weights are.
        names = names[-2:]
    live, found, plain = (iv.capture(m, x, names, edits=e) for m, e in ((model, edits), (baked, []), (model, [])))
    far = max(float((live[n] - found[n]).abs().max() / live[n].abs().max()) for n in names)
    return far, max(float((live[n] - plain[n]).abs().max() / plain[n].abs().max()) for n in names)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", BAKED)
def test_baked_edits_equal_the_live_ones_and_the_network_stays_as_it_was(family: str, name: str) -> None:
    model, x, edits = opened(family), ids(2, 7, seed=5), BAKED[name]
    before, hooks = copy.deepcopy(model.module.state_dict()), hook_ids(model.module)
    baked = iv.Recipe(edits).to_model(model)
    far, moved = difference(model, baked, edits, x)
    assert far <= 1e-5 and (moved > 1e-2) == bool(edits)
    after = model.module.state_dict()
    assert set(after) == set(before) and all(torch.equal(after[key], before[key]) for key in before)
    assert hook_ids(model.module) == hooks and iv.attached(baked) == [] and baked.module is not model.module
    assert not any(before or after for before, after in hook_ids(baked.module).values())
    assert all(p.dtype == torch.float32 for p in baked.module.parameters())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_baked_network_writes_what_the_live_edits_write(family: str) -> None:
    model, edits = opened(family), [*everywhere(D), iv.Add(E, 0.2, site="blocks.1.resid")]
    baked = iv.Recipe(edits).to_model(model)
    runs = [iv.generate(m, ragged((3, 6)), edits=e, max_new_tokens=8) for m, e in ((model, edits), (baked, []))]
    [run.wait() for run in runs]
    assert runs[0].tokens_so_far == runs[1].tokens_so_far


def test_weights_are_those_of_orthogonalising_by_hand() -> None:
    """arXiv:2406.11717, section 4.1: `W ← W − v vᵀ W` for every matrix that writes to the stream."""
    model = opened("llama")
    baked: Any = iv.Recipe(everywhere(D)).to_model(model).module
    v = D.vector.double()
    for own, new in zip(model.module.model.layers, baked.model.layers, strict=True):
        for path in ("self_attn.o_proj", "mlp.down_proj"):
            weight = own.get_submodule(path).weight.double()
            wanted = weight - torch.outer(v, v @ weight)
            assert torch.allclose(new.get_submodule(path).weight.double(), wanted, atol=1e-6)
            assert new.get_submodule(path).bias is None
        assert torch.equal(own.self_attn.q_proj.weight, new.self_attn.q_proj.weight)
    embedding = model.module.model.embed_tokens.weight.double()
    assert torch.allclose(
        baked.model.embed_tokens.weight.double(), embedding - torch.outer(embedding @ v, v), atol=1e-6
    )


NETWORKS: dict[str, Any] = {
    "qwen2": lambda: small(Qwen2ForCausalLM, Qwen2Config, num_key_value_heads=2),
    "gpt_neox, parallel": lambda: small(GPTNeoXForCausalLM, GPTNeoXConfig),
    "opt, positions of its own": lambda: small(OPTForCausalLM, OPTConfig, ffn_dim=48, word_embed_proj_dim=WIDTH),
    "llama with tied embeddings": lambda: small(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=True),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_other_networks_are_baked_alike(name: str) -> None:
    model, x = NETWORKS[name](), ids(2, 6)
    for edits in (everywhere(D), [iv.Add(D, 0.1)], [iv.Add(D, 0.2, site="blocks.*.attn.out")]):
        far, moved = difference(model, iv.Recipe(edits).to_model(model), edits, x)
        assert far <= 1e-5 < 1e-2 < moved


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_baked_network_comes_back_from_disk(tmp_path: Path, kind: str, tied: bool) -> None:
    if kind == "llama":
        model = small(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=tied)
    else:
        model = small(GPT2LMHeadModel, GPT2Config, tie_word_embeddings=tied, n_inner=48)
    edits = [*everywhere(D), iv.Add(E, 0.2, site="blocks.1.resid"), iv.Add(E, 0.2, site="blocks.0.attn.out")]
    baked = iv.Recipe(edits).to_model(model)
    assert bool(model.module.config.tie_word_embeddings) == tied
    baked.module.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    x = ids(2, 6)
    with torch.no_grad():
        assert torch.equal(again(x).logits, baked.module(x).logits)


def test_an_untied_head_reads_as_before() -> None:
    model = small(LlamaForCausalLM, LlamaConfig, tie_word_embeddings=True)
    baked: Any = iv.Recipe(everywhere(D)).to_model(model).module
    assert torch.equal(baked.lm_head.weight, model.module.lm_head.weight)
    assert baked.lm_head.weight is not baked.model.embed_tokens.weight and baked.config.tie_word_embeddings is False


def test_half_precision_and_modes_stay_and_gradients_are_wanted_as_before() -> None:
    model = opened("llama", torch.bfloat16)
    model.module.train()
    model.module.requires_grad_(False)
    edits = [iv.Add(D, 0.1, site="blocks.*.resid")]
    baked = iv.Recipe(edits).to_model(model)
    kept = dict(model.module.named_buffers())
    assert {p.dtype for p in baked.module.parameters()} == {torch.bfloat16} and baked.module.training
    assert all(b.dtype == kept[n].dtype for n, b in baked.module.named_buffers())
    assert not any(p.requires_grad for p in baked.module.parameters())
    model.module.eval(), baked.module.eval()
    assert difference(model, baked, edits, ids(1, 5))[0] < 0.05


def test_what_is_attached_is_not_baked() -> None:
    model, x = opened("gpt2"), ids(1, 5)
    wanted = iv.capture(model, x, "logits", edits=[iv.Add(E)])["logits"]
    with iv.editing(model, [iv.Add(D)]):
        iv.attach(model, [iv.ProjectOut(D)], name="other")
        baked = iv.Recipe([iv.Add(E)]).to_model(model)
    iv.detach(model)
    assert torch.allclose(iv.capture(baked, x, "logits")["logits"], wanted, atol=1e-4)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([iv.Add(D, where=iv.Where(positions=0))], r"it applies to certain tokens, steps or conditions, and weights see them all; keep it live"),
        ([iv.Add(D, where=iv.Where(scope="generated"))], r"it applies to certain tokens"),
        ([iv.Add(D, where=iv.Where(schedule=iv.Ramp(2)))], r"it applies to certain tokens"),
        ([iv.Add(D, where=iv.Where(condition=D.reading() > 1))], r"it applies to certain tokens"),
        ([iv.Add(D, [1.0, 2.0])], r"it has a coefficient for each row"),
        ([iv.Cap(D, at_most=1)], r"Cap is no affine map"),
        ([iv.Rotate(D, 10)], r"it turns each token in a plane of its own; give it start= for one plane"),
        ([iv.Custom(lambda x, c: x, site="blocks.0.mlp.out")], r"Custom is no affine map"),
        ([iv.Replace(torch.zeros(1, 4, 32), site="blocks.0.mlp.out")], r"its value differs from token to token"),
        ([iv.Scale(0.0, site="blocks.0.attn.heads", heads=1)], r"it applies to certain heads, which the stream has not"),
        ([iv.Add(direction("blocks.0.attn.heads"))], r"'blocks.0.attn.heads' is not written by weights into the stream; places are embed and"),
        ([iv.Add(direction("logits", width=VOCAB))], r"'logits' is not written by weights into the stream"),
        ([iv.Scale(2.0, site="blocks.0.resid")], r"at 'blocks.0.resid' the whole stream passes, .*; edit attn.out and mlp.out"),
        ([iv.ProjectOut(D, site="blocks.0.resid", neurons=1)], r"at 'blocks.0.resid' the whole stream passes"),
        ([iv.ProjectOut(D, site="blocks.*.resid")], r"the stream carries d already, from '.*', and no later weight takes it out; take it out of"),
        ([*everywhere(D)[:2], iv.ProjectOut(D, site="blocks.2.resid")], r"the stream carries d already, from '.*0.*'"),
        ([*everywhere(D), iv.Add(D, site="blocks.0.resid"), iv.ProjectOut(D, site="blocks.1.resid")], r"the stream carries d already"),
        ([*everywhere(D), iv.ProjectOut(E, site="blocks.1.resid")], r"the stream carries e already"),
        ([iv.Add(D, site="blocks.9.resid")], r"no layer 9"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_weights_cannot_do_is_refused_with_the_reason(family: str, edits: list[Any], message: str) -> None:
    model = opened(family)
    before = copy.deepcopy(model.module.state_dict())
    with pytest.raises(RecipeError, match=rf"cannot be baked into weights: .*{message}"):
        iv.Recipe(edits).to_model(model)
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())


@pytest.mark.parametrize(
    ("make", "edits", "message"),
    [
        (lambda: small(Gemma2ForCausalLM, Gemma2Config, num_key_value_heads=2, head_dim=8), everywhere(D)[1:],
         r"between 'model.layers.0.self_attn.o_proj' and 'blocks.0.attn.out' there is a norm, a factor or something else"),
        (lambda: small(Gemma2ForCausalLM, Gemma2Config, num_key_value_heads=2, head_dim=8), [iv.Add(D)],
         r"between 'model.layers.1.mlp.down_proj' and 'blocks.1.mlp.out' there is a norm"),
        (lambda: small(BertForMaskedLM, BertConfig), [iv.Add(D)], r"baked weights give logits that differ by .* from the live edits"),
        (lambda: small(BertForMaskedLM, BertConfig), everywhere(D), r"what enters block 0 is not the sum of embeddings"),
        (lambda: small(MixtralForCausalLM, MixtralConfig, num_key_value_heads=2), [iv.Add(D)],
         r"'blocks.1.mlp.out' is not written by one weight that is known"),
    ],
)  # fmt: skip
def test_networks_where_it_is_not_exact_are_refused_with_the_reason(make: Any, edits: list[Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        iv.Recipe(edits).to_model(make())


def test_shared_weights_and_networks_without_known_writers_are_refused() -> None:
    model = opened("llama")
    layers: Any = model.module.model.layers
    layers[2].mlp.down_proj.weight = layers[0].mlp.down_proj.weight
    with pytest.raises(
        RecipeError, match=r"'model.layers.0.mlp.down_proj' is that of 'model.layers.2.mlp.down_proj' too"
    ):
        iv.Recipe([iv.Add(D, site="blocks.0.resid")]).to_model(model)
    layers[2].mlp.down_proj = layers[0].mlp.down_proj
    with pytest.raises(RecipeError, match=r"cannot be baked into weights: .*down_proj' fired more than once"):
        iv.Recipe([iv.Add(D, site="blocks.0.resid")]).to_model(model)
    with pytest.raises(RecipeError, match=r"'module:first' is not written by weights into the stream"):
        iv.Recipe([iv.Scale(2.0, site="module:first")]).to_model(iv.open_model(toy("tensor")))


def test_weights_that_are_elsewhere_or_quantised_are_refused_before_anything_is_copied() -> None:
    away, packed = opened("llama"), opened("llama")
    away.module.to("meta")
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.uint8), requires_grad=False)
    packed.module.model.layers[1].mlp.down_proj.weight = weight  # type: ignore[union-attr,index]
    with pytest.raises(
        RecipeError, match=r"is not in memory, so no edit can be baked into a copy of .*; load the network in full"
    ):
        iv.Recipe([iv.Add(D)]).to_model(away)
    with pytest.raises(RecipeError, match=r"'model.layers.1.mlp.down_proj.weight' is of torch.uint8"):
        iv.Recipe([iv.Add(D)]).to_model(packed)
