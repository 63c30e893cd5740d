"""Temporal SAEs: `conf.yaml` and `latest_ckpt.safetensors`."""

import math

from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import layer_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.temporal import ContextAttention, TemporalSAE
from innerview.errors import DictionaryError

NAME = "temporal SAE"
FILE = "latest_ckpt.safetensors"


def read(source: Source) -> TemporalSAE:
    """The temporal SAE of a folder.

    Reference: arXiv:2511.01836
    """
    config = source.folder.yaml("conf.yaml")
    told = config.inner("sae")
    tensors = of_safetensors(source.folder.path(FILE), FILE)
    n, d = tensors.shape("D", 2)
    shaping.same(config.inner("llm").whole("dimin"), d, "dimin", tensors)
    factor = told.number("exp_factor", above=0)
    if math.floor(d * factor) != n:
        raise DictionaryError(
            f"conf.yaml: exp_factor {factor:g} makes {math.floor(d * factor)} features of {d}, and D has {n}"
        )
    decoder = tensors.take("D", n, d)
    is_tied = told.flag("tied_weights")
    encoder = decoder.clone() if is_tied else tensors.take("E", d, n, transposed=True)
    layers = tuple(attention(told, tensors, i, n) for i in range(told.whole("n_attn_layers", least=0)))
    bias = tensors.take("b", d)
    tensors.done()
    layer = layer_of(source.hint)
    manifest = Manifest(
        subtracts_decoder_bias=True,
        normalisation=Normalisation("constant", told.number("scaling_factor", above=0)),
        site="unknown" if layer is None else f"blocks.{layer}.resid",
        source=source.origin(NAME),
        commit=source.commit,
        dtype=tensors.dtype("D"),
    )
    return TemporalSAE(encoder, decoder, bias, layers, kept(told, n), manifest)


def kept(told: Fields, n: int) -> int | None:
    """Features that are kept at each token; None for all above 0."""
    if told.text("sae_diff_type", among=("relu", "topk")) == "relu":
        return None
    k = told.whole("kval_topk")
    if k > n:
        raise DictionaryError(f"conf.yaml: kval_topk is {k}, and there are {n} features")
    return k


def attention(told: Fields, tensors: Tensors, i: int, n: int) -> ContextAttention:
    """One layer of attention, its sizes checked.

    Raises:
        DictionaryError: The heads do not divide the widths, or a tensor is missing.
    """
    width, heads = n // told.whole("bottleneck_factor"), told.whole("n_heads")
    if not width or width % heads or n % heads:
        raise DictionaryError(
            f"conf.yaml: n_heads {heads} does not divide {n} features and the width {width} (bottleneck_factor)"
        )
    sizes = {"q_target": width, "k_ctx": width, "v_ctx": n, "c_proj": n}
    query, key, value, output = (
        (tensors.take(f"attn_layers.{i}.{name}.weight", size, n), tensors.take(f"attn_layers.{i}.{name}.bias", size))
        for name, size in sizes.items()
    )
    return ContextAttention(query, key, value, output, heads)


FORMAT = Format(NAME, f"conf.yaml and {FILE}", lambda source: {"conf.yaml", FILE} <= source.names(), read)
