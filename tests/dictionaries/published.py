"""Small files in every published format, and the codes that the format's own plain formula gives for them.

Each formula is written from the publisher's code or paper, in float64 and apart from the library's own.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

D, N, K = 12, 40, 5
Codes = Callable[[Tensor], Tensor]


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rows(count: int = 64, width: int = D, seed: int = 99) -> Tensor:
    """Inputs, with a mean that is not zero."""
    return torch.randn(count, width, generator=drawn(seed)) * 1.5 + 0.4


def top(pre: Tensor, k: int) -> Tensor:
    """The k largest of each row behind a ReLU, by sorting."""
    kept = torch.zeros_like(pre)
    for row, wanted in enumerate(pre.sort(dim=-1, descending=True).indices[:, :k].tolist()):
        for one in wanted:
            kept[row, one] = max(float(pre[row, one]), 0.0)
    return kept


def jump(pre: Tensor, threshold: Tensor) -> Tensor:
    return torch.where(pre > threshold, pre.clamp(min=0), torch.zeros_like(pre))


@dataclass
class Written:
    """A published dictionary on disk, before it is written.

    Attributes:
        configs: Config files by name, JSON or YAML by the ending.
        tensors: Weights files by name, each with its tensors (and, in a `.pt`, plain values).
        codes: The format's own formula.
        place: Folder of the files, whose name some formats read.
        load: What is given to `load_dictionary` beside the folder.
    """

    configs: dict[str, dict[str, Any]]
    tensors: dict[str, dict[str, Any]]
    codes: Codes
    place: str = "one"
    load: dict[str, Any] = field(default_factory=dict)

    def write(self, root: Path) -> Path:
        """Write it; returns the folder."""
        folder = root / self.place
        for name, config in self.configs.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(config) if name.endswith("yaml") else json.dumps(config))
        for name, tensors in self.tensors.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith(".safetensors"):
                save_file({key: one.contiguous() for key, one in tensors.items()}, path)
            elif name.endswith(".npz"):
                np.savez(path, **{key: one.numpy() for key, one in tensors.items()})
            else:
                torch.save(nested(tensors), path)
        return folder


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's files hold a dict in a dict."""
    made: dict[str, Any] = {}
    for key, value in flat.items():
        head, _, tail = key.partition("activation_state_dict.")
        if tail:
            made.setdefault("activation_state_dict", {})[tail] = value
        else:
            made[head] = value
    return made


class Drawn:
    """Random weights, feature-major; decoder rows of length 1 unless told."""

    def __init__(self, seed: int, d_out: int = D, lengths: tuple[float, float] = (1.0, 1.0)) -> None:
        g = drawn(seed)
        self.encoder = torch.randn(N, D, generator=g) * 0.4
        self.bias = torch.randn(N, generator=g) * 0.3
        decoder = torch.randn(N, d_out, generator=g)
        low, high = lengths
        self.decoder = (
            decoder / decoder.norm(dim=-1, keepdim=True) * (low + (high - low) * torch.rand(N, 1, generator=g))
        )
        self.decoder_bias = torch.randn(d_out, generator=g) * 0.2
        self.threshold = torch.rand(N, generator=g) * 1.2 + 0.1
        self.skip = torch.randn(d_out, D, generator=g) * 0.1

    def pre(self, x: Tensor, *, subtracted: bool = False) -> Tensor:
        x = x.double() - (self.decoder_bias.double() if subtracted else 0.0)
        return x @ self.encoder.double().T + self.bias.double()


def saelens_tensors(w: Drawn, *others: str) -> dict[str, Tensor]:
    """As SAELens stores them: input-major."""
    made = {"W_enc": w.encoder.T, "b_enc": w.bias, "W_dec": w.decoder, "b_dec": w.decoder_bias}
    named = {"threshold": w.threshold, "W_skip": w.skip}
    return made | {name: named[name] for name in others}


def saelens_config(architecture: str, **fields: Any) -> dict[str, Any]:
    """A config of version 6."""
    about = {
        "sae_lens_version": "6.54.12", "sae_lens_training_version": "6.54.12", "model_name": "gpt2-small",
        "hook_name": "blocks.3.hook_resid_post", "hook_head_index": None, "prepend_bos": True, "context_size": 128,
    }  # fmt: skip
    return {
        "d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True, "normalize_activations": "none",
        "reshape_activations": "none", "metadata": about, "architecture": architecture, **fields,
    }  # fmt: skip


def saelens(config: dict[str, Any], tensors: dict[str, Tensor], codes: Codes) -> Written:
    return Written({"cfg.json": config}, {"sae_weights.safetensors": tensors}, codes)


def saelens_standard() -> Written:
    w = Drawn(1)
    return saelens(saelens_config("standard"), saelens_tensors(w), lambda x: w.pre(x, subtracted=True).clamp(min=0))


def saelens_jumprelu() -> Written:
    w = Drawn(2)
    config = saelens_config("jumprelu", apply_b_dec_to_input=False)
    return saelens(config, saelens_tensors(w, "threshold"), lambda x: jump(w.pre(x), w.threshold.double()))


def saelens_topk() -> Written:
    w = Drawn(3, lengths=(0.3, 3.0))
    config = saelens_config("topk", k=K, rescale_acts_by_decoder_norm=True)
    lengths = w.decoder.double().norm(dim=-1)
    return saelens(config, saelens_tensors(w), lambda x: top(w.pre(x, subtracted=True) * lengths, K))


def saelens_gated() -> Written:
    w, g = Drawn(4), drawn(40)
    tensors = saelens_tensors(w)
    del tensors["b_enc"]
    gate, magnitude, length = (torch.randn(N, generator=g) * 0.3 for _ in range(3))
    tensors |= {"b_gate": gate, "b_mag": magnitude, "r_mag": length}
    return saelens(saelens_config("gated"), tensors, lambda x: gated(w, x, gate, length, magnitude))


def gated(w: Drawn, x: Tensor, gate: Tensor, length: Tensor, magnitude: Tensor) -> Tensor:
    product = (x.double() - w.decoder_bias.double()) @ w.encoder.double().T
    size = (product * length.double().exp() + magnitude.double()).clamp(min=0)
    return (product + gate.double() > 0) * size


def saelens_skip_transcoder() -> Written:
    w = Drawn(5, d_out=9)
    config = saelens_config("jumprelu_skip_transcoder", apply_b_dec_to_input=False, d_out=9)
    config["metadata"] |= {"hook_name": "blocks.3.hook_mlp_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    return saelens(config, saelens_tensors(w, "threshold", "W_skip"), lambda x: jump(w.pre(x), w.threshold.double()))


def saelens_layer_norm() -> Written:
    w = Drawn(6)
    config = saelens_config("standard", normalize_activations="layer_norm")
    return saelens(config, saelens_tensors(w), lambda x: w.pre(normed(x), subtracted=True).clamp(min=0))


def saelens_rescaled() -> Written:
    w = Drawn(7)
    config = saelens_config("standard", normalize_activations="constant_norm_rescale")
    lengths = lambda x: x.double().norm(dim=-1, keepdim=True)  # noqa: E731
    return saelens(
        config, saelens_tensors(w), lambda x: w.pre(x.double() / lengths(x) * D**0.5, subtracted=True).clamp(min=0)
    )


def normed(x: Tensor) -> Tensor:
    """Each token minus its mean, over its standard deviation (by n - 1) plus 1e-5."""
    x = x.double()
    x = x - x.mean(dim=-1, keepdim=True)
    return x / (x.std(dim=-1, keepdim=True) + 1e-5)


def saelens_before_6() -> Written:
    w = Drawn(8)
    config = {
        "architecture": "standard", "d_in": D, "d_sae": N, "dtype": "float32", "device": "cpu", "model_name": "gpt2-small",
        "hook_name": "blocks.8.hook_resid_pre", "hook_layer": 8, "hook_head_index": None, "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K}, "apply_b_dec_to_input": True, "finetuning_scaling_factor": False, "normalize_activations": "none",
        "prepend_bos": True, "dataset_path": "some/text", "context_size": 128, "sae_lens_training_version": "4.0.1",
    }  # fmt: skip
    return saelens(config, saelens_tensors(w), lambda x: top(w.pre(x, subtracted=True), K))


def saelens_before_3() -> Written:
    w = Drawn(9)
    config = {
        "model_name": "gpt2-small", "hook_point": "blocks.8.hook_resid_pre", "hook_point_layer": 8, "hook_point_head_index": None,
        "d_in": D, "d_sae": N, "dtype": "torch.float32", "l1_coefficient": 8e-5, "prepend_bos": True, "normalize_activations": False,
    }  # fmt: skip
    return saelens(config, saelens_tensors(w), lambda x: w.pre(x, subtracted=True).clamp(min=0))


def gemma_scope() -> Written:
    w = Drawn(10)
    tensors = saelens_tensors(w, "threshold")
    place = "google/gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_82"
    return Written({}, {"params.npz": tensors}, lambda x: jump(w.pre(x), w.threshold.double()), place)


def gemma_scope_2() -> Written:
    w = Drawn(11)
    tensors = {
        "w_enc": w.encoder.T, "w_dec": w.decoder, "b_enc": w.bias, "b_dec": w.decoder_bias, "threshold": w.threshold,
        "affine_skip_connection": w.skip.T,
    }  # fmt: skip
    config = {
        "architecture": "jump_relu", "model_name": "google/gemma-v3-1b-pt", "width": N, "affine_connection": True,
        "hf_hook_point_in": "model.layers.7.pre_feedforward_layernorm.output",
        "hf_hook_point_out": "model.layers.7.post_feedforward_layernorm.output",
    }  # fmt: skip
    place = "google/gemma-scope-2-1b-pt/transcoder/layer_7_width_16k_l0_small_affine"
    files = {"params.safetensors": tensors}
    return Written({"config.json": config}, files, lambda x: jump(w.pre(x), w.threshold.double()), place)


def sparsify_tensors(w: Drawn) -> dict[str, Tensor]:
    return {"encoder.weight": w.encoder, "encoder.bias": w.bias, "W_dec": w.decoder, "b_dec": w.decoder_bias}


def sparsify_config(**fields: Any) -> dict[str, Any]:
    return {
        "activation": "topk", "expansion_factor": 32, "normalize_decoder": True, "num_latents": N, "k": K, "multi_topk": False,
        "skip_connection": False, "transcode": False, "d_in": D, **fields,
    }  # fmt: skip


def sparsify_topk() -> Written:
    w = Drawn(12)
    return Written(
        {"cfg.json": sparsify_config()}, {"sae.safetensors": sparsify_tensors(w)},
        lambda x: top(w.pre(x, subtracted=True), K), "layers.5",
    )  # fmt: skip


def sparsify_groupmax() -> Written:
    w = Drawn(13)

    def codes(x: Tensor) -> Tensor:
        pre = w.pre(x).clamp(min=0)
        made = torch.zeros_like(pre)
        for group in range(K):
            part = slice(group * N // K, (group + 1) * N // K)
            best = pre[:, part].argmax(dim=-1, keepdim=True)
            made[:, part].scatter_(-1, best, pre[:, part].gather(-1, best))
        return made

    config = sparsify_config(activation="groupmax", transcode=True, skip_connection=True)
    files = {"sae.safetensors": sparsify_tensors(w) | {"W_skip": w.skip}}
    return Written({"cfg.json": config}, files, codes, "layers.5.mlp")


def learned_config(kind: str, **fields: Any) -> dict[str, Any]:
    trainer = {
        "dict_class": kind, "trainer_class": "SomeTrainer", "activation_dim": D, "dict_size": N, "layer": 8, "lm_name": "EleutherAI/pythia-70m",
        "submodule_name": "resid_post_layer_8", "lr": 1e-4, "seed": 0, **fields,
    }  # fmt: skip
    return {"trainer": trainer, "buffer": {"d_submodule": D, "io": "out", "ctx_len": 128}}


def learned(
    kind: str, w: Drawn, bias: str, codes: Codes, k: int | None = None, threshold: float | None = None
) -> Written:
    made: dict[str, Any] = {
        "encoder.weight": w.encoder, "encoder.bias": w.bias, "decoder.weight": w.decoder.T.contiguous(), bias: w.decoder_bias,
    }  # fmt: skip
    if k is not None:
        made |= {"k": torch.tensor(k, dtype=torch.int32), "threshold": torch.tensor(threshold)}
    return Written({"config.json": learned_config(kind, **({} if k is None else {"k": k}))}, {"ae.pt": made}, codes)


def learned_relu() -> Written:
    w = Drawn(14)
    return learned("AutoEncoder", w, "bias", lambda x: w.pre(x, subtracted=True).clamp(min=0))


def learned_new() -> Written:
    w = Drawn(15)
    return learned("AutoEncoderNew", w, "decoder.bias", lambda x: w.pre(x).clamp(min=0))


def learned_topk() -> Written:
    w = Drawn(16)
    return learned("AutoEncoderTopK", w, "b_dec", lambda x: top(w.pre(x, subtracted=True), K), K, 0.7)


def learned_batch_topk(threshold: float = 0.8) -> Written:
    w = Drawn(17)
    codes = lambda x: jump(w.pre(x, subtracted=True), torch.tensor(max(threshold, 0.0)))  # noqa: E731
    return learned("BatchTopKSAE", w, "b_dec", codes, K, threshold)


def learned_gated() -> Written:
    w, g = Drawn(18), drawn(41)
    gate, length, magnitude = (torch.randn(N, generator=g) * 0.3 for _ in range(3))
    tensors = {
        "encoder.weight": w.encoder, "decoder.weight": w.decoder.T.contiguous(), "decoder_bias": w.decoder_bias, "r_mag": length,
        "gate_bias": gate, "mag_bias": magnitude,
    }  # fmt: skip
    codes = lambda x: gated(w, x, gate, length, magnitude)  # noqa: E731
    return Written({"config.json": learned_config("GatedAutoEncoder")}, {"ae.pt": tensors}, codes)


def learned_jumprelu() -> Written:
    w = Drawn(19)
    tensors = saelens_tensors(w, "threshold")
    codes = lambda x: jump(w.pre(x), w.threshold.double())  # noqa: E731
    return Written({"config.json": learned_config("JumpReluAutoEncoder")}, {"ae.pt": tensors}, codes)


def learned_matryoshka() -> Written:
    w = Drawn(20)
    tensors = saelens_tensors(w) | {
        "k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(0.6), "group_sizes": torch.tensor([8, 12, 20]),
    }  # fmt: skip
    codes = lambda x: jump(w.pre(x, subtracted=True), torch.tensor(0.6))  # noqa: E731
    return Written({"config.json": learned_config("MatryoshkaBatchTopKSAE", k=K)}, {"ae.pt": tensors}, codes)


def llama_scope() -> Written:
    w = Drawn(21)
    config = {
        "dtype": "torch.bfloat16", "hook_point_in": "blocks.15.hook_resid_post", "hook_point_out": "blocks.15.hook_resid_post",
        "use_decoder_bias": True, "apply_decoder_bias_to_pre_encoder": False, "expansion_factor": 8, "d_model": D, "d_sae": N,
        "act_fn": "jumprelu", "jump_relu_threshold": 0.52, "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": 2.5, "out": 2.5}, "sparsity_include_decoder_norm": True, "use_glu_encoder": False,
        "top_k": 50,
    }  # fmt: skip
    scale = D**0.5 / 2.5
    tensors = {
        "encoder.weight": w.encoder, "encoder.bias": w.bias, "decoder.weight": w.decoder.T, "decoder.bias": w.decoder_bias,
    }  # fmt: skip
    codes = lambda x: jump(w.pre(x.double() * scale), torch.tensor(0.52 * scale).double())  # noqa: E731
    return Written({"hyperparams.json": config}, {"checkpoints/final.safetensors": tensors}, codes)


def llama_scope_r1() -> Written:
    w = Drawn(22)
    hook = "blocks.10.hook_resid_post"
    config = {
        "sae_type": "sae", "hook_point_in": hook, "hook_point_out": hook, "d_model": D, "expansion_factor": 2, "use_decoder_bias": True,
        "use_glu_encoder": False, "act_fn": "jumprelu", "jump_relu_threshold": 0.0, "apply_decoder_bias_to_pre_encoder": False,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": False, "top_k": 50,
    }  # fmt: skip
    n = 2 * D
    tensors = {
        "encoder.weight": w.encoder[:n], "encoder.bias": w.bias[:n], "decoder.weight": w.decoder[:n].T, "decoder.bias": w.decoder_bias,
        "log_jumprelu_threshold": w.threshold[:n].log(), f"dataset_average_activation_norm.{hook}": torch.tensor(2.5),
    }  # fmt: skip
    codes = lambda x: jump(w.pre(x.double() * D**0.5 / 2.5)[:, :n], w.threshold[:n].double())  # noqa: E731
    return Written({"config.json": config}, {"sae_weights.safetensors": tensors}, codes)


def openai_tensors(w: Drawn) -> dict[str, Any]:
    return {
        "pre_bias": w.decoder_bias, "encoder.weight": w.encoder, "latent_bias": w.bias, "decoder.weight": w.decoder.T.contiguous(),
        "stats_last_nonzero": torch.zeros(N, dtype=torch.long), "latents_activation_frequency": torch.ones(N),
        "latents_mean_square": torch.zeros(N),
    }  # fmt: skip


def openai_topk() -> Written:
    w = Drawn(23)
    tensors = openai_tensors(w) | {
        "activation": "TopK", "activation_state_dict.k": K, "activation_state_dict.postact_fn": "ReLU",
    }  # fmt: skip
    place = "gpt2-small/resid_post_mlp_v5_32k/autoencoders"
    return Written({}, {"8.pt": tensors}, lambda x: top(w.pre(normed(x), subtracted=True), K), place)


def openai_relu() -> Written:
    w = Drawn(24)
    tensors = openai_tensors(w) | {"activation": "ReLU"}
    place = "gpt2-small/resid_delta_mlp/autoencoders"
    return Written({}, {"3.pt": tensors}, lambda x: w.pre(x, subtracted=True).clamp(min=0), place)


def goodfire() -> Written:
    w = Drawn(25)
    tensors = {
        "encoder_linear.weight": w.encoder, "encoder_linear.bias": w.bias, "decoder_linear.weight": w.decoder.T.contiguous(),
        "decoder_linear.bias": w.decoder_bias,
    }  # fmt: skip
    return Written({}, {"Llama-3.1-8B-Instruct-SAE-l19.pth": tensors}, lambda x: w.pre(x).clamp(min=0))


def qwen_scope() -> Written:
    w = Drawn(26)
    tensors = {"W_enc": w.encoder, "W_dec": w.decoder.T.contiguous(), "b_enc": w.bias, "b_dec": w.decoder_bias}
    place = "Qwen/SAE-Res-Qwen3-1.7B-Base-W32K-L0_7"
    return Written({}, {"layer4.sae.pt": tensors}, lambda x: top(w.pre(x), 7), place)


def tracer_config(**fields: Any) -> dict[str, Any]:
    return {
        "model_name": "meta-llama/Llama-3.2-1B", "model_kind": "transcoder_set", "feature_input_hook": "mlp.hook_in",
        "feature_output_hook": "hook_mlp_out", **fields,
    }  # fmt: skip


def tracer_relu() -> Written:
    w = Drawn(27)
    tensors = {"W_enc": w.encoder, "b_enc": w.bias, "W_dec": w.decoder, "b_dec": w.decoder_bias, "W_skip": w.skip}
    files = {"layer_6.safetensors": tensors}
    return Written({"config.yaml": tracer_config(activation="relu")}, files, lambda x: w.pre(x).clamp(min=0))


def tracer_jumprelu() -> Written:
    w = Drawn(28)
    tensors = {
        "W_enc": w.encoder, "b_enc": w.bias, "W_dec": w.decoder, "b_dec": w.decoder_bias, "activation_function.threshold": w.threshold,
    }  # fmt: skip
    codes = lambda x: jump(w.pre(x), w.threshold.double())  # noqa: E731
    return Written({"config.yaml": tracer_config(activation="jump_relu")}, {"layer_6.safetensors": tensors}, codes)


def tracer_topk() -> Written:
    w = Drawn(29)
    tensors = {"W_enc": w.encoder, "b_enc": w.bias, "W_dec": w.decoder, "b_dec": w.decoder_bias}
    config = tracer_config(activation="topk", k=K)
    return Written({"config.yaml": config}, {"layer_6.safetensors": tensors}, lambda x: top(w.pre(x), K))


def cross_layer() -> Written:
    """Three layers; the codes are those of the first."""
    parts = [Drawn(30 + i) for i in range(3)]
    files: dict[str, dict[str, Any]] = {}
    for i, w in enumerate(parts):
        files[f"W_enc_{i}.safetensors"] = {
            f"W_enc_{i}": w.encoder, f"b_enc_{i}": w.bias, f"b_dec_{i}": w.decoder_bias, f"threshold_{i}": w.threshold,
        }  # fmt: skip
        decoder = torch.randn(N, 3 - i, D, generator=drawn(50 + i))
        files[f"W_dec_{i}.safetensors"] = {f"W_dec_{i}": decoder}
    config = tracer_config(model_kind="cross_layer_transcoder")
    return Written({"config.yaml": config}, files, lambda x: jump(parts[0].pre(x), parts[0].threshold.double()))


def temporal(k: int | None = K) -> Written:
    """One layer of attention over codes; written out token by token, head by head."""
    w, g = Drawn(60), drawn(61)
    width, heads = 10, 2
    sizes = {"q_target": width, "k_ctx": width, "v_ctx": N, "c_proj": N}
    linear = {
        name: (torch.randn(size, N, generator=g) * 0.5, torch.randn(size, generator=g) * 0.1)
        for name, size in sizes.items()
    }
    tensors = {"D": w.decoder, "E": w.encoder.T, "b": w.decoder_bias}
    for name, (weight, bias) in linear.items():
        tensors |= {f"attn_layers.0.{name}.weight": weight, f"attn_layers.0.{name}.bias": bias}
    sae = {
        "exp_factor": N / D + 1e-9, "n_heads": heads, "n_attn_layers": 1, "bottleneck_factor": N // width, "tied_weights": False,
        "sae_diff_type": "relu" if k is None else "topk", "kval_topk": k, "scaling_factor": 0.7,
    }  # fmt: skip

    def apply(name: str, x: Tensor) -> Tensor:
        weight, bias = linear[name]
        return x @ weight.double().T + bias.double()

    def codes(x: Tensor) -> Tensor:
        left = x.double() * 0.7 - w.decoder_bias.double()
        encoder, decoder = w.encoder.double(), w.decoder.double()
        before = (left / (4 * D) @ encoder.T).clamp(min=0)
        made = torch.zeros_like(before)
        for row in range(len(x)):
            seen = torch.cat([torch.zeros(1, N).double(), before[row, :-1]])
            for pos in range(x.shape[1]):
                q, keys, values = (
                    apply("q_target", before[row, pos]),
                    apply("k_ctx", seen[: pos + 1]),
                    apply("v_ctx", seen[: pos + 1]),
                )
                parts = []
                for head in range(heads):
                    qk, v = (
                        slice(head * width // heads, (head + 1) * width // heads),
                        slice(head * N // heads, (head + 1) * N // heads),
                    )
                    shares = (keys[:, qk] @ q[qk] / (width // heads) ** 0.5).softmax(dim=0)
                    parts.append(shares @ values[:, v])
                found = apply("c_proj", torch.cat(parts)).clamp(min=0)
                back = found @ decoder
                left[row, pos] -= back * (back @ left[row, pos]) / (back.norm() + 1e-6) ** 2
            made[row] = (left[row] / (4 * D) @ encoder.T).clamp(min=0)
            made[row] = made[row] if k is None else top(made[row], k)
        return made

    config = {"llm": {"dimin": D}, "sae": sae, "data": {"dtype": "float32"}}
    return Written({"conf.yaml": config}, {"latest_ckpt.safetensors": tensors}, codes, "gemma-2-2b/layer_12/temporal")


def saelens_temporal() -> Written:
    """The same in SAELens' own format."""
    plain = temporal()
    tensors = dict(plain.tensors["latest_ckpt.safetensors"])
    tensors |= {"W_dec": tensors.pop("D"), "W_enc": tensors.pop("E"), "b_dec": tensors.pop("b")}
    told = dict(plain.configs["conf.yaml"]["sae"])
    told["activation_normalization_factor"] = told.pop("scaling_factor")
    config = saelens_config("temporal", normalize_activations="constant_scalar_rescale", **told)
    return saelens(config, tensors, plain.codes)


WRITERS: dict[str, Callable[[], Written]] = {
    one.__name__: one
    for one in (
        saelens_standard, saelens_jumprelu, saelens_topk, saelens_gated, saelens_skip_transcoder, saelens_layer_norm, saelens_rescaled,
        saelens_before_6, saelens_before_3, gemma_scope, gemma_scope_2, sparsify_topk, sparsify_groupmax, learned_relu, learned_new,
        learned_topk, learned_batch_topk, learned_gated, learned_jumprelu, learned_matryoshka, llama_scope, llama_scope_r1, openai_topk,
        openai_relu, goodfire, qwen_scope, tracer_relu, tracer_jumprelu, tracer_topk,
    )
}  # fmt: skip
