"""Cross-layer transcoders of circuit-tracer: `W_enc_i.safetensors` and `W_dec_i.safetensors` a layer, and `config.yaml`."""

import re

from torch import Tensor

from innerview.dictionaries.architectures import JumpReLU, ReLU
from innerview.dictionaries.cross_layer import CrossLayerTranscoder, CrossLayerWeights
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import UNKNOWN, Manifest, Normalisation
from innerview.errors import DictionaryError

NAME = "cross-layer transcoders of circuit-tracer"
FILES = r"W_(enc|dec)_\d+\.safetensors"


def read(source: Source) -> CrossLayerTranscoder:
    """The cross-layer transcoder of a folder; decoders of each pair of layers are kept apart."""
    config = source.folder.yaml("config.yaml")
    n_layers = len(_numbers(source, "enc"))
    for kind in ("enc", "dec"):
        if _numbers(source, kind) != list(range(n_layers)):
            raise DictionaryError(
                f"{source.said!r} has files W_{kind}_i for {_numbers(source, kind)}, and one for each of {n_layers} layers from 0 is needed"
            )
    layers = [_Layer(source, i, n_layers) for i in range(n_layers)]
    has_threshold = [layer.threshold is not None for layer in layers]
    if len(set(has_threshold)) != 1:
        raise DictionaryError(
            f"W_enc_{has_threshold.index(False)}.safetensors: the tensor 'threshold_{has_threshold.index(False)}' is missing"
        )
    kind = config.text("activation", "", among=("", "relu", "jump_relu", "jumprelu"))
    if kind.startswith("jump") != has_threshold[0] and kind:
        raise DictionaryError(
            f"config.yaml: activation is {kind!r}, and W_enc_0.safetensors has {'a' if has_threshold[0] else 'no'} threshold_0"
        )
    weights = CrossLayerWeights(
        tuple(layer.encoder for layer in layers),
        tuple(layer.bias for layer in layers),
        {(i, i + j): one for i, layer in enumerate(layers) for j, one in enumerate(layer.decoders)},
        tuple(layer.decoder_bias for layer in layers),
        tuple({"threshold": layer.threshold} for layer in layers if layer.threshold is not None),
    )
    model = config.text("model_name", "") or UNKNOWN
    manifest = Manifest(
        subtracts_decoder_bias=False,
        normalisation=Normalisation(),
        site=_sites(config.text("feature_input_hook", ""), n_layers, model),
        site_out=_sites(config.text("feature_output_hook", ""), n_layers, model),
        model=model,
        source=source.origin(NAME),
        commit=source.commit,
        dtype=layers[0].dtype,
    )
    return CrossLayerTranscoder(weights, JumpReLU() if has_threshold[0] else ReLU(), manifest)


class _Layer:
    """The tensors of one layer."""

    def __init__(self, source: Source, i: int, n_layers: int) -> None:
        self.encoder, self.bias, self.decoder_bias, self.threshold, self.dtype = self._read_encoder(source, i)
        name = f"W_dec_{i}.safetensors"
        tensors = of_safetensors(source.folder.path(name), name)
        n, d = len(self.encoder), len(self.decoder_bias)
        whole = tensors.take(f"W_dec_{i}", n, n_layers - i, d)
        tensors.done()
        self.decoders = [one.contiguous() for one in whole.unbind(dim=1)]

    @staticmethod
    def _read_encoder(source: Source, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None, str]:
        name = f"W_enc_{i}.safetensors"
        tensors: Tensors = of_safetensors(source.folder.path(name), name)
        n, d = tensors.shape(f"W_enc_{i}", 2)
        threshold = tensors.take(f"threshold_{i}", n, infinite=True) if f"threshold_{i}" in tensors else None
        found = (
            tensors.take(f"W_enc_{i}", n, d), tensors.take(f"b_enc_{i}", n), tensors.take(f"b_dec_{i}", d), threshold,
            tensors.dtype(f"W_enc_{i}"),
        )  # fmt: skip
        tensors.done()
        return found


def _numbers(source: Source, kind: str) -> list[int]:
    return sorted(int(re.findall(r"\d+", name)[0]) for name in source.matching(rf"W_{kind}_\d+\.safetensors"))


def _sites(hook: str, n_layers: int, model: str) -> str | tuple[str, ...]:
    found = tuple(site_of(f"blocks.{i}.{hook}", model) for i in range(n_layers))
    return UNKNOWN if UNKNOWN in found else found


FORMAT = Format(
    NAME,
    "W_enc_i.safetensors, W_dec_i.safetensors and config.yaml",
    lambda source: bool(source.matching(FILES)),
    read,
)
