"""What published formats trip people over, each a sentence: layouts, biases, thresholds, scales, and what files do not say."""

import importlib.machinery
import json
import os
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import innerview as iv
from innerview.dictionaries.loaders import sources
from innerview.dictionaries.loaders.names import input_site, layer_of, site_of
from tests.dictionaries.published import (
    WRITERS,
    D,
    Drawn,
    K,
    N,
    Written,
    learned_batch_topk,
    rows,
    saelens_config,
    saelens_tensors,
)


def loaded(written: Written, root: Path, **load: Any) -> Any:
    return iv.load_dictionary(written.write(root), **load)


# Values.


def test_a_token_at_the_threshold_itself_is_not_active(tmp_path: Path) -> None:
    written = WRITERS["saelens_jumprelu"]()
    tensors = written.tensors["sae_weights.safetensors"]
    tensors["W_enc"], tensors["b_enc"] = torch.eye(D, N), torch.zeros(N)
    tensors["threshold"] = torch.full((N,), 0.5)
    sae = loaded(written, tmp_path)
    x = torch.zeros(1, D)
    x[0, :3] = torch.tensor([0.5, 0.5000001, 0.4999999])
    assert sae.encode(x).features.tolist() == [1]


def test_a_threshold_in_bfloat16_is_read_as_stored_and_compared_in_float32(tmp_path: Path) -> None:
    written = WRITERS["saelens_jumprelu"]()
    tensors = written.tensors["sae_weights.safetensors"]
    tensors["W_enc"], tensors["b_enc"] = torch.eye(D, N).bfloat16(), torch.zeros(N).bfloat16()
    tensors["threshold"] = torch.full((N,), 1.1).bfloat16()
    tensors["W_dec"] = tensors["W_dec"].bfloat16()
    sae = loaded(written, tmp_path)
    threshold = sae.weights.extras["threshold"]
    assert threshold.dtype == torch.float32 and float(threshold[0]) == 1.1015625
    # In bfloat16 this input would be the threshold itself.
    x = torch.zeros(1, D)
    x[0, 0] = 1.1016
    assert sae.encode(x).features.tolist() == [0] and sae.manifest.dtype == "bfloat16"


def test_a_threshold_of_minus_one_means_a_plain_relu(tmp_path: Path) -> None:
    sae, x = loaded(learned_batch_topk(-1.0), tmp_path), rows()
    w = Drawn(17)
    torch.testing.assert_close(
        sae.encode(x).dense().double(), w.pre(x, subtracted=True).clamp(min=0), atol=1e-5, rtol=1e-5
    )


def test_topk_of_dictionary_learning_ignores_the_threshold_that_it_stores(tmp_path: Path) -> None:
    sae = loaded(WRITERS["learned_topk"](), tmp_path)
    assert sae.architecture == iv.TopK(K) and sae.weights.extras == {}
    assert set(sae.encode(rows()).l0().tolist()) == {K}


@pytest.mark.parametrize(("name", "is_off"), [
    ("saelens_standard", True), ("saelens_jumprelu", False), ("gemma_scope", False), ("sparsify_topk", True), ("sparsify_groupmax", False),
    ("learned_relu", True), ("learned_new", False), ("learned_jumprelu", False), ("openai_relu", True), ("goodfire", False),
    ("qwen_scope", False), ("tracer_relu", False),
])  # fmt: skip
def test_the_decoder_bias_is_taken_off_where_the_publisher_takes_it_off(
    name: str, is_off: bool, tmp_path: Path
) -> None:
    assert loaded(WRITERS[name](), tmp_path).manifest.subtracts_decoder_bias is is_off


def test_openai_normalises_each_token_only_with_topk(tmp_path: Path) -> None:
    top, plain = loaded(WRITERS["openai_topk"](), tmp_path / "a"), loaded(WRITERS["openai_relu"](), tmp_path / "b")
    assert top.manifest.normalisation.kind == "layer_norm" and plain.manifest.normalisation.kind == "none"
    x = rows(4)
    codes = top.encode(x)
    # A token scaled and shifted has the same codes; what is decoded goes back to its own scale.
    torch.testing.assert_close(top.encode(x * 7 + 3).dense(), codes.dense(), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(top.decode(codes, x * 7 + 3), top.decode(codes, x) * 7 + 3, atol=2e-2, rtol=1e-3)


def test_the_decoders_lengths_choose_the_topk_where_the_config_rescales(tmp_path: Path) -> None:
    written = WRITERS["saelens_topk"]()
    folded = loaded(written, tmp_path / "a")
    torch.testing.assert_close(folded.weights.decoder.norm(dim=-1), torch.ones(N))
    written.configs["cfg.json"]["rescale_acts_by_decoder_norm"] = False
    plain = loaded(written, tmp_path / "b")
    x = rows()
    assert not torch.equal(folded.encode(x).dense() > 0, plain.encode(x).dense() > 0)


def test_llama_scopes_one_threshold_is_in_the_activations_own_units(tmp_path: Path) -> None:
    sae = loaded(WRITERS["llama_scope"](), tmp_path)
    scale = D**0.5 / 2.5
    torch.testing.assert_close(sae.weights.extras["threshold"], torch.full((N,), 0.52 * scale))
    assert sae.manifest.normalisation.kind == "constant" and sae.manifest.normalisation.factor == pytest.approx(scale)


def test_a_transcoder_of_llama_scope_writes_at_its_own_scale(tmp_path: Path) -> None:
    written, w = WRITERS["llama_scope"](), Drawn(21)
    config = written.configs["hyperparams.json"]
    config |= {"hook_point_in": "blocks.3.ln2.hook_normalized", "hook_point_out": "blocks.3.hook_mlp_out"}
    config["dataset_average_activation_norm"] = {"in": 2.5, "out": 0.4}
    sae, x = loaded(written, tmp_path), rows()
    wanted = (sae.encode(x).dense() @ w.decoder + w.decoder_bias) / (D**0.5 / 0.4)
    torch.testing.assert_close(sae.reconstruct(x), wanted, atol=1e-4, rtol=1e-4)
    assert sae.manifest.site == "unknown" and sae.site_out == "blocks.3.mlp.out"


def test_gemma_scopes_embeddings_are_scaled_as_they_were_trained(tmp_path: Path) -> None:
    written = WRITERS["gemma_scope"]()
    written.place = "google/gemma-scope-2b-pt-res/embedding/width_4k/average_l0_21"
    sae, w = loaded(written, tmp_path), Drawn(10)
    assert sae.manifest.site == "embed"
    torch.testing.assert_close(sae.weights.encoder, w.encoder / D**0.5)
    torch.testing.assert_close(sae.weights.decoder, w.decoder * D**0.5)


def test_gemma_scopes_transcoders_read_what_no_site_holds_so_it_must_be_said(tmp_path: Path) -> None:
    written = WRITERS["gemma_scope"]()
    written.place = "google/gemma-scope-2b-pt-transcoders/layer_5/width_16k/average_l0_49"
    sae = loaded(written, tmp_path)
    assert "at unknown" in repr(sae) and sae.manifest.site_out == "blocks.5.mlp.out"
    with pytest.raises(
        iv.DictionaryError, match=r"the site of this dictionary is unknown .* say it with dictionary.at\(site=...\)"
    ):
        sae.clamp(3, 1.0)
    assert loaded(written, tmp_path / "b", site="blocks.5.mlp.in").clamp(3, 1.0).site == "blocks.5.mlp.out"


def test_an_affine_skip_of_gemma_scope_2_is_stored_the_other_way(tmp_path: Path) -> None:
    sae, w, x = loaded(WRITERS["gemma_scope_2"](), tmp_path), Drawn(11), rows()
    wanted = sae.encode(x).dense() @ w.decoder + w.decoder_bias + x @ w.skip.T
    torch.testing.assert_close(sae.reconstruct(x), wanted, atol=1e-4, rtol=1e-4)


def test_the_average_that_scales_a_saelens_input_is_demanded_and_not_guessed(tmp_path: Path) -> None:
    written = WRITERS["saelens_standard"]()
    written.configs["cfg.json"]["normalize_activations"] = "expected_average_only_in"
    with pytest.raises(
        iv.DictionaryError,
        match=r"normalize_activations is 'expected_average_only_in', whose numbers .*scaling_factor",
    ):
        loaded(written, tmp_path)
    scaled = loaded(written, tmp_path, normalisation=iv.Normalisation("constant", 0.5))
    written.configs["activation_scaler.json"] = {"scaling_factor": 0.5}
    told, x = loaded(written, tmp_path), rows()
    wanted = Drawn(1).pre(x * 0.5, subtracted=True).clamp(min=0)
    for sae in (scaled, told):
        torch.testing.assert_close(sae.encode(x).dense().double(), wanted, atol=1e-5, rtol=1e-5)


def test_the_factors_of_a_finetuning_multiply_the_output_and_not_the_codes(tmp_path: Path) -> None:
    written, factors, x = WRITERS["saelens_before_3"](), torch.rand(N) + 0.5, rows()
    plain = loaded(written, tmp_path / "a")
    written.tensors["sae_weights.safetensors"]["scaling_factor"] = factors
    with pytest.raises(
        iv.DictionaryError, match=r"'scaling_factor' is not all ones, and cfg.json says finetuning_scaling_factor false"
    ):
        loaded(written, tmp_path / "b")
    written.configs["cfg.json"]["finetuning_scaling_factor"] = True
    tuned = loaded(written, tmp_path / "c")
    assert torch.equal(tuned.encode(x).dense(), plain.encode(x).dense())
    torch.testing.assert_close(tuned.weights.decoder, plain.weights.decoder * factors[:, None])


def test_qwen_scopes_k_stands_in_the_repositorys_name_and_is_demanded(tmp_path: Path) -> None:
    written = WRITERS["qwen_scope"]()
    assert loaded(written, tmp_path).architecture == iv.TopK(7)
    written.place = "somewhere"
    with pytest.raises(
        iv.DictionaryError,
        match=r"k of .*layer4.sae.pt' is missing: Qwen-Scope tells it in the repository's name alone",
    ):
        loaded(written, tmp_path)


def test_a_feature_that_never_fires_may_have_an_infinite_threshold(tmp_path: Path) -> None:
    written = WRITERS["gemma_scope"]()
    written.tensors["params.npz"]["threshold"][3] = torch.inf
    codes = loaded(written, tmp_path).encode(rows())
    assert not (codes.features == 3).any() and len(codes)
    written.tensors["params.npz"]["b_enc"][3] = torch.inf
    with pytest.raises(iv.DictionaryError, match=r"params.npz: 'b_enc' holds NaN or infinity"):
        loaded(written, tmp_path)


def test_saelens_sparsity_is_kept_beside(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    density = torch.full((N,), -2.0)
    density[5] = -torch.inf
    save_file({"sparsity": density}, folder / "sparsity.safetensors")
    assert torch.equal(iv.load_dictionary(folder).manifest.statistics["log10_density"], density)


# Which format, and which file.


def test_files_of_two_formats_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    shutil.copy(WRITERS["sparsify_topk"]().write(tmp_path) / "sae.safetensors", folder)
    with pytest.raises(
        iv.DictionaryError,
        match=r"has the files of SAELens \(.*\) and EleutherAI sparsify \(.*\); name the weights file",
    ):
        iv.load_dictionary(folder)
    assert iv.load_dictionary(folder / "sae_weights.safetensors").manifest.source.endswith("(SAELens)")


def test_tensors_of_another_format_are_refused_with_both_names(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    other = WRITERS["sparsify_topk"]().write(tmp_path)
    shutil.copy(other / "sae.safetensors", folder / "sae_weights.safetensors")
    with pytest.raises(
        iv.DictionaryError, match=r"sae_weights.safetensors: .* \(these are the tensors of EleutherAI sparsify\)"
    ):
        iv.load_dictionary(folder)


def test_a_folder_of_unknown_files_says_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(
        iv.DictionaryError,
        match=r"no format is known by the files of .* \(notes.txt\). Known are innerview: manifest.json",
    ):
        iv.load_dictionary(tmp_path)


def test_a_folder_of_folders_names_them(tmp_path: Path) -> None:
    WRITERS["sparsify_topk"]().write(tmp_path)
    WRITERS["sparsify_groupmax"]().write(tmp_path)
    with pytest.raises(iv.DictionaryError, match=r"holds dictionaries in folders; name one: layers.5, layers.5.mlp"):
        iv.load_dictionary(tmp_path)
    assert iv.load_dictionary(tmp_path, "layers.5").site == "blocks.5.resid"


def test_a_tuned_lens_and_a_control_vector_are_called_what_they_are(tmp_path: Path) -> None:
    lens = tmp_path / "lens"
    lens.mkdir()
    (lens / "config.json").write_text("{}")
    torch.save({"0.weight": torch.eye(3)}, lens / "params.pt")
    with pytest.raises(iv.DictionaryError, match="is a tuned lens"):
        iv.load_dictionary(lens)
    (tmp_path / "mood.gguf").write_bytes(b"GGUF")
    with pytest.raises(
        iv.DictionaryError, match=r"is a control vector of llama.cpp, not a dictionary; iv.Recipe.from_gguf reads it"
    ):
        iv.load_dictionary(tmp_path / "mood.gguf")


def test_of_several_layers_in_a_folder_the_site_tells_which(tmp_path: Path) -> None:
    folder = WRITERS["tracer_relu"]().write(tmp_path)
    shutil.copy(folder / "layer_6.safetensors", folder / "layer_16.safetensors")
    with pytest.raises(
        iv.DictionaryError,
        match=r"holds 2 dictionaries \(layer_6.safetensors, layer_16.safetensors\); name one file, or say site=",
    ):
        iv.load_dictionary(folder)
    assert iv.load_dictionary(folder, site="blocks.16.mlp.in").site_out == "blocks.16.mlp.out"
    assert iv.load_dictionary(folder / "layer_6.safetensors").site == "blocks.6.mlp.in"


def test_a_site_that_the_files_contradict_is_refused(tmp_path: Path) -> None:
    written = WRITERS["saelens_standard"]()
    with pytest.raises(iv.DictionaryError, match=r"site='blocks.4.resid', and the files of .* say 'blocks.3.resid'"):
        loaded(written, tmp_path, site="blocks.4.resid")
    assert (
        loaded(written, tmp_path, site="blocks.3.hook_resid_post", model="openai/gpt2-small").site == "blocks.3.resid"
    )


@pytest.mark.parametrize(("name", "ours"), [
    ("blocks.3.hook_resid_post", "blocks.3.resid"), ("blocks.3.hook_mlp_out", "blocks.3.mlp.out"), ("blocks.0.attn.hook_z", "blocks.0.attn.heads"),
    ("hook_embed", "embed"), ("model.layers.3", "blocks.3.resid"), ("layers.3.mlp", "blocks.3.mlp.out"), ("transformer.h.11", "blocks.11.resid"),
    ("gpt_neox.layers.2.attention", "blocks.2.attn.out"), ("embed_tokens", "embed"), ("blocks.2.mlp.out", "blocks.2.mlp.out"),
    ("model.layers.7.self_attn.o_proj.input", "blocks.7.attn.heads"), ("model.layers.3.weird", "unknown"), ("layers", "unknown"),
    ("blocks.3.ln2.hook_normalized", "unknown"), ("blocks.3.mlp.hook_pre", "blocks.3.mlp.hook_pre"), ("", "unknown"),
])  # fmt: skip
def test_sites_have_our_names_or_stay_unknown(name: str, ours: str) -> None:
    assert site_of(name) == ours


def test_a_module_before_another_norm_is_no_site_of_ours() -> None:
    assert (
        site_of("layers.3.mlp", "google/gemma-2-2b") == "unknown"
        and site_of("layers.3", "google/gemma-2-2b") == "blocks.3.resid"
    )
    assert input_site("layers.3.mlp") == "blocks.3.mlp.in"
    assert [layer_of(one) for one in ("layer_12/width_16k/average_l0_82", "a/L15R", "none", "blocks.3.resid")] == [
        12,
        15,
        None,
        3,
    ]


# The hub, and SAELens' releases.


def cached(written: Written, root: Path, repository: str, inside: str) -> Path:
    """Files as the hub's cache has them: links from a snapshot into blobs."""
    snapshot = root / f"models--{repository.replace('/', '--')}" / "snapshots" / ("a" * 40)
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir(parents=True)
    written.place = "plain"
    for nth, path in enumerate(sorted(p for p in written.write(root / "made").rglob("*") if p.is_file())):
        shutil.copy(path, blobs / str(nth))
        link = snapshot / inside / path.relative_to(root / "made" / "plain")
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blobs / str(nth), link.parent))
    return snapshot


def test_a_hub_id_with_a_path_fetches_that_dictionary_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = cached(
        WRITERS["gemma_scope"](), tmp_path, "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"
    )
    asked: list[Any] = []

    def fetched(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, allow_patterns))
        return str(snapshot)

    monkeypatch.setattr(sources, "snapshot_download", fetched)
    sae = iv.load_dictionary("google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82", revision="v1")
    again = iv.load_dictionary("google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82")
    assert sae.site == again.site == "blocks.12.resid" and sae.manifest.model == "google/gemma-2-2b"
    assert sae.manifest.commit == "a" * 40 and sae.manifest.source.startswith("google/gemma-scope-2b-pt-res/layer_12")
    assert asked[0][:2] == ("google/gemma-scope-2b-pt-res", "v1")
    assert "layer_12/width_16k/average_l0_82/params.npz" in asked[0][2] and "params.npz" not in asked[0][2]


def test_the_hubs_cache_is_a_folder_too_though_its_files_are_links(tmp_path: Path) -> None:
    snapshot = cached(WRITERS["qwen_scope"](), tmp_path, "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_7", "")
    for place in (snapshot, snapshot / "layer4.sae.pt"):
        sae = iv.load_dictionary(place)
        assert sae.architecture == iv.TopK(7) and sae.manifest.commit == "a" * 40


def test_what_the_hub_does_not_have_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fails(*_: Any, **__: Any) -> str:
        raise OSError("no network here")

    monkeypatch.setattr(sources, "snapshot_download", fails)
    with pytest.raises(
        iv.DictionaryError,
        match=r"no dictionary 'some/where': neither a folder here, nor on the hub \(no network here\)",
    ):
        iv.load_dictionary("some/where")
    monkeypatch.setattr(sources, "snapshot_download", lambda *_, **__: str(tmp_path))
    with pytest.raises(
        iv.DictionaryError, match="the repository some/where has no 'layer_3' that a dictionary could be"
    ):
        iv.load_dictionary("some/where/layer_3")


@pytest.mark.parametrize("source", [None, 3, "", "nothing-of-this-name", "/no/such/folder", "a/b/../../c", "../x/y"])
def test_a_source_that_is_none_is_refused(source: Any) -> None:
    with pytest.raises(iv.DictionaryError):
        iv.load_dictionary(source)


def test_an_object_of_saelens_is_read_without_its_package(tmp_path: Path) -> None:
    w, x = Drawn(3), rows()

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return saelens_config("standard", normalize_activations="expected_average_only_in")

    class Sae(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cfg = Config()
            for name, tensor in saelens_tensors(w).items():
                setattr(self, name, torch.nn.Parameter(tensor.clone()))

    Sae.__module__ = "sae_lens.saes.standard_sae"
    made = Sae()
    sae = iv.load_dictionary(made, site="blocks.3.resid")
    # The object itself leaves its input alone, whatever its trainer did.
    torch.testing.assert_close(
        sae.encode(x).dense().double(), w.pre(x, subtracted=True).clamp(min=0), atol=1e-5, rtol=1e-5
    )
    with torch.no_grad():
        made.W_dec.zero_()
    assert float(sae.weights.decoder.abs().max()) > 0


def test_bundled_dictionaries_are_looked_up_by_their_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from innerview import bundled

    sae = iv.load_dictionary(WRITERS["saelens_standard"]().write(tmp_path))
    home = tmp_path / "bundled" / "pocket"
    home.mkdir(parents=True)
    (home / "config.json").write_text("{}")
    iv.save_dictionary(sae, home / "dictionaries" / "blocks.3.resid")
    monkeypatch.setattr(bundled, "_HERE", tmp_path / "bundled")
    assert iv.load_dictionary("pocket", site="blocks.3.resid").site == "blocks.3.resid"
    with pytest.raises(
        iv.DictionaryError,
        match=r"no bundled dictionary of 'pocket' at 'blocks.4.resid'; say site=, one of: blocks.3.resid",
    ):
        iv.load_dictionary("pocket", site="blocks.4.resid")


def test_a_loaded_dictionary_says_where_it_came_from(tmp_path: Path) -> None:
    folder = WRITERS["saelens_standard"]().write(tmp_path)
    manifest = iv.load_dictionary(folder).manifest
    assert manifest.source == f"{folder} (SAELens)" and manifest.bos == "prepended" and manifest.dtype == "float32"
    assert json.loads((folder / "cfg.json").read_text())["metadata"]["prepend_bos"] is True
    assert "W_enc" in load_file(folder / "sae_weights.safetensors")


def test_a_release_of_saelens_is_asked_of_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    w, asked = Drawn(5), []

    class Config:
        def to_dict(self) -> dict[str, Any]:
            return saelens_config("standard")

    class SAE(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cfg = Config()
            for name, tensor in saelens_tensors(w).items():
                setattr(self, name, torch.nn.Parameter(tensor.clone()))

        @classmethod
        def from_pretrained(cls, release: str, sae_id: str) -> "SAE":
            asked.append((release, sae_id))
            return cls()

    SAE.__module__ = "sae_lens.saes.sae"
    package = types.ModuleType("sae_lens")
    package.__spec__ = importlib.machinery.ModuleSpec("sae_lens", None)
    package.SAE = SAE  # type: ignore[attr-defined]
    directory = types.ModuleType("sae_lens.loading.pretrained_saes_directory")
    known = {"gpt2-small-res-jb": types.SimpleNamespace(saes_map={"blocks.3.hook_resid_post": "a/path"})}
    directory.get_pretrained_saes_directory = lambda: known  # type: ignore[attr-defined]
    for name, module in (
        ("sae_lens", package),
        ("sae_lens.loading", types.ModuleType("sae_lens.loading")),
        (directory.__name__, directory),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    sae = iv.load_dictionary("gpt2-small-res-jb", "blocks.3.hook_resid_post")
    assert asked == [("gpt2-small-res-jb", "blocks.3.hook_resid_post")] and sae.site == "blocks.3.resid"
    assert "gpt2-small-res-jb/blocks.3.hook_resid_post" in sae.manifest.source
    with pytest.raises(
        iv.DictionaryError, match=r"the release 'gpt2-small-res-jb' has no 'x'; give one of its ids as path: blocks.3"
    ):
        iv.load_dictionary("gpt2-small-res-jb", "x")
    with pytest.raises(iv.DictionaryError, match=r"no dictionary 'gpt3': no folder, no bundled name"):
        iv.load_dictionary("gpt3", "x")
