"""GPT-2 and what came before gated neurons: GPT-Neo, GPT-J, GPT-NeoX, Phi, OPT, BLOOM, Falcon."""

from typing import Any

from innerview.models.families.family import (
    RESIDUAL,
    Family,
    Part,
    Variant,
    attention,
    by_group,
    by_head,
    fused,
    in_a_row,
    norm_scale,
    output_projection,
    separate,
)


def _mlp(module: str, into: str, out_of: str) -> dict[str, Part]:
    """A feed-forward without a gate."""
    return {
        "mlp.pre": Part(into, axes="d_mlp"),
        "mlp.hidden": Part(out_of, "input", axes="d_mlp"),
        "mlp.out": Part(module),
    }


def _shared_norm(norm: str, attn: str, mlp: str) -> dict[str, Part | None]:
    """Attention and feed-forward side by side behind one norm: each has its own input, and nothing is between them."""
    return {
        "resid_mid": None,
        "norm1.scale": norm_scale(norm, "attn.in"),
        "norm2.scale": None,
        "attn.in": Part(attn, "input"),
        "mlp.in": Part(mlp, "input"),
    }


def _in_a_chain(norm1: str, norm2: str) -> dict[str, Part]:
    """Norm, attention, norm, feed-forward."""
    return {
        "norm1.scale": norm_scale(norm1, "attn.in"),
        "attn.in": Part(norm1),
        "resid_mid": Part(norm2, "input", is_shared=True),
        "norm2.scale": norm_scale(norm2, "mlp.in"),
        "mlp.in": Part(norm2),
    }


GPT2 = Family(
    name="gpt2",
    blocks="h",
    embed="wte",
    final_norm="ln_f",
    head="lm_head",
    block=RESIDUAL
    | _in_a_chain("ln_1", "ln_2")
    | fused("attn.c_attn", in_a_row)
    | attention("attn")
    | output_projection("attn.c_proj")
    | {"attn.out": Part("attn", item=0)}
    | _mlp("mlp", "mlp.c_fc", "mlp.c_proj"),
)

GPT_NEO = GPT2.named(
    "gpt_neo",
    block=separate("attn.attention") | attention("attn.attention") | output_projection("attn.attention.out_proj"),
)

GPTJ = GPT2.named(
    "gptj",
    block=_shared_norm("ln_1", "attn", "mlp")
    | separate("attn")
    | attention("attn")
    | output_projection("attn.out_proj")
    | _mlp("mlp", "mlp.fc_in", "mlp.fc_out"),
)

GPT_NEOX = Family(
    name="gpt_neox",
    blocks="layers",
    embed="embed_in",
    final_norm="final_layer_norm",
    head="lm_head",
    block=RESIDUAL
    | _in_a_chain("input_layernorm", "post_attention_layernorm")
    | fused("attention.query_key_value", by_head)
    | attention("attention")
    | output_projection("attention.dense")
    | {"attn.out": Part("attention", item=0)}
    | _mlp("mlp", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    variants=(Variant(lambda config: config.use_parallel_residual, {"resid_mid": None}),),
)

PHI = Family(
    name="phi",
    blocks="layers",
    embed="embed_tokens",
    final_norm="final_layernorm",
    head="lm_head",
    block=RESIDUAL
    | {n: p for n, p in _shared_norm("input_layernorm", "self_attn", "mlp").items() if p}
    | separate("self_attn")
    | attention("self_attn")
    | output_projection("self_attn.dense")
    | {"attn.out": Part("self_attn", item=0)}
    | _mlp("mlp", "mlp.fc1", "mlp.fc2"),
)

# Behind the attention, OPT's block sees all tokens of the batch in one axis. OPT-350m puts its norms behind the sums.
OPT = Family(
    name="opt",
    blocks="decoder.layers",
    embed="decoder.embed_tokens",
    final_norm="decoder.final_layer_norm",
    head="lm_head",
    block=RESIDUAL
    | {
        "norm1.scale": norm_scale("self_attn_layer_norm", "attn.in"),
        "attn.in": Part("self_attn", "input"),
        "resid_mid": Part("final_layer_norm", "input", is_flat=True, is_shared=True),
        "norm2.scale": Part("final_layer_norm", "input", axes="one", derived="scale", instead="mlp.in", is_flat=True),
        "mlp.in": Part("fc1", "input", is_flat=True),
    }
    | separate("self_attn")
    | attention("self_attn")
    | output_projection("self_attn.out_proj")
    | {
        "attn.out": Part("self_attn", item=0),
        "mlp.pre": Part("fc1", axes="d_mlp", is_flat=True),
        "mlp.hidden": Part("fc2", "input", axes="d_mlp", is_flat=True),
        "mlp.out": Part("fc2", is_flat=True),
    },
    variants=(
        Variant(
            lambda config: not config.do_layer_norm_before,
            {
                "resid_mid": Part("self_attn_layer_norm"),
                "norm2.scale": norm_scale("final_layer_norm", "resid"),
                "norm1.scale": norm_scale("self_attn_layer_norm", "resid_mid"),
            },
        ),
    ),
    sizes=lambda config: {"d_mlp": config.ffn_dim},
)

# BLOOM adds to the stream inside its attention and its feed-forward: what they add is their last projection's.
BLOOM = Family(
    name="bloom",
    blocks="h",
    embed="word_embeddings",
    final_norm="ln_f",
    head="lm_head",
    block=RESIDUAL
    | _in_a_chain("input_layernorm", "post_attention_layernorm")
    | fused("self_attention.query_key_value", by_head)
    | attention("self_attention")
    | output_projection("self_attention.dense")
    | {"attn.out": Part("self_attention.dense")}
    | _mlp("mlp.dense_4h_to_h", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    variants=(
        Variant(
            lambda config: config.apply_residual_connection_post_layernorm,
            # Its skip connections start behind the norms there, so that the norms' outputs feed more than the attention.
            {
                "attn.in": Part("self_attention", "input"),
                "mlp.in": Part("mlp", "input"),
                "resid_mid": Part("self_attention", item=0),
            },
        ),
    ),
)


def _falcon_kv_heads(config: Any) -> int:
    if config.new_decoder_architecture:
        return config.num_kv_heads
    return 1 if config.multi_query else config.num_attention_heads


FALCON = Family(
    name="falcon",
    blocks="h",
    embed="word_embeddings",
    final_norm="ln_f",
    head="lm_head",
    block=RESIDUAL
    | _in_a_chain("input_layernorm", "post_attention_layernorm")
    | fused("self_attention.query_key_value", by_group)
    | attention("self_attention")
    | output_projection("self_attention.dense")
    | {"attn.out": Part("self_attention", item=0)}
    | _mlp("mlp", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    variants=(
        Variant(
            lambda config: config.parallel_attn or config.new_decoder_architecture,
            _shared_norm("input_layernorm", "self_attention", "mlp"),
        ),
        Variant(
            lambda config: config.new_decoder_architecture and config.num_ln_in_parallel_attn == 2,
            _in_a_chain("ln_attn", "ln_mlp") | {"resid_mid": None},
        ),
    ),
    sizes=lambda config: {"d_mlp": config.ffn_hidden_size, "kv_head": _falcon_kv_heads(config)},
)

GPT = (GPT2, GPT_NEO, GPTJ, GPT_NEOX, PHI, OPT, BLOOM, FALCON)
