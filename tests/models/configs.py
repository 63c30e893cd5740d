"""Small configs of the networks that transformers can build: one shrinking rule for all, and what single ones need besides."""

import re
from typing import Any

from transformers import CONFIG_MAPPING, PretrainedConfig
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

EXTRA: dict[str, dict[str, Any]] = {}


def small(model_type: str) -> PretrainedConfig:
    """A config of this type whose network is built and run in an instant."""
    return shrunk(CONFIG_MAPPING[model_type], EXTRA.get(model_type, {}))


def shrunk(kind: type[PretrainedConfig], extra: dict[str, Any]) -> PretrainedConfig:
    """A config of a class with every size that it names made small, and what `extra` says; a dict in it goes to a config inside."""
    made: dict[str, Any] = {}
    inner = getattr(kind, "sub_configs", {})
    for name, value in kind().to_dict().items():
        if name in inner or name in DERIVED:
            continue
        size = _size(name)
        if size is not None and isinstance(value, int) and not isinstance(value, bool):
            made[name] = size
    for name, sub in inner.items():
        if hasattr(sub, "sub_configs") and sub is not PretrainedConfig:
            made[name] = shrunk(sub, extra.get(name, {})).to_dict()
    made |= {name: value for name, value in extra.items() if name not in inner}
    return kind(**made)


def _size(name: str) -> int | None:
    return next((size for pattern, size in SIZES if re.fullmatch(pattern, name)), None)
