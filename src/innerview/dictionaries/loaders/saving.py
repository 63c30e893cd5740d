"""`save_dictionary`: in innerview's own format, exact to the bit, or in SAELens'."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from innerview.dictionaries.architectures import BatchTopK, Gated, JumpReLU, MatchingPursuit, ReLU, TopK
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import own
from innerview.dictionaries.manifest import UNKNOWN
from innerview.errors import DictionaryError
from innerview.models.aliases import TRANSFORMERLENS_BLOCK

# A version that nests its config as these files do.
SAELENS_VERSION = "6.54.0"
DTYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16", torch.float64: "float64"}


@dataclass(frozen=True)
class OwnFormat:
    """The format of innerview itself, `manifest.json` and `weights.safetensors`: read back, every number and field is the same."""

    def files(self, dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor], str, str]:
        """What stands in the config, the tensors, and the names of the two files."""
        weights, manifest = dictionary.weights, dictionary.manifest
        names = {"encoder", "encoder_bias", "decoder", "decoder_bias", "skip"}
        tensors = {name if name in names else f"extras.{name}": one for name, one in weights.tensors().items()}
        plain = {}
        for name, value in manifest.statistics.items():
            if isinstance(value, Tensor):
                tensors[own.STATISTIC + name] = value
            else:
                plain[name] = value
        normalisation = {name: getattr(manifest.normalisation, name) for name in own.NORMALISATION}
        said = {
            "format": own.NAME, "version": own.VERSION, "architecture": dictionary.architecture.to_dict(),
            "n_features": weights.n_features, "d_in": weights.d_in, "d_out": weights.d_out, "has_skip": weights.skip is not None,
            "subtracts_decoder_bias": manifest.subtracts_decoder_bias, "normalisation": normalisation, "statistics": plain,
            **{name: getattr(manifest, name) for name in ("site", "site_out", "model", "bos", "source", "commit")},
        }  # fmt: skip
        return said, tensors, own.MANIFEST, own.WEIGHTS


@dataclass(frozen=True)
class SAELensFormat:
    """SAELens' format of version 6, `cfg.json` and `sae_weights.safetensors`: for architectures and scales that it has."""

    def files(self, dictionary: Dictionary) -> tuple[dict[str, Any], dict[str, Tensor], str, str]:
        """What stands in the config, the tensors, and the names of the two files.

        Raises:
            DictionaryError: SAELens has no such architecture, or no such normalisation.
        """
        manifest = dictionary.manifest
        is_transcoder = (
            dictionary.is_transcoder or dictionary.d_in != dictionary.d_out or dictionary.weights.skip is not None
        )
        kind, extras, fields = _saelens_architecture(dictionary, is_transcoder)
        normalised, tensors, subtracts = _saelens_weights(dictionary, is_transcoder, extras)
        about: dict[str, Any] = {"sae_lens_version": SAELENS_VERSION}
        named = {"hook_name": manifest.site, "hook_name_out": manifest.site_out, "model_name": manifest.model}
        about |= {
            key: _hook(value) if "hook" in key else value for key, value in named.items() if value not in (UNKNOWN, "")
        }
        if manifest.bos in ("prepended", "absent"):
            about["prepend_bos"] = manifest.bos == "prepended"
        said = {
            "d_in": dictionary.d_in, "d_sae": dictionary.n_features, "dtype": DTYPES[tensors["W_dec"].dtype], "device": "cpu",
            "apply_b_dec_to_input": subtracts, "normalize_activations": normalised,
            "reshape_activations": "hook_z" if str(manifest.site).endswith("attn.heads") else "none", "metadata": about,
            "architecture": kind, **fields,
        }  # fmt: skip
        return (
            said | ({"d_out": dictionary.d_out} if is_transcoder else {}),
            tensors,
            "cfg.json",
            "sae_weights.safetensors",
        )


def save_dictionary(
    dictionary: Dictionary,
    folder: str | Path,
    format: OwnFormat | SAELensFormat = OwnFormat(),
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """The folder that a dictionary was saved in; `load_dictionary` reads it back.

    Args:
        dictionary: The dictionary.
        folder: Where to write it; made where it is not there. Files of an earlier one are replaced.
        format: `OwnFormat()`, exact to the bit, or `SAELensFormat()`, which SAELens loads.
        dtype: Numbers of the weights on disk, such as `torch.float16` for half the size; as they are when None.
    Raises:
        DictionaryError: The format cannot hold it, or the numbers do not fit the dtype.
    """
    if not isinstance(dictionary, Dictionary):
        raise DictionaryError(f"a {type(dictionary).__name__} has no file format; a Dictionary has")
    if dtype is not None and dtype not in DTYPES:
        raise DictionaryError(f"weights are saved in {', '.join(DTYPES.values())}, not {dtype}")
    said, tensors, config, weights = format.files(dictionary)
    tensors = {name: _as(name, one, dtype) for name, one in tensors.items()}
    if isinstance(format, SAELensFormat):
        said["dtype"] = DTYPES[tensors["W_dec"].dtype]
    place = Path(folder).expanduser()
    try:
        text = json.dumps(said, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DictionaryError(f"what the manifest says cannot be written as JSON: {error}") from error
    place.mkdir(parents=True, exist_ok=True)
    fresh = {name: place / f"{name}.{os.getpid()}.new" for name in (weights, config)}
    try:
        save_file(tensors, fresh[weights])
        fresh[config].write_text(text, encoding="utf-8")
        # The config is put in place last: without it, no format is known.
        for name, written in fresh.items():
            os.replace(written, place / name)
    finally:
        for written in fresh.values():
            written.unlink(missing_ok=True)
    return place


def _as(name: str, tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    # A copy: safetensors refuses tensors that share memory.
    made = tensor.detach().cpu().to(dtype or tensor.dtype).clone().contiguous()
    if bool(torch.isinf(made).any()) and not bool(torch.isinf(tensor).any()):
        raise DictionaryError(f"{name!r} holds {float(tensor.abs().max()):g}, which {dtype} cannot; leave dtype= out")
    return made


def _saelens_architecture(dictionary: Dictionary, is_transcoder: bool) -> tuple[str, dict[str, Tensor], dict[str, Any]]:
    """Its name there, its tensors, and its numbers."""
    architecture, own_tensors = dictionary.architecture, dictionary.weights.extras
    stem = ("skip_transcoder" if dictionary.weights.skip is not None else "transcoder") if is_transcoder else ""
    if type(architecture) is ReLU:
        return stem or "standard", {}, {}
    if isinstance(architecture, (JumpReLU, BatchTopK)):
        return f"jumprelu_{stem}" if stem else "jumprelu", {"threshold": own_tensors["threshold"]}, {}
    if not stem and type(architecture) is TopK:
        return "topk", {}, {"k": architecture.k, "rescale_acts_by_decoder_norm": False}
    if not stem and type(architecture) is Gated:
        named = {"b_gate": "gate_bias", "r_mag": "log_magnitude", "b_mag": "magnitude_bias"}
        return "gated", {theirs: own_tensors[ours] for theirs, ours in named.items()}, {}
    if not stem and type(architecture) is MatchingPursuit and not architecture.projects:
        return "matching_pursuit", {}, {
            "max_iterations": architecture.steps, "residual_threshold": architecture.stops_below,
            "stop_on_duplicate_support": architecture.stops_at_repeat,
        }  # fmt: skip
    raise DictionaryError(
        f"SAELens has no {architecture!r}{' as a transcoder' if stem else ''}; save it in innerview's own format"
    )


def _saelens_weights(
    dictionary: Dictionary, is_transcoder: bool, extras: dict[str, Tensor]
) -> tuple[str, dict[str, Tensor], bool]:
    """The normalisation's name there, the tensors with what has no name folded in, and whether the bias is taken off."""
    weights, manifest = dictionary.weights, dictionary.manifest
    normalisation, subtracts = manifest.normalisation, manifest.subtracts_decoder_bias
    encoder, bias, decoder, decoder_bias = weights.encoder, weights.encoder_bias, weights.decoder, weights.decoder_bias
    kind = dictionary.architecture.name
    is_constant = normalisation.kind == "constant"
    if subtracts and (is_transcoder or (is_constant and not normalisation.is_undone)):
        if kind in ("Gated", "MatchingPursuit"):
            raise DictionaryError(
                f"SAELens cannot take off this decoder bias for {kind}; save it in innerview's own format"
            )
        bias, subtracts = bias - encoder @ decoder_bias, False
    skip = weights.skip
    if is_constant:
        factor = normalisation.factor
        if kind == "MatchingPursuit":
            raise DictionaryError(
                "SAELens cannot scale the input of MatchingPursuit; save it in innerview's own format"
            )
        encoder, skip = encoder * factor, None if skip is None else skip * factor
        if normalisation.is_undone:
            decoder, decoder_bias = decoder / factor, decoder_bias / factor
            skip = None if skip is None else skip / factor
    named = {"none": "none", "constant": "none", "layer_norm": "layer_norm", "unit_norm": "constant_norm_rescale"}
    is_theirs = normalisation.is_undone != is_transcoder and normalisation.centers and normalisation.epsilon <= 1e-5
    if normalisation.is_per_token and not (is_theirs and skip is None):
        raise DictionaryError(f"SAELens has no such {normalisation!r}; save it in innerview's own format")
    tensors = {"W_dec": decoder, "b_dec": decoder_bias, **extras}
    if kind != "MatchingPursuit":
        tensors["W_enc"] = encoder.T
        if kind != "Gated":
            tensors["b_enc"] = bias
    return named[normalisation.kind], tensors | ({} if skip is None else {"W_skip": skip}), subtracts


def _hook(site: Any) -> str:
    """TransformerLens' name of a site."""
    head, _, tail = str(site).partition(".")[2].partition(".")
    for theirs, ours in TRANSFORMERLENS_BLOCK.items():
        if ours == tail and head.isdigit():
            return f"blocks.{head}.{theirs}"
    return str(site)
