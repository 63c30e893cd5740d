"""Gemma Scope: `params.npz`, no config; the site and the network stand in the path."""

import re

from innerview.dictionaries.architectures import JumpReLU
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import layer_of
from innerview.dictionaries.loaders.safe import of_npz
from innerview.dictionaries.weights import Weights

NAME = "Gemma Scope"
SITES = {"res": "resid", "mlp": "mlp.out", "att": "attn.heads"}
REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(pt|it)-(res|mlp|att|transcoders)")


def read(source: Source) -> Dictionary:
    """The dictionary of `params.npz`; embeddings' ones are scaled by √d, as they were trained.

    Reference: arXiv:2408.05147
    """
    tensors = of_npz(source.folder.path(source.one_of(r".*\.npz")), source.one_of(r".*\.npz"))
    encoder_name, decoder_name = ("w_enc", "w_dec") if "w_enc" in tensors else ("W_enc", "W_dec")
    d_in, n = tensors.shape(encoder_name, 2)
    _, d_out = tensors.shape(decoder_name, 2)
    encoder = tensors.take(encoder_name, d_in, n, transposed=True)
    decoder = tensors.take(decoder_name, n, d_out)
    if _is_of_embeddings(source.hint):
        encoder, decoder = encoder / d_in**0.5, decoder * d_in**0.5
    threshold = tensors.take("threshold", n, infinite=True)
    weights = Weights(
        encoder, tensors.take("b_enc", n), decoder, tensors.take("b_dec", d_out), extras={"threshold": threshold}
    )
    tensors.done()
    site, site_out, model = told_by(source.hint)
    return shaping.dictionary(
        source, NAME, tensors, weights, JumpReLU(),
        subtracts=False, dtype_of=encoder_name, site=site, site_out=site_out, model=model, bos="excluded",
    )  # fmt: skip


def told_by(path: str) -> tuple[str, str, str]:
    """Site, output's site and network that a path of the hub tells; unknown where it does not."""
    found, layer = REPOSITORY.search(path), layer_of(path)
    model = f"google/gemma-2-{found[1]}{'-it' if found[2] == 'it' else ''}" if found else "unknown"
    if _is_of_embeddings(path):
        return "embed", "", model
    if not found or layer is None:
        return "unknown", "", model
    if found[3] == "transcoders":
        # They read what leaves the norm before its weight, which they had folded into the MLP: no site of ours.
        return "unknown", f"blocks.{layer}.mlp.out", model
    return f"blocks.{layer}.{SITES[found[3]]}", "", model


def _is_of_embeddings(path: str) -> bool:
    return "embedding" in re.split(r"[/\\]", path)


FORMAT = Format(NAME, "params.npz", lambda source: bool(source.matching(r".*\.npz")), read)
