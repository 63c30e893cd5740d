"""Scores of labels: what is right scores high, what is not by chance, and few passages tell what all of them would."""

import re
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.features.fired import Fired
from innerview.features.label_tests import balanced
from innerview.features.passages import Sample, Windows
from tests.features import made
from tests.features.chat_server import Reply, said, serving
from tests.features.planted import reading, reading_words

KNOWN = iv.KnownLabels(sentences=400)


@pytest.fixture(scope="module")
def known() -> tuple[iv.Dashboard, iv.Labels]:
    model, own, _ = reading_words(KNOWN)
    board = iv.dashboard(own, model)
    return board, iv.label_features(board, KNOWN)


def test_true_labels_score_high_and_other_features_labels_by_chance(known: tuple[iv.Dashboard, iv.Labels]) -> None:
    board, labels = known
    found = iv.score_labels(board, labels, KNOWN)
    summary = found.summary()
    assert list(summary.index) == ["detection", "fuzzing", "correlation"]
    assert (summary["score"] > 0.85).all() and (summary.loc[["detection", "fuzzing"], "shuffled"] < 0.65).all()
    assert summary.loc["correlation", "shuffled"] < 0.3
    assert (summary["gain_low"] > 0).all() and (summary["gain_low"] <= summary["gain"]).all()
    assert summary["random"].isna().all() and any("random network" in note for note in found.notes)
    frame = found.frame()
    assert list(frame.index) == [0, 1, 2] and (frame["detection_n"] > 10).all()
    shown = board.with_labels(found)[0].label
    assert shown is not None and shown.text == labels.labels[0].text and shown.score == frame.loc[0, "detection"]
    assert shown.detail["tests"]["fuzzing"]["score"] == frame.loc[0, "fuzzing"]


def test_a_random_networks_dictionary_stands_beside(known: tuple[iv.Dashboard, iv.Labels]) -> None:
    board, labels = known
    model = board.model
    assert model is not None
    drawn = torch.Generator().manual_seed(0)
    width = model.d_model
    rows = torch.randn(40, width, generator=drawn) / width**0.5
    weights = iv.Weights(rows, torch.zeros(40), rows.clone(), torch.zeros(width))
    manifest = iv.Manifest(False, iv.Normalisation(), site="embed", bos="absent", source="random")
    chance = iv.dashboard(iv.Dictionary(weights, iv.TopK(4), manifest), model)
    control = iv.score_labels(chance, iv.label_features(chance, KNOWN), KNOWN)
    found = iv.score_labels(board, labels, KNOWN, against=control)
    summary = found.summary()
    assert (summary["random"] == control.summary()["score"]).all()
    assert (
        (summary["above_random"] > 0.15).all()
        and (summary["random_low"] > 0).all()
        and (summary["n_random"] > 20).all()
    )
    assert not any("random network" in note for note in found.notes)


@pytest.fixture(scope="module")
def words() -> tuple[iv.Dashboard, list[list[int]]]:
    """A network whose dictionary reads three words, and rows in which they come now and then."""
    model = made.opened()
    generator = np.random.default_rng(0)
    others = np.array([one for one in range(3, 60) if one not in (10, 20, 30)])
    rows = generator.choice(others, size=(800, 10))
    rare = generator.random(rows.shape) < 0.02
    rows[rare] = generator.choice([10, 20, 30], size=int(rare.sum()))
    listed = rows.tolist()
    return iv.dashboard(reading(model, [10, 20, 30]), model, listed[:400], together=False, neurons=False), listed[400:]


def test_few_passages_tell_the_correlation_over_all(words: tuple[iv.Dashboard, list[list[int]]]) -> None:
    board, rows = words
    assert board.model is not None and board.dictionary is not None
    from innerview.features.corpus import Corpus

    corpus = Corpus.of(board.model, rows, reads_bos=False)
    sample = Sample.of(Windows.of(corpus), Fired.of(board.model, board.dictionary, corpus, [0]), 0)
    # A label that fits most of what is active and some of what is not.
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand(len(sample.largest), generator=generator)
    fits = torch.where(sample.largest > 0, draw < 0.8, draw < 0.1)
    wanted = float(np.corrcoef(sample.largest.numpy(), fits.numpy())[0, 1])
    test, found = iv.Correlation(draws=60), []
    for seed in range(60):
        drawn = test.drawn(sample, Random(seed))
        assert drawn is not None and len(drawn.passages) <= 60
        starts = {int(start): number for number, start in enumerate(sample.windows.bounds[:, 0])}
        score = test.score(drawn, [bool(fits[starts[one.start]]) for one in drawn.passages])
        assert score is not None
        found.append(score)
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - wanted) < max(3 * error, 0.05), (np.mean(found), wanted)
    # An even draw of as many passages is further off.
    even = []
    for _ in range(60):
        at = torch.randint(len(fits), (60,), generator=generator)
        # Nothing active, or nothing that fits, is drawn now and then: that tells nothing.
        is_flat = not sample.largest[at].any() or not fits[at].any()
        even.append(0.0 if is_flat else float(np.corrcoef(sample.largest[at], fits[at])[0, 1]))
    assert np.std(found) < 0.7 * np.std(even)


def test_passages_are_where_the_feature_is_active_and_where_it_is_silent(
    words: tuple[iv.Dashboard, list[list[int]]],
) -> None:
    board, rows = words
    assert board.model is not None and board.dictionary is not None
    from innerview.features.corpus import Corpus

    corpus = Corpus.of(board.model, rows, reads_bos=False)
    sample = Sample.of(Windows.of(corpus), Fired.of(board.model, board.dictionary, corpus, [1]), 1)
    is_word = corpus.ids == 20
    drawn = iv.Detection(active=8, silent=12).drawn(sample, Random(0))
    assert drawn is not None and sum(drawn.truth) == 8 and len(drawn.truth) == 20
    for passage, truth in zip(drawn.passages, drawn.truth, strict=True):
        assert bool(is_word[passage.start : passage.stop].any()) == truth
    pointed = iv.Fuzzing(passages=6).drawn(sample, Random(0))
    assert pointed is not None and sum(pointed.truth) == 6 and len(pointed.truth) == 12
    for passage, truth in zip(pointed.passages, pointed.truth, strict=True):
        assert passage.marked and all(passage.start <= one < passage.stop for one in passage.marked)
        assert bool(is_word[list(passage.marked)].all()) == truth and bool(is_word[list(passage.marked)].any()) == truth
    assert balanced([True, True, False], [True, False, False]) == 0.75 and balanced([True], [True]) is None
    silent = Sample(sample.windows, sample.places[:0], sample.values[:0])
    assert all(test.drawn(silent, Random(0)) is None for test in (iv.Detection(), iv.Fuzzing(), iv.Correlation()))


def honest(body: dict[str, Any], _: int) -> Reply:
    """Answers as somebody would who knows what the words of a label are."""
    system, user = (one["content"] for one in body["messages"])
    word = re.search(r"Description: the word (\w+)", user)
    assert word is not None
    lines = re.findall(r"(?m)^(\d+): (.*)$", user)
    looked = [
        re.findall("«(.*?)»", text) if "«" in system and "stand between" in system else [text] for _, text in lines
    ]
    told = [any(word[1] in part.split() for part in parts) for parts in looked]
    return said("\n".join(f"{number}: {int(yes)}" for (number, _), yes in zip(lines, told, strict=True)))


LABELS = {0: "the word w7", 1: "the word w17", 2: "the word w27"}


def test_an_endpoint_judges_labels_in_words(words: tuple[iv.Dashboard, list[list[int]]], tmp_path: Path) -> None:
    board, rows = words
    file = tmp_path / "scores.jsonl"
    with serving(honest) as server:
        own = iv.Endpoint(server.url, "honest", key_env=None, parallel=2)
        found = iv.score_labels(board, LABELS, own, rows, file=file)
        assert all(len(re.findall(r"(?m)^\d+: ", body["messages"][1]["content"])) <= 10 for body in server.asked)
        count = len(server.asked)
        again = iv.score_labels(board, LABELS, own, rows, file=file)
        assert len(server.asked) == count
    summary = found.summary()
    assert (summary.loc[["detection", "fuzzing"], "score"] == 1.0).all() and summary.loc["correlation", "score"] > 0.85
    assert (summary["gain_low"] > 0.2).all() and found.judge == "honest"
    assert again.frame().equals(found.frame())


def test_answers_that_cannot_be_read_do_not_count(words: tuple[iv.Dashboard, list[list[int]]]) -> None:
    board, rows = words
    with serving(lambda body, nth: said("I would rather not say.")) as server:
        own = iv.Endpoint(server.url, "mute", key_env=None)
        found = iv.score_labels(board, LABELS, own, rows, tests=(iv.Detection(),), shuffled=False)
    assert found.summary().loc["detection", "n"] == 0 and found.frame()["detection"].isna().all()
    assert (
        any("gave nothing to judge" in note for note in found.notes) and "shuffled labels were not run" in found.notes
    )
    assert all(label.score is None for label in found.labels)


def test_an_interrupted_scoring_says_so(
    words: tuple[iv.Dashboard, list[list[int]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from innerview.features.records import Records

    add, count = Records.add, [0]

    def stopping(self: Records, key: str, answer: Any) -> None:
        add(self, key, answer)
        count[0] += 1
        if count[0] == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(Records, "add", stopping)
    board, rows = words
    with serving(honest) as server:
        found = iv.score_labels(board, LABELS, iv.Endpoint(server.url, "honest", key_env=None, parallel=1), rows)
    assert not found.is_whole and any("stopped early" in note for note in found.notes)
    assert found.frame().loc[0, "detection"] == 1.0 and np.isnan(found.frame().loc[2, "correlation"])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_labels_of_a_trained_network_beat_shuffled_ones_and_those_of_random_weights() -> None:
    trained = iv.open_model("pocket")
    torch.manual_seed(0)
    root = type(trained.module)(trained.module.config).eval()
    random = iv.open_model(root, tokenizer=trained.tokenizer)
    site, texts = "blocks.4.resid", [one.text for one in KNOWN.drawn("train")]
    scores = []
    for model in (random, trained):
        acts = iv.capture(model, texts, site, progress=False)
        assert acts.mask is not None
        own = iv.train_dictionary(
            {site: acts[site][acts.mask].float()}, site, iv.TopK(8), n_features=256, n_tokens=60_000, batch_tokens=256, progress=False
        ).dictionary  # fmt: skip
        board = iv.dashboard(own, model)
        scores.append(
            iv.score_labels(board, iv.label_features(board, KNOWN), KNOWN, against=scores[0] if scores else None)
        )
    summary = scores[1].summary()
    assert (summary["gain_low"] > 0).all(), summary
    # Tokens are read from random weights too; what a trained network adds is above that.
    assert (summary["random_low"] > 0).all() and (summary["n_random"] > 50).all(), summary


def test_what_cannot_be_scored_is_refused(words: tuple[iv.Dashboard, list[list[int]]]) -> None:
    board, rows = words
    own = iv.Endpoint("http://localhost:1/v1", "m", key_env=None)
    for options, message in (
        ({}, "no labels to score"), ({"labels": LABELS, "by": own}, "give held-out ones as texts="),
        ({"labels": LABELS, "by": own, "texts": rows, "tests": ()}, "tests are one or more"),
        ({"labels": LABELS, "by": "me", "texts": rows}, "not by 'me'"),
        ({"labels": LABELS, "texts": rows}, "drop texts="),
    ):  # fmt: skip
        with pytest.raises(iv.FeatureError, match=message):
            iv.score_labels(board, **options)
    with pytest.raises(iv.FeatureError, match="is words, and known labels judge facts"):
        iv.score_labels(*_of_pocket(), KNOWN)
    for wrong in (lambda: iv.Detection(active=0), lambda: iv.Fuzzing(0), lambda: iv.Correlation(guided=1.0)):
        with pytest.raises(iv.FeatureError):
            wrong()


def _of_pocket() -> tuple[iv.Dashboard, dict[int, str]]:
    model, own, words = reading_words(KNOWN)
    return iv.dashboard(own, model), {0: f"the word {words[0]}"}
