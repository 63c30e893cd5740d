"""Transcoders of circuit-tracer: `layer_N.safetensors`, one a layer, and `config.yaml`."""

from innerview.dictionaries.architectures import Architecture, JumpReLU, ReLU, TopK
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import layer_of, site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME = "transcoders of circuit-tracer"
FILES = r"layer_\d+\.safetensors"
THRESHOLD = "activation_function.threshold"


def read(source: Source) -> Dictionary:
    """The transcoder of a layer: ReLU, JumpReLU where the file has thresholds, or TopK where the config says so."""
    name = source.one_of(FILES)
    config = source.folder.yaml("config.yaml")
    tensors = of_safetensors(source.folder.path(name), name)
    # Feature-major already: other libraries have it the other way.
    n, d_in = tensors.shape("W_enc", 2)
    _, d_out = tensors.shape("W_dec", 2)
    architecture = _architecture(config, tensors, n)
    extras = {"threshold": tensors.take(THRESHOLD, n, infinite=True)} if isinstance(architecture, JumpReLU) else {}
    weights = Weights(
        tensors.take("W_enc", n, d_in),
        tensors.take("b_enc", n),
        tensors.take("W_dec", n, d_out),
        tensors.take("b_dec", d_out),
        tensors.maybe("W_skip", d_out, d_in),
        extras,
    )
    tensors.done(ignored=("k",) if isinstance(architecture, TopK) else ())
    layer, model = layer_of(name), config.text("model_name", "") or "unknown"
    hooks = {side: config.text(f"feature_{side}_hook", "") for side in ("input", "output")}
    sites = {side: site_of(f"blocks.{layer}.{hook}", model) for side, hook in hooks.items()}
    return shaping.dictionary(
        source, NAME, tensors, weights, architecture, subtracts=False, dtype_of="W_enc",
        site=sites["input"], site_out=sites["output"], model=model,
    )  # fmt: skip


def _architecture(config: Fields, tensors: Tensors, n: int) -> Architecture:
    kind = config.text("activation", "", among=("relu", "topk", "jump_relu", "jumprelu", ""))
    k = config.whole("k", 0, least=1)
    if "k" in tensors:
        k = k or int(tensors.number("k", is_whole=True))
    if k and kind != "topk":
        raise DictionaryError(f"config.yaml: activation is topk where k is said ({k}), not {kind or 'missing'!r}")
    if kind == "topk":
        if not 1 <= k <= n:
            raise DictionaryError(f"config.yaml: k is a whole number from 1 to {n} for topk, not {k or 'missing'!r}")
        return TopK(k)
    if kind != "relu" and (THRESHOLD in tensors or kind):
        return JumpReLU()
    return ReLU()


FORMAT = Format(
    NAME,
    "layer_N.safetensors and config.yaml",
    lambda source: bool(source.matching(FILES)),
    read,
)
