"""EleutherAI's sparsify: a folder a hookpoint, with `cfg.json` and `sae.safetensors`."""

import re

from innerview.dictionaries.architectures import Architecture, TopK
from innerview.dictionaries.architectures.group_max import GroupMax
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import input_site, site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME = "EleutherAI sparsify"


def read(source: Source) -> Dictionary:
    """The dictionary of a hookpoint's folder: TopK or groupmax, of activations or as a transcoder, with a skip or without."""
    config = source.folder.json("cfg.json")
    tensors = of_safetensors(source.folder.path("sae.safetensors"), "sae.safetensors")
    # Each came with the other; before that all was TopK of one site.
    is_new = "transcode" in config or "activation" in config
    is_transcoder = config.flag("transcode") if is_new else False
    n, d_in = tensors.shape("encoder.weight", 2)
    shaping.same(config.whole("d_in"), d_in, "d_in", tensors)
    shaping.same(config.whole("num_latents", 0, least=0) or None, n, "num_latents", tensors)
    skip = tensors.maybe("W_skip", d_in, d_in)
    if config.flag("skip_connection", False) != (skip is not None):
        raise DictionaryError(
            f"cfg.json: skip_connection is {skip is None}, and sae.safetensors has {'no' if skip is None else 'a'} W_skip"
        )
    weights = Weights(
        tensors.take("encoder.weight", n, d_in),
        tensors.take("encoder.bias", n),
        tensors.take("W_dec", n, d_in),
        tensors.take("b_dec", d_in),
        skip,
    )
    tensors.done()
    site, site_out, model = _told_by(source, is_transcoder or skip is not None)
    return shaping.dictionary(
        source, NAME, tensors, weights, _architecture(config, is_new, n),
        subtracts=not is_transcoder, dtype_of="encoder.weight", site=site, site_out=site_out, model=model,
    )  # fmt: skip


def _architecture(config: Fields, is_new: bool, n: int) -> Architecture:
    if config.flag("signed", False):
        raise DictionaryError("cfg.json: signed keeps the largest of either sign, which no architecture here does")
    k = config.whole("k")
    if k > n:
        raise DictionaryError(f"cfg.json: k is {k}, and there are {n} features")
    kind = config.text("activation", among=("topk", "groupmax")) if is_new else "topk"
    return GroupMax(k) if kind == "groupmax" else TopK(k)


def _told_by(source: Source, is_transcoder: bool) -> tuple[str, str, str]:
    """Site, output's site and network: the folder is named by the module, and the run's config lies beside it."""
    name = re.split(r"[/\\]", source.said.rstrip("/\\"))[-1]
    model = "unknown"
    parent = source.folder.root.parent / "config.json"
    if parent.is_file() and not parent.is_symlink() and source.folder.root != source.folder.boundary:
        model = _model_of(source)
    site = site_of(name, model)
    if not is_transcoder:
        return site, "", model
    return input_site(name, model), site, model


def _model_of(source: Source) -> str:
    folder = source.folder
    above = type(folder)(folder.root.parent, folder.said, folder.boundary)
    return above.json("config.json").text("model", "") or "unknown"


FORMAT = Format(
    NAME,
    "cfg.json and sae.safetensors",
    lambda source: {"cfg.json", "sae.safetensors"} <= source.names(),
    read,
)
