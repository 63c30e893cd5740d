"""Sites as configs and paths name them: TransformerLens' hooks, modules of transformers, folders; what is not known stays unknown."""

import re

from innerview.dictionaries.manifest import UNKNOWN
from innerview.models.aliases import TRANSFORMERLENS_BLOCK, TRANSFORMERLENS_MODEL

# What leaves the norm before its weight: with TransformerLens' folded norms that is the MLP's input, without it is no site of ours.
WITHOUT_WEIGHT = ("ln1.hook_normalized", "ln2.hook_normalized")
_BLOCK = r"(?:[A-Za-z_]+\.)*(?:layers|h|blocks)[._](\d+)"
_MODULES = {
    "": "resid", ".output": "resid", ".mlp": "mlp.out", ".mlp.output": "mlp.out", ".mlp.input": "mlp.in",
    ".self_attn": "attn.out", ".attn": "attn.out", ".attention": "attn.out", ".self_attn.output": "attn.out",
    ".self_attn.o_proj.input": "attn.heads", ".pre_feedforward_layernorm.output": "mlp.in",
    ".post_feedforward_layernorm.output": "mlp.out", ".post_attention_layernorm.output": "mlp.in", ".mlp.hook_in": "mlp.in",
}  # fmt: skip
# Behind their MLP and attention stands another norm, so the module's output is not what is added to the stream.
_NORMS_BEHIND = re.compile(r"gemma-?[23]|olmo-?2|glm-?4", re.IGNORECASE)
OURS = re.compile(
    r"(blocks\.\d+\.(resid_in|resid_mid|resid|attn\.(in|q|k|v|scores|pattern|heads|result|out)|mlp\.(in|gate|pre|hidden|out)))|embed|final_norm|logits"
)


def site_of(name: str, model: str = "") -> str:
    """Our name of a site; `unknown` where the name is not known.

    Args:
        name: A hook of TransformerLens, a module of transformers, or our own name.
        model: Name of the network, which tells whether a module's output is what is added to the stream.
    """
    if OURS.fullmatch(name):
        return name
    if name in TRANSFORMERLENS_MODEL:
        return TRANSFORMERLENS_MODEL[name]
    hook = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if hook and hook[2] in TRANSFORMERLENS_BLOCK:
        if hook[2] in WITHOUT_WEIGHT:
            return UNKNOWN
        found = TRANSFORMERLENS_BLOCK[hook[2]]
        # Which of two it is, the network decides; the hook's own name is understood wherever a site is taken.
        return name if "|" in found else f"blocks.{hook[1]}.{found}"
    return _of_module(name, model)


def _of_module(name: str, model: str) -> str:
    if re.fullmatch(r"(?:[A-Za-z_]+\.)*(embed_tokens|embed_in|wte)", name):
        return "embed"
    found = re.fullmatch(_BLOCK + r"(\..+)?", name)
    site = _MODULES.get(found[2] or "") if found else None
    if found is None or site is None:
        return UNKNOWN
    # Under "post_attention_layernorm" Llama has the MLP's input; Gemma has what attention adds to the stream.
    doubtful = (".mlp", ".self_attn", ".attn", ".attention", ".mlp.output", ".self_attn.output")
    if _NORMS_BEHIND.search(model) and (found[2] in doubtful or found[2] == ".post_attention_layernorm.output"):
        return UNKNOWN
    return f"blocks.{int(found[1])}.{site}"


def input_site(name: str, model: str = "") -> str:
    """The site that a transcoder of a module reads: a module stands for its input there."""
    site = site_of(name, model)
    found = re.fullmatch(_BLOCK + r"\.mlp", name)
    return f"blocks.{int(found[1])}.mlp.in" if found else site


def layer_of(text: str) -> int | None:
    """The number of the layer that a site or a path names; None where it names none."""
    found = re.findall(r"(?<![A-Za-z])(?:layers?|blocks|h|L)[._-]?(\d{1,3})(?!\d)", text)
    return int(found[-1]) if found else None
