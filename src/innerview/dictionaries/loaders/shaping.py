"""From what a file holds to a dictionary: the layout of the weights, and what is said of them."""

from typing import Any

import torch
from torch import Tensor

from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders.format import Source
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


def same(said: int | None, found: int, what: str, tensors: Tensors) -> None:
    """Refuse a config and weights that differ in a size.

    Raises:
        DictionaryError: They do.
    """
    if said is not None and said != found:
        raise DictionaryError(f"{tensors.file}: the config says {what} {said}, and the weights have {found}")


def of_linear_maps(tensors: Tensors, encoder: str, encoder_bias: str, decoder: str, decoder_bias: str) -> Weights:
    """Weights that were stored as two linear maps of torch: a row a feature going in, a column a feature coming out.

    Raises:
        DictionaryError: One is missing, or their shapes are not of one dictionary.
    """
    n, d = tensors.shape(encoder, 2)
    return Weights(
        tensors.take(encoder, n, d),
        tensors.take(encoder_bias, n),
        tensors.take(decoder, d, n, transposed=True),
        tensors.take(decoder_bias, d),
    )


def filled(value: float, n_features: int) -> Tensor:
    """One number for every feature."""
    return torch.full((n_features,), float(value))


def dictionary(
    source: Source,
    format_name: str,
    tensors: Tensors,
    weights: Weights,
    architecture: Architecture,
    normalisation: Normalisation | None = None,
    *,
    subtracts: bool,
    dtype_of: str,
    **said: Any,
) -> Dictionary:
    """The dictionary of what was read; tensors that nobody read are refused.

    Args:
        source: Where it was read from.
        format_name: The format's name.
        tensors: The file's tensors.
        weights: The weights in our layout.
        architecture: How it encodes.
        normalisation: How its input is prepared; not at all when None.
        subtracts: Whether the decoder's bias is taken from the input first.
        dtype_of: Name of the tensor whose number format stands for the file's.
        said: Fields of the manifest: site, site_out, model, bos, statistics.
    """
    manifest = Manifest(
        subtracts_decoder_bias=subtracts,
        normalisation=normalisation or Normalisation(),
        source=source.origin(format_name),
        commit=source.commit,
        dtype=tensors.dtype(dtype_of),
        **said,
    )
    return Dictionary(weights, architecture, manifest)
