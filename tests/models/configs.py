"""Small configs of the networks that transformers can build: one shrinking rule for all, and what single ones need besides."""

import re
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
)

CAUSAL = tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
MASKED = tuple(MODEL_FOR_MASKED_LM_MAPPING_NAMES)
VOCAB, WIDTH = 99, 32

# Names of sizes as configs spell them, and the small number for each; the first that matches is taken.
SIZES: tuple[tuple[str, int], ...] = (
    (r"(hidden_size|d_model|n_embd|embed_dim|emb_dim|embedding_size|embedding_dim|hidden_dim|text_hidden_size|attention_hidden_size)", 32),
    (r"(num_hidden_layers|num_layers|n_layer|n_layers|encoder_layers|decoder_layers|num_decoder_layers|num_encoder_layers|depth)", 2),
    (r"(num_attention_heads|n_head|n_heads|encoder_attention_heads|decoder_attention_heads|num_heads)", 4),
    (r"(num_key_value_heads|num_kv_heads|multi_query_group_num)", 2),
    (r"(head_dim|d_kv)", 8),
    (r"(intermediate_size|d_ff|ffn_dim|n_inner|encoder_ffn_dim|decoder_ffn_dim|moe_intermediate_size|shared_expert_intermediate_size|ffn_hidden_size|inner_dim)", 64),
    (r"(vocab_size)", VOCAB),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|max_seq_length|max_sequence_length)", 64),
    (r"(num_experts|num_local_experts|n_routed_experts|moe_num_experts)", 4),
    (r"(num_experts_per_tok|num_experts_per_token|moe_k|moe_top_k|top_k_experts)", 2),
    (r"(n_group|topk_group)", 1),
    (r"(q_lora_rank|kv_lora_rank)", 16),
    (r"(qk_rope_head_dim|qk_nope_head_dim|v_head_dim|index_head_dim)", 8),
    (r"(pad_token_id)", 0),
    (r"(bos_token_id)", 1),
    (r"(eos_token_id)", 2),
)  # fmt: skip
# What is worked out from the sizes, and must be again when they shrink.
DERIVED = {"layer_types", "mlp_layer_types", "rope_parameters", "rope_scaling", "model_type", "architectures"}

ALL_HEADS = {"num_key_value_heads": 4}
FOUR = {"num_hidden_layers": 4}
MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16}
INDEXER = FOUR | {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
}
# What a config needs besides, by its type.
EXTRA: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("axk1", "axk2", "deepseek_v2", "deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa", "minicpm3", "youtu", "dots3_note_text"), ALL_HEADS),
    **dict.fromkeys(("lfm2", "lfm3", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next", "recurrent_gemma", "cohere2", "cohere2_moe", "olmo_hybrid", "olmo3", "minimax"), FOUR),
    **{name: {"text_config": FOUR} for name in ("qwen3_5", "qwen3_5_moe")},
    "bamba": MAMBA | {"attn_layer_indices": [1]},
    "blt": {
        "encoder_hash_byte_group_vocab": 50, "encoder_hash_byte_group_size": [2, 3],
        "encoder_config": {"hidden_size_global": 32, "num_key_value_heads": 4},
        "decoder_config": {"hidden_size_global": 32, "num_key_value_heads": 4},
        "global_config": {"num_key_value_heads": 4},
    },
    "codegen": {"rotary_dim": 8},
    "deepseek_v2": ALL_HEADS | {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1},
    "cohere_compass_text": {"layer_types": ["full_attention"] * 2, "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 10000.0}}},
    "dbrx": {"attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0}, "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 64}},
    "bailing_hybrid": FOUR | ALL_HEADS | {"layer_group_size": 4, "first_k_dense_replace": 1, "num_expert_group": 1, "topk_group": 1},
    "distilbert": {"dim": WIDTH, "hidden_dim": 64},
    "dots3_note": {"text_config": ALL_HEADS, "vision_config": {"per_layer_config": {}, "adapter_in_dim": WIDTH, "adapter_out_dim": WIDTH}, "audio_config": {"adapter_input_size": WIDTH, "adapter_out_dim": WIDTH}},
    "esm": {"vocab_size": VOCAB, "mask_token_id": 3, "pad_token_id": 0},
    "esmc": ALL_HEADS,
    "jamba": FOUR | {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 0},
    "kimi_linear": FOUR | ALL_HEADS | {"layer_types": ["linear_attention"] * 3 + ["full_attention"], "linear_num_heads": 4, "linear_head_dim": 8},
    "luke": {"entity_vocab_size": 10, "entity_emb_size": 16},
    "neomme": {"head_dim": 16, "embedding_rank": 16, "per_layer_config": {}},
    "perceiver": {"d_latents": WIDTH, "num_latents": 8, "num_self_attends_per_block": 2, "num_self_attention_heads": 4, "num_cross_attention_heads": 4},
    "phi4_multimodal": {"audio_config": {"ext_pw_out_channel": 32, "depthwise_separable_out_channel": 32, "nemo_conv_channels": 32, "num_blocks": 2}},
    "qwen4_exp": {"text_config": INDEXER},
    "qwen4_exp_text": INDEXER,
    "dots1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 64},
    "gemma3n_text": {"num_hidden_layers": 5, "num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "intermediate_size": 64, "activation_sparsity_pattern": [0.0] * 5, "laurel_rank": 8},
    "gemma4_text": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "num_hidden_layers": 6, "global_head_dim": 8},
    "gemma4": {"text_config": {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB, "num_hidden_layers": 6, "global_head_dim": 8}},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 8},
    "granitemoehybrid": MAMBA | {"layer_types": ["mamba", "attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "longcat_flash": {"num_key_value_heads": 4, "expert_ffn_hidden_size": 64, "moe_topk": 2, "zero_expert_num": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 2, "state_size": 16, "chunk_size": 8},
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2},
    "reformer": {
        "is_decoder": True, "attn_layers": ["local", "lsh"], "axial_pos_embds_dim": [16, 16], "axial_pos_shape": [8, 8],
        "attention_head_size": 8, "feed_forward_size": 64, "local_attn_chunk_length": 8, "lsh_attn_chunk_length": 8,
    },
    "roc_bert": {"pronunciation_embed_dim": 8, "shape_embed_dim": 8, "pronunciation_vocab_size": VOCAB, "shape_vocab_size": VOCAB},
    "xlstm": {"qk_dim_factor": 1.0, "num_blocks": 2, "chunk_size": 8},
    "xmod": {"default_language": "en_XX"},
    "zamba": {"num_hidden_layers": 3, "attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4, "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "mamba_dt_rank": 2},
    "zamba2": {"num_hidden_layers": 3, "layers_block_type": ["linear_attention", "hybrid", "hybrid"], "mamba_d_state": 16, "n_mamba_heads": 8, "mamba_headdim": 8, "mamba_ngroups": 1, "chunk_size": 8, "attention_hidden_size": 64, "attention_head_dim": 16, "num_key_value_heads": 4, "num_mem_blocks": 1, "adapter_rank": 8},
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}  # fmt: skip


# A masked language model of Reformer must not be a decoder.
EXTRA_MASKED: dict[str, dict[str, Any]] = {"reformer": EXTRA["reformer"] | {"is_decoder": False}}
ASSISTANT: dict[str, Any] = {
    "hidden_size_per_layer_input": 0,
    "vocab_size_per_layer_input": 0,
    "layer_types": ["full_attention"] * 2,
    "num_kv_shared_layers": 1,
    "global_head_dim": 8,
}
# Configs that only make sense around another one.
AROUND: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma4_unified_assistant": ("gemma4_unified_text", ASSISTANT),
}
# Classes whose network is built from one of the configs inside the one that the mapping names.
INNER = {"musicgen": "decoder", "musicgen_melody": "decoder"}
# What cannot be built here, and why.
MISSING = {
    "gemma3n": "its vision tower needs timm and pillow, which are not installed",
    "gemma4_assistant": "transformers demands that all its layers share their keys and values, and then refuses that none makes them",
}


def network(mapping: str, model_type: str) -> nn.Module:
    """A small random network of one class of a mapping, `causal` or `masked`, in evaluation mode."""
    auto = AutoModelForCausalLM if mapping == "causal" else AutoModelForMaskedLM
    config = small(model_type, mapping)
    torch.manual_seed(0)
    if model_type in INNER:
        made = auto._model_mapping[type(config)](getattr(config, INNER[model_type]))
    else:
        made = auto.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            # What starts at zero would add nothing, and nothing could be seen of it.
            if parameter.ndim > 1 and not bool(parameter.any()):
                parameter.normal_(0, 0.05)
    return made.eval()


def small(model_type: str, mapping: str = "causal") -> PretrainedConfig:
    """A config of this type whose network is built and run in an instant."""
    kind = CONFIG_MAPPING[model_type]
    if model_type in AROUND:
        inner, extra = AROUND[model_type]
        return kind(text_config=shrunk(CONFIG_MAPPING[inner], extra))
    extra = EXTRA_MASKED.get(model_type) if mapping == "masked" else None
    return shrunk(kind, EXTRA.get(model_type, {}) if extra is None else extra)


def shrunk(kind: type[PretrainedConfig], extra: dict[str, Any]) -> PretrainedConfig:
    """A config of a class with every size that it names made small, and what `extra` says; a dict in it goes to a config inside."""
    made: dict[str, Any] = {}
    plain = kind()
    inner = {
        name: type(sub)
        for name in getattr(kind, "sub_configs", {})
        if isinstance(sub := getattr(plain, name, None), PretrainedConfig)
    }
    for name, value in plain.to_dict().items():
        if name in inner or name in DERIVED:
            continue
        size = _size(name)
        if size is not None and isinstance(value, int) and not isinstance(value, bool):
            made[name] = size
    for name, sub in inner.items():
        made[name] = extra[name] if extra.get(name, {}) is None else shrunk(sub, extra.get(name, {})).to_dict()
    made |= {name: value for name, value in extra.items() if name not in inner}
    return kind(**made)


def _size(name: str) -> int | None:
    return next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
