"""Where the sites of a block are, family by family: a table of facts."""

from dataclasses import dataclass, field

from innerview.models.site import Side


@dataclass(frozen=True)
class Part:
    """Where one site of a block is, relative to the block."""

    path: str
    side: Side = "output"
    axes: str = "d_model"
    item: int | None = None
    part: int | None = None
    parts: int = 1
    heads: str | None = None
    is_eager: bool = False
    instead: str = ""


@dataclass(frozen=True)
class Family:
    """Paths of a family's parts, relative to its base model, and of its output head, relative to the root."""

    name: str
    blocks: str
    embed: str
    final_norm: str
    head: str
    block: dict[str, Part] = field(default_factory=dict)


_RESIDUAL = {
    "resid_in": Part("", "input"),
    "resid": Part(""),
}

GPT2 = Family(
    name="gpt2",
    blocks="h",
    embed="wte",
    final_norm="ln_f",
    head="lm_head",
    block=_RESIDUAL
    | {
        "resid_mid": Part("ln_2", "input", instead="attn.out"),
        "attn.in": Part("ln_1"),
        "attn.q": Part("attn.c_attn", axes="d_head", part=0, parts=3, heads="head"),
        "attn.k": Part("attn.c_attn", axes="d_head", part=1, parts=3, heads="head"),
        "attn.v": Part("attn.c_attn", axes="d_head", part=2, parts=3, heads="head"),
        "attn.pattern": Part("attn", item=1, is_eager=True, instead="attn.heads"),
        "attn.heads": Part("attn.c_proj", "input", axes="d_head", heads="head"),
        "attn.out": Part("attn", item=0),
        "mlp.in": Part("ln_2"),
        "mlp.pre": Part("mlp.c_fc", axes="d_mlp"),
        "mlp.hidden": Part("mlp.c_proj", "input", axes="d_mlp"),
        "mlp.out": Part("mlp"),
    },
)

LLAMA = Family(
    name="llama",
    blocks="layers",
    embed="embed_tokens",
    final_norm="norm",
    head="lm_head",
    block=_RESIDUAL
    | {
        "resid_mid": Part("post_attention_layernorm", "input", instead="attn.out"),
        "attn.in": Part("input_layernorm"),
        "attn.q": Part("self_attn.q_proj", axes="d_head", heads="head"),
        "attn.k": Part("self_attn.k_proj", axes="d_head", heads="kv_head"),
        "attn.v": Part("self_attn.v_proj", axes="d_head", heads="kv_head"),
        "attn.pattern": Part("self_attn", item=1, is_eager=True, instead="attn.heads"),
        "attn.heads": Part("self_attn.o_proj", "input", axes="d_head", heads="head"),
        "attn.out": Part("self_attn", item=0),
        "mlp.in": Part("post_attention_layernorm"),
        "mlp.gate": Part("mlp.gate_proj", axes="d_mlp"),
        "mlp.pre": Part("mlp.up_proj", axes="d_mlp"),
        "mlp.hidden": Part("mlp.down_proj", "input", axes="d_mlp"),
        "mlp.out": Part("mlp"),
    },
)

FAMILIES = {family.name: family for family in (GPT2, LLAMA)}

# TransformerLens names, by what follows `blocks.N.`; the rest are of the model.
TRANSFORMERLENS_BLOCK = {
    "hook_resid_pre": "resid_in",
    "hook_resid_mid": "resid_mid",
    "hook_resid_post": "resid",
    "hook_attn_out": "attn.out",
    "hook_mlp_out": "mlp.out",
    "attn.hook_q": "attn.q",
    "attn.hook_k": "attn.k",
    "attn.hook_v": "attn.v",
    "attn.hook_z": "attn.heads",
    "attn.hook_pattern": "attn.pattern",
    # In a gated MLP, TransformerLens's `hook_pre` is what passes the activation function: our `mlp.gate`.
    "mlp.hook_pre": "mlp.gate|mlp.pre",
    "mlp.hook_pre_linear": "mlp.pre",
    "mlp.hook_post": "mlp.hidden",
}
TRANSFORMERLENS_MODEL = {"hook_embed": "embed"}
