"""Dictionaries saved: in our own format to the bit, in half its size, and in SAELens' where it has what is needed."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import innerview as iv
from tests.dictionaries.published import WRITERS, rows


@pytest.mark.parametrize("name", WRITERS)
def test_our_own_format_comes_back_to_the_bit(name: str, tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS[name]().write(tmp_path))
    if name == "saelens_standard":
        sae = sae.at(bos="absent", commit="abc")
    again = iv.load_dictionary(iv.save_dictionary(sae, tmp_path / "ours"))
    assert again.architecture == sae.architecture and again.manifest == sae.manifest
    ours, theirs = again.weights.tensors(), sae.weights.tensors()
    assert set(ours) == set(theirs)
    assert all(ours[key].dtype == theirs[key].dtype and torch.equal(ours[key], theirs[key]) for key in theirs)


def test_statistics_come_back_and_float64_stays_float64(tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS["saelens_topk"]().write(tmp_path)).to(dtype=torch.float64)
    told = {"median": torch.rand(40), "fired": torch.arange(40), "l0": 5.25, "texts": 12}
    sae = sae.at(statistics=told)
    again = iv.load_dictionary(iv.save_dictionary(sae, tmp_path / "ours"))
    assert again.weights.encoder.dtype == torch.float64 and torch.equal(again.weights.encoder, sae.weights.encoder)
    found = again.manifest.statistics
    assert torch.equal(found["median"], told["median"]) and torch.equal(found["fired"], told["fired"])
    assert (found["l0"], found["texts"]) == (5.25, 12)


def test_half_precision_is_half_the_size_and_read_in_float32(tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS["gemma_scope"]().write(tmp_path))
    whole = iv.save_dictionary(sae, tmp_path / "whole") / "weights.safetensors"
    half = iv.save_dictionary(sae, tmp_path / "half", dtype=torch.float16) / "weights.safetensors"
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    again = iv.load_dictionary(tmp_path / "half")
    assert again.weights.encoder.dtype == torch.float32 and again.manifest.dtype == "float16"
    torch.testing.assert_close(again.weights.encoder, sae.weights.encoder, atol=1e-3, rtol=1e-3)


def test_numbers_that_half_precision_lacks_are_refused(tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS["gemma_scope"]().write(tmp_path))
    sae = dataclasses.replace(sae, weights=dataclasses.replace(sae.weights, encoder=sae.weights.encoder * 1e6))
    with pytest.raises(iv.DictionaryError, match=r"'encoder' holds .*, which torch.float16 cannot; leave dtype= out"):
        iv.save_dictionary(sae, tmp_path / "half", dtype=torch.float16)
    assert not (tmp_path / "half").exists() or not list((tmp_path / "half").iterdir())


@pytest.mark.parametrize("name", ["sparsify_groupmax", "saelens_standard"])
def test_saelens_format_has_its_names_or_is_refused(name: str, tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS[name]().write(tmp_path))
    if name == "sparsify_groupmax":
        with pytest.raises(
            iv.DictionaryError, match=r"SAELens has no GroupMax\(k=5.*\) as a transcoder; save it in innerview's own"
        ):
            iv.save_dictionary(sae, tmp_path / "saved", iv.SAELensFormat())
        return
    folder = iv.save_dictionary(sae, tmp_path / "saved", iv.SAELensFormat())
    config = json.loads((folder / "cfg.json").read_text())
    assert config["metadata"]["hook_name"] == "blocks.3.hook_resid_post" and config["architecture"] == "standard"
    tensors = load_file(folder / "sae_weights.safetensors")
    assert {key: list(one.shape) for key, one in tensors.items()} == {
        "W_enc": [12, 40], "b_enc": [40], "W_dec": [40, 12], "b_dec": [12],
    }  # fmt: skip


@pytest.mark.parametrize(
    "name", ["saelens_jumprelu", "saelens_gated", "saelens_layer_norm", "llama_scope", "saelens_skip_transcoder"]
)
def test_saelens_format_keeps_codes_and_reconstruction(name: str, tmp_path: Path) -> None:
    sae, x = iv.load_dictionary(WRITERS[name]().write(tmp_path)), rows()
    again = iv.load_dictionary(iv.save_dictionary(sae, tmp_path / "saved", iv.SAELensFormat()))
    torch.testing.assert_close(again.encode(x).dense(), sae.encode(x).dense(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again.reconstruct(x), sae.reconstruct(x), atol=1e-4, rtol=1e-4)


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    sae = iv.load_dictionary(WRITERS["saelens_topk"]().write(tmp_path))
    folder = iv.save_dictionary(sae, tmp_path / "ours")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(iv.DictionaryError, match="cannot be written as JSON"):
        iv.save_dictionary(sae.at(statistics={"made by": object()}), folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(iv.DictionaryError, match="a str has no file format"):
        iv.save_dictionary("sae", folder)  # type: ignore[arg-type]
