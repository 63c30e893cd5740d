"""innerview's own format: `manifest.json` and `weights.safetensors`."""

import dataclasses
from typing import Any

from innerview.dictionaries import architectures
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.loaders.fields import Fields
from innerview.dictionaries.loaders.format import Format, Source
from innerview.dictionaries.loaders.safe import of_safetensors
from innerview.dictionaries.loaders.tensors import Tensors
from innerview.dictionaries.manifest import BOS, NORMALISATIONS, Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError

NAME, VERSION = "innerview", 1
MANIFEST, WEIGHTS = "manifest.json", "weights.safetensors"
STATISTIC = "statistics."
NORMALISATION = ("kind", "factor", "is_undone", "epsilon", "centers")


def read(source: Source) -> Dictionary:
    """The dictionary of a folder that `save_dictionary` wrote."""
    said = source.folder.json(MANIFEST)
    if said.text("format") != NAME or said.whole("version") != VERSION:
        raise DictionaryError(
            f"{MANIFEST}: format {said.text('format')!r} of version {said.whole('version')}, and {NAME} {VERSION} is read"
        )
    tensors = of_safetensors(source.folder.path(WEIGHTS), WEIGHTS)
    architecture = architecture_of(said.inner("architecture"))
    weights = _weights(said, tensors, architecture)
    statistics = dict(said.inner("statistics").values)
    for name in [one for one in tensors.entries if one.startswith(STATISTIC)]:
        statistics[name.removeprefix(STATISTIC)] = tensors.take(
            name, *tensors.entries[name].shape, infinite=True, exact=True
        )
    tensors.done()
    normalised = said.inner("normalisation")
    manifest = Manifest(
        subtracts_decoder_bias=said.flag("subtracts_decoder_bias"),
        normalisation=Normalisation(
            normalised.text("kind", among=NORMALISATIONS),  # type: ignore[arg-type]
            normalised.number("factor", above=0),
            normalised.flag("is_undone"),
            normalised.number("epsilon", above=-1e-30),
            normalised.flag("centers"),
        ),
        site=_site(said),
        site_out=said.text("site_out", ""),
        model=said.text("model", "unknown"),
        bos=said.text("bos", "unknown", among=BOS),  # type: ignore[arg-type]
        source=said.text("source", "unknown"),
        commit=said.text("commit", "unknown"),
        dtype=tensors.dtype("encoder"),
        statistics=statistics,
    )
    return Dictionary(weights, architecture, manifest)


def _site(said: Fields) -> Any:
    value = said.values.get("site")
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return tuple(value)
    return said.text("site", "unknown")


def _weights(said: Fields, tensors: Tensors, architecture: Architecture) -> Weights:
    n, d_in, d_out = (said.whole(name) for name in ("n_features", "d_in", "d_out"))
    extras = {name: tensors.take(f"extras.{name}", n, infinite=True, exact=True) for name in architecture.extras}
    has_skip = said.flag("has_skip")
    return Weights(
        tensors.take("encoder", n, d_in, exact=True),
        tensors.take("encoder_bias", n, exact=True),
        tensors.take("decoder", n, d_out, exact=True),
        tensors.take("decoder_bias", d_out, exact=True),
        tensors.take("skip", d_out, d_in, exact=True) if has_skip else None,
        extras,
    )


def architecture_of(said: Fields) -> Architecture:
    """The architecture that a manifest names, its numbers checked by its own class.

    Raises:
        DictionaryError: There is none of that name, or a number is missing or not its own.
    """
    known = {name: getattr(architectures, name) for name in architectures.__all__}
    kinds = {
        name: kind
        for name, kind in known.items()
        if isinstance(kind, type) and issubclass(kind, Architecture) and kind is not Architecture
    }
    kind = kinds[said.text("name", among=tuple(kinds))]
    fields = {one.name: one for one in dataclasses.fields(kind)}
    given = {key: value for key, value in said.values.items() if key != "name"}
    for name in fields:
        if name not in given:
            raise DictionaryError(f"{said.where}: {name} is missing, a number of {kind.__name__}")
    for name, value in given.items():
        if name not in fields:
            raise DictionaryError(f"{said.where}: {name} is no number of {kind.__name__}")
        if type(value) is not type(fields[name].default) and not _is_close_kind(value, fields[name].default):
            raise DictionaryError(f"{said.where}: {name} is like {fields[name].default!r}, not {value!r}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _is_close_kind(value: Any, like: Any) -> bool:
    if isinstance(like, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if isinstance(like, tuple) or like is dataclasses.MISSING or like is None:
        return isinstance(value, (list, int, float, type(None))) and not isinstance(value, bool)
    return False


FORMAT = Format(NAME, f"{MANIFEST} and {WEIGHTS}", lambda source: {MANIFEST, WEIGHTS} <= source.names(), read)
