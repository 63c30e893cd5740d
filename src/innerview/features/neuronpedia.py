"""Features in the layout that Neuronpedia's bulk import takes: one folder a source, rows of JSON, features and activations in batches.

`<model>/<source>/` holds `release.jsonl`, `model.jsonl`, `sourceset.jsonl`, `source.jsonl`, and gzipped rows in `features/`,
`activations/` and, for labels, `explanations/`.

Reference: https://github.com/jbloomAus/SAEDashboard (neuronpedia_export); https://www.neuronpedia.org
"""

import datetime
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from innerview.errors import FeatureError
from innerview.features.saving import whole_text
from innerview.features.view import Example, FeatureView, Stretch
from innerview.features.words import Readout
from innerview.progress import progress as bar

BATCH = 256
LOGIT_BINS = 50
# As its own tools say "the strongest of all": no interval, no share.
NO_BIN = -1


@dataclass(frozen=True)
class NeuronpediaUpload:
    """What Neuronpedia is to call a dictionary.

    Attributes:
        model: Its id of the network, such as `gpt2-small`.
        source_set: Its name of the set of dictionaries, such as `res-jb`.
        creator: Who made them.
        creator_id: The creator's id there.
        release: Name of the release; the source set's when empty.
        description: The dictionaries in a line.
        layer: Number of the layer; read from the site when None.
        url: Where more is said.
        weights: Hugging Face repository of the weights.
        weights_folder: The dictionary's folder in it.
        dataset: Name of the corpus.
        created: When; now when None.
    """

    model: str
    source_set: str
    creator: str
    creator_id: str = ""
    release: str = ""
    description: str = ""
    layer: int | None = None
    url: str = ""
    weights: str = ""
    weights_folder: str = ""
    dataset: str = ""
    created: datetime.datetime | None = None

    def __post_init__(self) -> None:
        for name in ("model", "source_set"):
            given = getattr(self, name)
            if not isinstance(given, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", given):
                raise FeatureError(
                    f"{name} is a name of letters, digits, dots and dashes, as it becomes a folder, not {given!r:.60}"
                )


class Viewable(Protocol):
    """Gives features' views by their numbers."""

    @property
    def statistics(self) -> Any: ...

    @property
    def dictionary(self) -> Any: ...

    def __getitem__(self, feature: int) -> FeatureView: ...


@dataclass(frozen=True)
class _Source:
    """One upload's ids, and when it was made."""

    upload: NeuronpediaUpload
    source_id: str
    created: str

    def row(self, **fields: Any) -> dict[str, Any]:
        """A row with what every row of the kind has."""
        return {"modelId": self.upload.model, **fields, "creatorId": self.upload.creator_id, "createdAt": self.created}

    def id_of(self, *parts: Any) -> str:
        """An id that is the same for the same row."""
        told = repr((self.upload.model, self.source_id, parts))
        return "c" + hashlib.sha256(told.encode()).hexdigest()[:24]


def write_upload(
    dashboard: Viewable, features: Sequence[int], readout: Readout | str, folder: str | os.PathLike[str], upload: NeuronpediaUpload,
    *, progress: bool | None = None,
) -> Path:  # fmt: skip
    """Write some features; returns the folder of the source.

    Args:
        dashboard: Gives their views.
        features: Their numbers.
        readout: How they reach the logits, for the histogram of logits; a text where they do not.
        folder: Where.
        upload: What Neuronpedia is to call them.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: The layer is not known, or the disk did not take it.
    """
    layer = _layer(dashboard.statistics.site) if upload.layer is None else upload.layer
    created = (upload.created or datetime.datetime.now(datetime.UTC)).isoformat()
    source = _Source(upload, f"{layer}-{upload.source_set}", created)
    target = Path(folder) / upload.model / source.source_id
    try:
        for name in ("features", "activations", "explanations"):
            (target / name).mkdir(parents=True, exist_ok=True)
        for name, row in _told(source, dashboard).items():
            (target / name).write_bytes(_line(row))
        with bar(
            len(features), "export", "feature", delay_s=0.0 if progress else 2.0, is_shown=progress is not False
        ) as step:
            for start in range(0, len(features), BATCH):
                views = [dashboard[feature] for feature in features[start : start + BATCH]]
                _write_batch(source, dashboard, views, readout, target, start // BATCH)
                step(len(views))
    except OSError as error:
        raise FeatureError(f"{str(target)!r} took no upload: {error.strerror}; give another folder") from error
    return target


def _write_batch(
    source: _Source, dashboard: Viewable, views: list[FeatureView], readout: Readout | str, target: Path, number: int
) -> None:
    rows = {
        "features": [_feature(source, view, dashboard, readout) for view in views],
        "activations": [
            _activation(source, view, stretch, one, nth)
            for view in views
            for stretch in view.stretches
            for nth, one in enumerate(stretch.examples)
        ],
        "explanations": [_explanation(source, view) for view in views if view.label is not None],
    }
    for name, listed in rows.items():
        # No time stamp inside, so that the same rows are the same file.
        (target / name / f"batch-{number}.jsonl.gz").write_bytes(
            gzip.compress(b"".join(map(_line, listed)), 5, mtime=0)
        )


def _feature(source: _Source, view: FeatureView, dashboard: Viewable, readout: Readout | str) -> dict[str, Any]:
    edges, counts = view.histogram.edges, view.histogram.counts
    heights, values = _logit_histogram(view, dashboard, readout)
    return source.row(
        layer=source.source_id, index=str(view.feature), maxActApprox=view.quantiles.get(1.0, 0.0), hasVector=False, vector=[],
        vectorLabel=None, vectorDefaultSteerStrength=10, hookName=None,
        topkCosSimIndices=[one.index for one in view.nearest], topkCosSimValues=_round(one.value for one in view.nearest),
        neuron_alignment_indices=[], neuron_alignment_values=[], neuron_alignment_l1=[],
        correlated_neurons_indices=[one.index for one in view.neurons],
        correlated_neurons_pearson=_round(one.value for one in view.neurons), correlated_neurons_l1=[],
        correlated_features_indices=[], correlated_features_pearson=[], correlated_features_l1=[],
        neg_str=[whole_text(word.text) for word in view.suppressed], neg_values=_round(word.logit for word in view.suppressed),
        pos_str=[whole_text(word.text) for word in view.promoted], pos_values=_round(word.logit for word in view.promoted),
        frac_nonzero=view.density, freq_hist_data_bar_heights=counts.tolist(),
        freq_hist_data_bar_values=_round(np.sqrt(edges[:-1] * edges[1:])) if len(edges) else [],
        logits_hist_data_bar_heights=heights, logits_hist_data_bar_values=values, decoder_weights_dist=[],
        sourceSetName=source.upload.source_set,
    )  # fmt: skip


def _activation(source: _Source, view: FeatureView, stretch: Stretch, one: Example, nth: int) -> dict[str, Any]:
    is_top = stretch.low == stretch.high
    lost = [] if one.effects is None else np.nan_to_num(one.effects.astype(np.float64)).round(4).tolist()
    return source.row(
        id=source.id_of(view.feature, stretch.low, nth), tokens=[whole_text(word) for word in one.words], index=str(view.feature),
        layer=source.source_id, maxValue=float(one.values.max()), maxValueTokenIndex=int(one.values.argmax()),
        minValue=float(one.values.min()), values=_round(one.values.tolist()), dataSource=None, dataIndex=None, dfaValues=[],
        dfaTargetIndex=None, dfaMaxValue=None, lossValues=lost, logitContributions=None,
        binMin=NO_BIN if is_top else stretch.least, binMax=stretch.most, binContains=NO_BIN if is_top else stretch.high - stretch.low,
        qualifyingTokenIndex=one.drawn if one.drawn >= 0 else one.peak,
    )  # fmt: skip


def _explanation(source: _Source, view: FeatureView) -> dict[str, Any]:
    label = view.label
    assert label is not None
    said = source.row(
        id=source.id_of("explanation", view.feature), layer=source.source_id, index=str(view.feature),
        description=whole_text(label.text), authorId=source.upload.creator_id, embedding=None, triggeredById=None, typeName=None,
        explanationModelName=whole_text(label.source) or None, notes=None,
    )  # fmt: skip
    return {name: value for name, value in said.items() if name != "creatorId"}


def _logit_histogram(view: FeatureView, dashboard: Viewable, readout: Readout | str) -> tuple[list[int], list[float]]:
    if isinstance(readout, str) or dashboard.dictionary is None:
        return [], []
    logits = readout.logits(dashboard.dictionary.weights.decoder[view.feature][None])[0].cpu().numpy()
    heights, edges = np.histogram(logits, LOGIT_BINS)
    return heights.tolist(), _round((edges[:-1] + edges[1:]) / 2)


def _told(source: _Source, dashboard: Viewable) -> dict[str, dict[str, Any]]:
    own, now = source.upload, source.created
    release, statistics = own.release or own.source_set, dashboard.statistics
    urls = [own.url] if own.url else []
    maker = {"creatorId": own.creator_id, "createdAt": now}
    return {
        "release.jsonl": {
            "name": release, "description": own.description, "descriptionShort": own.description, "creatorName": own.creator,
            "creatorNameShort": own.creator, "creatorEmail": None, "urls": urls, "visibility": "PUBLIC", "isNewUi": False, "featured": False,
            "defaultSourceSetName": None, "defaultSourceId": None, "defaultUmapSourceIds": [], **maker,
        },
        "model.jsonl": {
            "id": own.model, "instruct": own.model.endswith("-it"), "displayNameShort": own.model, "displayName": own.model,
            "tlensId": None, "dimension": None, "visibility": "PUBLIC", "defaultSourceSetName": None, "defaultSourceId": None,
            "inferenceEnabled": False, "layers": 0, "neuronsPerLayer": 0, "owner": "", "updatedAt": now, "website": None, **maker,
        },
        "sourceset.jsonl": {
            "modelId": own.model, "name": own.source_set, "hasDashboards": True, "visibility": "PUBLIC", "description": own.description,
            "type": "", "creatorName": own.creator, "urls": urls, "creatorEmail": None, "releaseName": release, "defaultOfModelId": None,
            "defaultRange": 1, "defaultShowBreaks": True, "showDfa": False, "showCorrelated": False, "showHeadAttribution": False,
            "showUmap": False, **maker,
        },
        "source.jsonl": {
            "id": source.source_id, "modelId": own.model, "setName": own.source_set, "hasDashboards": True, "inferenceEnabled": False,
            "inferenceHosts": [], "saelensConfig": None, "saelensRelease": None, "saelensSaeId": None, "hfRepoId": own.weights or None,
            "hfFolderId": own.weights_folder or None, "visibility": "PUBLIC", "defaultOfModelId": None, "hasUmap": False,
            "hasUmapLogSparsity": False, "hasUmapClusters": False, "num_prompts": statistics.n_texts,
            "num_tokens_in_prompt": max(1, round(statistics.n_tokens / max(1, statistics.n_texts))), "dataset": own.dataset or None,
            "notes": None, **maker,
        },
    }  # fmt: skip


def _layer(site: str) -> int:
    found = re.fullmatch(r"blocks\.(\d+)\..*", site)
    if found is None:
        raise FeatureError(f"the site {site!r} says no layer; give NeuronpediaUpload(layer=...)")
    return int(found[1])


def _round(values: Iterable[Any]) -> list[float]:
    """Three decimals, as its own tools write."""
    return [round(float(value), 3) for value in values]


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
