"""Labels that a world of labelled sentences knows: for each feature the fact that tells it best."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary
from innerview.errors import FeatureError
from innerview.features.facts import Fact, Facts
from innerview.features.fired import Fired
from innerview.features.view import Label
from innerview.models.model import Model
from innerview.pocket.labelled import world_of
from innerview.progress import progress as bar

# A feature is held to say a fact where it is above one of these shares of its largest value.
CUTS = (0.0, 0.25, 0.5)
# A fact that holds at fewer tokens tells nothing.
LEAST = 5
CHUNK = 64


@dataclass(frozen=True)
class KnownLabels:
    """Labels from sentences whose every word is known: the bundled world's, or another lexicon's.

    A label is chosen on sentences of training and scored on held-out ones, whose templates and names no training saw.

    Attributes:
        lexicon: Another world's file of words; the bundled one when None.
        sentences: How many are drawn to choose on, and as many to score on.
        stage: `base`, or `chat` for the parts of the world that a chat model speaks of.
        seed: Of the draw.
    """

    lexicon: Path | str | None = None
    sentences: int = 2000
    stage: str = "base"
    seed: int = 0

    @property
    def name(self) -> str:
        """What a label says it came from."""
        return f"known labels of {world_of(self.lexicon).name}"

    def drawn(self, split: Any) -> list[Any]:
        """Sentences of each part of the world, as many of each.

        Raises:
            FeatureError: The world has no such part.
        """
        world = world_of(self.lexicon)
        parts = [one for one in world.behaviours.values() if one.stage == self.stage]
        if not parts:
            raise FeatureError(
                f"the world {world.name!r} has no part of the stage {self.stage!r}; stages are base and chat"
            )
        each = max(1, self.sentences // len(parts))
        made = []
        for part in parts:
            rng = Random(f"known labels {part.name} {split} {self.seed}")
            made += [part.sentence(rng, split) for _ in range(each)]
        return made

    def facts(self, model: Model, dictionary: Dictionary, split: Any) -> Facts:
        """Facts of the world's sentences, in a network's tokens."""
        return Facts.of(model, dictionary, self.drawn(split))

    def labelled(
        self, model: Model, dictionary: Dictionary, features: Sequence[int], *, progress: bool | None = None
    ) -> tuple[list[Label], bool]:
        """The best fact of each feature that was active, with its F1 on held-out sentences as the score; and whether all were tried.

        Args:
            model: The network.
            dictionary: Whose features.
            features: Their numbers.
            progress: Show how far it is; after two seconds when None.
        """
        halves = [self.facts(model, dictionary, split) for split in ("train", "held_out")]
        fired = [Fired.of(model, dictionary, half.corpus, features, progress=progress) for half in halves]
        choices, is_whole = chosen(halves[0], fired[0], progress=progress)
        return [_label(choice, halves[1], fired[1], self.name) for choice in choices], is_whole


@dataclass(frozen=True)
class Choice:
    """The fact that tells a feature best, and above which value the feature is held to say it.

    Attributes:
        feature: The feature.
        fact: The fact.
        threshold: Least activation.
        f1: Of the sentences that it was chosen on.
    """

    feature: int
    fact: Fact
    threshold: float
    f1: float


def chosen(facts: Facts, fired: Fired, *, progress: bool | None = None) -> tuple[list[Choice], bool]:
    """The fact with the largest F1 for each feature that was active at all; False where an interrupt came before all were tried."""
    counts = torch.bincount(facts.which, minlength=len(facts.facts))
    matrix = torch.sparse_coo_tensor(
        torch.stack([facts.which, facts.places]), torch.ones(len(facts.which)), (len(facts.facts), len(facts.corpus.ids)), check_invariants=False,
    ).coalesce()  # fmt: skip
    active = [one for one in fired.features if len(fired.of_feature(one)[0]) > 0]
    made: list[Choice] = []
    with bar(len(active), "labelling", "feature", delay_s=2.0, is_shown=progress is not False) as step:
        try:
            for start in range(0, len(active), CHUNK):
                part = active[start : start + CHUNK]
                made += _of_chunk(facts, matrix, counts, part, fired.dense(part))
                step(len(part))
        except KeyboardInterrupt:
            return made, False
    return made, True


def _of_chunk(
    facts: Facts, matrix: Tensor, counts: Tensor, part: list[int], values: Float[Tensor, "tokens features"]
) -> list[Choice]:
    largest = values.amax(dim=0)
    scores = torch.stack([_f1(matrix, counts, values > largest * cut) for cut in CUTS])
    best = scores.flatten(0, 1).max(dim=0)
    made = []
    for column, feature in enumerate(part):
        cut, number = divmod(int(best.indices[column]), len(counts))
        threshold = float(largest[column]) * CUTS[cut]
        made.append(Choice(feature, facts.facts[number], threshold, float(best.values[column])))
    return made


def _f1(matrix: Tensor, counts: Tensor, said: Tensor) -> Float[Tensor, "facts features"]:
    right = torch.sparse.mm(matrix, said.float())
    found = 2 * right / (counts[:, None] + said.sum(dim=0)).clamp(min=1)
    return found.masked_fill((counts < LEAST)[:, None], 0.0)


def _label(choice: Choice, facts: Facts, fired: Fired, source: str) -> Label:
    """The label of a choice, scored on held-out sentences."""
    holds, (places, values) = facts.holds(choice.fact), fired.of_feature(choice.feature)
    said = places[values > choice.threshold]
    n, right = int(holds.sum()), int(holds[said].sum())
    detail: dict[str, Any] = {
        "measure": "F1 at single tokens of sentences held out", "fact": choice.fact.to_dict(), "threshold": choice.threshold,
        "f1_chosen": choice.f1, "precision": right / max(1, len(said)), "recall": right / max(1, n), "n": n,
    }  # fmt: skip
    # What is never said in what was held out cannot be scored there.
    score = 2 * right / (n + len(said)) if n >= LEAST else None
    return Label(choice.feature, choice.fact.text, score, source, detail)


@dataclass(frozen=True, eq=False)
class KnownMaterial:
    """Held-out sentences, and where each fact holds in them.

    Attributes:
        facts: The sentences' facts.
    """

    facts: Facts
    _held: dict[Fact, Tensor] = field(default_factory=dict, repr=False)

    def holds(self, fact: Fact) -> Tensor:
        """Where a fact holds, kept for the next question."""
        if fact not in self._held:
            self._held[fact] = self.facts.holds(fact)
        return self._held[fact]


def fact_of(label: Label) -> Fact:
    """The fact that a known label says.

    Raises:
        FeatureError: The label was not known, but written.
    """
    told = label.detail.get("fact")
    if told is None:
        raise FeatureError(
            f"the label {label.text!r:.80} of feature {label.feature} is words, and known labels judge facts; judge it with iv.Endpoint(...)"
        )
    return Fact.from_dict(told)
