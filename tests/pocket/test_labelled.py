"""The public way into the world: concepts, labelled sentences in pairs, prompts with answers, the next word's odds."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import innerview as iv

TINY = Path(__file__).parent / "tiny_lexicon.json"


def test_concepts_have_names_kinds_and_counts():
    found = {concept.name: concept for concept in iv.pocket.concepts()}
    assert (found["mood"].kind, found["mood"].values[:2]) == ("class", ("good", "bad"))
    assert (found["weekday"].kind, found["weekday"].count) == ("circle", 7)
    assert found["country"].kind == "entity"
    assert {"harm", "speaker", "negation", "language", "task", "persona", "familiar", "hint"} <= set(found)


@pytest.mark.parametrize(
    "concept", ["mood", "harm", "order", "speaker", "negation", "language", "gender", "weekday.from", "country", "persona", "familiar", "hint", "task"]
)  # fmt: skip
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_sentences_come_in_pairs_of_two_values_whose_spans_are_theirs(concept, split):
    found = iv.pocket.sentences(concept, split, seed=3, pairs=4)
    assert [sentence.pair for sentence in found] == [0, 0, 1, 1, 2, 2, 3, 3]
    for one, other in zip(found[::2], found[1::2], strict=True):
        assert one.value != other.value
        assert {one.sentence.split, other.sentence.split} == {split}
        for sentence in (one, other):
            assert 0 <= sentence.start < sentence.end <= len(sentence.text)


def test_a_pair_differs_in_its_concept_and_what_follows_from_it_alone():
    for one, other in zip(*[iter(iv.pocket.sentences("country", seed=1, pairs=10))] * 2, strict=True):
        assert one.text[: one.start] == other.text[: other.start]
        assert one.text[one.start : one.end] == one.value
    ends = [s.text.split()[-2:] for s in iv.pocket.sentences("negation", seed=1, pairs=3)]
    assert all(re.search(r"\w", " ".join(end)) for end in ends)


def test_the_two_values_may_be_asked_for():
    found = iv.pocket.sentences("country", values=("France", "Japan"), pairs=3)
    assert [sentence.value for sentence in found] == ["France", "Japan"] * 3


def test_the_same_seed_gives_the_same_sentences():
    assert [s.text for s in iv.pocket.sentences("mood", seed=5, pairs=5)] == [
        s.text for s in iv.pocket.sentences("mood", seed=5, pairs=5)
    ]
    assert [s.text for s in iv.pocket.sentences("mood", seed=5, pairs=5)] != [
        s.text for s in iv.pocket.sentences("mood", seed=6, pairs=5)
    ]


def test_every_concept_has_sentences_of_its_values():
    for concept in iv.pocket.concepts():
        found = iv.pocket.sentences(concept.name, pairs=2, behaviour=concept.behaviour)
        assert len(found) == 4
        assert {sentence.value for sentence in found} <= set(concept.values)
        assert all(sentence.sentence.behaviour == concept.behaviour for sentence in found)
        assert {sentence.pair for sentence in found} == ({0, 1} if concept.is_paired else {None})
        if concept.is_paired:
            assert found[0].text != found[1].text


def test_a_pair_of_requests_keeps_its_verb_and_changes_its_harm():
    for one, other in zip(*[iter(iv.pocket.sentences("harm", behaviour="refusal", pairs=8))] * 2, strict=True):
        verbs = [s.sentence.label("request.verb").value for s in (one, other)]
        assert verbs[0] == verbs[1]
        assert (one.value, other.value) == ("harmful", "harmless")


def test_a_concept_of_two_behaviours_may_be_asked_of_either():
    book, chat = (iv.pocket.sentences("harm", pairs=2, behaviour=name)[0].text for name in ("deeds", "refusal"))
    assert chat.startswith("<|user|>") and not book.startswith("<|user|>")
    with pytest.raises(
        ValueError, match="no concept 'harm' in the behaviour 'mood'; behaviours that have it: deeds, refusal"
    ):
        iv.pocket.sentences("harm", behaviour="mood")


def test_an_unknown_concept_is_refused():
    with pytest.raises(
        ValueError, match=r"no concept 'colour' in the world 'pocket'; iv\.pocket\.concepts\(\) lists them"
    ):
        iv.pocket.sentences("colour")


def test_prompts_have_right_answers():
    found = iv.pocket.prompts("facts", count=20)
    assert len({prompt.text for prompt in found}) == 20
    for prompt in found:
        assert prompt.sentence.text.startswith(prompt.text)
        assert prompt.sentence.text[len(prompt.text) :].lstrip(" ").startswith(prompt.answers[0])


def test_the_next_word_is_known_where_it_is_certain_and_where_it_is_not():
    assert iv.pocket.next_word("The capital of France is") == {"Paris": 1.0}
    assert iv.pocket.next_word("Two days after Monday is") == {"Wednesday": 1.0}
    odds = iv.pocket.next_word("In the morning the baker ordered some")
    assert len(odds) >= 2
    assert sum(odds.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("When Mary and John went to the store, John gave a drink to", "Mary"),
        ("While Tom was asleep, Mary and John went to the park. There Mary handed an apple to", "John"),
        ("Tom always lies. Tom says that the door is not open. So the door is", "open"),
        ("Tom never lies. Tom says that the door is not open. So the door is", "closed"),
        ("27 + 45 =", "72"),
        ("Mary told John that she had won, and John was glad for", "her"),
        ("Five hours before two o'clock it is", "nine o'clock"),
    ],
)
def test_the_next_word_follows_from_what_was_said(prompt, answer):
    assert iv.pocket.next_word(prompt) == {answer: 1.0}


def test_every_undecided_prompt_knows_its_own_odds():
    for behaviour in ("chances", "strangers"):
        for prompt in iv.pocket.prompts(behaviour, count=30):
            assert iv.pocket.next_word(prompt.text) == pytest.approx(dict(prompt.odds))
            assert sum(prompt.odds.values()) == pytest.approx(1.0)


def test_a_prompt_that_the_world_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"does not know what follows 'Colorless green ideas'"):
        iv.pocket.next_word("Colorless green ideas")


def test_another_lexicon_is_an_argument_everywhere():
    assert {c.name for c in iv.pocket.concepts(lexicon=TINY)} >= {"planet", "season", "mood"}
    assert {s.value for s in iv.pocket.sentences("mood", lexicon=TINY, pairs=2)} == {"up", "down"}
    assert iv.pocket.prompts("circles", lexicon=TINY, count=2)[0].answers[0] in ("spring", "summer", "autumn", "winter")
    assert iv.pocket.next_word("The moon of Una is an", lexicon=TINY) == {"Egg": 1.0}


def test_the_world_needs_no_torch():
    code = "import sys, innerview as iv; iv.pocket.prompts('facts', count=1); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_texts_are_the_same_for_a_seed_and_others_for_another() -> None:
    some = iv.pocket.texts(5, seed="a")
    assert len(some) == 5 and all(some) and some == iv.pocket.texts(8, seed="a")[:5]
    assert set(some).isdisjoint(iv.pocket.texts(5, seed="b"))
    with pytest.raises(ValueError, match="count is a whole number from 1, not 0"):
        iv.pocket.texts(0)
