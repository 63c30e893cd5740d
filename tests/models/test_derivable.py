"""Scores, patterns, results and scales in networks that no table knows, against what transformers itself returns."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration

import innerview as iv
from innerview.models.families import FAMILIES
from tests.models.configs import network
from tests.networks import ids

X = ids(2, 6)
NAMES = (
    "stablelm",
    "olmo",
    "starcoder2",
    "glm4",
    "helium",
    "nemotron",
    "mpt",
    "gpt_bigcode",
    "codegen",
    "biogpt",
    "olmoe",
    "smollm3",
)


@pytest.mark.parametrize("name", NAMES)
def test_patterns_are_bitwise_those_of_transformers(name: str) -> None:
    assert name not in FAMILIES
    root: Any = network("causal", name)
    model = iv.open_model(root)
    acts = iv.capture(model, X, ["blocks.*.attn.pattern", "blocks.*.attn.scores"])
    eager: Any = network("causal", name)
    eager.config._attn_implementation = "eager"
    with torch.no_grad():
        wanted = eager(input_ids=X, output_attentions=True, use_cache=False).attentions
    for layer, own in enumerate(wanted):
        assert torch.equal(acts[f"blocks.{layer}.attn.pattern"], own)
        assert torch.allclose(acts[f"blocks.{layer}.attn.scores"].softmax(-1), own, atol=1e-6)


def test_patterns_of_an_encoder_and_a_decoder_and_between_them_are_told_apart() -> None:
    sizes: dict[str, Any] = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "vocab_size": 67,
        "decoder_start_token_id": 0,
    }
    torch.manual_seed(0)
    root: Any = T5ForConditionalGeneration(T5Config(**sizes)).eval()
    given = {"input_ids": ids(2, 7), "decoder_input_ids": ids(2, 5, seed=1)}
    sites = ["encoder.blocks.*.attn.pattern", "decoder.blocks.*.attn.pattern", "decoder.blocks.*.cross.pattern"]
    acts = iv.capture(iv.open_model(root), given, sites)
    root.set_attn_implementation("eager")
    with torch.no_grad():
        wanted = root(**given, output_attentions=True)
    for layer in range(2):
        assert torch.equal(acts[f"encoder.blocks.{layer}.attn.pattern"], wanted.encoder_attentions[layer])
        assert torch.equal(acts[f"decoder.blocks.{layer}.attn.pattern"], wanted.decoder_attentions[layer])
        assert torch.equal(acts[f"decoder.blocks.{layer}.cross.pattern"], wanted.cross_attentions[layer])


@pytest.mark.parametrize("name", ["stablelm", "olmo", "starcoder2", "helium"])
def test_results_sum_to_what_the_attention_adds_and_circuits_can_be_read(name: str) -> None:
    model = iv.open_model(network("causal", name))
    acts = iv.capture(model, X, [f"blocks.1.attn.{part}" for part in ("in", "pattern", "v", "result", "out")])
    bias = getattr(model.module.get_submodule(model.table["blocks.1.attn.result"].module), "bias", None)
    added = acts["blocks.1.attn.out"] - (0 if bias is None else bias.detach())
    assert torch.allclose(acts["blocks.1.attn.result"].sum(2), added, atol=1e-5)
    circuit = iv.ov_circuit(model, 1)
    written = torch.einsum("bkm,hmn->bkhn", acts["blocks.1.attn.in"], circuit.matrix())
    written = written if circuit.bias is None else written + circuit.bias
    mixed = torch.einsum("bhqk,bkhn->bqhn", acts["blocks.1.attn.pattern"], written)
    assert torch.allclose(mixed, acts["blocks.1.attn.result"], atol=1e-5)


@pytest.mark.parametrize("name", ["stablelm", "starcoder2", "helium"])
def test_the_scale_of_a_norm_divides_its_input(name: str) -> None:
    model = iv.open_model(network("causal", name))
    for layer, site in enumerate(("blocks.0.norm1.scale", "blocks.1.norm2.scale")):
        norm: Any = model.module.get_submodule(model.table[site].module)
        path = f"module:{model.table[site].module}@input"
        x = iv.capture(model, X, path)[path]
        with torch.no_grad():
            slope = norm(x) - norm(torch.zeros_like(x))
        centred = x - x.mean(-1, keepdim=True) if isinstance(norm, nn.LayerNorm) else x
        found = iv.capture(model, X, site)[site]
        assert found.shape == (2, 6, 1) and layer in (0, 1)
        assert torch.allclose(slope * found, centred * norm.weight, atol=1e-5)


@pytest.mark.parametrize("name", ["stablelm", "starcoder2", "helium", "biogpt", "gpt_bigcode", "olmoe"])
def test_the_stream_between_is_edited_where_the_skip_holds_what_the_norm_receives(name: str) -> None:
    model = iv.open_model(network("causal", name))
    value = torch.randn(2, 6, model.d_model or 0, generator=torch.Generator().manual_seed(1))
    sites = ["blocks.0.resid_mid", "blocks.0.mlp.out", "blocks.0.resid", "blocks.0.attn.out"]
    acts = iv.capture(model, X, sites, edits=[iv.Replace(value, site="blocks.0.resid_mid")])
    assert torch.equal(acts["blocks.0.resid_mid"], value)
    assert torch.allclose(acts["blocks.0.resid"], value + acts["blocks.0.mlp.out"], atol=1e-5)
    plain = iv.capture(model, X, ["blocks.0.attn.out", "blocks.0.mlp.out"])
    assert torch.equal(acts["blocks.0.attn.out"], plain["blocks.0.attn.out"])
    assert not torch.allclose(acts["blocks.0.mlp.out"], plain["blocks.0.mlp.out"])


class Alone(nn.Module):
    """An attention with a softmax of its own, in a network of nobody's family."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(16, 16) for _ in range(4))
        self.num_heads, self.head_dim = 2, 8

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (p(x).unflatten(-1, (2, 8)).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj((torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention and feed-forward, each behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.mlp = Alone(), nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16))
        self.norm = nn.LayerNorm(16)
        self.before = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.before(x))
        return x + self.mlp(self.norm(x))


class Network(nn.Module):
    """Three blocks between an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(40, 16), nn.Linear(16, 40)
        self.layers = nn.ModuleList(Block() for _ in range(3))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def test_a_pattern_is_read_and_edited_in_a_network_of_no_library() -> None:
    torch.manual_seed(0)
    root = Network().eval()
    model = iv.open_model(root)
    x = ids(2, 5) % 40
    pattern = iv.capture(model, x, "blocks.1.attn.pattern")["blocks.1.attn.pattern"]
    assert pattern.shape == (2, 2, 5, 5) and torch.allclose(pattern.sum(-1), torch.ones(2, 2, 5))
    before = root(x)
    with iv.editing(model, [iv.Replace(pattern, site="blocks.1.attn.pattern")]):
        assert torch.equal(root(x), before)
    with iv.editing(model, [iv.Replace(torch.zeros(2, 2, 5, 5), site="blocks.1.attn.pattern")]):
        assert not torch.equal(root(x), before)
    assert torch.equal(root(x), before)
