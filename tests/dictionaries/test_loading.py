"""Published formats: each loads from its files with the codes of its own formula, and every trap of theirs is stepped around."""

from pathlib import Path

import pytest
import torch

import innerview as iv
from tests.dictionaries.published import WRITERS, D, cross_layer, rows, saelens_temporal, temporal

SITES = {
    "saelens_standard": ("blocks.3.resid", ""), "saelens_before_6": ("blocks.8.resid_in", ""), "saelens_before_3": ("blocks.8.resid_in", ""),
    "saelens_skip_transcoder": ("blocks.3.resid_mid", "blocks.3.mlp.out"), "gemma_scope": ("blocks.12.resid", ""),
    "gemma_scope_2": ("blocks.7.mlp.in", "blocks.7.mlp.out"), "sparsify_topk": ("blocks.5.resid", ""),
    "sparsify_groupmax": ("blocks.5.mlp.in", "blocks.5.mlp.out"), "learned_relu": ("blocks.8.resid", ""),
    "llama_scope": ("blocks.15.resid", ""), "llama_scope_r1": ("blocks.10.resid", ""), "openai_topk": ("blocks.8.resid", ""),
    "openai_relu": ("blocks.3.mlp.out", ""), "goodfire": ("blocks.19.resid", ""), "qwen_scope": ("blocks.4.resid", ""),
    "tracer_relu": ("blocks.6.mlp.in", "blocks.6.mlp.out"),
}  # fmt: skip
MODELS = {
    "saelens_standard": "gpt2-small", "gemma_scope": "google/gemma-2-2b", "gemma_scope_2": "google/gemma-3-1b-pt",
    "learned_relu": "EleutherAI/pythia-70m", "goodfire": "meta-llama/Llama-3.1-8B-Instruct", "qwen_scope": "Qwen/Qwen3-1.7B-Base",
    "tracer_relu": "meta-llama/Llama-3.2-1B", "openai_topk": "gpt2", "sparsify_topk": "unknown",
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
def test_a_published_format_gives_the_codes_of_its_own_formula(name: str, tmp_path: Path) -> None:
    written, x = WRITERS[name](), rows()
    sae = iv.load_dictionary(written.write(tmp_path), **written.load)
    wanted = written.codes(x)
    found = sae.encode(x).dense().double()
    assert found.shape == wanted.shape
    # A pre-activation within rounding of its threshold may fall on either side; none of these lies there.
    assert torch.equal(found > 0, wanted > 0)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert 0.02 < float((wanted > 0).double().mean()) < 0.98


@pytest.mark.parametrize("name", SITES)
def test_the_files_tell_the_site(name: str, tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS[name]().write(tmp_path))
    assert (sae.manifest.site, sae.manifest.site_out) == SITES[name]


@pytest.mark.parametrize("name", MODELS)
def test_the_files_tell_the_network(name: str, tmp_path: Path) -> None:
    assert iv.load_dictionary(WRITERS[name]().write(tmp_path)).manifest.model == MODELS[name]


def test_a_cross_layer_transcoder_keeps_its_decoders_apart(tmp_path: Path) -> None:
    written, x = cross_layer(), [rows(seed=seed) for seed in range(3)]
    coder = iv.load_dictionary(written.write(tmp_path))
    assert coder.sites == ("blocks.0.mlp.in", "blocks.1.mlp.in", "blocks.2.mlp.in") and coder.n_layers == 3
    codes = coder.encode(x)
    torch.testing.assert_close(codes[0].dense().double(), written.codes(x[0]), atol=1e-5, rtol=1e-5)
    # By hand: what layers 0 and 1 write into layer 1's output, and its bias.
    stored = {i: written.tensors[f"W_dec_{i}.safetensors"][f"W_dec_{i}"] for i in range(3)}
    wanted = codes[0].dense() @ stored[0][:, 1] + codes[1].dense() @ stored[1][:, 0]
    wanted = wanted + written.tensors["W_enc_1.safetensors"]["b_dec_1"]
    torch.testing.assert_close(coder.decode(codes)["blocks.1.mlp.out"], wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("k", [5, None])
def test_a_temporal_sae_codes_what_the_tokens_before_do_not_predict(k: int | None, tmp_path: Path) -> None:
    written, x = temporal(k), rows(14).view(2, 7, D)
    sae = iv.load_dictionary(written.write(tmp_path))
    assert sae.site == "blocks.12.resid"
    found, wanted = sae.encode(x).dense().double(), written.codes(x)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    # A later token changes nothing before it.
    changed = x.clone()
    changed[:, 4:] += 1.0
    torch.testing.assert_close(sae.encode(changed).dense()[:, :4], sae.encode(x).dense()[:, :4])
    with pytest.raises(iv.DictionaryError, match=r"reads tokens in their order, \[batch, pos, 12\], not \[7, 12\]"):
        sae.encode(x[0])


def test_a_temporal_sae_in_saelens_format_is_the_same(tmp_path: Path) -> None:
    written, x = saelens_temporal(), rows(14).view(2, 7, D)
    sae = iv.load_dictionary(written.write(tmp_path))
    assert sae.site == "blocks.3.resid" and sae.manifest.bos == "prepended"
    torch.testing.assert_close(sae.encode(x).dense().double(), written.codes(x), atol=1e-5, rtol=1e-5)
