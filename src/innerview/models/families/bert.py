"""BERT and RoBERTa: norms behind the sums, so that what leaves a block is a norm's."""

from innerview.models.families.family import (
    RESIDUAL,
    Family,
    Part,
    attention,
    norm_scale,
    output_projection,
    separate,
)

BERT = Family(
    name="bert",
    blocks="encoder.layer",
    embed="embeddings.word_embeddings",
    final_norm="",
    head="cls",
    block=RESIDUAL
    | {"attn.in": Part("attention.self", "input")}
    | separate("attention.self", "query", "key", "value")
    | attention("attention.self")
    | output_projection("attention.output.dense")
    | {
        "attn.out": Part("attention.output.dropout"),
        "norm1.scale": norm_scale("attention.output.LayerNorm", "resid_mid"),
        "resid_mid": Part("attention.output"),
        "mlp.in": Part("intermediate", "input"),
        "mlp.pre": Part("intermediate.dense", axes="d_mlp"),
        "mlp.hidden": Part("output.dense", "input", axes="d_mlp"),
        "mlp.out": Part("output.dropout"),
        "norm2.scale": norm_scale("output.LayerNorm", "resid"),
    },
)
ROBERTA = BERT.named("roberta", head="lm_head")

BERTS = (BERT, ROBERTA)
