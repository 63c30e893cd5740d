"""One small random network of each family of the table, with what makes the family hard: windows, caps, groups, fused projections."""

from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

VOCAB, WIDTH, LAYERS, HEADS, GROUPS, INNER = 67, 32, 2, 4, 2, 48
_OLD = {
    "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS, "n_positions": 64,
    "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0,
}  # fmt: skip
_PLAIN = {
    "hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "max_position_embeddings": 64,
}  # fmt: skip
_NEW = _PLAIN | {"num_key_value_heads": GROUPS, "intermediate_size": INNER}
_HALVES = {"layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 24}

# Name of the network: `model_type`, and what its config sets.
CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("gpt2", _OLD),
    "gpt_neo": ("gpt_neo", {
        "hidden_size": WIDTH, "num_layers": 2, "num_heads": HEADS, "attention_types": [[["global", "local"], 1]],
        "window_size": 3, "max_position_embeddings": 64, "resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0,
    }),
    "gptj": ("gptj", _OLD | {"rotary_dim": 4}),
    "gpt_neox": ("gpt_neox", _PLAIN | {"intermediate_size": INNER, "hidden_dropout": 0.0, "attention_dropout": 0.0}),
    "gpt_neox in a chain": ("gpt_neox", _PLAIN | {"intermediate_size": INNER, "use_parallel_residual": False}),
    "phi": ("phi", _NEW | {"partial_rotary_factor": 0.5}),
    "opt": ("opt", _PLAIN | {"ffn_dim": INNER, "word_embed_proj_dim": WIDTH, "dropout": 0.0}),
    "opt with norms behind": ("opt", _PLAIN | {
        "ffn_dim": INNER, "word_embed_proj_dim": WIDTH, "dropout": 0.0, "do_layer_norm_before": False,
    }),
    "bloom": ("bloom", {"hidden_size": WIDTH, "n_layer": LAYERS, "n_head": HEADS}),
    "falcon 7b": ("falcon", _PLAIN | {"num_kv_heads": 1, "multi_query": True, "parallel_attn": True}),
    "falcon 40b": ("falcon", _PLAIN | {"num_kv_heads": GROUPS, "new_decoder_architecture": True}),
    "falcon rw": ("falcon", _PLAIN | {"multi_query": False, "parallel_attn": False, "alibi": True, "bias": True}),
    "llama": ("llama", _NEW),
    "mistral": ("mistral", _NEW | {"sliding_window": 3}),
    "qwen2": ("qwen2", _NEW),
    "qwen3": ("qwen3", _NEW | {"head_dim": 16}),
    "gemma": ("gemma", _NEW | {"head_dim": 16}),
    "gemma2": ("gemma2", _NEW | _HALVES | {
        "head_dim": 16, "sliding_window": 3, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0, "query_pre_attn_scalar": 16,
    }),
    "gemma3_text": ("gemma3_text", _NEW | _HALVES | {"head_dim": 16, "sliding_window": 3, "query_pre_attn_scalar": 16}),
    "phi3": ("phi3", _NEW | {"pad_token_id": 0}),
    "granite": ("granite", _NEW | {"residual_multiplier": 0.3, "logits_scaling": 4.0, "embedding_multiplier": 2.0}),
    "olmo2": ("olmo2", _NEW),
    "cohere": ("cohere", _NEW | {"logit_scale": 0.25}),
    "cohere2": ("cohere2", _NEW | _HALVES | {"logit_scale": 0.25, "sliding_window": 3}),
    "mixtral": ("mixtral", _NEW | {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": ("qwen2_moe", _NEW | _EXPERTS | {
        "num_experts": 4, "shared_expert_intermediate_size": 24, "mlp_only_layers": [1],
    }),
    "qwen3_moe": ("qwen3_moe", _NEW | _EXPERTS | {"num_experts": 4, "head_dim": 16}),
    "gpt_oss": ("gpt_oss", _NEW | _HALVES | {
        "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 3,
    }),
    "bert": ("bert", _PLAIN | {"intermediate_size": INNER}),
    "roberta": ("roberta", _PLAIN | {"intermediate_size": INNER, "max_position_embeddings": 80}),
}  # fmt: skip
PARALLEL = {"gptj", "gpt_neox", "phi", "falcon 7b", "falcon 40b", "cohere", "cohere2"}
BEHIND = {"bert", "roberta", "opt with norms behind"}
EXPERTS = {"mixtral", "qwen2_moe", "qwen3_moe", "gpt_oss"}


def network(
    name: str, *, kernel: str | None = None, dtype: torch.dtype = torch.float32, seed: int = 0
) -> PreTrainedModel:
    """The network, with weights large enough that attention is far from uniform and no bias is zero."""
    kind, settings = CONFIGS[name]
    shared = {
        "vocab_size": VOCAB,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "tie_word_embeddings": False,
    }
    config = CONFIG_MAPPING[kind](**shared | settings)
    torch.manual_seed(seed)
    build = AutoModelForMaskedLM if kind in ("bert", "roberta") else AutoModelForCausalLM
    made = build.from_config(config, **({"attn_implementation": kernel} if kernel else {})).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in made.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            # Norms' weights stay near one, biases near zero; matrices keep the size of what passes.
            size = 0.2 if parameter.ndim == 1 else parameter.shape[-1] ** -0.5
            parameter.copy_(parameter + size * noise if parameter.ndim == 1 else size * noise)
    return made.to(dtype).eval()
