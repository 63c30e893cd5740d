"""Training of dictionaries: of a network's activations while it reads, of a store, or of tensors."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from innerview.dictionaries.architectures import Architecture, Optimization
from innerview.dictionaries.training.harvest import Harvest, context_of
from innerview.dictionaries.training.loop import Loop
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.result import DictionaryTraining
from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.dictionaries.training.sources import Pieces, Source, Stored, Tensors, is_store
from innerview.dictionaries.training.subspace import ActiveSubspace
from innerview.errors import DictionaryError
from innerview.models.model import Model


def train_dictionary(
    source: Any,
    site: str,
    architecture: Architecture,
    *,
    texts: Iterable[Any] | None = None,
    n_features: int | None = None,
    site_out: str = "",
    has_skip: bool = False,
    n_tokens: int | None = None,
    batch_tokens: int | None = None,
    seed: int = 0,
    optimization: Optimization | None = None,
    init: ActiveSubspace | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> DictionaryTraining:
    """A dictionary of a site, trained as its architecture was published.

    Args:
        source: A network, which reads `texts`; a store; a tensor [n_tokens, d] or a mapping of them by site; or what gives tensors one after the other.
        site: Site that it reads.
        architecture: How it encodes, with the numbers of its losses, such as `iv.TopK(32)`.
        texts: What the network reads: texts or rows of ids; a list is shuffled, anything else read in its order.
        n_features: Its features; eight times the site's width when None.
        site_out: Site that it writes, for a transcoder.
        has_skip: Whether a transcoder has a linear map beside the features.
        n_tokens: Tokens to train on; one pass when None.
        batch_tokens: Tokens of one step; 4096 when None.
        seed: Of the first weights and of the order of tokens; the same seed gives the same dictionary.
        optimization: Adam and its schedule; as published when None.
        init: Where its first weights lie, such as `iv.ActiveSubspace()`; anywhere when None.
        settings: Everything else; `n_tokens`, `batch_tokens` and `seed` stand above it.
        folder: Where the state is saved; a training that finds its own state there goes on from it.
        progress: Whether to show how far it is.
    Raises:
        DictionaryError: The source gives no activations of the site, or a number makes no sense.
    """
    if not isinstance(site, str):
        raise DictionaryError(
            f"a dictionary has one site, not {site!r}; one code of several sites is iv.train_crosscoder(source, sites, ...), or "
            "iv.train_cross_layer_transcoder(source, sites, sites_out, ...); one dictionary each is iv.train_dictionaries(source, specs)"
        )
    told = settings or TrainingSettings()
    said = {"n_tokens": n_tokens, "batch_tokens": batch_tokens, "seed": seed or None}
    told = dataclasses.replace(told, **{name: value for name, value in said.items() if value is not None})
    spec = DictionarySpec(site, architecture, n_features, site_out, has_skip, seed, optimization, init)
    return train_dictionaries(source, [spec], texts=texts, settings=told, folder=folder, progress=progress)


def train_dictionaries(
    source: Any,
    specs: Sequence[DictionarySpec],
    *,
    texts: Iterable[Any] | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> DictionaryTraining:
    """Several dictionaries over one pass through the tokens: of several sites, sizes, sparsities or seeds.

    Interrupted, it keeps what it has: the result says `is_complete=False`. Under torchrun each process takes its part of every batch.

    Args:
        source: As `train_dictionary` takes it.
        specs: The dictionaries.
        texts: What the network reads.
        settings: How they run through the tokens.
        folder: Where the state is saved, and gone on from.
        progress: Whether to show how far it is.
    Raises:
        DictionaryError: The source gives no activations of a site, or there is nothing to train.
    """
    if not specs:
        raise DictionaryError("no dictionary to train; give at least one iv.DictionarySpec")
    told = settings or TrainingSettings()
    if isinstance(source, Model):
        named = [
            dataclasses.replace(spec, site=_name(source, spec.site), site_out=_name(source, spec.site_out))
            for spec in specs
        ]
    else:
        named = list(specs)
    processes = Processes.found(told.where())
    found = source_of(source, named, texts, told, processes)
    where = None if folder is None else Path(folder)
    return Loop(found, tuple(named), told, processes, where).run(is_shown=progress)


def _name(model: Model, site: str) -> str:
    return model.site(site).name if site else ""


def source_of(
    given: Any, specs: Sequence[DictionarySpec], texts: Iterable[Any] | None, settings: TrainingSettings, processes: Processes
) -> Source:  # fmt: skip
    """Where tokens come from, of what a training was given.

    Raises:
        DictionaryError: It is nothing that training reads.
    """
    if isinstance(given, Model):
        if texts is None:
            raise DictionaryError(f"{given.name} needs something to read; give texts=")
        made = Harvest(
            given, texts, settings.buffer, settings.keeps_bos, context_of(given, settings.context), processes
        )
        made.n_tokens = None if settings.n_tokens else made.counted()
        return made
    if texts is not None:
        raise DictionaryError("texts= are for a network to read, and the source is none; drop them")
    if isinstance(given, Tensor):
        return Tensors({site: given.flatten(1) for spec in specs for site in spec.sites})
    if isinstance(given, Mapping):
        return Tensors(given)
    if is_store(given):
        return Stored(given, settings.buffer)
    if isinstance(given, Iterable):
        return Pieces(given, settings.buffer)
    raise DictionaryError(f"training reads a network, a store or tensors, not {type(given).__name__}")
