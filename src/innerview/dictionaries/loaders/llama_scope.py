"""Llama Scope: `hyperparams.json` and `checkpoints/final.safetensors`; R1-distill's: `config.json` and `sae_weights.safetensors`."""

from collections.abc import Callable

from torch import Tensor

from innerview.dictionaries.architectures import JumpReLU
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import Normalisation
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME, NAME_R1 = "Llama Scope", "Llama Scope R1-distill"
MODEL, MODEL_R1 = "meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"
NORM = "dataset_average_activation_norm"


def read(source: Source) -> Dictionary:
    """A dictionary of Llama Scope: one threshold for all, inputs at the length √d on the average of the dataset.

    Reference: arXiv:2410.20526
    """
    config = source.folder.json("hyperparams.json")
    _check(config)
    tensors = of_safetensors(source.folder.path("checkpoints/final.safetensors"), "checkpoints/final.safetensors")
    d_in = config.whole("d_model")
    norms = config.inner(NORM)
    into, out = (d_in**0.5 / norms.number(side, above=0) for side in ("in", "out"))
    # The published threshold is in the activations' own units: it grows with the input.
    threshold = config.number("jump_relu_threshold", above=0) * into
    weights = _weights(tensors, d_in, config.whole("d_sae"), into / out, lambda n: shaping.filled(threshold, n))
    return _made(source, NAME, MODEL, config, tensors, weights, into)


def read_r1(source: Source) -> Dictionary:
    """A dictionary of Llama Scope's R1-distill: a threshold a feature, of which the logarithm is stored."""
    config = source.folder.json("config.json")
    _check(config)
    tensors = of_safetensors(source.folder.path("sae_weights.safetensors"), "sae_weights.safetensors")
    d_in = config.whole("d_model")
    names = {side: f"{NORM}.{config.text(f'hook_point_{side}')}" for side in ("in", "out")}
    if config.flag("sparsity_include_decoder_norm"):
        raise DictionaryError("config.json: sparsity_include_decoder_norm is false for these, not true")
    into, out = 1.0, 1.0
    is_said = source.normalisation is not None
    if config.text("norm_activation") == "dataset-wise" and not is_said:
        into, out = (d_in**0.5 / _norm(tensors, name) for name in (names["in"], names["out"]))
    n = d_in * config.whole("expansion_factor")
    weights = _weights(
        tensors, d_in, n, into / out, lambda n: tensors.take("log_jumprelu_threshold", n, infinite=True).exp()
    )
    tensors.taken.update(names.values())
    return _made(source, NAME_R1, MODEL_R1, config, tensors, weights, into)


def _norm(tensors: Tensors, name: str) -> float:
    if name not in tensors:
        raise DictionaryError(
            f"{tensors.file}: the tensor {name!r} is missing, by which inputs are scaled; "
            'say normalisation=iv.Normalisation("constant", factor)'
        )
    value = float(tensors.number(name))
    if not 0 < value < float("inf"):
        raise DictionaryError(f"{tensors.file}: {name!r} is a length above 0, not {value!r}")
    return value


def _check(config: Fields) -> None:
    """Refuse what these releases never were, rather than read it wrongly."""
    config.text("act_fn", among=("jumprelu",))
    config.text("norm_activation", among=("dataset-wise", "inference"))
    for name in ("use_glu_encoder", "apply_decoder_bias_to_pre_encoder"):
        if config.flag(name):
            raise DictionaryError(f"{config.where}: {name} is false for Llama Scope, not true")
    if not config.flag("use_decoder_bias"):
        raise DictionaryError(f"{config.where}: use_decoder_bias is true for Llama Scope, not false")


def _weights(tensors: Tensors, d_in: int, n: int, ratio: float, threshold: Callable[[int], Tensor]) -> Weights:
    # A transcoder's output has a scale of its own; what is decoded is taken back by the input's.
    return Weights(
        tensors.take("encoder.weight", n, d_in),
        tensors.take("encoder.bias", n),
        tensors.take("decoder.weight", d_in, n, transposed=True) * ratio,
        tensors.take("decoder.bias", d_in) * ratio,
        extras={"threshold": threshold(n)},
    )


def _made(
    source: Source, name: str, model: str, config: Fields, tensors: Tensors, weights: Weights, factor: float
) -> Dictionary:
    tensors.done()
    ours = source.normalisation or (None if factor == 1.0 else Normalisation("constant", factor))
    hook, out = config.text("hook_point_in", ""), config.text("hook_point_out", "")
    return shaping.dictionary(
        source, name, tensors, weights, JumpReLU(), ours, subtracts=False, dtype_of="encoder.weight",
        site=site_of(hook), site_out=site_of(out) if out != hook else "", model=model,
    )  # fmt: skip


def _is_r1(source: Source) -> bool:
    names = source.names()
    return {"config.json", "sae_weights.safetensors"} <= names and "cfg.json" not in names


FORMAT = Format(
    NAME,
    "hyperparams.json and checkpoints/final.safetensors",
    lambda source: "hyperparams.json" in source.names() and source.folder.has("checkpoints/final.safetensors"),
    read,
)
FORMAT_R1 = Format(NAME_R1, "config.json and sae_weights.safetensors", _is_r1, read_r1)
