"""Weights by one call each, against what the network does with them, in every family and under offloading."""

from pathlib import Path

import accelerate
import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import ModelError
from tests.models.kin import CONFIGS, EXPERTS, network
from tests.networks import ids, toy

NAMES = list(CONFIGS)
X = ids(2, 6)


def near(found: Tensor, wanted: Tensor) -> bool:
    return found.shape == wanted.shape and bool((found - wanted).abs().max() <= 3e-6 * wanted.abs().max().clamp(min=1))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("bert", "roberta")])
def test_the_unembedding_makes_the_networks_logits(name: str) -> None:
    model = iv.open_model(network(name))
    acts = iv.capture(model, X, ["logits", f"module:{model.table['logits'].module}@input"])
    found = iv.unembedding(model)
    assert found.matrix.shape == (32, 67) and not found.is_tied
    assert near(found.logits(acts[f"module:{model.table['logits'].module}@input"]), acts["logits"])
    assert found.cap == (3.0 if name == "gemma2" else None)
    assert found.scale == {"cohere": 0.25, "cohere2": 0.25, "granite": 0.25}.get(name, 1.0)


@pytest.mark.parametrize("name", NAMES)
def test_the_embedding_is_what_is_looked_up(name: str) -> None:
    model = iv.open_model(network(name))
    found = iv.embedding(model)[X]
    seen = iv.capture(model, X, "embed")["embed"]
    scale = float((seen * found).sum() / (found * found).sum())
    assert near(seen, found * scale) and (scale == pytest.approx(1.0) or name.startswith("gemma"))


@pytest.mark.parametrize("name", NAMES)
def test_the_ov_circuit_applied_to_what_a_head_reads_is_its_result(name: str) -> None:
    model = iv.open_model(network(name, kernel="eager"))
    for layer in range(2):
        acts = iv.capture(model, X, [f"blocks.{layer}.attn.{part}" for part in ("in", "pattern", "result")])
        read, pattern, result = (acts[f"blocks.{layer}.attn.{part}"] for part in ("in", "pattern", "result"))
        circuit = iv.ov_circuit(model, layer)
        assert circuit.left.shape[2] == circuit.right.shape[1] < 32 and circuit.matrix().shape == (4, 32, 32)
        assert torch.equal(circuit.matrix(2), circuit.matrix()[2])
        written = torch.einsum("bkm,hmn->bkhn", read, circuit.matrix())
        if circuit.bias is not None:
            written = written + circuit.bias
        assert near(torch.einsum("bhqk,bkhn->bqhn", pattern, written), result)


@pytest.mark.parametrize("name", NAMES)
def test_the_qk_circuit_is_the_product_of_queries_and_keys(name: str) -> None:
    model = iv.open_model(network(name))
    circuit = iv.qk_circuit(model, 1)
    # Differences of inputs, so that biases fall out.
    read, q, k = (iv.capture(model, X, f"blocks.1.attn.{part}")[f"blocks.1.attn.{part}"] for part in ("in", "q", "k"))
    read, q, k = (t[:, 1:] - t[:, :-1] for t in (read, q, k))
    k = k.repeat_interleave(4 // k.shape[2], dim=2)
    made = torch.einsum("bqm,hmn,bkn->bhqk", read, circuit.matrix(), read)
    assert near(made, torch.einsum("bqhd,bkhd->bhqk", q, k))


@pytest.mark.parametrize("name", [n for n in NAMES if n not in EXPERTS])
def test_neurons_write_what_the_feed_forward_returns(name: str) -> None:
    model = iv.open_model(network(name))
    sites = [f"blocks.1.mlp.{part}" for part in ("in", "pre", "hidden")]
    path = model.table["blocks.1.mlp.hidden"].module
    acts = iv.capture(model, X, [*sites, f"module:{path}"])
    found = iv.neurons(model, 1)
    read, pre, hidden = (acts[site] for site in sites)
    zero = torch.zeros(1)
    assert near(read @ found.into.T + (zero if found.into_bias is None else found.into_bias), pre)
    times = model.table["blocks.1.mlp.out"].times
    wanted = acts[f"module:{path}"].reshape(*X.shape, 32) * times
    assert near(hidden @ found.out + (zero if found.out_bias is None else found.out_bias), wanted)
    gate = model.table.get("blocks.1.mlp.gate")
    assert (gate is None) == (found.gate is None)
    if gate is not None and found.gate is not None:
        assert near(read @ found.gate.T, iv.capture(model, X, gate.name)[gate.name])


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_neurons_of_experts_mixed_by_the_router_are_the_feed_forward(name: str) -> None:
    root = network(name)
    model = iv.open_model(root)
    acts = iv.capture(model, X, ["blocks.0.mlp.in", "blocks.0.moe.router", "blocks.0.mlp.out"])
    read, router = acts["blocks.0.mlp.in"], acts["blocks.0.moe.router"]
    assert router.shape == (2, 6, 4)
    top = router.topk(2, dim=-1)
    share = torch.zeros_like(router).scatter(-1, top.indices, top.values.softmax(-1))
    if name == "qwen3_moe" and not root.config.norm_topk_prob:
        share = router.softmax(-1) * (share > 0)
    made = torch.zeros_like(read)
    for expert in range(4):
        found = iv.neurons(model, 0, expert=expert)
        assert found.gate is not None
        gate, value = read @ found.gate.T, read @ found.into.T
        if name == "gpt_oss":
            gate = (gate + found.gate_bias).clamp(max=7.0)
            value = (value + found.into_bias).clamp(-7.0, 7.0)
            hidden = (value + 1) * gate * torch.sigmoid(1.702 * gate)
        else:
            hidden = torch.nn.functional.silu(gate) * value
        out = hidden @ found.out + (0 if found.out_bias is None else found.out_bias)
        made = made + share[..., expert, None] * out
    assert near(made, acts["blocks.0.mlp.out"])
    with pytest.raises(ModelError, match=r"has 4 experts; give expert=0 to 3"):
        iv.neurons(model, 0)


def everything(model: iv.Model) -> list[Tensor]:
    """All weights that one call each gives."""
    ov, qk, found = iv.ov_circuit(model, 1), iv.qk_circuit(model, 1), iv.neurons(model, 1)
    return [
        iv.embedding(model),
        iv.unembedding(model).matrix,
        ov.left,
        ov.right,
        qk.left,
        qk.right,
        found.into,
        found.out,
    ]


@pytest.mark.parametrize("name", ["gpt2", "falcon 40b", "phi3", "llama"])
@pytest.mark.parametrize("where", ["cpu", "disk"])
def test_offloaded_weights_are_read_from_where_they_are_kept(name: str, where: str, tmp_path: Path) -> None:
    wanted = everything(iv.open_model(network(name)))
    logits = iv.capture(iv.open_model(network(name)), X, "logits")["logits"]
    root = network(name)
    if where == "cpu":
        accelerate.cpu_offload(root, execution_device=torch.device("cpu"))
    else:
        accelerate.disk_offload(root, str(tmp_path), execution_device=torch.device("cpu"))
    model = iv.open_model(root)
    assert next(root.parameters()).is_meta
    assert all(torch.equal(a, b) for a, b in zip(everything(model), wanted, strict=True))
    acts = iv.capture(model, {"input_ids": X}, ["blocks.1.attn.result", "blocks.1.attn.pattern", "logits"])
    plain = iv.capture(iv.open_model(network(name)), X, ["blocks.1.attn.result", "blocks.1.attn.pattern"])
    assert torch.equal(acts["logits"], logits)
    assert torch.equal(acts["blocks.1.attn.pattern"], plain["blocks.1.attn.pattern"])
    assert near(acts["blocks.1.attn.result"], plain["blocks.1.attn.result"])


def test_tied_weights_are_told(tmp_path: Path) -> None:
    root = network("gpt2")
    root.config.tie_word_embeddings = True
    root.tie_weights()
    found = iv.unembedding(iv.open_model(root))
    assert found.is_tied and torch.equal(found.matrix, iv.embedding(iv.open_model(root)).T)


def test_what_a_network_lacks_is_refused_with_a_way_out() -> None:
    model = iv.open_model(network("llama"))
    with pytest.raises(ModelError, match=r"no layer 9: LlamaForCausalLM has 2, 0 to 1"):
        iv.ov_circuit(model, 9)
    with pytest.raises(ModelError, match=r"has one feed-forward and no experts; drop expert=1"):
        iv.neurons(model, 0, expert=1)
    with pytest.raises(ModelError, match=r"Toy has no 'logits'; open a language model"):
        iv.unembedding(iv.open_model(toy("tensor")))
    with pytest.raises(ModelError, match=r"has no 'attn.q' in block 0 .* model.sites\(\) lists what it has"):
        iv.qk_circuit(iv.open_model(toy("tensor")), 0)
