"""Fine-tunes stored as low-rank differences: merged on opening, refused where they do not belong."""

import hashlib
import json

import pytest
import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

import innerview as iv
from innerview.bundled import bundled_names

NAME = "model.layers.1.mlp.down_proj"


@pytest.fixture
def folders(tmp_path):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20,
        hidden_size=8,
        intermediate_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    base, tuned = tmp_path / "base", tmp_path / "tuned"
    LlamaForCausalLM(config).save_pretrained(base)
    tuned.mkdir()
    save_file(
        {f"{NAME}.A": torch.randn(3, 12).half(), f"{NAME}.B": torch.randn(8, 3).half()}, tuned / "adapter.safetensors"
    )
    sha = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    (tuned / "adapter.json").write_text(json.dumps({"base": "../base", "base_sha256": sha}))
    return base, tuned


def test_opening_an_adapter_gives_its_base_with_the_difference_added(folders):
    base, tuned = folders
    plain, merged = iv.open_model(str(base)), iv.open_model(str(tuned))
    weights, others = plain.module.state_dict(), merged.module.state_dict()
    differ = [name for name in weights if not torch.equal(weights[name], others[name])]
    assert differ == [f"{NAME}.weight"]
    assert torch.linalg.matrix_rank(others[differ[0]] - weights[differ[0]], atol=1e-4) == 3
    assert merged.name == str(tuned)


def test_an_adapter_of_another_base_is_refused(folders):
    base, tuned = folders
    card = json.loads((tuned / "adapter.json").read_text())
    (tuned / "adapter.json").write_text(json.dumps(card | {"base_sha256": "0" * 64}))
    with pytest.raises(iv.ModelError, match=r"belongs to weights with sha256 000000000000….*make the adapter again"):
        iv.open_model(str(tuned))
    (base / "model.safetensors").unlink()
    with pytest.raises(iv.ModelError, match=r"the base of .* is missing"):
        iv.open_model(str(tuned))


def test_a_pair_that_fits_no_weight_is_refused(folders):
    _, tuned = folders
    save_file({f"{NAME}.A": torch.zeros(3, 11), f"{NAME}.B": torch.zeros(8, 3)}, tuned / "adapter.safetensors")
    with pytest.raises(iv.ModelError, match=r"the pair 'model\.layers\.1\.mlp\.down_proj' of .* fits no weight"):
        iv.open_model(str(tuned))


def test_a_damaged_adapter_is_refused(folders):
    _, tuned = folders
    (tuned / "adapter.safetensors").write_bytes(b"not a file of tensors")
    with pytest.raises(iv.ModelError, match="cannot be read"):
        iv.open_model(str(tuned))
    (tuned / "adapter.json").write_text("{}")
    with pytest.raises(iv.ModelError, match="it needs base and base_sha256"):
        iv.open_model(str(tuned))


def test_every_bundled_name_opens_with_a_tokenizer():
    assert "pocket" in bundled_names()
    for name in bundled_names():
        assert iv.open_model(name).tokenizer is not None
