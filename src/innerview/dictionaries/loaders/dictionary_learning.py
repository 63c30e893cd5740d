"""dictionary_learning, and SAEBench's: `ae.pt` beside `config.json`, which names the class."""

import re

import torch

from innerview.dictionaries.architectures import Architecture, BatchTopK, Gated, JumpReLU, ReLU, TopK
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.pickled import of_pt
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME = "dictionary_learning"
# By class: the name of the decoder's bias.
LINEAR = {
    "AutoEncoder": "bias", "AutoEncoderNew": "decoder.bias", "AutoEncoderTopK": "b_dec", "BatchTopKSAE": "b_dec",
    "GatedAutoEncoder": "decoder_bias",
}  # fmt: skip
MATRICES = ("JumpReluAutoEncoder", "MatryoshkaBatchTopKSAE")
# These two take nothing off their input.
PLAIN = ("AutoEncoderNew", "JumpReluAutoEncoder")
SITES = {"resid_post": "resid", "mlp_out": "mlp.out", "attn_out": "attn.out"}


def read(source: Source) -> Dictionary:
    """The dictionary of `ae.pt`, codes as its class computes them from what is stored.

    Its own loader rescales `AutoEncoder` to decoder rows of length 1 unless told `normalize_decoder=False`; here codes are the stored ones.
    """
    trainer = source.folder.json("config.json").inner("trainer")
    kind = trainer.text("dict_class", among=(*LINEAR, *MATRICES))
    tensors = of_pt(source.folder.path("ae.pt"), "ae.pt")
    if kind in MATRICES:
        d_in, n = tensors.shape("W_enc", 2)
        encoder, decoder = tensors.take("W_enc", d_in, n, transposed=True), tensors.take("W_dec", n, d_in)
        bias, decoder_bias = tensors.take("b_enc", n), tensors.take("b_dec", d_in)
    else:
        n, d_in = tensors.shape("encoder.weight", 2)
        encoder = tensors.take("encoder.weight", n, d_in)
        decoder = tensors.take("decoder.weight", d_in, n, transposed=True)
        bias = torch.zeros(n) if kind == "GatedAutoEncoder" else tensors.take("encoder.bias", n)
        decoder_bias = tensors.take(LINEAR[kind], d_in)
    shaping.same(trainer.whole("activation_dim", None), d_in, "activation_dim", tensors)
    shaping.same(trainer.whole("dict_size", None), n, "dict_size", tensors)
    architecture, extras = _architecture(kind, trainer, tensors, n)
    weights = Weights(encoder, bias, decoder, decoder_bias, extras=extras)
    tensors.done(ignored=("threshold", "group_sizes") if kind in ("AutoEncoderTopK", "MatryoshkaBatchTopKSAE") else ())
    site, model = _told_by(source, trainer)
    return shaping.dictionary(
        source, NAME, tensors, weights, architecture, subtracts=kind not in PLAIN,
        dtype_of="W_enc" if kind in MATRICES else "encoder.weight", site=site, model=model,
    )  # fmt: skip


def _architecture(kind: str, trainer: Fields, tensors: Tensors, n: int) -> tuple[Architecture, dict[str, torch.Tensor]]:
    if kind == "GatedAutoEncoder":
        named = {"gate_bias": "gate_bias", "log_magnitude": "r_mag", "magnitude_bias": "mag_bias"}
        return Gated(), {ours: tensors.take(theirs, n) for ours, theirs in named.items()}
    if kind == "JumpReluAutoEncoder":
        return JumpReLU(), {"threshold": tensors.take("threshold", n, infinite=True)}
    if kind in ("AutoEncoder", "AutoEncoderNew"):
        return ReLU(), {}
    k = _k(trainer, tensors, n)
    if kind == "AutoEncoderTopK":
        # It stores a threshold too, and encodes by the k largest.
        return TopK(k), {}
    # A threshold of -1 was never measured: all that is above 0 is active.
    return BatchTopK(k), {"threshold": shaping.filled(tensors.number("threshold"), n)}


def _k(trainer: Fields, tensors: Tensors, n: int) -> int:
    said = trainer.whole("k", None)
    stored = int(tensors.number("k", is_whole=True)) if "k" in tensors or "k" in tensors.values else None
    tensors.taken.add("k")
    if said is not None and stored is not None and said != stored:
        raise DictionaryError(f"config.json: k is {said}, and {tensors.file} stores {stored}")
    k = said if said is not None else stored
    if k is None:
        return trainer.whole("k")
    if not 1 <= k <= n:
        raise DictionaryError(f"config.json: k is a whole number from 1 to {n}, not {k}")
    return k


def _told_by(source: Source, trainer: Fields) -> tuple[str, str]:
    layer = trainer.whole("layer", None, least=0)
    name = trainer.text("submodule_name", "") or source.said
    kind = next((ours for theirs, ours in SITES.items() if re.search(rf"{theirs}(_layer)?_{layer}(?!\d)", name)), None)
    site = f"blocks.{layer}.{kind}" if kind and layer is not None else "unknown"
    return site, trainer.text("lm_name", "") or "unknown"


FORMAT = Format(NAME, "ae.pt and config.json", lambda source: "ae.pt" in source.names(), read)
