"""Names of TransformerLens, of its own models and of its bridge, and the sites that they stand for."""

# By what follows `blocks.N.`; where several are given, the first that the network has. `hook_normalized` is what leaves the norm: with
# TransformerLens's folded norms the two are one; its bridge hooks it before the norm's weight, and has `hook_out` behind it.
TRANSFORMERLENS_BLOCK = {
    "hook_resid_pre": "resid_in",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid",
    "hook_in": "resid_in",
    "hook_out": "resid",
    "hook_mlp_in": "resid_mid",
    "hook_attn_out": "attn.out",
    "hook_mlp_out": "mlp.out",
    "ln1.hook_scale": "norm1.scale",
    "ln1.hook_normalized": "attn.in",
    "ln1.hook_out": "attn.in",
    "ln2.hook_scale": "norm2.scale",
    "ln2.hook_normalized": "mlp.in",
    "ln2.hook_out": "mlp.in",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_z": "attn.heads",
    "attn.hook_attn_scores": "attn.scores",
    "attn.hook_pattern": "attn.pattern",
    "attn.hook_result": "attn.result",
    "attn.hook_in": "attn.in",
    # In a gated MLP, TransformerLens's `hook_pre` is what passes the activation function: our `mlp.gate`.
    "mlp.hook_pre": "mlp.gate|mlp.pre",
    "mlp.hook_pre_linear": "mlp.pre",
    "mlp.hook_post": "mlp.hidden",
    "mlp.hook_in": "mlp.in",
}
TRANSFORMERLENS_MODEL = {
    "hook_embed": "embed",
    "embed.hook_out": "embed",
    "ln_final.hook_normalized": "final_norm",
    "ln_final.hook_out": "final_norm",
    "unembed.hook_out": "logits",
}
