"""Training of one code over several sites: crosscoders, and cross-layer transcoders."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from innerview.dictionaries.architectures import Architecture, Optimization
from innerview.dictionaries.architectures.across_layers import AcrossLayers
from innerview.dictionaries.architectures.across_sites import AcrossSites
from innerview.dictionaries.architectures.tanh_jump_relu import TanhJumpReLU
from innerview.dictionaries.cross_layer import CrossLayerTranscoder, CrossLayerWeights
from innerview.dictionaries.crosscoder import Crosscoder
from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.manifest import Bos, Normalisation
from innerview.dictionaries.training.initial import norm_factor
from innerview.dictionaries.training.loop import Loop
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.result import DictionaryTraining
from innerview.dictionaries.training.settings import DictionarySpec, TrainingSettings
from innerview.dictionaries.training.sources import Source
from innerview.dictionaries.training.train import source_of
from innerview.dictionaries.training.windows import Batch
from innerview.errors import DictionaryError
from innerview.models.model import Model

CIRCUIT_TRACING = TanhJumpReLU(first_threshold=0.03, bandwidth=1.0)


@dataclass(frozen=True, eq=False)
class JointTraining:
    """A code of several sites, and how it came about.

    Attributes:
        dictionary: The crosscoder, or the cross-layer transcoder.
        training: Its curves, as of a dictionary of all sites side by side.
    """

    dictionary: Crosscoder | CrossLayerTranscoder
    training: DictionaryTraining = field(repr=False)

    def frame(self) -> pd.DataFrame:
        """One row a point of the curves."""
        return self.training.frame()

    def figure(self) -> Any:
        """FVU, L0, dead share and loss over tokens."""
        return self.training.figure()


@dataclass(frozen=True, eq=False)
class Asked:
    """What both trainings are told alike.

    Attributes:
        source: Where activations come from.
        texts: What a network reads.
        settings: How they run through the tokens.
        folder: Where the state is saved; None for nowhere.
        progress: Whether to show how far it is.
    """

    source: Any
    texts: Iterable[Any] | None
    settings: TrainingSettings
    folder: str | Path | None
    progress: bool

    def trained(
        self, sites: Mapping[str, tuple[str, ...]], spec: Callable[["SideBySide"], DictionarySpec]
    ) -> "Trained":
        """The dictionary of sites side by side, as `spec` says once their widths are known."""
        processes = Processes.found(self.settings.where())
        found = _side_by_side(self.source, sites, self.texts, self.settings, processes)
        where = None if self.folder is None else Path(self.folder)
        done = Loop(found, (spec(found),), self.settings, processes, where).run(is_shown=self.progress)
        return Trained(done, found)


@dataclass(frozen=True, eq=False)
class Trained:
    """A dictionary of sites side by side, and what they were scaled by."""

    training: DictionaryTraining
    source: "SideBySide"

    def factors(self, sites: Sequence[str]) -> list[float]:
        """What each of some sites was scaled by."""
        return [self.source.factors[site] for site in sites]


def train_crosscoder(
    source: Any,
    sites: Sequence[str],
    architecture: Architecture,
    *,
    texts: Iterable[Any] | None = None,
    n_features: int | None = None,
    n_tokens: int | None = None,
    seed: int = 0,
    optimization: Optimization | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> JointTraining:
    """One code of several sites, each scaled alike; codes are weighed with the lengths of their rows, summed over the sites.

    Args:
        source: As `train_dictionary` takes it: a network with `texts`, a store, or a mapping of tensors by site.
        sites: The sites, two or more, in the order in which they come.
        architecture: How codes are made and kept sparse: `iv.ReLU(l1=…)` as first published, `iv.BatchTopK(k)`, `iv.TanhJumpReLU()`.
        texts: What the network reads.
        n_features: Features; eight times the widest site when None.
        n_tokens: Tokens to train on; one pass when None.
        seed: Of the first weights and of the order of tokens.
        optimization: Adam and its schedule; as published for the architecture when None.
        settings: Everything else; `n_tokens` and `seed` stand above it.
        folder: Where the state is saved, and gone on from.
        progress: Whether to show how far it is.
    Raises:
        DictionaryError: The source gives no activations of a site, or it can be read only once.
    Reference: transformer-circuits.pub/2024/crosscoders
    """
    if isinstance(sites, str) or len(sites) < 2:
        raise DictionaryError(f"a crosscoder has two sites or more, not {sites!r}; iv.train_dictionary takes one")
    named, asked = _named(source, sites), Asked(source, texts, _settings(settings, n_tokens, seed), folder, progress)

    def spec(found: SideBySide) -> DictionarySpec:
        widths = tuple(found.widths[site] for site in named)
        inner = AcrossSites(architecture, widths)
        return DictionarySpec(_joint(named), inner, n_features or 8 * max(widths), seed=seed, optimization=optimization)

    done = asked.trained({_joint(named): named}, spec)
    made, widths = done.training.dictionary, tuple(done.source.widths[site] for site in named)
    factors = [factor * made.manifest.normalisation.factor for factor in done.factors(named)]
    scales = tuple(Normalisation() if factor == 1.0 else Normalisation("constant", factor=factor) for factor in factors)
    manifest = made.manifest.with_fields(site=named, normalisation=Normalisation())
    return JointTraining(Crosscoder(made.weights, made.architecture, manifest, widths, scales), done.training)


def train_cross_layer_transcoder(
    source: Any,
    sites: Sequence[str],
    sites_out: Sequence[str],
    architecture: TanhJumpReLU = CIRCUIT_TRACING,
    *,
    texts: Iterable[Any] | None = None,
    n_features: int | None = None,
    n_tokens: int | None = None,
    seed: int = 0,
    optimization: Optimization | None = None,
    settings: TrainingSettings | None = None,
    folder: str | Path | None = None,
    progress: bool = True,
) -> JointTraining:
    """Features read at each layer's input that write into the outputs of that layer and of all later ones, trained together.

    Args:
        source: As `train_dictionary` takes it: a network with `texts`, a store, or a mapping of tensors by site.
        sites: Site that is read of each layer, such as `blocks.0.mlp.in`, all of one width.
        sites_out: Site that is written of each layer, such as `blocks.0.mlp.out`, all of one width.
        architecture: Numbers of the losses.
        n_features: Features of each layer; eight times the width when None.
        texts, n_tokens, seed, optimization, settings, folder, progress: As in `train_crosscoder`.
    Raises:
        DictionaryError: Inputs and outputs are not as many, their widths differ, or the source can be read only once.
    Reference: transformer-circuits.pub/2025/attribution-graphs
    """
    if isinstance(sites, str) or isinstance(sites_out, str) or len(sites) != len(sites_out) or not sites:
        raise DictionaryError(
            f"a cross-layer transcoder reads and writes one site a layer, not {sites!r} and {sites_out!r}"
        )
    read, written = _named(source, sites), _named(source, sites_out)
    asked = Asked(source, texts, _settings(settings, n_tokens, seed), folder, progress)

    def spec(found: SideBySide) -> DictionarySpec:
        for chosen in (read, written):
            if len({found.widths[site] for site in chosen}) > 1:
                raise DictionaryError(
                    f"layers have one width, and {', '.join(chosen)} have {[found.widths[s] for s in chosen]}"
                )
        each, inner = n_features or 8 * found.widths[read[0]], AcrossLayers(architecture, len(read))
        return DictionarySpec(_joint(read), inner, each * len(read), _joint(written), seed=seed, optimization=optimization)  # fmt: skip

    done = asked.trained({_joint(read): read, _joint(written): written}, spec)
    made = done.training.dictionary
    manifest = made.manifest.with_fields(site=read, site_out=written)
    weights = _by_layer(made, done.factors(read), done.factors(written))
    return JointTraining(CrossLayerTranscoder(weights, made.architecture, manifest), done.training)


def _by_layer(made: Dictionary, read: Sequence[float], written: Sequence[float]) -> CrossLayerWeights:
    """The transcoder of all layers side by side, layer by layer, for activations as they are."""
    n_layers, own = len(read), made.weights
    blocks = [block.chunk(n_layers, dim=1) for block in own.encoder.chunk(n_layers)]
    rows = [block.chunk(n_layers, dim=1) for block in own.decoder.chunk(n_layers)]
    biases = own.decoder_bias.chunk(n_layers)
    extras = {name: tensor.chunk(n_layers) for name, tensor in own.extras.items()}
    return CrossLayerWeights(
        tuple((blocks[i][i] * read[i]).contiguous() for i in range(n_layers)),
        tuple(one.clone() for one in own.encoder_bias.chunk(n_layers)),
        {(i, j): (rows[i][j] / written[j]).contiguous() for i in range(n_layers) for j in range(i, n_layers)},
        tuple(biases[j] / written[j] for j in range(n_layers)),
        tuple({name: parts[i].clone() for name, parts in extras.items()} for i in range(n_layers)),
    )


@dataclass(frozen=True, eq=False)
class SideBySide:
    """A source whose sites are several sites of another one, scaled and side by side.

    Attributes:
        inner: The other source.
        sites: Those of its sites that each name stands for.
        factors: What each of its sites is scaled by.
        widths: How wide each is.
    """

    inner: Source
    sites: Mapping[str, tuple[str, ...]]
    factors: Mapping[str, float]
    widths: Mapping[str, int]

    @property
    def model(self) -> str:
        return self.inner.model

    @property
    def bos(self) -> Bos:
        return self.inner.bos

    @property
    def n_tokens(self) -> int | None:
        return self.inner.n_tokens

    def batches(self, sites: Sequence[str], batch_tokens: int, seed: int, *, first: int = 0) -> Iterator[Batch]:
        parts = list(dict.fromkeys(part for name in sites for part in self.sites[name]))
        for batch in self.inner.batches(parts, batch_tokens, seed, first=first):
            others = {name: tensor for name, tensor in batch.items() if name not in parts}
            yield others | {name: self._joined(batch, name) for name in sites}

    def _joined(self, batch: Batch, name: str) -> Tensor:
        return torch.cat([batch[part].float() * self.factors[part] for part in self.sites[name]], dim=-1)


def _side_by_side(
    given: Any, sites: Mapping[str, tuple[str, ...]], texts: Iterable[Any] | None, told: TrainingSettings, processes: Processes
) -> SideBySide:  # fmt: skip
    for what in (given, texts):
        if isinstance(what, Iterator):
            raise DictionaryError(
                "scales of several sites are measured first, and this can be read only once; give a list"
            )
    parts = list(dict.fromkeys(part for one in sites.values() for part in one))
    # A specification names the sites for a source; the architecture has no say in that.
    specs = [DictionarySpec(part, AcrossSites(TanhJumpReLU(), ())) for part in parts]
    # One batch is enough for the scales, and a small window gives it soonest.
    small = dataclasses.replace(told, buffer_tokens=told.batch_tokens)
    seed = told.seed * 1_000_003
    batch = next(source_of(given, specs, texts, small, processes).batches(parts, told.batch_tokens, seed), None)
    if batch is None:
        raise DictionaryError(f"the source gives no batch of {told.batch_tokens} tokens; give a smaller batch_tokens")
    is_scaled = told.normalisation == "constant"
    factors = {part: norm_factor(batch[part].flatten(1)) if is_scaled else 1.0 for part in parts}
    widths = {part: batch[part].flatten(1).shape[1] for part in parts}
    return SideBySide(source_of(given, specs, texts, told, processes), sites, factors, widths)


def _named(source: Any, sites: Sequence[str]) -> tuple[str, ...]:
    return tuple(source.site(site).name for site in sites) if isinstance(source, Model) else tuple(sites)


def _joint(sites: Sequence[str]) -> str:
    return " + ".join(sites)


def _settings(settings: TrainingSettings | None, n_tokens: int | None, seed: int) -> TrainingSettings:
    said = {name: value for name, value in (("n_tokens", n_tokens), ("seed", seed or None)) if value is not None}
    return dataclasses.replace(settings or TrainingSettings(), **said)
