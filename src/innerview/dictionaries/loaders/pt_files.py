"""Formats of one `.pt` a layer without a config, told apart by their tensors: OpenAI's, Goodfire's, Qwen-Scope's."""

import re

from innerview.dictionaries.architectures import Architecture, ReLU, TopK
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import layer_of
from innerview.dictionaries.loaders.pickled import of_pt
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import Normalisation
from innerview.errors import DictionaryError

FILES = r"(?!(?:ae|params)\.pt$).*\.(pt|pth)"
OPENAI, GOODFIRE, QWEN = "OpenAI", "Goodfire", "Qwen-Scope"
OPENAI_SITES = {
    "resid_post_mlp": "resid", "resid_post_attn": "resid_mid", "resid_delta_mlp": "mlp.out", "resid_delta_attn": "attn.out",
    "mlp_post_act": "mlp.hidden",
}  # fmt: skip
COUNTS = ("stats_last_nonzero", "latents_activation_frequency", "latents_mean_square")


def read(source: Source) -> Dictionary:
    """The dictionary of a `.pt`, by the tensors in it.

    Raises:
        DictionaryError: They are of none of these formats.
    """
    name = source.one_of(FILES)
    tensors = of_pt(source.folder.path(name), name)
    hint = f"{source.said}/{name}"
    if "encoder_linear.weight" in tensors or "decoder_linear.weight" in tensors:
        return read_goodfire(source, tensors, hint)
    if any(one in tensors for one in ("pre_bias", "latent_bias")):
        return read_openai(source, tensors, hint)
    if any(one in tensors for one in ("W_enc", "W_dec")) and re.search(r"SAE-Res-|L0_\d|\.sae\.pt$", hint):
        return read_qwen(source, tensors, hint)
    raise DictionaryError(
        f"{name} in {source.said!r} holds {', '.join(sorted(tensors.entries)[:8]) or 'no tensors'}: not the tensors of {OPENAI} (pre_bias, "
        f"latent_bias), {GOODFIRE} (encoder_linear.weight) or {QWEN} (W_enc in layerN.sae.pt)"
    )


def read_openai(source: Source, tensors: Tensors, hint: str) -> Dictionary:
    """OpenAI's sparse_autoencoder; the ones with TopK normalise each token, the others do not.

    Reference: arXiv:2406.04093
    """
    weights = shaping.of_linear_maps(tensors, "encoder.weight", "latent_bias", "decoder.weight", "pre_bias")
    architecture = _openai_architecture(tensors, weights.n_features)
    normalisation = Normalisation("layer_norm") if isinstance(architecture, TopK) else None
    tensors.done(ignored=COUNTS)
    kind = next((ours for theirs, ours in OPENAI_SITES.items() if theirs in hint), None)
    layer = re.search(r"(\d+)\.pt$", hint)
    site = f"blocks.{int(layer[1])}.{kind}" if kind and layer else "unknown"
    model = "gpt2" if "gpt2-small" in hint else "unknown"
    return shaping.dictionary(
        source, OPENAI, tensors, weights, architecture, normalisation,
        subtracts=True, dtype_of="encoder.weight", site=site, model=model,
    )  # fmt: skip


def _openai_architecture(tensors: Tensors, n: int) -> Architecture:
    kind = tensors.values.get("activation")
    inner = {key for key in (*tensors.values, *tensors.entries) if key.startswith("activation_state_dict.")}
    if kind is None and inner:
        raise DictionaryError(
            f"{tensors.file}: 'activation' is missing, beside {sorted(inner)[0]!r}; it is not guessed"
        )
    if kind in (None, "ReLU"):
        return ReLU()
    if kind != "TopK":
        raise DictionaryError(f"{tensors.file}: 'activation' is ReLU or TopK, not {kind!r:.80}")
    after = tensors.values.get("activation_state_dict.postact_fn")
    if after != "ReLU":
        raise DictionaryError(f"{tensors.file}: 'activation_state_dict.postact_fn' is ReLU, not {after!r:.80}")
    k = tensors.number("activation_state_dict.k", is_whole=True)
    if not isinstance(k, int) or not 1 <= k <= n:
        raise DictionaryError(f"{tensors.file}: 'activation_state_dict.k' is a whole number from 1 to {n}, not {k!r}")
    return TopK(k)


def read_goodfire(source: Source, tensors: Tensors, hint: str) -> Dictionary:
    """Goodfire's: a ReLU, with nothing taken off the input."""
    weights = shaping.of_linear_maps(
        tensors, "encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias"
    )
    tensors.done()
    found = re.search(r"(Llama-[\w.]+-\w+-Instruct)-SAE-l(\d+)", hint)
    return shaping.dictionary(
        source, GOODFIRE, tensors, weights, ReLU(), subtracts=False, dtype_of="encoder_linear.weight",
        site=f"blocks.{int(found[2])}.resid" if found else "unknown",
        model=f"meta-llama/{found[1]}" if found else "unknown",
    )  # fmt: skip


def read_qwen(source: Source, tensors: Tensors, hint: str) -> Dictionary:
    """Qwen-Scope's: TopK, whose k stands in the repository's name alone (`…-L0_50`)."""
    weights = shaping.of_linear_maps(tensors, "W_enc", "b_enc", "W_dec", "b_dec")
    tensors.done()
    told = re.findall(r"L0_(\d{1,6})(?!\d)", hint)
    if not told or not 1 <= int(told[-1]) <= weights.n_features:
        raise DictionaryError(
            f"k of {hint!r} is {'missing' if not told else f'not from 1 to {weights.n_features}'}: Qwen-Scope tells it in the repository's name alone; "
            "keep the name in the path, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer0.sae.pt"
        )
    model, layer = re.search(r"SAE-Res-(.+?)-W\d+K", hint), layer_of(hint)
    return shaping.dictionary(
        source, QWEN, tensors, weights, TopK(int(told[-1])), subtracts=False, dtype_of="W_enc",
        site=f"blocks.{layer}.resid" if layer is not None else "unknown",
        model=f"Qwen/{model[1]}" if model else "unknown",
    )  # fmt: skip


FORMAT = Format(
    f"{OPENAI}, {GOODFIRE} or {QWEN}", "one .pt or .pth a layer", lambda source: bool(source.matching(FILES)), read
)
