"""Codes of published dictionaries against the publishers' own packages: files that they write, and ours that they read."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from tests.dictionaries.published import D, K, N, rows

HAS = {
    name: importlib.util.find_spec(name) is not None
    for name in ("sae_lens", "sparsify", "dictionary_learning", "circuit_tracer")
}


def needs(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not HAS[name], reason=f"{name} is not installed here")


def agrees(folder: Any, wanted: Tensor, x: Tensor, **load: Any) -> Any:
    """Load, and compare codes."""
    ours = iv.load_dictionary(folder, **load)
    found = ours.encode(x).dense()
    assert 0 < int((wanted != 0).sum()) < wanted.numel()
    torch.testing.assert_close(found, wanted.detach().float(), atol=1e-5, rtol=1e-5)
    return ours


def shaken(module: torch.nn.Module, seed: int = 0) -> None:
    """Every parameter away from where it began."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=g) * 0.3)


# SAELens.


def _sae(architecture: str, **fields: Any) -> Any:
    from sae_lens.registry import get_sae_class

    kind, config = get_sae_class(architecture)
    is_transcoder = "transcoder" in architecture
    given = {"d_in": D, "d_sae": N, "apply_b_dec_to_input": not is_transcoder, **fields}
    if is_transcoder:
        given["d_out"] = 9
    sae = kind(config(**given))
    shaken(sae)
    sae.cfg.metadata.hook_name = "blocks.3.hook_resid_post"
    sae.cfg.metadata.model_name = "gpt2-small"
    if hasattr(sae, "threshold"):
        sae.threshold.data.abs_()
    return sae.eval()


SAES = [
    ("standard", {}), ("standard", {"apply_b_dec_to_input": False}), ("standard", {"normalize_activations": "layer_norm"}),
    ("standard", {"normalize_activations": "constant_norm_rescale"}), ("gated", {}), ("jumprelu", {}), ("topk", {"k": K}),
    ("topk", {"k": K, "rescale_acts_by_decoder_norm": True}), ("transcoder", {}), ("skip_transcoder", {}), ("jumprelu_transcoder", {}),
    ("jumprelu_skip_transcoder", {}), ("matching_pursuit", {"max_iterations": 6}),
]  # fmt: skip


@needs("sae_lens")
@pytest.mark.parametrize(("architecture", "fields"), SAES)
def test_saelens_files_and_objects_have_its_codes(architecture: str, fields: dict[str, Any], tmp_path: Path) -> None:
    sae, x = _sae(architecture, **fields), rows()
    if architecture == "matching_pursuit":
        sae.W_dec.data /= sae.W_dec.norm(dim=-1, keepdim=True)
    sae.save_model(tmp_path)
    with torch.no_grad():
        wanted = sae.encode(x)
        ours = agrees(tmp_path, wanted, x)
        agrees(sae, wanted, x)
        torch.testing.assert_close(ours.reconstruct(x), sae(x), atol=2e-4, rtol=1e-4)


@needs("sae_lens")
@pytest.mark.parametrize("kind", ["batchtopk", "matryoshka_batchtopk"])
def test_saelens_trained_by_batch_is_read_as_it_is_used(kind: str, tmp_path: Path) -> None:
    from sae_lens.registry import get_sae_training_class

    make, config = get_sae_training_class(kind)
    extra = {"matryoshka_widths": [10, N]} if kind.startswith("matryoshka") else {}
    sae, x = make(config(d_in=D, d_sae=N, k=K, **extra)), rows()
    shaken(sae)
    sae.topk_threshold.fill_(0.9)
    sae.save_inference_model(tmp_path)
    from sae_lens import SAE

    with torch.no_grad():
        wanted = SAE.load_from_disk(tmp_path).encode(x)
        agrees(tmp_path, wanted, x)
        agrees(sae, wanted, x)


@needs("sae_lens")
@pytest.mark.parametrize("name", ["saelens_before_6", "saelens_before_3", "saelens_standard", "saelens_topk"])
def test_saelens_reads_our_written_files_of_each_version_alike(name: str, tmp_path: Path) -> None:
    from sae_lens import SAE

    from tests.dictionaries.published import WRITERS

    folder, x = WRITERS[name]().write(tmp_path), rows()
    with torch.no_grad():
        agrees(folder, SAE.load_from_disk(folder).encode(x), x)


def _hub(monkeypatch: pytest.MonkeyPatch, root: Path) -> Any:
    """SAELens' loaders of other formats, given a folder instead of the hub."""
    from sae_lens.loading import pretrained_sae_loaders as loaders

    def fetched(repo_id: str, filename: str, subfolder: str | None = None, **_: Any) -> str:
        return str(root / repo_id / (subfolder or "") / filename)

    def shapes(repo_id: str, filename: str) -> dict[str, list[int]]:
        from safetensors import safe_open

        with safe_open(root / repo_id / filename, framework="pt") as f:
            return {key: f.get_slice(key).get_shape() for key in f.keys()}  # noqa: SIM118

    monkeypatch.setattr(loaders, "hf_hub_download", fetched)
    monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", shapes)
    return loaders


def _loaded(config: dict[str, Any], state: dict[str, Tensor], factor: float | None = None) -> Any:
    """An SAE of SAELens from what one of its loaders returns."""
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
    from sae_lens.registry import get_sae_class

    config = handle_config_defaulting(dict(config))
    config |= {"d_sae": state["W_enc"].shape[1], "d_in": state["W_enc"].shape[0], "dtype": "float32"}
    kind = get_sae_class(config["architecture"])
    sae: SAE = kind[0](kind[1].from_dict(config))
    sae.load_state_dict({key: value.float().contiguous() for key, value in state.items()})
    if factor is not None:
        sae.fold_activation_norm_scaling_factor(factor)
    return sae


FORMATS = {
    "gemma_scope": ("gemma_2_sae_huggingface_loader", "google/gemma-scope-2b-pt-res", "layer_12/width_16k/average_l0_82"),
    "gemma_scope_2": (
        "gemma_3_sae_huggingface_loader", "google/gemma-scope-2-1b-pt", "transcoder/layer_7_width_16k_l0_small_affine",
    ),
    "llama_scope": ("llama_scope_sae_huggingface_loader", "one", "."),
    "llama_scope_r1": ("llama_scope_r1_distill_sae_huggingface_loader", "one", "."),
    "goodfire": ("get_goodfire_huggingface_loader", "Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "Llama-3.1-8B-Instruct-SAE-l19.pth"),
    "qwen_scope": ("qwen_scope_sae_huggingface_loader", "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_7", "layer4.sae.pt"),
    "learned_relu": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "learned_topk": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "learned_batch_topk": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "learned_gated": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "learned_jumprelu": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "learned_matryoshka": ("dictionary_learning_sae_huggingface_loader_1", "one", "."),
    "sparsify_topk": ("sparsify_huggingface_loader", "run", "layers.5"),
}  # fmt: skip


@needs("sae_lens")
@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_others_have_the_codes_that_saelens_gives_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.dictionaries.published import WRITERS

    loader, repository, folder = FORMATS[name]
    written, x = WRITERS[name](), rows()
    if name in ("goodfire", "sparsify_topk"):
        written.place = f"{repository}/{folder}" if name == "sparsify_topk" else repository
    where = written.write(tmp_path)
    loaders = _hub(monkeypatch, tmp_path)
    config, state, _ = getattr(loaders, loader)(repository, folder, device="cpu", cfg_overrides={"dtype": "float32"})
    if name == "sparsify_topk":
        # It is asked for bfloat16 by name there.
        config, state = loaders.sparsify_disk_loader(where, cfg_overrides={"dtype": "float32"})
        state["W_dec"] = state["W_dec"].T
        # Its rule for the bias is that of normalize_decoder; the publisher always takes it off.
        config["apply_b_dec_to_input"] = True
    factor = D**0.5 / 2.5 if name.startswith("llama") else None
    with torch.no_grad():
        agrees(where, _loaded(config, state, factor).encode(x), x)


# The publishers' own.


@needs("sparsify")
@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize(("transcode", "skip"), [(False, False), (True, False), (True, True)])
def test_sparsify_writes_what_is_read(activation: Any, transcode: bool, skip: bool, tmp_path: Path) -> None:
    from sparsify import SparseCoder, SparseCoderConfig

    config = SparseCoderConfig(activation=activation, num_latents=N, k=K, skip_connection=skip, transcode=transcode)
    coder, x = SparseCoder(D, config), rows()
    shaken(coder)
    coder.save_to_disk(tmp_path / "layers.5.mlp")
    with torch.no_grad():
        values, indices, _ = coder.encode(x)
        wanted = torch.zeros(len(x), N).scatter_(-1, indices, values)
        ours = agrees(tmp_path / "layers.5.mlp", wanted, x)
        # Its own decoder has a kernel; the sum is the same.
        out = wanted @ coder.W_dec + coder.b_dec + (x @ coder.W_skip.mT if skip else 0.0)
    torch.testing.assert_close(ours.reconstruct(x), out, atol=1e-4, rtol=1e-4)


def _learned(kind: str) -> Any:
    from dictionary_learning import dictionary as plain
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

    makers = {
        "AutoEncoderTopK": lambda: top_k.AutoEncoderTopK(D, N, K),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKSAE(D, N, K),
        "MatryoshkaBatchTopKSAE": lambda: matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(D, N, K, [8, 12, 20]),
    }
    return makers[kind]() if kind in makers else getattr(plain, kind)(D, N)


LEARNED = (
    "AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder", "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE",
)  # fmt: skip


@needs("dictionary_learning")
@pytest.mark.parametrize("kind", LEARNED)
@pytest.mark.parametrize("threshold", [-1.0, 0.8])
def test_dictionary_learning_writes_what_is_read(kind: str, threshold: float, tmp_path: Path) -> None:
    sae, x = _learned(kind), rows()
    shaken(sae)
    if "threshold" in dict(sae.named_buffers()):
        sae.threshold.fill_(threshold)
    torch.save(sae.state_dict(), tmp_path / "ae.pt")
    trainer = {"dict_class": kind, "activation_dim": D, "dict_size": N, "layer": 3, "lm_name": "gpt2"}
    if "TopK" in kind:
        trainer["k"] = K
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"ctx_len": 128}}))
    with torch.no_grad():
        ours = agrees(tmp_path, sae.encode(x), x)
        torch.testing.assert_close(ours.reconstruct(x), sae.decode(sae.encode(x)), atol=1e-4, rtol=1e-4)


@needs("circuit_tracer")
@pytest.mark.parametrize("activation", ["relu", "jump_relu", "topk"])
@pytest.mark.parametrize("skip", [False, True])
def test_circuit_tracer_writes_what_is_read(activation: str, skip: bool, tmp_path: Path) -> None:
    from circuit_tracer.transcoder.activation_functions import JumpReLU, TopK
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder

    functions = {
        "relu": torch.nn.functional.relu, "jump_relu": JumpReLU(torch.rand(N) + 0.1, 0.1), "topk": TopK(K),
    }  # fmt: skip
    coder = SingleLayerTranscoder(
        D, N, functions[activation], 6, skip_connection=skip, dtype=torch.float32, device=torch.device("cpu")
    )
    threshold = functions[activation].threshold.data.clone() if activation == "jump_relu" else None
    shaken(coder)
    if threshold is not None:
        coder.activation_function.threshold.data.copy_(threshold)
    coder.to_safetensors(str(tmp_path / "layer_6.safetensors"))
    told = {
        "model_name": "gpt2",
        "model_kind": "transcoder_set",
        "feature_input_hook": "hook_resid_mid",
        "feature_output_hook": "hook_mlp_out",
    }
    if activation != "jump_relu":
        told["activation"] = activation
    if activation == "topk":
        told["k"] = K  # type: ignore[assignment]
    (tmp_path / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in told.items()))
    x = rows()
    with torch.no_grad():
        ours = agrees(tmp_path, coder.encode(x).relu(), x)
        torch.testing.assert_close(ours.reconstruct(x), coder.decode(coder.encode(x).relu(), x), atol=1e-4, rtol=1e-4)
    assert (ours.site, ours.site_out) == ("blocks.6.resid_mid", "blocks.6.mlp.out")


@needs("circuit_tracer")
@pytest.mark.parametrize("activation", ["relu", "jump_relu"])
def test_circuit_tracers_cross_layer_transcoders_are_read_as_it_writes_them(activation: str, tmp_path: Path) -> None:
    from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder

    coder = CrossLayerTranscoder(
        3, N, D, activation_function=activation, lazy_decoder=False, dtype=torch.float32, device=torch.device("cpu")
    )
    shaken(coder)
    if activation == "jump_relu":
        coder.activation_function.threshold.data.abs_()
    coder.to_safetensors(str(tmp_path))
    (tmp_path / "config.yaml").write_text(
        "model_name: gpt2\nmodel_kind: cross_layer_transcoder\nfeature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out\n"
    )
    ours, x = iv.load_dictionary(tmp_path), torch.stack([rows(seed=seed) for seed in range(3)])
    with torch.no_grad():
        wanted = coder.encode(x)
        found = ours.encode(list(x))
        for layer in range(3):
            torch.testing.assert_close(found[layer].dense(), wanted[layer], atol=1e-5, rtol=1e-5)
        decoded = coder.decode(wanted.to_sparse())
    for layer, (site, one) in enumerate(ours.decode(found).items()):
        assert site == f"blocks.{layer}.mlp.out"
        torch.testing.assert_close(one, decoded[layer], atol=1e-4, rtol=1e-4)


@needs("sae_lens")
@pytest.mark.parametrize("k", [5, None])
def test_temporal_saes_have_the_codes_that_saelens_gives_them(
    k: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sae_lens.registry import get_sae_class

    from tests.dictionaries.published import temporal

    written, x = temporal(k), rows(14).view(2, 7, D)
    written.place = "canrager/layer_12"
    folder = written.write(tmp_path)
    config, state, _ = _hub(monkeypatch, tmp_path).temporal_sae_huggingface_loader("canrager", "layer_12", device="cpu")
    kind, settings = get_sae_class("temporal")
    sae = kind(settings.from_dict(config))
    sae.load_state_dict(state)
    with torch.no_grad():
        sae.cfg.metadata.hook_name = "blocks.12.hook_resid_post"
        sae.save_model(tmp_path / "saved")
        for source in (folder, tmp_path / "saved", sae):
            ours = agrees(source, sae.encode(x), x)
            torch.testing.assert_close(ours.reconstruct(x), sae(x), atol=1e-4, rtol=1e-4)
            assert ours.site == "blocks.12.resid"


# What is written here, read by SAELens.

SAVED = (
    "saelens_standard", "saelens_jumprelu", "saelens_topk", "saelens_gated", "saelens_skip_transcoder", "saelens_layer_norm",
    "saelens_rescaled", "learned_batch_topk", "llama_scope", "gemma_scope", "openai_topk", "tracer_relu", "qwen_scope",
)  # fmt: skip


@needs("sae_lens")
@pytest.mark.parametrize("name", SAVED)
def test_saelens_reads_what_is_saved_for_it(name: str, tmp_path: Path) -> None:
    from sae_lens import SAE

    from tests.dictionaries.published import WRITERS

    ours, x = iv.load_dictionary(WRITERS[name]().write(tmp_path)), rows()
    iv.save_dictionary(ours, tmp_path / "saved", iv.SAELensFormat())
    sae = SAE.load_from_disk(tmp_path / "saved")
    with torch.no_grad():
        torch.testing.assert_close(sae.encode(x), ours.encode(x).dense(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(sae(x), ours.reconstruct(x), atol=2e-4, rtol=1e-4)
        agrees(tmp_path / "saved", sae.encode(x), x)
    assert sae.cfg.metadata.hook_name in (None, "blocks.3.hook_resid_post") or sae.cfg.metadata.hook_name.startswith(
        "blocks."
    )
