"""The shape of the pocket network."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

CONTEXT = 256
ADDED_TO_STREAM = ("o_proj.weight", "down_proj.weight")
EMBEDDING_STD = 0.04


@dataclass(frozen=True)
class Shape:
    """The sizes of a pocket network."""

    d_model: int = 224
    d_mlp: int = 576
    n_layers: int = 8
    heads: int = 8
    kv_heads: int = 4


def pocket_config(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> LlamaConfig:
    """A small Llama: RMSNorm, RoPE, SwiGLU, two query heads to a key head, tied embeddings."""
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.d_model,
        intermediate_size=shape.d_mlp,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.d_model // shape.heads,
        max_position_embeddings=CONTEXT,
        rms_norm_eps=1e-5,
        rope_theta=10_000.0,
        tie_word_embeddings=True,
        initializer_range=EMBEDDING_STD,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )


def pocket_network(tokenizer: PreTrainedTokenizerFast, shape: Shape) -> LlamaForCausalLM:
    """An untrained pocket network; what is added to the stream starts small, by the depth."""
    config = pocket_config(tokenizer, shape)
    network = LlamaForCausalLM(config)
    for name, parameter in network.model.layers.named_parameters():
        if parameter.ndim > 1:
            # Without the shrinking by depth, the stream's variance would grow with every block.
            shrink = (2 * config.num_hidden_layers) ** -0.5 if name.endswith(ADDED_TO_STREAM) else 1.0
            nn.init.normal_(parameter, std=shrink * parameter.shape[1] ** -0.5)
    return network
