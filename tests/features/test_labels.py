"""Labels by what is known of the text, and by an endpoint that the tests serve themselves."""

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

import innerview as iv
from innerview.features.facts import Fact, Facts
from innerview.features.prompting import answers_of, label_of, marked
from innerview.pocket.sentence import Label as SentenceLabel
from innerview.pocket.sentence import Sentence
from tests.features import made
from tests.features.chat_server import Reply, said, serving
from tests.features.planted import reading_words
from tests.networks import module

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def board() -> iv.Dashboard:
    return iv.dashboard(made.dictionary(), made.opened(), made.corpus(), together=False, neurons=False)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No wait of a test is longer than it must be, and no key of whoever runs it is sent."""
    monkeypatch.setattr("innerview.features.endpoint.LONGEST_WAIT_S", 0.02)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def endpoint(url: str, **options: Any) -> iv.Endpoint:
    return iv.Endpoint(url, "tester", **{"timeout_s": 5.0, "parallel": 2, **options})


def first_marked(body: dict[str, Any]) -> str:
    """What stands between the first marks of a question."""
    found = re.search("«(.*?)»", body["messages"][1]["content"])
    assert found is not None
    return found[1]


# By an endpoint.


def test_an_endpoint_is_shown_where_a_feature_was_active_and_its_answers_are_the_labels(board: iv.Dashboard) -> None:
    def reply(body: dict[str, Any], _: int) -> Reply:
        return said(f'Label: "words like {first_marked(body)}"\n')

    with serving(reply) as server:
        found = iv.label_features(board, endpoint(server.url), [5, 3, 20])
        assert {one["path"] for one in server.asked} == {"/v1/chat/completions"}
    assert [one.feature for one in found.labels] == [5, 3, 20] and found.is_whole and found.unlabelled == ()
    for label in found.labels:
        examples = [one for stretch in board[label.feature].stretches for one in stretch.examples]
        texts = {"".join(one.words).replace(" ", "") for one in examples}
        shown = label.text.removeprefix("words like ").replace(" ", "")
        assert label.source == "tester" and label.score is None and any(shown in text for text in texts)
    frame = found.frame()
    assert frame.loc[3, "label"] == found.labels[1].text and np.isnan(frame.loc[3, "score"])
    assert board.with_labels(found)[3].label == found.labels[1]


def test_the_strongest_passages_come_first_and_strong_words_are_marked(board: iv.Dashboard) -> None:
    with serving(lambda body, _: said("x y")) as server:
        iv.label_features(board, endpoint(server.url), [5], passages=6)
        lines = server.asked[0]["messages"][1]["content"].split("\n\n")[0].splitlines()
    ranks = [int(line.split()[0]) for line in lines]
    assert len(lines) == 6 and ranks[0] == 10 and ranks == sorted(ranks, reverse=True) and min(ranks) >= 1
    strongest = board[5].stretches[0].examples[0]
    assert f"«{strongest.words[strongest.peak].strip()}" in lines[0]
    assert all("«" in line and "»" in line for line in lines)


def test_what_is_passing_is_asked_again_and_what_is_not_is_said_at_once(board: iv.Dashboard) -> None:
    passing: list[Reply] = [
        (429, {"error": {"message": "slow down"}}, {"Retry-After": "0.01"}), (500, b"oops", {}), (503, {}, {}), (200, b"{", {}),
        (200, {"choices": []}, {}),
    ]  # fmt: skip
    with serving(lambda body, nth: passing[nth] if nth < len(passing) else said("a word")) as server:
        found = iv.label_features(board, endpoint(server.url, parallel=1), [5])
        assert [one.text for one in found.labels] == ["a word"] and len(server.asked) == 6
    with serving(lambda body, nth: (404, {"error": {"message": "no model tester"}}, {})) as server:
        with pytest.raises(iv.FeatureError, match="answered 404 and says 'no model tester'"):
            iv.label_features(board, endpoint(server.url, parallel=1), [5])
        assert len(server.asked) == 1
    refusal = pytest.raises(iv.FeatureError, match="did not answer in 3 tries; the last time: 503")
    with serving(lambda body, nth: (503, {}, {})) as server, refusal:
        iv.label_features(board, endpoint(server.url, tries=3), [5])
    with pytest.raises(iv.FeatureError, match="did not answer in 2 tries"):
        iv.label_features(board, endpoint(server.url, tries=2), [5])


def test_an_endpoint_that_takes_too_long_is_given_up(board: iv.Dashboard) -> None:
    def reply(body: dict[str, Any], nth: int) -> Reply:
        time.sleep(0.6)
        return said("late")

    with serving(reply) as server, pytest.raises(iv.FeatureError, match="did not answer in 2 tries"):
        iv.label_features(board, endpoint(server.url, tries=2, timeout_s=0.1), [5])


def test_an_answer_that_comes_drop_by_drop_is_given_up(board: iv.Dashboard) -> None:
    whole = json.dumps(said("late")[1]).encode()
    drops = tuple(b" " for _ in range(200))
    refusal = pytest.raises(
        iv.FeatureError, match="did not answer in 2 tries; the last time: the answer comes too slowly"
    )
    with serving(lambda body, nth: (200, (*drops, whole), {})) as server, refusal:
        iv.label_features(board, endpoint(server.url, tries=2, timeout_s=0.3), [5])


def test_a_question_that_alone_gets_no_answer_costs_no_other_its_own(board: iv.Dashboard) -> None:
    chosen = [5, 3, 20, 10, 11, 8]

    def reply(body: dict[str, Any], nth: int) -> Reply:
        return (500, {}, {}) if nth in (2, 3) else said(f"answer {nth}")

    with serving(reply) as server:
        found = iv.label_features(board, endpoint(server.url, parallel=1, tries=2), chosen)
        assert len(server.asked) == 7
    assert [one.feature for one in found.labels] == [5, 3, 10, 11, 8] and found.unlabelled == (20,)
    # An endpoint that answers no more is gone.
    with serving(lambda body, nth: said("a word") if nth == 0 else (500, {}, {})) as server:
        with pytest.raises(iv.FeatureError, match="did not answer in 2 tries"):
            iv.label_features(board, endpoint(server.url, parallel=1, tries=2), chosen)
        assert len(server.asked) == 7


def test_an_answer_is_of_the_passages_that_were_shown(board: iv.Dashboard, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    others = iv.dashboard(board.dictionary, board.model, made.corpus(9), together=False, neurons=False)
    with serving(lambda body, nth: said(f"answer {nth}")) as server:
        own = endpoint(server.url, parallel=1)
        texts = [iv.label_features(one, own, 5, file=file).labels[0].text for one in (board, others, board, others)]
    assert texts == ["answer 0", "answer 1", "answer 0", "answer 1"]


def test_a_file_of_answers_that_somebody_changed_is_refused(board: iv.Dashboard, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    with serving(lambda body, nth: said("a word")) as server:
        own = endpoint(server.url)
        iv.label_features(board, own, [5], file=file)
        whole = file.read_text()
        for changed, why in (
            (whole.replace('"a word"', "7"), "holds the label 7, which is no text"), ('{"job": "x"}\n', "is no file of answers"),
            ('{"job": null}\n', "is no file of answers"), (whole.replace('"answer"', '"answers"'), "is no file of answers"),
        ):  # fmt: skip
            file.write_text(changed)
            with pytest.raises(iv.FeatureError, match=why):
                iv.label_features(board, own, [5], file=file)
        count = len(server.asked)
        with pytest.raises(iv.FeatureError, match=r"no folder .* to keep answers in"):
            iv.label_features(board, own, [5], file=tmp_path / "none" / "answers.jsonl")
        assert len(server.asked) == count


def test_what_goes_to_this_machine_goes_through_no_proxy(board: iv.Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving(lambda body, nth: said("a word")) as server:
        assert len(iv.label_features(board, endpoint(server.url, tries=1), [5])) == 1


@pytest.mark.parametrize(
    ("given", "said_of_it"),
    [
        ({"url": "http://h:99999999/v1"}, "address begins with"), ({"timeout_s": "a"}, "timeout_s is a number of seconds above 0, not 'a'"),
        ({"timeout_s": float("nan")}, "timeout_s"), ({"timeout_s": float("inf")}, "timeout_s"), ({"dollars_in": "3"}, "dollars_in is the price"),
        ({"dollars_out": -1.0}, "dollars_out is the price"), ({"tries": 0}, "tries is a whole number from 1, not 0"),
    ],
)  # fmt: skip
def test_an_endpoint_is_made_of_sensible_numbers(given: dict[str, Any], said_of_it: str) -> None:
    with pytest.raises(iv.FeatureError, match=said_of_it):
        iv.Endpoint(**{"url": "http://localhost/v1", "model": "m", **given})


def test_the_key_is_sent_and_stands_nowhere_else(
    board: iv.Dashboard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    file = tmp_path / "answers.jsonl"
    with serving(lambda body, _: said("a word")) as server:
        own = endpoint(server.url, key_env="MY_KEY")
        found = iv.label_features(board, own, [5, 3], file=file, progress=True)
        assert {one["Authorization"] for one in server.headers} == {f"Bearer {KEY}"}
    whole = file.read_text() + repr(own) + repr(found) + found.frame().to_string() + "".join(capfd.readouterr())
    assert KEY not in whole and KEY[:8] not in whole and "a word" in whole
    # Servers repeat a wrong key, whole or with its middle starred out.
    for echo in (KEY, KEY[:8] + "*****" + KEY[-4:], f'key="{KEY}"'):
        with (
            serving(
                lambda body, nth, echo=echo: (401, {"error": {"message": f"Incorrect key: {echo}."}}, {})
            ) as server,
            pytest.raises(iv.FeatureError, match=r"Incorrect key: .*\[key\]") as caught,
        ):
            iv.label_features(board, endpoint(server.url, key_env="MY_KEY"), [5])
        assert KEY[:8] not in str(caught.value) and KEY[-4:] not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__suppress_context__
    with (
        serving(lambda body, nth: (401, {}, {})) as server,
        pytest.raises(iv.FeatureError, match="no key was sent: set NO_KEY"),
    ):
        iv.label_features(board, endpoint(server.url, key_env="NO_KEY"), [5])


def test_a_key_goes_to_no_other_host_and_nowhere_in_the_open(
    board: iv.Dashboard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    with serving(lambda body, _: said("a word")) as other:
        refusal = pytest.raises(iv.FeatureError, match="answered 307 and redirects elsewhere")
        with serving(lambda body, nth: (307, {}, {"Location": f"{other.url}/chat/completions"})) as server, refusal:
            iv.label_features(board, endpoint(server.url, key_env="MY_KEY"), [5])
        assert other.asked == []
    with pytest.raises(iv.FeatureError, match="key of MY_KEY would go there in the open; use https, or key_env=None"):
        iv.Endpoint("http://models.example/v1", "m", key_env="MY_KEY").ask([])
    for wrong in ("models.example/v1", "ftp://models.example", "http://", "https://me:secret@models.example/v1", 7):
        with pytest.raises(iv.FeatureError, match=r"address (begins with http|holds no name)"):
            iv.Endpoint(wrong, "m")  # type: ignore[arg-type]


def test_what_was_answered_is_asked_no_more(board: iv.Dashboard, tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"

    def reply(body: dict[str, Any], nth: int) -> Reply:
        return said(f"answer {nth}") if nth < 3 else (403, {"error": "enough for today"}, {})

    with serving(reply) as server, pytest.raises(iv.FeatureError, match="403 and says 'enough for today'"):
        iv.label_features(board, endpoint(server.url, parallel=1), [5, 3, 20, 10, 11], file=file)
    # A kill in the middle of a line: what was not written to its end was not answered.
    file.write_bytes(file.read_bytes() + b'{"key": "10", "ans')
    with serving(lambda body, nth: said(f"later {nth}")) as server:
        found = iv.label_features(board, endpoint(server.url, parallel=1), [5, 3, 20, 10, 11], file=file)
        assert len(server.asked) == 2
    assert [one.text for one in found.labels] == ["answer 0", "answer 1", "answer 2", "later 0", "later 1"]
    assert len(file.read_text().splitlines()) == 6
    with serving(lambda body, nth: said("none")) as server:
        again = iv.label_features(board, endpoint(server.url), [11, 5], file=file)
        assert server.asked == [] and [one.text for one in again.labels] == ["later 1", "answer 0"]
        with pytest.raises(iv.FeatureError, match="of another job, which differs in answered by"):
            iv.label_features(board, iv.Endpoint(server.url, "another"), [5], file=file)
        file.write_text("[]\n")
        with pytest.raises(iv.FeatureError, match="is no file of answers"):
            iv.label_features(board, endpoint(server.url), [5], file=file)


def test_an_interrupt_keeps_what_was_answered(board: iv.Dashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    from innerview.features.records import Records

    add, count = Records.add, [0]

    def stopping(self: Records, key: str, answer: Any) -> None:
        add(self, key, answer)
        count[0] += 1
        if count[0] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Records, "add", stopping)
    with serving(lambda body, nth: said(f"answer {nth}")) as server:
        found = iv.label_features(board, endpoint(server.url, parallel=1), [5, 3, 20, 10, 11])
        assert len(server.asked) <= 4
    assert not found.is_whole and len(found) == 2 and found.unlabelled == (20, 10, 11)


def test_the_cost_is_estimated_before_and_refused_where_it_is_too_much(board: iv.Dashboard) -> None:
    with serving(lambda body, nth: said("a word")) as server:
        own = endpoint(server.url, dollars_in=1.0, dollars_out=10.0, answer_tokens=50)
        told = iv.estimate_labels(board, own, [5, 3])
        assert told.questions == 2 and told.tokens_out == 100 and server.asked == []
        assert told.dollars == pytest.approx((told.tokens_in + 10 * 100) / 1e6)
        with pytest.raises(
            iv.FeatureError, match=r"labelling takes 2 questions, about \d+ tokens in .* more than the 60 tokens"
        ):
            iv.label_features(board, endpoint(server.url, most_tokens=60), [5, 3])
        assert server.asked == []
        iv.label_features(board, own, [5, 3])
        asked = sum(len(one["content"]) for body in server.asked for one in body["messages"])
    # A token of a text is rarely less than two characters, and rarely more than four.
    assert asked / 4 < told.tokens_in < asked / 2


def test_answers_of_models_are_read_as_they_come() -> None:
    for answer in ("days of the week", "Label: days of the week.", '"days of the week"', "<think>hm\nhm</think>\n**days of the week**", "Let me see.\n\nDescription: days of the week"):  # fmt: skip
        assert label_of(answer) == "days of the week"
    assert label_of(" \n … ") is None and len(label_of("word " * 500) or "") <= 200
    assert "\x1b" not in (label_of("red \x1b[31m words\u202e") or "") and "\u202e" not in (label_of("a\u202eb") or "")
    assert answers_of("1: 1\n2: 0\n3: 1", 3) == [True, False, True]
    assert answers_of("Here you are: [1, 0, 1]", 3) == [True, False, True]
    assert (
        answers_of("1. 1\n2. 0", 2) == [True, False] and answers_of("1: 1", 2) is None and answers_of("yes", 1) is None
    )
    assert marked([" the", " cat", " sat", " «x»\n"], {1, 2}) == "the «cat sat» ‹x›⏎"


# By what is known.


def sentence(text: str, *labels: tuple[str, str]) -> Sentence:
    listed = tuple(SentenceLabel(name, word, text.index(word), text.index(word) + len(word)) for name, word in labels)
    return Sentence(text, "toys", listed, "train")


def test_facts_hold_at_the_tokens_that_say_them_and_behind() -> None:
    model, own = made.opened(), made.dictionary()
    facts = Facts.of(model, own, [sentence("w5 w20 w7 w8", ("color", "w20")), sentence("w9 w20 w21", ("shape", "w21"))])
    words = [model.tokenizer.decode([one]) for one in facts.corpus.ids.tolist()]
    where = {fact.text: [words[n] for n in facts.holds(fact).nonzero()[:, 0].tolist()] for fact in facts.facts}
    assert where["w20 (color)"] == where["any color"] == ["w20"] and where["w21 (shape)"] == ["w21"]
    assert where["after w20 (color)"] == where["after any color"] == ["w7", "w8"]
    assert where["the token ‘w20’"] == ["w20", "w20"] and len(where["in sentences of the kind toys"]) == 7
    assert not facts.holds(Fact("word", "color", "blue")).any()
    for fact in facts.facts:
        assert Fact.from_dict(json.loads(json.dumps(fact.to_dict()))) == fact
    with pytest.raises(iv.FeatureError, match="a fact has a kind"):
        Fact.from_dict({"kind": "smell", "concept": "x", "value": ""})


def small_letters() -> PreTrainedTokenizerFast:
    """A tokenizer of parts of words that makes letters small, drops accents, and puts marks around."""
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "red", "ball", "##s", "of", "zoe", "are", "blue", ",", "."]
    inner = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]"
    )


def test_facts_hold_where_a_tokenizer_changes_what_it_reads() -> None:
    model = iv.open_model(module("gpt2"), tokenizer=small_letters())
    said_so = sentence("The red Balls of  Zoé, are BLUE.", ("toy", "Balls"), ("name", "Zoé"), ("color", "BLUE"))
    facts = Facts.of(model, made.dictionary(), [said_so])
    words = model.tokenizer.convert_ids_to_tokens(facts.corpus.ids.tolist())
    where = {fact.text: [words[n] for n in facts.holds(fact).nonzero()[:, 0].tolist()] for fact in facts.facts}
    assert (
        where["Balls (toy)"] == ["ball", "##s"] and where["Zoé (name)"] == ["zoe"] and where["BLUE (color)"] == ["blue"]
    )
    assert where["after Zoé (name)"] == [",", "are", "blue", "."] and where["after BLUE (color)"] == ["."]


OTHER = Path(__file__).parents[2] / "training" / "lexicons" / "other.json"


@pytest.mark.parametrize("lexicon", [None, OTHER], ids=["bundled", "other"])
def test_a_feature_of_one_word_is_given_the_fact_that_says_it_and_a_dead_one_none(lexicon: Path | None) -> None:
    known = iv.KnownLabels(lexicon, sentences=400)
    model, own, words = reading_words(known)
    board = iv.dashboard(own, model)
    found = iv.label_features(board, known)
    assert found.asked_for == (0, 1, 2, 3) and found.unlabelled == (3,) and len(found) == 3
    for label, word in zip(found.labels, words, strict=True):
        # Its token tells it wholly; a fact that holds at just the same tokens does too.
        assert label.detail["f1_chosen"] == 1.0 and (word in label.text or label.detail["fact"]["kind"] == "word"), (
            label
        )
        assert label.score is not None and label.score > 0.8
        assert label.source == known.name and label.detail["n"] >= 5
    frame = found.frame()
    assert (
        frame.loc[3, "label"] == ""
        and np.isnan(frame.loc[3, "score"])
        and frame.loc[0, "score"] == found.labels[0].score
    )
    assert board.with_labels(found)[1].label == found.labels[1]


def test_another_lexicon_says_other_things() -> None:
    own, known = iv.KnownLabels(sentences=150), iv.KnownLabels(OTHER, sentences=150)
    assert known.name != own.name
    sentences, others = ({one.text for one in each.drawn("held_out")} for each in (known, own))
    # Sums have the same numbers in every world.
    assert len(sentences & others) < 0.3 * len(sentences)
    with pytest.raises(iv.FeatureError, match="no part of the stage 'none'"):
        iv.KnownLabels(stage="none").drawn("train")


def test_what_gives_no_labels_is_refused(board: iv.Dashboard) -> None:
    with pytest.raises(iv.FeatureError, match="passages is a whole number from 1, not 0"):
        iv.label_features(board, iv.Endpoint("http://localhost/v1", "m"), [5], passages=0)
    bare = iv.dashboard(made.dictionary(), made.opened())
    own = iv.Endpoint("http://localhost:1/v1", "m")
    for given, by, message in (
        (bare, own, "no texts were read"), (board, "gpt", r"iv.KnownLabels\(\) or iv.Endpoint"), (made.dictionary(), own, "features come from iv.dashboard"),
    ):  # fmt: skip
        with pytest.raises(iv.FeatureError, match=message):
            iv.label_features(given, by, [5])
    with pytest.raises(iv.DictionaryError, match="48"):
        iv.label_features(board, own, [48])
