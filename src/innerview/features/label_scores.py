"""How well labels tell what features do, beside the controls: other features' labels, and a network that learned nothing."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from innerview.features.view import Label

DRAWS = 2000


@dataclass(frozen=True)
class LabelScore:
    """One label in one test.

    Attributes:
        feature: The feature.
        text: Its label.
        test: Name of the test.
        score: How well the label did; None where there was nothing to judge, or no answer.
        shuffled: How well another feature's label did on the same passages; None where it was not run.
        n: Passages that were judged.
    """

    feature: int
    text: str
    test: str
    score: float | None
    shuffled: float | None
    n: int


@dataclass(frozen=True, eq=False)
class LabelScores:
    """Scores of labels. `dashboard.with_labels(scores)` shows the labels with the first test's score.

    Attributes:
        scores: One a label and test.
        tests: Names of the tests, in their order.
        judge: Who judged.
        against: The same of a network with random weights and its own dictionary; None where it was not run.
        is_whole: Whether everything was judged; False when an interrupt came first.
        given: The labels, as they were given.
    """

    scores: tuple[LabelScore, ...] = field(repr=False)
    tests: tuple[str, ...]
    judge: str
    against: "LabelScores | None" = field(default=None, repr=False)
    is_whole: bool = True
    given: tuple[Label, ...] = field(default=(), repr=False)

    @property
    def labels(self) -> tuple[Label, ...]:
        """The labels, each with its score in the first test that has one, and all of them in its detail."""
        by_feature: dict[int, list[LabelScore]] = {}
        for one in self.scores:
            by_feature.setdefault(one.feature, []).append(one)
        return tuple(self._scored(label, by_feature.get(label.feature, [])) for label in self.given)

    def _scored(self, label: Label, scores: list[LabelScore]) -> Label:
        first = next((one for one in scores if one.score is not None), None)
        if first is None:
            return label
        told = {one.test: {"score": one.score, "shuffled": one.shuffled, "n": one.n} for one in scores}
        detail = {**label.detail, "measure": first.test, "judge": self.judge, "tests": told}
        return dataclasses.replace(label, score=min(1.0, max(0.0, first.score or 0.0)), detail=detail)

    def values(self, test: str) -> np.ndarray:
        """Scores of one test that came out, shape [features]."""
        return np.array([one.score for one in self.scores if one.test == test and one.score is not None])

    def frame(self) -> pd.DataFrame:
        """One row a feature: its label, and for each test the score, another feature's label's, and passages judged."""
        rows: dict[int, dict[str, object]] = {}
        texts: dict[int, str] = {}
        for one in self.scores:
            row = rows.setdefault(one.feature, {})
            texts[one.feature] = one.text
            row[one.test], row[f"{one.test}_shuffled"] = _number(one.score), _number(one.shuffled)
            row[f"{one.test}_n"] = one.n
        columns = [f"{test}{end}" for test in self.tests for end in ("", "_shuffled", "_n")]
        made = pd.DataFrame(list(rows.values()), index=pd.Index(list(rows), name="feature"), columns=columns)
        # As they are: pandas' own texts refuse half a character.
        made.insert(0, "label", pd.Series(texts, dtype=object))
        return made

    def summary(self) -> pd.DataFrame:
        """One row a test: the mean score, what shuffled labels reach, what the random network's do, and each gain with its 95 % interval.

        The interval over shuffled labels is paired by feature, the one over the random network is not; both by bootstrap over features.
        """
        rows = []
        for test in self.tests:
            pairs = [
                (one.score, one.shuffled) for one in self.scores
                if one.test == test and one.score is not None and one.shuffled is not None
            ]  # fmt: skip
            own = self.values(test)
            other = np.zeros(0) if self.against is None else self.against.values(test)
            gains = np.array([score - shuffled for score, shuffled in pairs])
            beside = (_mean(own), _mean(np.array([shuffled for _, shuffled in pairs])), _mean(gains), *_interval(gains))
            above = (_mean(other), _mean(own) - _mean(other), *_interval(own, other))
            rows.append((*beside, *above, len(own), len(other)))
        columns = ["score", "shuffled", "gain", "gain_low", "gain_high", "random", "above_random", "random_low", "random_high", "n", "n_random"]  # fmt: skip
        return pd.DataFrame(rows, columns=columns, index=pd.Index(self.tests, name="test"))

    @property
    def notes(self) -> tuple[str, ...]:
        """Controls that were not run, and what else to know, in words."""
        told = [] if self.is_whole else ["stopped early: what was not judged has no score"]
        if all(one.shuffled is None for one in self.scores):
            told.append("shuffled labels were not run")
        if self.against is None:
            told.append("a random network's dictionary was not run; score one too, and give it as against=")
        silent = {one.feature for one in self.scores if one.score is None}
        told += [f"{len(silent)} features gave nothing to judge in some test"] if silent else []
        return tuple(told)

    def __repr__(self) -> str:
        said = ", ".join(f"{test} {_mean(self.values(test)):.3g}" for test in self.tests)
        return f"LabelScores(of {len(self.given)} labels by {self.judge}: {said}; {' · '.join(self.notes) or 'all controls run'})"


def _number(score: float | None) -> float:
    return float("nan") if score is None else score


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _interval(values: np.ndarray, less: Sequence[float] | np.ndarray | None = None) -> tuple[float, float]:
    """95 % interval of the mean, less that of others where they are given; by bootstrap over features."""
    if len(values) < 2 or (less is not None and len(less) < 2):
        return float("nan"), float("nan")
    drawn = np.random.default_rng(0)
    means = values[drawn.integers(0, len(values), (DRAWS, len(values)))].mean(axis=1)
    if less is not None:
        others = np.asarray(less)
        means = means - others[drawn.integers(0, len(others), (DRAWS, len(others)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)
