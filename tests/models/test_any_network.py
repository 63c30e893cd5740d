"""One small network of each kind: it opens, its sites are listed, captured and edited, by family, by finding or by module path."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

import innerview as iv
from tests.models.configs import network
from tests.networks import hook_ids

VOCAB = 61
SIZES = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
}
BOTH = {**SIZES, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}  # fmt: skip


def ids(rows: int = 2, tokens: int = 5, first: int = 20) -> Tensor:
    return (torch.arange(rows * tokens) * 3 % 30 + first).view(rows, tokens)


def pair() -> dict[str, Tensor]:
    """What an encoder and a decoder read."""
    return {"input_ids": ids(), "decoder_input_ids": ids(tokens=4)}


def adding(site: str, size: float = 1.0) -> iv.Custom:
    """Add a vector of unlike numbers."""
    return iv.Custom(lambda x, context: x + size * torch.cos(torch.arange(x.shape[-1]) * 1.7 + 0.3), site=site)


def output(model: iv.Model, given: dict[str, Tensor] | Tensor) -> Tensor:
    with torch.no_grad():
        made = model.module(**given) if isinstance(given, dict) else model.module(given)
    return made if isinstance(made, Tensor) else made.logits


def moves(model: iv.Model, given: dict[str, Tensor] | Tensor, site: str) -> bool:
    """Whether adding a vector moves every row of the output, and adding zero leaves it bitwise alone."""
    before = output(model, given)
    with iv.editing(model, [adding(site, 0.0)]):
        assert torch.equal(before, output(model, given))
    with iv.editing(model, [adding(site)]):
        after = output(model, given)
    assert torch.equal(before, output(model, given))
    return bool((before != after).flatten(1).any(dim=1).all())


def build(kind: type, config: object) -> nn.Module:
    torch.manual_seed(0)
    return kind(config).eval()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        (T5ForConditionalGeneration, T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=VOCAB)),
        (BartForConditionalGeneration, BartConfig(**BOTH, forced_eos_token_id=2)),
        (MarianMTModel, MarianConfig(**BOTH, decoder_vocab_size=VOCAB)),
    ],
)  # fmt: skip
def test_an_encoder_and_a_decoder_have_sites_of_two_names_and_what_crosses_over(kind: type, config: object) -> None:
    model = iv.open_model(build(kind, config))
    parts = ("resid_in", "attn.out", "mlp.out", "resid")
    wanted = [f"{side}.blocks.{i}.{part}" for side in ("encoder", "decoder") for i in range(2) for part in parts]
    wanted += [f"decoder.blocks.{i}.cross.out" for i in range(2)]
    assert set(wanted) <= set(model.table)
    acts = iv.capture(model, pair(), wanted)
    assert acts["encoder.blocks.1.resid"].shape == (2, 5, 32) and acts["decoder.blocks.1.resid"].shape == (2, 4, 32)
    assert all(moves(model, pair(), name) for name in wanted)
    with pytest.raises(iv.SiteError, match=r"no site 'blocks.0.resid'.*nearest is '(en|de)coder\.blocks\.0\.resid'"):
        model.site("blocks.0.resid")


def test_what_crosses_over_comes_from_the_encoder() -> None:
    model = iv.open_model(build(T5ForConditionalGeneration, T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=VOCAB)))  # fmt: skip
    other = pair() | {"input_ids": ids(first=31)}
    names = ["decoder.blocks.0.attn.out", "decoder.blocks.0.cross.out"]
    here, there = (iv.capture(model, given, names) for given in (pair(), other))
    assert torch.equal(here[names[0]], there[names[0]])
    assert not torch.equal(here[names[1]], there[names[1]])


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe", "granitemoe", "olmoe"])
def test_a_mixture_of_experts_opens(name: str) -> None:
    model = iv.open_model(network("causal", name))
    given = {"input_ids": ids()}
    for site in ("blocks.0.mlp.out", "blocks.1.attn.out", "blocks.0.resid"):
        assert iv.capture(model, given, site)[site].shape == (2, 5, 32)
        assert moves(model, given, site)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm", "recurrent_gemma"])
def test_a_network_without_attention_opens(name: str) -> None:
    model = iv.open_model(network("causal", name))
    given = {"input_ids": ids(), "use_cache": False}
    acts = iv.capture(model, given, "blocks.*.resid")
    assert all(acts[site].shape == (2, 5, 32) for site in acts.sites)
    assert moves(model, given, "blocks.0.resid") and moves(model, given, acts.sites[-1])


@pytest.mark.parametrize("name", ["mamba", "mamba2"])
def test_what_a_mixer_adds_is_named_as_one(name: str) -> None:
    model = iv.open_model(network("causal", name))
    acts = iv.capture(model, ids(), ["blocks.0.resid_in", "blocks.0.mixer.out", "blocks.0.resid"])
    total = acts["blocks.0.resid_in"] + acts["blocks.0.mixer.out"]
    torch.testing.assert_close(total, acts["blocks.0.resid"])
    with pytest.raises(iv.SiteError, match="nearest is"):
        model.site("blocks.0.attn.out")


class Recurrent(nn.Module):
    """A language model of one LSTM."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, VOCAB)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.embed(x))[0])


def test_a_recurrent_network_opens_by_module_path() -> None:
    torch.manual_seed(0)
    model = iv.open_model(Recurrent().eval())
    assert model.opened_by == "path" and "module:lstm" in model.sites().index
    assert iv.capture(model, ids(), "lstm")["lstm"].shape == (2, 5, 16)
    assert moves(model, ids(), "module:lstm") and moves(model, ids(), "embed")
    with pytest.raises(
        iv.SiteError,
        match=r"no site 'blocks.0.resid' in Recurrent: Recurrent has no list of repeated blocks; use module paths",
    ):
        model.site("blocks.0.resid")


def test_a_plain_convolutional_network_opens_by_module_path() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 4 * 4, 10)]
    model = iv.open_model(nn.Sequential(*layers).eval())
    picture = torch.randn(2, 3, 8, 8)
    assert iv.capture(model, picture, "module:2")["module:2"].shape == (2, 8, 4, 4)
    assert moves(model, picture, "module:2")


def test_a_vision_transformer_opens() -> None:
    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8)  # fmt: skip
    model = iv.open_model(build(ViTForImageClassification, config))
    given = {"pixel_values": torch.randn(2, 3, 16, 16)}
    acts = iv.capture(model, given, ["blocks.*.resid_in", "blocks.*.attn.out", "blocks.*.mlp.out", "blocks.*.resid"])
    assert acts["blocks.1.resid"].shape == (2, 5, 32)
    total = acts["blocks.1.resid_in"] + acts["blocks.1.attn.out"] + acts["blocks.1.mlp.out"]
    torch.testing.assert_close(total, acts["blocks.1.resid"])
    assert all(moves(model, given, f"blocks.0.{part}") for part in ("attn.out", "mlp.out", "resid"))


def test_a_multimodal_wrapper_opens_on_its_language_model() -> None:
    vision = CLIPVisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=16, patch_size=8)  # fmt: skip
    text = LlamaConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=VOCAB
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=60, image_seq_length=4, vision_feature_layer=-1
    )
    model = iv.open_model(build(LlavaForConditionalGeneration, config))
    assert model.n_layers == 2 and "language_model" in model.site("blocks.0.resid").module
    tokens = torch.tensor([[1, 60, 60, 60, 60, 7, 8], [1, 60, 60, 60, 60, 9, 4]])
    given = {"input_ids": tokens, "pixel_values": torch.randn(2, 3, 16, 16)}
    assert iv.capture(model, given, "blocks.1.resid")["blocks.1.resid"].shape == (2, 7, 32)
    assert moves(model, given, "blocks.0.attn.out")
    tower = next(path for path, m in model.module.named_modules() if path.endswith("layers.0") and "vision" in path)
    assert moves(model, given, f"module:{tower}")


def test_speech_opens() -> None:
    config = WhisperConfig(
        **BOTH, num_mel_bins=8, max_source_positions=6, max_target_positions=16, suppress_tokens=None, begin_suppress_tokens=None
    )  # fmt: skip
    model = iv.open_model(build(WhisperForConditionalGeneration, config))
    given = {"input_features": torch.randn(2, 8, 12), "decoder_input_ids": ids(tokens=4)}
    assert iv.capture(model, given, "encoder.blocks.1.resid")["encoder.blocks.1.resid"].shape == (2, 6, 32)
    assert all(moves(model, given, f"{name}.out") for name in ("encoder.blocks.0.attn", "decoder.blocks.0.cross", "decoder.blocks.1.mlp"))  # fmt: skip


def test_sound_opens() -> None:
    config = Wav2Vec2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, vocab_size=VOCAB, conv_dim=(16, 16),
        conv_stride=(5, 2), conv_kernel=(10, 3), num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = iv.open_model(build(Wav2Vec2ForCTC, config))
    given = {"input_values": torch.randn(2, 400)}
    assert iv.capture(model, given, "blocks.0.resid")["blocks.0.resid"].ndim == 3
    assert moves(model, given, "blocks.0.resid") and moves(model, given, "blocks.1.attn.out")


class Block(nn.Module):
    """A block of an unknown network: norms before, and its parts under names of its own."""

    def __init__(self, width: int, gain: float) -> None:
        super().__init__()
        self.norm_a, self.norm_b = nn.LayerNorm(width), nn.LayerNorm(width)
        self.look = nn.MultiheadAttention(width, 2, batch_first=True)
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.gain = gain

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        y = self.norm_a(x)
        x = x + self.look(y, y, y)[0]
        return x + self.gain * self.think(self.norm_b(x)), None


class Own(nn.Module):
    """A network that no library knows, with dropout, which must stay as it is."""

    def __init__(self, width: int = 16, gain: float = 1.0) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCAB, width)
        self.drop = nn.Dropout(0.5)
        self.tower = nn.ModuleList(Block(width, gain) for _ in range(3))
        self.last = nn.LayerNorm(width)
        self.out = nn.Linear(width, VOCAB)

    def forward(self, tokens: Tensor, scale: float = 1.0) -> Tensor:
        x = self.drop(self.table(tokens))
        for block in self.tower:
            x = block(x)[0]
        return self.out(self.last(x)) * scale


def test_a_network_of_ones_own_is_found_by_what_it_does() -> None:
    torch.manual_seed(0)
    model = iv.open_model(Own().eval())
    wanted = {
        "embed": "table",
        "final_norm": "last",
        "logits": "out",
        "blocks.1.attn.out": "tower.1.look",
        "blocks.1.mlp.out": "tower.1.think",
    }
    assert {name: model.site(name).module for name in wanted} == wanted
    assert (model.n_layers, model.d_model, model.vocab, model.opened_by) == (3, 16, VOCAB, "finding")
    assert len(model.checks) == 5
    assert all(
        moves(model, ids(), f"blocks.0.{part}") for part in ("resid_in", "attn.out", "mlp.out", "mlp.hidden", "resid")
    )


def test_what_is_multiplied_before_it_is_added_is_captured_as_it_is_added() -> None:
    torch.manual_seed(0)
    model = iv.open_model(Own(gain=0.25).eval())
    acts = iv.capture(model, ids(), ["blocks.2.*"])
    total = acts["blocks.2.resid_in"] + acts["blocks.2.attn.out"] + acts["blocks.2.mlp.out"]
    torch.testing.assert_close(total, acts["blocks.2.resid"])
    torch.testing.assert_close(acts["blocks.2.mlp.out"], 0.25 * iv.capture(model, ids(), "module:tower.2.think")["module:tower.2.think"])  # fmt: skip


def test_opening_leaves_modes_random_numbers_weights_and_hooks_as_they_were() -> None:
    torch.manual_seed(0)
    module = Own().train()
    module.tower[1].eval()
    modes = [m.training for m in module.modules()]
    weights = copy.deepcopy(module.state_dict())
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    before = hook_ids(module)
    iv.open_model(module)
    assert [m.training for m in module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), states[0]) and random.getstate() == states[1]
    assert np.random.get_state()[1].tolist() == states[2]
    assert hook_ids(module) == before and all(p.grad is None for p in module.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())


def test_the_trial_runs_once_in_a_networks_life() -> None:
    torch.manual_seed(0)
    module = Own().eval()
    iv.open_model(module)
    calls: list[int] = []
    handle = module.register_forward_hook(lambda m, a, o: calls.append(1))
    again = iv.open_model(module)
    handle.remove()
    assert calls == [] and again.opened_by == "finding"


def test_meta_weights_are_not_run() -> None:
    with torch.device("meta"):
        model = iv.open_model(Own())
    assert model.opened_by == "path"
    with pytest.raises(iv.SiteError, match=r"its weights are meta tensors, so it cannot be run .*; use module paths"):
        model.site("blocks.0.resid")
    assert model.site("tower.0").module == "tower.0"


class Shared(Own):
    """One block, run three times."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.ModuleList([Block(16, 1.0)] * 3)


class Leaky(Own):
    """Something happens between the blocks."""

    def forward(self, tokens: Tensor, scale: float = 1.0) -> Tensor:
        x = self.table(tokens)
        for block in self.tower:
            x = block(x)[0] * 0.9
        return self.out(self.last(x))


class Failing(Own):
    """A network whose trial fails."""

    def forward(self, tokens: Tensor, scale: float = 1.0) -> Tensor:
        raise RuntimeError("only for pictures")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Shared, r"tower\.0 runs 3 times in one forward; use module paths, such as module:tower\.0"),
        (Leaky, r"what tower\.0 returns is not what tower\.1 receives; use module paths, such as module:tower\.0"),
        (Failing, r"a trial with a few tokens failed with RuntimeError: only for pictures; use module paths"),
    ],
)
def test_what_cannot_be_settled_is_refused_by_name_and_the_network_still_opens(
    kind: type[nn.Module], reason: str
) -> None:
    torch.manual_seed(0)
    module = kind().eval()
    before = hook_ids(module)
    model = iv.open_model(module)
    assert model.opened_by == "path" and hook_ids(module) == before
    with pytest.raises(iv.SiteError, match=rf"no site 'blocks.1.resid' in {kind.__name__}: {reason}"):
        model.site("blocks.1.resid")
    with pytest.raises(iv.SiteError, match=reason):
        model.expand("blocks.*.attn.out")
    assert model.site("module:tower.0").module == "tower.0"


def test_several_streams_are_one_more_axis() -> None:
    model = iv.open_model(network("causal", "deepseek_v4"))
    site = model.site("blocks.0.resid")
    assert site.axes == ("batch", "pos", "stream", "d_model")
    acts = iv.capture(model, {"input_ids": ids()}, "blocks.0.resid")
    assert acts["blocks.0.resid"].shape == (2, 5, *site.sizes)
    assert moves(model, {"input_ids": ids()}, "blocks.0.resid")
    with pytest.raises(iv.SiteError, match=r"blocks.0.attn.out'.*: what model.layers.0 adds to its stream is not what one of its modules returns; use module:"):  # fmt: skip
        model.site("blocks.0.attn.out")


def test_a_network_that_got_another_block_is_looked_through_again() -> None:
    torch.manual_seed(0)
    module = Own().eval()
    assert iv.open_model(module).n_layers == 3
    module.tower.append(Block(16, 1.0).eval())
    assert iv.open_model(module).n_layers == 4


def test_a_compiled_network_is_found_around_its_original_and_not_run_when_compiled_in_place() -> None:
    torch.manual_seed(0)
    module = Own().eval()
    wrapped = iv.open_model(torch.compile(module, backend="eager"))
    assert wrapped.opened_by == "finding" and wrapped.site("blocks.0.resid").module == "_orig_mod.tower.0"
    module.compile(backend="eager")
    inside = iv.open_model(module)
    with pytest.raises(iv.SiteError, match=r"Own is compiled, and compiled code ignores hooks; open it before compiling it; use module paths"):  # fmt: skip
        inside.site("blocks.0.resid")


def test_a_block_that_mixes_and_one_that_does_not_are_told_apart_by_what_they_do() -> None:
    torch.manual_seed(0)
    module = Own().eval()
    for block in module.tower:
        block.look, block.think = Blind(16), Sighted(16)
    model = iv.open_model(module)
    # Named as they are written here, the first would be the attention.
    assert model.site("blocks.0.mlp.out").module == "tower.0.look"
    assert model.site("blocks.0.mixer.out").module == "tower.0.think"


class Blind(nn.Module):
    """Called as an attention, and blind to other positions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: Tensor, *others: Tensor) -> tuple[Tensor, None]:
        return torch.tanh(self.inner(x)), None


class Sighted(nn.Module):
    """Reads the position before its own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], dim=1))


def test_a_gate_between_a_module_and_the_stream_is_no_addition_of_that_module() -> None:
    class Gated(Block):
        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            y = self.norm_a(x)
            x = x + self.look(y, y, y)[0] * torch.sigmoid(y)
            return x + self.think(self.norm_b(x)), None

    torch.manual_seed(0)
    module = Own().eval()
    module.tower = nn.ModuleList(Gated(16, 1.0).eval() for _ in range(2))
    model = iv.open_model(module)
    assert model.opened_by == "finding" and "blocks.0.resid" in model.table
    with pytest.raises(iv.SiteError, match=r"what tower\.0 adds to its stream is not what one of its modules returns; use module:tower\.0\.look"):  # fmt: skip
        model.site("blocks.0.attn.out")
