"""Gemma Scope 2: `params.safetensors` with names in lower case, and `config.json`."""

import re

from innerview.dictionaries.architectures import JumpReLU
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import layer_of, site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME = "Gemma Scope 2"
KINDS = {"resid_post": "resid", "attn_out": "attn.heads", "mlp_out": "mlp.out"}


def read(source: Source) -> Dictionary:
    """The dictionary of `params.safetensors`: SAEs, and transcoders with and without an affine skip."""
    config = source.folder.json("config.json") if source.folder.has("config.json") else Fields("config.json", {})
    if config.values:
        config.text("architecture", among=("jump_relu",))
    tensors = of_safetensors(source.folder.path("params.safetensors"), "params.safetensors")
    d_in, n = tensors.shape("w_enc", 2)
    _, d_out = tensors.shape("w_dec", 2)
    if config.flag("affine_connection", False) and "affine_skip_connection" not in tensors:
        raise DictionaryError(
            "params.safetensors: the tensor 'affine_skip_connection' is missing, and config.json says affine_connection"
        )
    weights = Weights(
        tensors.take("w_enc", d_in, n, transposed=True),
        tensors.take("b_enc", n),
        tensors.take("w_dec", n, d_out),
        tensors.take("b_dec", d_out),
        tensors.maybe("affine_skip_connection", d_in, d_out, transposed=True),
        {"threshold": tensors.take("threshold", n, infinite=True)},
    )
    tensors.done()
    site, site_out, model = _told_by(source.hint, config)
    return shaping.dictionary(
        source, NAME, tensors, weights, JumpReLU(),
        subtracts=False, dtype_of="w_enc", site=site, site_out=site_out, model=model,
    )  # fmt: skip


def _told_by(path: str, config: Fields) -> tuple[str, str, str]:
    """Site, output's site and network: of the config, else of the path."""
    found = re.search(r"gemma-scope-2-(\w+)-(pt|it)", path)
    model = f"google/gemma-3-{found[1]}-{found[2]}" if found else "unknown"
    told = config.text("model_name", "").replace("gemma-v3", "gemma-3")
    model = (told if told.startswith("google/") else f"google/{told}") if told else model
    if "hf_hook_point_in" in config:
        out = config.text("hf_hook_point_out", "")
        return site_of(config.text("hf_hook_point_in"), model), site_of(out, model) if out else "", model
    layer, kind = layer_of(path), next((ours for theirs, ours in KINDS.items() if theirs in path), None)
    if layer is not None and "transcoder" in path:
        return f"blocks.{layer}.mlp.in", f"blocks.{layer}.mlp.out", model
    return (f"blocks.{layer}.{kind}", "", model) if kind and layer is not None else ("unknown", "", model)


FORMAT = Format(
    NAME,
    "params.safetensors (and config.json)",
    lambda source: "params.safetensors" in source.names(),
    read,
)
