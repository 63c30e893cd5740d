"""SAELens: `cfg.json` and `sae_weights.safetensors`, of version 6 and before; and its objects."""

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from innerview.dictionaries.architectures import Architecture, Gated, JumpReLU, ReLU, TopK
from innerview.dictionaries.architectures.matching_pursuit import MatchingPursuit
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders import saelens_temporal, shaping
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.names import site_of
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Entry, Tensors
from innerview.dictionaries.manifest import Normalisation
from innerview.dictionaries.temporal import TemporalSAE
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME = "SAELens"
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
BATCHED = ("batchtopk", "matryoshka_batchtopk")
ARCHITECTURES = ("standard", "gated", "jumprelu", "topk", "matching_pursuit", *BATCHED, *TRANSCODERS)
NORMALISED = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm", "covariance_whitening")
BEFORE_6 = ("hook_point", "hook_name", "activation_fn_str", "activation_fn")
# The field came with 6.16; a later file without it lost it.
RESCALED_SINCE = (6, 20)


@dataclass(frozen=True)
class Settings:
    """What a config says, of whichever version."""

    architecture: str
    d_in: int
    d_sae: int
    d_out: int
    subtracts: bool
    normalised: str
    k: int | None
    is_rescaled: bool | None
    has_factor: bool
    about: Fields
    fields: Fields


def settings_of(fields: Fields) -> Settings:
    """The settings of a config.

    Raises:
        DictionaryError: A field that changes codes is missing, or of another type.
    """
    if "metadata" in fields:
        return _nested(fields)
    if not any(name in fields for name in BEFORE_6):
        raise DictionaryError(
            f"{fields.where}: metadata is missing, and so are the fields of before version 6 ({', '.join(BEFORE_6)})"
        )
    return _flat(fields)


def _nested(fields: Fields) -> Settings:
    """Version 6: what describes the training lies under `metadata`."""
    about = fields.inner("metadata")
    architecture = fields.text("architecture", among=ARCHITECTURES)
    is_topk = architecture in ("topk", *BATCHED)
    rescaled = fields.flag("rescale_acts_by_decoder_norm", None) if is_topk else False
    if rescaled is None and _version(about) < RESCALED_SINCE:
        rescaled = False
    return Settings(
        architecture=architecture,
        d_in=fields.whole("d_in"),
        d_sae=fields.whole("d_sae"),
        d_out=fields.whole("d_out") if architecture in TRANSCODERS else fields.whole("d_in"),
        subtracts=fields.flag("apply_b_dec_to_input"),
        normalised=fields.text("normalize_activations", among=NORMALISED),
        k=fields.whole("k") if architecture == "topk" else None,
        is_rescaled=rescaled,
        has_factor=False,
        about=about,
        fields=fields,
    )


def _flat(fields: Fields) -> Settings:
    """Before version 6 all lies at the top; before version 3 (`hook_point`) some fields did not exist."""
    is_old = "hook_point" in fields and "hook_name" not in fields
    activation = (
        fields.text("activation_fn_str", "") or fields.text("activation_fn", "relu" if is_old else "") or _lost(fields)
    )
    if activation not in ("relu", "topk"):
        raise DictionaryError(f"{fields.where}: activation_fn_str is relu or topk, not {activation!r}")
    architecture = fields.text("architecture", "standard", among=("standard", "gated", "jumprelu", "topk"))
    if activation == "topk" or architecture == "topk":
        architecture = "topk"
    normalised: Any = fields.values.get("normalize_activations", "none" if is_old else "missing")
    if normalised is None or isinstance(normalised, bool):
        normalised = "expected_average_only_in" if normalised else "none"
    elif normalised == "missing":
        fields.text("normalize_activations")
    else:
        normalised = fields.text("normalize_activations", among=NORMALISED)
    subtracts = fields.flag("apply_b_dec_to_input", True) if is_old else fields.flag("apply_b_dec_to_input")
    d_in = fields.whole("d_in")
    k = fields.inner("activation_fn_kwargs").whole("k") if architecture == "topk" else None
    return Settings(
        architecture, d_in, fields.whole("d_sae"), d_in, subtracts, normalised, k, False,
        bool(fields.flag("finetuning_scaling_factor", False)), fields, fields,
    )  # fmt: skip


def _lost(fields: Fields) -> str:
    return fields.text("activation_fn_str")


def _version(about: Fields) -> tuple[int, ...]:
    found = re.match(r"(\d+)\.(\d+)", about.text("sae_lens_version", ""))
    # A file that does not say its version is as new as can be: a lost field is not forgiven.
    return tuple(int(n) for n in found.groups()) if found else (10**6,)


def build(source: Source, settings: Settings, tensors: Tensors, factor: float | None, **said: Any) -> Dictionary:
    """The dictionary of settings and tensors, scales folded away.

    Raises:
        DictionaryError: They do not fit.
    """
    n, d_in, d_out = settings.d_sae, settings.d_in, settings.d_out
    is_tied = settings.architecture == "matching_pursuit"
    decoder = tensors.take("W_dec", n, d_out)
    encoder = decoder.clone() if is_tied else tensors.take("W_enc", d_in, n, transposed=True)
    has_bias = settings.architecture not in ("gated", "matching_pursuit")
    bias = tensors.take("b_enc", n) if has_bias else torch.zeros(n)
    decoder_bias = tensors.take("b_dec", d_out)
    architecture, extras = _architecture(settings, tensors)
    skip = tensors.take("W_skip", d_out, d_in) if "skip" in settings.architecture else None
    decoder = _with_factor(settings, tensors, decoder)
    lengths = decoder.norm(dim=-1)
    if settings.is_rescaled is None and not torch.allclose(lengths, torch.ones(n), atol=1e-4):
        settings.fields.flag("rescale_acts_by_decoder_norm")
    if settings.is_rescaled:
        encoder, bias, decoder = encoder * lengths[:, None], bias * lengths, decoder / lengths[:, None]
    if is_tied and not settings.subtracts:
        # SAELens adds the bias back only where it took it off.
        decoder_bias = torch.zeros_like(decoder_bias)
    tensors.done()
    weights = Weights(encoder, bias, decoder, decoder_bias, skip, extras)
    about = settings.about
    model = about.text("model_name", "") or "unknown"
    hook = about.text("hook_name", "") or about.text("hook_point", "")
    out = about.text("hook_name_out", "") if settings.architecture in TRANSCODERS else ""
    return shaping.dictionary(
        source,
        NAME,
        tensors,
        weights,
        architecture,
        _normalisation(settings, source, factor, skip),
        subtracts=settings.subtracts and settings.architecture not in TRANSCODERS,
        dtype_of="W_dec",
        site=site_of(hook, model),
        site_out=site_of(out, model) if out else "",
        model=model,
        bos=_bos(about),
        **said,
    )


def _architecture(settings: Settings, tensors: Tensors) -> tuple[Architecture, dict[str, Tensor]]:
    n, kind = settings.d_sae, settings.architecture
    if kind == "gated":
        named = {"gate_bias": "b_gate", "log_magnitude": "r_mag", "magnitude_bias": "b_mag"}
        return Gated(), {ours: tensors.take(theirs, n) for ours, theirs in named.items()}
    if kind.startswith("jumprelu"):
        if "log_threshold" in tensors and "threshold" not in tensors:
            return JumpReLU(), {"threshold": tensors.take("log_threshold", n).exp()}
        return JumpReLU(), {"threshold": tensors.take("threshold", n, infinite=True)}
    if kind in BATCHED:
        # As it saves them for use: one threshold for every feature.
        return JumpReLU(), {"threshold": shaping.filled(tensors.number("topk_threshold"), n)}
    if kind == "topk":
        k = settings.k or 0
        if k > n:
            raise DictionaryError(f"{settings.fields.where}: k is {k}, and there are {n} features")
        return TopK(k), {}
    if kind == "matching_pursuit":
        steps = settings.fields.whole("max_iterations", settings.d_in)
        below = settings.fields.number("residual_threshold", above=0)
        repeats = settings.fields.flag("stop_on_duplicate_support")
        return MatchingPursuit(steps, stops_below=below, stops_at_repeat=repeats, projects=False), {}
    return ReLU(), {}


def _with_factor(settings: Settings, tensors: Tensors, decoder: Tensor) -> Tensor:
    """The decoder with the factors of a finetuning, which multiply codes on the way out."""
    name = next((one for one in ("scaling_factor", "finetuning_scaling_factor") if one in tensors), None)
    if name is None:
        return decoder
    factors = tensors.take(name, settings.d_sae)
    if not settings.has_factor and not torch.allclose(factors, torch.ones_like(factors)):
        raise DictionaryError(
            f"{tensors.file}: {name!r} is not all ones, and {settings.fields.where} says finetuning_scaling_factor false"
        )
    return decoder * factors[:, None]


def _normalisation(
    settings: Settings, source: Source, factor: float | None, skip: Tensor | None
) -> Normalisation | None:
    kind, where = settings.normalised, settings.fields.where
    # What leaves a transcoder is another site's: SAELens does not take it back.
    undone = settings.architecture not in TRANSCODERS
    if kind == "none":
        return None
    if skip is not None and kind != "expected_average_only_in":
        raise DictionaryError(
            f"{where}: normalize_activations {kind!r} beside W_skip, which reads raw inputs, is not read"
        )
    if kind == "constant_norm_rescale":
        return Normalisation("unit_norm", epsilon=1e-12, is_undone=undone)
    if kind == "layer_norm":
        return Normalisation("layer_norm", is_undone=undone)
    if source.normalisation is not None:
        return source.normalisation
    if kind == "expected_average_only_in" and factor is not None:
        return Normalisation("constant", factor, is_undone=undone)
    raise DictionaryError(
        f"{where}: normalize_activations is {kind!r}, whose numbers the files do not hold (scaling_factor in activation_scaler.json); "
        'say normalisation=iv.Normalisation("constant", factor), or fold it with SAELens first'
    )


def _bos(about: Fields) -> str:
    if about.values.get("exclude_special_tokens"):
        return "excluded"
    prepended = about.flag("prepend_bos", None)
    return "unknown" if prepended is None else "prepended" if prepended else "absent"


def read(source: Source) -> Dictionary | TemporalSAE:
    """The dictionary of a folder in SAELens' format."""
    folder = source.folder
    fields = folder.json("cfg.json")
    tensors = of_safetensors(folder.path("sae_weights.safetensors"), "sae_weights.safetensors")
    if fields.values.get("architecture") == "temporal":
        return saelens_temporal.build(source, fields, tensors, _bos(fields.inner("metadata")))
    settings = settings_of(fields)
    factor = None
    if folder.has("activation_scaler.json"):
        factor = folder.json("activation_scaler.json").number("scaling_factor", None, above=0)
    statistics = {}
    if folder.has("sparsity.safetensors"):
        densities = of_safetensors(folder.path("sparsity.safetensors"), "sparsity.safetensors")
        # A feature that never fired has a density of 0, whose logarithm is infinite.
        statistics["log10_density"] = densities.take("sparsity", settings.d_sae, infinite=True)
    return build(source, settings, tensors, factor, statistics=statistics)


def is_object(thing: Any) -> bool:
    """Whether a thing is an SAE of SAELens."""
    return hasattr(thing, "cfg") and any(kind.__module__.startswith("sae_lens") for kind in type(thing).__mro__)


def of_object(sae: Any, source: Source) -> Dictionary | TemporalSAE:
    """The dictionary of an SAE of SAELens: codes as it computes them."""
    values = dict(sae.cfg.to_dict())
    values.setdefault("metadata", {})
    if values.get("normalize_activations") in ("expected_average_only_in", "covariance_whitening"):
        # The object itself leaves its input alone; its trainer scaled what it gave it.
        values["normalize_activations"] = "none"
    values["metadata"] = {key: value for key, value in dict(values["metadata"]).items() if value is not None}
    state = sae.state_dict()
    entries = {
        name: Entry(tuple(t.shape), str(t.dtype).removeprefix("torch."), lambda t=t: t.detach().cpu().clone())
        for name, t in state.items()
    }
    fields, tensors = Fields.of(type(sae).__name__, values), Tensors(type(sae).__name__, entries)
    if values.get("architecture") == "temporal":
        return saelens_temporal.build(source, fields, tensors, _bos(fields.inner("metadata")))
    return build(source, settings_of(fields), tensors, None)


FORMAT = Format(
    NAME,
    "cfg.json and sae_weights.safetensors",
    lambda source: {"cfg.json", "sae_weights.safetensors"} <= source.names(),
    read,
)
