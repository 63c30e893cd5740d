"""LLaMA and its kin: norms without means, gated neurons, grouped queries; with a few changes each, and mixtures of experts."""

from typing import Any

from innerview.models.families.family import (
    RESIDUAL,
    Family,
    Part,
    attention,
    fused,
    in_a_row,
    norm_scale,
    output_projection,
    separate,
)

LLAMA = Family(
    name="llama",
    blocks="layers",
    embed="embed_tokens",
    final_norm="norm",
    head="lm_head",
    block=RESIDUAL
    | {
        "norm1.scale": norm_scale("input_layernorm", "attn.in"),
        "attn.in": Part("input_layernorm"),
    }
    | separate("self_attn")
    | attention("self_attn")
    | output_projection("self_attn.o_proj")
    | {
        "attn.out": Part("self_attn", item=0),
        "resid_mid": Part("post_attention_layernorm", "input", is_shared=True),
        "norm2.scale": norm_scale("post_attention_layernorm", "mlp.in"),
        "mlp.in": Part("post_attention_layernorm"),
        "mlp.gate": Part("mlp.gate_proj", axes="d_mlp"),
        "mlp.pre": Part("mlp.up_proj", axes="d_mlp"),
        "mlp.hidden": Part("mlp.down_proj", "input", axes="d_mlp"),
        "mlp.out": Part("mlp"),
    },
)

# LLaMA with other weights, windows, biases, or norms inside the attention: the same places.
ALIKE = tuple(LLAMA.named(name) for name in ("mistral", "qwen2", "qwen3", "gemma"))

PHI3 = LLAMA.named(
    "phi3",
    block=fused("self_attn.qkv_proj", in_a_row)
    | {
        "mlp.gate": Part("mlp.gate_up_proj", axes="d_mlp", part=0, parts=2),
        "mlp.pre": Part("mlp.gate_up_proj", axes="d_mlp", part=1, parts=2),
    },
)

GRANITE = LLAMA.named(
    "granite",
    block={
        "attn.result": Part(
            "self_attn.o_proj",
            "input",
            heads="head",
            derived="result",
            instead="attn.heads",
            times="residual_multiplier",
        ),
        "attn.out": Part("self_attn", item=0, times="residual_multiplier"),
        "mlp.out": Part("mlp", times="residual_multiplier"),
    },
    logits_over="logits_scaling",
)

# Gemma 2 and 3 put a norm behind the attention and the feed-forward too: what it returns is what is added.
GEMMA2 = LLAMA.named(
    "gemma2",
    block={
        "attn.out": Part("post_attention_layernorm"),
        "resid_mid": Part("pre_feedforward_layernorm", "input", is_shared=True),
        "norm2.scale": norm_scale("pre_feedforward_layernorm", "mlp.in"),
        "mlp.in": Part("pre_feedforward_layernorm"),
        "mlp.out": Part("post_feedforward_layernorm"),
    },
    logits_cap="final_logit_softcapping",
)
GEMMA3 = GEMMA2.named("gemma3_text")

# OLMo 2 has norms only behind: the attention and the feed-forward read the stream itself.
OLMO2 = LLAMA.named(
    "olmo2",
    block={
        "attn.in": Part("self_attn", "input"),
        "norm1.scale": norm_scale("post_attention_layernorm", "attn.out"),
        "attn.out": Part("post_attention_layernorm"),
        "resid_mid": Part("mlp", "received", is_shared=True),
        "mlp.in": Part("mlp", "input"),
        "norm2.scale": norm_scale("post_feedforward_layernorm", "mlp.out"),
        "mlp.out": Part("post_feedforward_layernorm"),
    },
)

COHERE = LLAMA.named(
    "cohere",
    block={
        "resid_mid": None,
        "norm2.scale": None,
        "attn.in": Part("self_attn", "input"),
        "mlp.in": Part("mlp", "input"),
    },
    logits_times="logit_scale",
)
COHERE2 = COHERE.named("cohere2")


def _sizes(config: Any) -> dict[str, int]:
    return {
        "expert": getattr(config, "num_local_experts", None) or getattr(config, "num_experts", 0),
        "choice": config.num_experts_per_tok,
        "d_expert": getattr(config, "moe_intermediate_size", None) or config.intermediate_size,
    }


def _with_experts(name: str, router: str, **changes: Any) -> Family:
    """A mixture of experts: the router's logits; neurons only in the blocks that have one feed-forward."""
    inner = {
        "moe.router": Part(router, "linear", axes="expert", is_flat=True),
        "moe.chosen": Part("mlp.experts", "call", axes="choice", is_flat=True, derived="chosen", instead="moe.router"),
        "moe.hidden": Part("mlp.experts", "call", axes="d_expert", is_flat=True, derived="hidden", instead="mlp.out"),
    }
    return LLAMA.named(name, block=inner | changes.pop("block", {}), sizes=_sizes, **changes)


EXPERTS = (
    _with_experts("mixtral", "mlp.gate"),
    _with_experts("qwen2_moe", "mlp.gate"),
    _with_experts("qwen3_moe", "mlp.gate"),
    # The sink of each head is one more column of the softmax, which no token has.
    _with_experts(
        "gpt_oss",
        "mlp.router",
        block=attention("self_attn", drop=1) | {"mlp.out": Part("mlp", item=0)},
    ),
)

LLAMAS = (LLAMA, *ALIKE, PHI3, GRANITE, GEMMA2, GEMMA3, OLMO2, COHERE, COHERE2, *EXPERTS)
