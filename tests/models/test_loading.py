"""Loading: the class that a config names, numbers and devices that are asked for, and what other libraries have opened."""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

import innerview as iv
from innerview.models import loading
from innerview.models.loading import class_of
from tests.networks import module, opened

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48, "vocab_size": 61}
T5 = T5Config(d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, vocab_size=61)
NETWORKS = {
    "masked": (BertForMaskedLM, BertConfig(**SMALL)),
    "encoder and decoder": (T5ForConditionalGeneration, T5),
    "vision": (ViTForImageClassification, ViTConfig(**{k: v for k, v in SMALL.items() if k != "vocab_size"}, image_size=16, patch_size=8)),
    "no head": (LlamaModel, LlamaConfig(**SMALL)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folder_opens_as_the_class_that_its_config_names(name: str, tmp_path: Path) -> None:
    kind, config = NETWORKS[name]
    torch.manual_seed(0)
    saved = kind(config).eval()
    saved.save_pretrained(tmp_path)
    model = iv.open_model(tmp_path)
    assert type(model.module) is kind and not model.module.training
    theirs, ours = saved.state_dict(), model.module.state_dict()
    assert theirs.keys() == ours.keys() and all(torch.equal(theirs[k], ours[k]) for k in theirs)


def test_a_config_without_a_class_loads_the_first_kind_that_there_is_for_it() -> None:
    assert class_of(LlamaConfig()).__name__ == "AutoModelForCausalLM"
    assert class_of(T5Config()).__name__ == "AutoModelForSeq2SeqLM"
    assert class_of(ViTConfig()).__name__ == "AutoModel"
    assert class_of(LlamaConfig(architectures=["SomethingElse"])).__name__ == "AutoModelForCausalLM"
    # The class of another kind of config is no class for this one.
    assert class_of(LlamaConfig(architectures=["BertForMaskedLM"])).__name__ == "AutoModelForCausalLM"


def test_half_precision_is_loaded_when_asked_for_and_found_sites_hold_in_it(tmp_path: Path) -> None:
    kind, config = NETWORKS["encoder and decoder"]
    torch.manual_seed(0)
    kind(config).save_pretrained(tmp_path)
    model = iv.open_model(tmp_path, dtype=torch.bfloat16, device="cpu")
    assert model.module.dtype == torch.bfloat16 and model.opened_by in ("table", "finding")
    assert {"encoder.blocks.0.attn.out", "decoder.blocks.1.mlp.out"} <= set(model.table)
    given = {"input_ids": torch.arange(5)[None] + 9, "decoder_input_ids": torch.arange(4)[None] + 9}
    assert iv.capture(model, given, "decoder.blocks.1.resid")["decoder.blocks.1.resid"].dtype == torch.bfloat16


def test_a_device_map_is_passed_on_where_accelerate_is_present(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    module("llama").save_pretrained(tmp_path)
    model = iv.open_model(tmp_path, device_map={"": "cpu"})
    ids = torch.arange(5)[None] + 9
    plain = iv.open_model(tmp_path)
    assert torch.equal(*(iv.capture(m, ids, "blocks.1.resid")["blocks.1.resid"] for m in (model, plain)))


def test_a_device_map_is_refused_where_it_means_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(iv.ModelError, match=r"device='cpu' and device_map='auto' were both given; give one of them"):
        iv.open_model(tmp_path, device="cpu", device_map="auto")
    with pytest.raises(iv.ModelError, match=r"device_map='auto' spreads weights while they load, and LlamaForCausalLM is loaded already"):  # fmt: skip
        iv.open_model(module("llama"), device_map="auto")
    monkeypatch.setattr(loading, "find_spec", lambda name: None)
    with pytest.raises(iv.ModelError, match=r"device_map='auto' needs the package accelerate, which is not installed"):
        iv.open_model(tmp_path, device_map="auto")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_weights_quantised_by_bitsandbytes_say_what_is_missing(tmp_path: Path) -> None:
    module("llama").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    settings = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))
    with pytest.raises(iv.ModelError, match=r"are quantised by bitsandbytes, which is not installed; pip install bitsandbytes accelerate"):  # fmt: skip
        iv.open_model(tmp_path)


def test_code_that_comes_with_weights_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "modeling_own.py").write_text(f"open({str(ran)!r}, 'w').write('x')\n")
    auto = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own_and_unknown", "auto_map": auto}))
    with pytest.raises(iv.ModelError, match="could not be opened"):
        iv.open_model(tmp_path)
    assert not ran.exists()


def envoy(inner: nn.Module, name: str) -> object:
    """What nnsight hands out: no module, with the network under an attribute, and its own ways of answering for others."""

    class Envoy:
        def __init__(self) -> None:
            self.__dict__[name] = inner
            self.__dict__["tokenizer"] = "their tokenizer"

        def __getattr__(self, asked: str) -> object:
            return SimpleNamespace(asked=asked)

    return Envoy()


@pytest.mark.parametrize("name", ["_model", "_module"])
def test_what_nnsight_has_opened_opens_on_its_network(name: str) -> None:
    inner = module("llama")
    model = iv.open_model(envoy(inner, name))
    assert model.module is inner and model.family is not None and model.family.name == "llama"
    assert model.tokenizer == "their tokenizer"


class Bridge(nn.Module):
    """What TransformerLens hands out: a module around the network, which it keeps out of its own parts."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.__dict__["original_model"] = inner
        self.tokenizer = None


Bridge.__module__ = "transformer_lens.model_bridge.bridge"


def test_a_bridge_of_transformerlens_opens_on_its_network() -> None:
    inner = module("gpt2")
    model = iv.open_model(Bridge(inner))
    assert model.module is inner and torch.equal(
        iv.capture(model, torch.arange(5)[None] + 9, "blocks.1.resid")["blocks.1.resid"],
        iv.capture(opened("gpt2"), torch.arange(5)[None] + 9, "blocks.1.resid")["blocks.1.resid"],
    )


def test_a_module_of_ones_own_with_a_part_of_such_a_name_is_opened_itself() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self._model = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self._model(x)

    wrapper = Wrapper()
    assert iv.open_model(wrapper).module is wrapper


def test_a_network_that_cannot_be_moved_says_so() -> None:
    class Stuck(nn.Linear):
        def to(self, *args: object, **kwargs: object) -> "Stuck":
            raise ValueError("this one is quantised\nand long to explain")

    with pytest.raises(
        iv.ModelError, match=r"Stuck cannot be moved to dtype=torch.bfloat16: this one is quantised; leave"
    ):
        iv.open_model(Stuck(2, 2), dtype=torch.bfloat16)
