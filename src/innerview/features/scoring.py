"""Scoring of labels on text that they were not made from.

Reference: arXiv:2410.13928 (detection, fuzzing); arXiv:2506.07985 (correlation by importance sampling)
"""

import os
from collections.abc import Sequence
from random import Random
from typing import Any

from innerview.errors import FeatureError
from innerview.features.dashboards import Dashboard, labels_of
from innerview.features.endpoint import Endpoint
from innerview.features.fired import Fired
from innerview.features.judges import Question, judge_of
from innerview.features.known_labels import KnownLabels
from innerview.features.label_scores import LabelScore, LabelScores
from innerview.features.label_tests import Correlation, Detection, Drawn, Fuzzing, LabelTest
from innerview.features.labels import owners
from innerview.features.passages import Sample, Windows
from innerview.features.view import Label

TESTS: tuple[LabelTest, ...] = (Detection(), Fuzzing(), Correlation())


def score_labels(
    dashboard: Dashboard,
    labels: Any = None,
    by: KnownLabels | Endpoint = KnownLabels(),
    texts: Any = None,
    *,
    tests: Sequence[LabelTest] = TESTS,
    shuffled: bool = True,
    against: LabelScores | None = None,
    seed: int = 0,
    file: str | os.PathLike[str] | None = None,
    progress: bool | None = None,
) -> LabelScores:
    """How well labels tell what features do: where they are active, silent text included, on which words, and how strongly.

    Known labels are judged by what is known of held-out sentences, without any network; labels in words by an endpoint. Beside each label
    another feature's is judged on the same passages. For the second control label and score a dictionary of the same network with random
    weights, and give that as `against`.

    Args:
        dashboard: The features, with their dictionary and network.
        labels: What `label_features` gave, or labels by number; the dashboard's own when None.
        by: Who judges.
        texts: Held-out texts that an endpoint is shown passages of.
        tests: `Detection()`, `Fuzzing()`, `Correlation()`, with how many passages each takes.
        shuffled: Whether other features' labels are judged too; an endpoint is asked twice as much.
        against: Scores of a random network's dictionary.
        seed: Of the draw of passages and of other labels.
        file: Where an endpoint's answers are kept, so that the same call goes on behind a stop; no key is ever in it.
        progress: Show how far it is; after two seconds when None.
    Raises:
        FeatureError: There are no labels, texts are missing, it would cost too much, or the endpoint refused.
    Reference: arXiv:2410.13928, arXiv:2506.07985, arXiv:2501.17727
    """
    dictionary, model = owners(dashboard)
    given = tuple(labels_of(dashboard.labels if labels is None else labels, len(dashboard)).values())
    if not given:
        raise FeatureError("no labels to score; iv.label_features(dashboard, iv.KnownLabels()) makes some")
    names = [one.name for one in tests]
    if not names or len(set(names)) < len(names):
        raise FeatureError(f"tests are one or more, each of its own kind, not {names}")
    about = {"job": "scores", "dictionary": repr(dictionary), "model": model.name}
    judge = judge_of(by, model, dictionary, texts, file, about)
    windows = Windows.of(judge.corpus)
    fired = Fired.of(model, dictionary, judge.corpus, [one.feature for one in given], progress=progress)
    drawn = {
        (label.feature, test.name): test.drawn(
            Sample.of(windows, fired, label.feature), Random(f"{seed} {test.name} {label.feature}")
        )
        for label in given
        for test in tests
    }
    others = _others(given, seed) if shuffled else {}
    questions = _questions(given, tests, drawn, others)
    answers, is_whole = judge.answers(questions, progress)
    scores = [_score(label, test, drawn[label.feature, test.name], answers) for label in given for test in tests]
    said = by.name if isinstance(by, KnownLabels) else by.model
    return LabelScores(tuple(scores), tuple(names), said, against, is_whole, given)


def _others(given: Sequence[Label], seed: int) -> dict[int, Label]:
    """Another feature's label for each, of other words; none where all say the same."""
    rng, made = Random(f"shuffled {seed}"), {}
    for label in given:
        different = [one for one in given if one.text != label.text]
        if different:
            made[label.feature] = rng.choice(different)
    return made


def _questions(
    given: Sequence[Label], tests: Sequence[LabelTest], drawn: dict[tuple[int, str], Drawn | None], others: dict[int, Label]
) -> dict[str, Question]:  # fmt: skip
    made = {}
    for label in given:
        for test in tests:
            here = drawn[label.feature, test.name]
            for who, one in (("own", label), ("other", others.get(label.feature))):
                if here is not None and one is not None:
                    made[_key(label, test, who)] = Question(one, here.passages, test.is_pointing)
    return made


def _key(label: Label, test: LabelTest, who: str) -> str:
    return f"{label.feature} {test.name} {who}"


def _score(label: Label, test: LabelTest, drawn: Drawn | None, answers: dict[str, list[Any]]) -> LabelScore:
    found: list[float | None] = []
    for who in ("own", "other"):
        told = answers.get(_key(label, test, who))
        found.append(None if drawn is None or told is None else test.score(drawn, told))
    n = sum(one is not None for one in answers.get(_key(label, test, "own"), []))
    return LabelScore(label.feature, label.text, test.name, found[0], found[1], n)
