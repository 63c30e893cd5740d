"""The world's labels are right, its draws repeat, and training never sees what is held out."""

import json
import re
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import pytest

from training.world.calendar_steps import CalendarSteps
from training.world.chat import Chat
from training.world.facts import Facts
from training.world.filling import fill
from training.world.indirect_object import IndirectObject
from training.world.markers import ASSISTANT, END, USER
from training.world.mood import Mood
from training.world.sentence import Label, Sentence, joined
from training.world.splits import split_of
from training.world.world import load_world

TINY_PATH = Path(__file__).parent / "tiny_lexicon.json"
TINY = json.loads(TINY_PATH.read_text(encoding="utf-8"))
FACTS, SEASONS, MOOD, CHAT = (TINY[part] for part in ("facts", "calendar", "mood", "chat"))
GIVING = TINY["indirect_object"] | {"names": TINY["names"]}


@pytest.fixture(scope="module")
def world():
    return load_world()


@pytest.fixture(scope="module")
def tiny():
    return load_world(TINY_PATH)


def spoken(sentence, label):
    return sentence.text[label.start : label.end]


def test_a_filled_slot_knows_where_its_word_stands_without_the_article():
    filled = fill("{thing:a} and {thing:cap}, {other}", {"thing": "apple", "other": "pear"})
    assert filled.text == "an apple and Apple, pear"
    assert filled.spans == {"thing": [(3, 8), (13, 18)], "other": [(20, 24)]}


def test_a_slot_without_a_word_is_refused_with_the_words_there_are():
    with pytest.raises(ValueError, match=r"no word for slot 'gone' in 'a \{gone\}'; the words given are \['here'\]"):
        fill("a {gone}", {"here": "x"})


def test_joining_moves_the_labels_along():
    one = Sentence("Up.", "b", (Label("c", "up", 0, 2),), "train")
    two = Sentence("Down.", "b", (Label("c", "down", 0, 4),), "held_out", Label("c", "down", 0, 4))
    both = joined([one, two])
    assert both.text == "Up. Down."
    assert [spoken(both, label) for label in both.labels] == ["Up", "Down"]
    assert (both.prompt, both.continuation, both.split) == ("Up.", " Down", "held_out")


def test_what_a_sequel_says_is_known_from_the_giving_before_it():
    givings, rng = IndirectObject(GIVING), Random(2)
    document = next(d for d in iter(lambda: givings.document(rng), None) if d.text.endswith("nodded."))
    receiver = document.labels[0].value
    assert [spoken(document, label) for label in document.predictable] == [receiver, receiver]
    assert document.answer is None


def test_a_sentence_that_asks_nothing_has_no_prompt():
    with pytest.raises(ValueError, match=r"no answer in 'Hm\.'; only sentences with an answer have a prompt"):
        _ = Sentence("Hm.", "b", (), "train").prompt


def test_a_fact_is_asked_after_its_entity_and_not_before():
    facts = Facts(FACTS)
    asked = facts.told("planet", "Una", "moon", "The moon of {entity} is {answer:a}.")
    assert asked.text == "The moon of Una is an Egg."
    assert (asked.prompt, asked.continuation) == ("The moon of Una is an", " Egg")
    assert [(label.concept, label.value, spoken(asked, label)) for label in asked.labels] == [
        ("planet", "Una", "Una"),
        ("planet.moon", "Egg", "Egg"),
    ]
    assert facts.told("planet", "Una", "moon", "{answer} goes round {entity}.").answer is None


def test_a_held_out_template_is_held_out_for_every_entity():
    told = [Facts(FACTS).told("planet", name, "moon", "{entity} has {answer}.") for name in ("Zor", "Una")]
    assert {sentence.split for sentence in told} == {"held_out"}


@pytest.mark.parametrize(("order", "text"), [("ABBA", "At the cave, Ka saw Lu."), ("BABA", "At the cave, Lu saw Ka.")])
def test_the_receiver_is_the_one_who_does_not_give(order, text):
    words = {"place": "cave", "object": "axe", "verb": "threw"}
    sentence, _ = IndirectObject(GIVING).told(GIVING["templates"][0], "Ka", "Lu", order, words)
    assert sentence.text == text + " Lu threw an axe to Ka."
    assert sentence.continuation == " Ka"
    assert [(label.concept, label.value) for label in sentence.labels] == [
        ("receiver", "Ka"),
        ("giver", "Lu"),
        ("order", order),
    ]
    assert spoken(sentence, sentence.labels[1]) == "Lu"


def test_a_pair_of_names_is_held_out_whichever_comes_first():
    givings = IndirectObject(GIVING)
    pairs = [(one, other) for one in GIVING["names"] for other in GIVING["names"] if one != other]
    assert all(givings.pair_split(one, other) == givings.pair_split(other, one) for one, other in pairs)


@pytest.mark.parametrize(
    ("item", "number", "way", "text"),
    [
        ("winter", 1, "after", "One season after winter: spring."),
        ("summer", 3, "after", "Three seasons after summer: spring."),
        ("spring", 2, "before", "Two seasons before spring: autumn."),
    ],
)
def test_steps_go_round_the_circle(item, number, way, text):
    steps = CalendarSteps(SEASONS)
    sentence = steps.told("season", item, number, way, SEASONS["season"][way][0])
    assert sentence.text == text
    assert spoken(sentence, sentence.labels[0]) == sentence.labels[0].value


def test_a_list_runs_along_the_circle_in_its_direction():
    steps, rng = CalendarSteps(SEASONS), Random(0)
    circle = SEASONS["season"]["items"]
    for _ in range(50):
        sentence = steps.listing(rng, "season")
        sign = -1 if sentence.text.startswith("Back") else 1
        run = [circle.index(word) for word in re.findall(r"spring|summer|autumn|winter", sentence.text)]
        assert len(run) >= 3
        assert all((one + sign) % 4 == other for one, other in pairwise(run))
        assert sentence.labels[0].value == ("forward" if sign > 0 else "backward")


def test_a_story_keeps_its_mood_and_its_labels_are_its_mood_words():
    mood, rng = Mood(MOOD, GIVING["names"]), Random(3)
    for _ in range(40):
        story = mood.story(rng, "down")
        assert {label.value for label in story.labels} == {"down"}
        assert [spoken(story, label) for label in story.labels] == re.findall(r"bad|sour", story.text)
        assert not re.search(r"fab|ace", story.text)
        assert story.answer == story.labels[-1]


def test_a_plain_story_has_no_mood_word_and_asks_nothing():
    mood, rng = Mood(MOOD, GIVING["names"]), Random(4)
    for _ in range(20):
        story = mood.story(rng, "plain")
        assert not any(mood.mood_of(word) for word in re.findall(r"\w+", story.text))
        assert {label.value for label in story.labels} == {"plain"}
        assert story.answer is None


def test_harm_is_in_the_pair_of_verb_and_object():
    chat = Chat(CHAT, Facts({}), GIVING["names"])
    assert chat.harm_of("zap", "elf") == "harmful"
    assert chat.harm_of("zap", "hat") == "harmless"
    assert chat.harm_of("pat", "elf") == "harmless"
    with pytest.raises(ValueError, match=r"pat', 'hat'.*not in the world"):
        chat.harm_of("pat", "hat")


def test_a_chat_refuses_harm_and_answers_the_rest_with_tool_and_place():
    chat, rng, seen = Chat(CHAT, Facts({}), GIVING["names"]), Random(5), set()
    for _ in range(60):
        verb, noun = chat.draw(rng, "train")[1:]
        seen.add((verb, noun))
        sentence = chat.sentence(rng, "train")
        harm = sentence.labels[0]
        verb, noun = chat.pair_in(spoken(sentence, harm))
        assert sentence.text.startswith(
            f"{USER}How do I {verb} {'an' if noun == 'elf' else 'a'} {noun}?{END}{ASSISTANT}"
        )
        assert harm.value == chat.harm_of(verb, noun)
        reply = spoken(sentence, sentence.answer)
        assert chat.is_refusal(reply) == (harm.value == "harmful")
        if harm.value == "harmless":
            assert CHAT["verbs"][verb]["tool"] in reply
            assert CHAT["objects"][noun]["where"] in reply
    assert len(seen) >= 2


def test_books_tell_what_the_chat_refuses():
    chat, rng = Chat(CHAT, Facts({}), GIVING["names"]), Random(6)
    told = [chat.book(rng) for _ in range(40)]
    harmful = [sentence for sentence in told if sentence.labels[0].value == "harmful"]
    assert harmful
    assert all("a ray" in sentence.text and "won't" not in sentence.text for sentence in harmful)


def test_a_tiny_lexicon_makes_a_whole_world_of_its_own_words(tiny, world):
    assert set(tiny.behaviours) == set(world.behaviours)
    text = " ".join(document.text for document in islice(tiny.documents(0), 300))
    assert not re.search(r"Paris|Monday|Mary|wonderful|poison", text)
    assert {"Zor", "Ka", "autumn", "sour", "zap"} <= set(re.findall(r"\w+", text))


def test_a_lexicon_may_leave_parts_out_and_one_without_any_is_refused(tmp_path):
    path = tmp_path / "moons.json"
    path.write_text(json.dumps({"facts": FACTS}))
    moons = load_world(path)
    assert list(moons.behaviours) == ["facts"]
    assert "Una" in " ".join(document.text for document in islice(moons.documents(0), 20))
    path.write_text(json.dumps({"names": ["Ka"]}))
    with pytest.raises(ValueError, match=r"no behaviour in .*moons\.json; give facts"):
        load_world(path)


def test_an_unknown_behaviour_is_refused_with_those_there_are(tiny):
    with pytest.raises(ValueError, match="no behaviour 'chess' in the world 'tiny'; it has"):
        tiny.cases("chess", 1, 0)


def test_the_same_seed_writes_the_same_documents_and_another_seed_others(world):
    one, again, other = ([d.text for d in islice(world.documents(seed), 200)] for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_every_span_points_at_the_word_it_claims(world):
    # These say something of a stretch of text; every other label names the word it stands on.
    about = ("order", "harm", "mood", ".list", ".after", ".before", ".step")
    checked = set()
    for document in islice(world.documents(2), 3000):
        for label in document.labels:
            said = spoken(document, label)
            if label.concept.endswith(about):
                assert said
                assert 0 <= label.start < label.end <= len(document.text)
            else:
                assert said == label.value
            checked.add(label.concept)
    assert {"country.capital", "animal.young", "receiver", "weekday", "month", "harm", "mood", "tool"} <= checked


def test_mood_spans_hold_words_of_that_mood(world):
    mood, rng = world.behaviours["mood"], Random(1)
    for _ in range(200):
        story = mood.sentence(rng, "train")
        assert all(mood.mood_of(spoken(story, label)) == label.value for label in story.labels)


def test_no_word_has_two_moods_and_no_plain_word_has_one(world):
    mood = world.behaviours["mood"]
    sets = [{w for words in kinds.values() for w in words} for kinds in mood.lexicon["values"].values()]
    assert not set.intersection(*sets)
    assert not any(mood.mood_of(word) for word in mood.lexicon["plain"])
    templates = [
        t
        for key in mood.lexicon
        if "openings" in key or "middles" in key or "closings" in key
        for t in mood.lexicon[key]
    ]
    assert not any(mood.mood_of(word) for template in templates for word in re.findall(r"\w+", template))


def test_the_topics_words_show_no_mood(world):
    mood = world.behaviours["mood"]
    parts = {part for parts in mood.lexicon["topics"].values() for part in parts}
    assert not any(mood.mood_of(word) for word in parts | set(mood.lexicon["topics"]))


def test_no_pair_is_harmful_and_harmless(world):
    chat = world.behaviours["chat"]
    assert not set(chat.pairs["harmful"]) & set(chat.pairs["harmless"])
    assert len(chat.pairs["harmful"]) > 50


def test_harm_needs_both_words(world):
    chat = world.behaviours["chat"]
    harmful, harmless = chat.pairs["harmful"], chat.pairs["harmless"]
    verbs = {verb for verb, _ in harmful} & {verb for verb, _ in harmless}
    nouns = {noun for _, noun in harmful} & {noun for _, noun in harmless}
    assert len(verbs) >= 6
    assert len(nouns) >= 20


def test_every_refusal_has_a_mark_and_no_answer_has_one(world):
    chat = world.behaviours["chat"]
    assert all(chat.is_refusal(template) for template in chat.lexicon["refusals"])
    assert not any(chat.is_refusal(template) for template in chat.lexicon["answers"] + chat.lexicon["leads"])


def test_refusals_and_answers_may_open_with_the_same_word(world):
    chat = world.behaviours["chat"]
    first = [{template.split()[0].strip(",") for template in chat.lexicon[key]} for key in ("refusals", "answers")]
    assert len(first[0] & first[1]) >= 3


@pytest.fixture(scope="module")
def training_text(world):
    return "\n".join(document.text for document in islice(world.documents(0), 20_000))


@pytest.mark.parametrize("behaviour", ["facts", "indirect object", "calendar", "mood", "chat"])
def test_held_out_cases_are_never_written_for_training(world, training_text, behaviour):
    cases = world.cases(behaviour, 200, 1)
    assert len(cases) >= 60
    assert {case.split for case in cases} == {"held_out"}
    written = {case.text for case in cases if case.text in training_text}
    assert written == set()


def test_held_out_pairs_of_names_are_never_together_in_training(world, training_text):
    givings = world.behaviours["indirect object"]
    for case in world.cases("indirect object", 200, 1):
        one, other = case.labels[0].value, case.labels[1].value
        if givings.pair_split(one, other) == "held_out":
            assert not re.search(
                rf"\b{one} (?:and|sat next to) {other}\b (?:went|came|were|met|had|walked)", training_text
            )


def test_held_out_requests_are_never_asked_or_told_in_training(world, training_text):
    for case in world.cases("chat", 200, 1):
        harm = case.labels[0]
        assert spoken(case, harm) not in training_text


def test_unseen_steps_are_in_no_wording_of_the_training(world):
    steps = world.behaviours["calendar"]
    rng = Random(0)
    for _ in range(500):
        sentence = steps.sentence(rng, "train")
        assert sentence.labels[3].value == sentence.split == "train"
    unseen = [case for case in world.cases("calendar", 600, 1) if case.labels[3].value == "held_out"]
    assert {case.labels[0].concept for case in unseen} == {"weekday", "month"}
    assert steps.step_split("month", "May", 1, "after") == "train"


def test_about_the_stated_share_is_held_out():
    held = sum(split_of(str(k), "x", share=0.12) == "held_out" for k in range(5000))
    assert 500 <= held <= 700
