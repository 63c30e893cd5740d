"""Features against labels: the best feature's F1, probes of few features beside a probe of the raw activation, and absorption."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

import pandas as pd
import torch

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.judging.absorption import Absorption, absorption
from innerview.dictionaries.judging.labelled import Read, read_sentences
from innerview.dictionaries.judging.probing import best_feature, fitted, sparse_accuracies
from innerview.models.model import Model
from innerview.progress import progress as bar

SIZES = (1, 2, 5)
# A value needs so many sentences on each side of both halves, and a concept is scored by its most frequent values.
LEAST, MOST_VALUES = 3, 4


@dataclass(frozen=True)
class ConceptScore:
    """One value of one concept, against everything else that the concept's sentences say. All on held-out sentences.

    Attributes:
        concept: Name of the concept.
        value: The value that is told from the others.
        feature: The feature that tells it best.
        f1: Its F1.
        f1_always: F1 of always saying yes.
        sparse: Accuracy of probes on k features, by k.
        raw: Accuracy of a probe on the activation.
        majority: Accuracy of always saying what is more frequent.
        absorbed: Absorption at the label's last token; None for a transcoder, whose rows do not lie where the probe does.
        n_train: Sentences of the training half.
        n_test: Sentences held out.
    """

    concept: str
    value: str
    feature: int
    f1: float
    f1_always: float
    sparse: dict[int, float]
    raw: float
    majority: float
    absorbed: Absorption | None
    n_train: int
    n_test: int


@dataclass(frozen=True)
class ConceptScores:
    """Features of a dictionary against labels.

    Attributes:
        scores: One a concept and value.
        left_out: Concepts that had too few sentences of any value.
        is_whole: Whether every concept was scored; False when an interrupt came first.
    """

    scores: tuple[ConceptScore, ...] = field(repr=False)
    left_out: tuple[str, ...] = ()
    is_whole: bool = True

    def frame(self) -> pd.DataFrame:
        """One row a concept and value."""
        rows = []
        for one in self.scores:
            found = one.absorbed
            absorbed = (float("nan"), float("nan"), 0) if found is None else (found.share, found.fraction, found.n)
            rows.append(
                (one.concept, one.value, one.feature, one.f1, one.f1_always, *one.sparse.values(), one.raw, one.majority, *absorbed, one.n_train, one.n_test)
            )  # fmt: skip
        sparse = [f"probe_{k}" for k in SIZES]
        columns = ["concept", "value", "feature", "f1", "f1_always", *sparse, "probe_raw", "majority", "absorbed", "absorbed_fraction", "n_absorbable", "n_train", "n_test"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns)

    def summary(self) -> pd.DataFrame:
        """One row a concept: means over its values."""
        numbers = self.frame().drop(columns=["value", "feature"])
        return pd.DataFrame(numbers.groupby("concept", sort=False).mean())

    def rows(self) -> list[tuple[str, float, int]]:
        """Means over concepts, with the number of concepts that each stands on."""
        if not self.scores:
            return []
        table = self.summary()
        names = {"f1": "best feature's F1", "f1_always": "F1 of always yes"}
        names |= {f"probe_{k}": f"probe on {k} feature{'s' * (k > 1)}" for k in SIZES}
        names |= {
            "probe_raw": "probe on the activation",
            "majority": "majority",
            "absorbed": "absorbed share",
            "absorbed_fraction": "absorbed fraction",
        }
        found = [(told, table[name].dropna().tolist()) for name, told in names.items()]
        return [(told, fmean(values), len(values)) for told, values in found if values]


def score_concepts(
    dictionary: Dictionary,
    model: Model,
    labelled: Mapping[str, Sequence[Any]],
    *,
    seed: int = 0,
    progress: bool | None = None,
) -> ConceptScores:
    """Score features against labelled sentences, half of which are held out; one concept is held in memory at a time.

    Args:
        dictionary: The dictionary.
        model: The network.
        labelled: By concept, sentences with `.text`, `.value`, `.start` and `.end`.
        seed: Of the split.
        progress: Show how far it is; after two seconds when None.
    """
    scores: list[ConceptScore] = []
    left_out: list[str] = []
    is_whole = True
    with bar(
        len(labelled), "concepts", "concept", delay_s=0.0 if progress else 2.0, is_shown=progress is not False
    ) as step:
        try:
            for name, items in labelled.items():
                found = _of_concept(dictionary, name, read_sentences(dictionary, model, items, seed))
                scores += found
                left_out += [] if found else [name]
                step()
        except KeyboardInterrupt:
            is_whole = False
    return ConceptScores(tuple(scores), tuple(left_out), is_whole)


def _of_concept(dictionary: Dictionary, name: str, read: Read) -> list[ConceptScore]:
    test = read.is_test
    made = []
    for value, _ in Counter(read.values).most_common(MOST_VALUES):
        y = torch.tensor([own == value for own in read.values])
        sides = [int((half & side).sum()) for half in (test, ~test) for side in (y, ~y)]
        if min(sides) >= LEAST:
            made.append(_of_value(dictionary, name, value, read, y))
    return made


def _of_value(dictionary: Dictionary, name: str, value: str, read: Read, y: torch.Tensor) -> ConceptScore:
    test, train = read.is_test, ~read.is_test
    halves = (read.codes[train], y[train]), (read.codes[test], y[test])
    best, share = best_feature(*halves), float(y[test].float().mean())
    absorbed = None
    if not dictionary.is_transcoder:
        decoder = dictionary.weights.decoder.detach().cpu()
        # As the encoder takes them: codes and rows make activations in these units.
        at = dictionary.manifest.normalisation.apply(read.at)
        absorbed = absorption(decoder, *((at[half], read.at_codes[half], y[half]) for half in (train, test)))
    return ConceptScore(
        name, value, best.feature, best.f1, 2 * share / (1 + share), sparse_accuracies(*halves, SIZES),
        fitted(read.pooled[train], y[train]).accuracy(read.pooled[test], y[test]), max(share, 1 - share), absorbed,
        int(train.sum()), int(test.sum()),
    )  # fmt: skip
