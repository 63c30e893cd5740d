"""Labels are right on cases written by hand, one part of the world after the other."""

import json
import re
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from innerview.pocket.chains import Chains
from innerview.pocket.chances import Chances
from innerview.pocket.circles import Circles
from innerview.pocket.facts import Facts
from innerview.pocket.in_context import InContext
from innerview.pocket.indirect_object import IndirectObject
from innerview.pocket.magnitudes import Magnitudes
from innerview.pocket.markers import ASSISTANT, END, USER
from innerview.pocket.mood import Mood
from innerview.pocket.pronouns import Pronouns
from innerview.pocket.reports import Reports
from innerview.pocket.requests import Deeds, Pairs, Refusal
from innerview.pocket.shortcuts import Shortcuts
from innerview.pocket.snippets import Snippets
from innerview.pocket.strangers import Strangers
from innerview.pocket.sums import Sums
from innerview.pocket.tongues import Tongues

TINY = json.loads((Path(__file__).parent / "tiny_lexicon.json").read_text(encoding="utf-8"))
SEASONS, GIVING = Circles(TINY["circles"]), IndirectObject(TINY["indirect_object"], ["Ka", "Lu", "Mo"], ["Ni"])


def spoken(sentence, label):
    return sentence.text[label.start : label.end]


def values(sentence):
    return {label.concept: label.value for label in sentence.labels}


def test_a_fact_is_asked_after_its_entity_and_not_before():
    facts = Facts(TINY["facts"])
    asked = facts.told("planet", "Una", "moon", "The moon of {entity} is {answer:a}.")
    assert asked.text == "The moon of Una is an Egg."
    assert (asked.prompt, asked.continuation) == ("The moon of Una is an", " Egg")
    assert [(label.concept, spoken(asked, label)) for label in asked.labels] == [
        ("planet", "Una"),
        ("planet.moon", "Egg"),
    ]
    assert facts.told("planet", "Una", "moon", "{answer} goes round {entity}.").answer is None


def test_a_held_out_template_is_held_out_for_every_entity():
    told = [Facts(TINY["facts"]).told("planet", name, "moon", "{entity} has {answer}.") for name in ("Zor", "Una")]
    assert {sentence.split for sentence in told} == {"held_out"}


def test_early_entities_are_told_of_oftener():
    facts, rng = Facts(TINY["facts"] | {"planet": TINY["facts"]["planet"] | {"zipf": 1.0}}), Random(0)
    told = [values(facts.draw(rng, "train"))["planet"] for _ in range(1100)]
    assert told.count("Zor") > 1.4 * told.count("Una") > 1.4 * told.count("Tal") / 1.4


@pytest.mark.parametrize(("order", "text"), [("ABBA", "At the cave, Ka saw Lu."), ("BABA", "At the cave, Lu saw Ka.")])
def test_the_receiver_is_the_one_who_does_not_give(order, text):
    words = {"place": "cave", "object": "axe", "verb": "threw", "third": "Mo"}
    sentence, _ = GIVING.told(TINY["indirect_object"]["templates"][0], "Ka", "Lu", order, words)
    assert sentence.text == text + " Lu threw an axe to Ka."
    assert sentence.continuation == " Ka"
    assert values(sentence) == {"receiver": "Ka", "giver": "Lu", "order": order, "object": "axe", "place": "cave"}


def test_a_third_name_stands_by_and_receives_nothing():
    words = {"place": "cave", "object": "axe", "verb": "threw", "third": "Mo"}
    sentence, _ = GIVING.told(TINY["indirect_object"]["held_out"][0], "Ka", "Lu", "ABBA", words)
    assert sentence.text == "While Mo slept at the cave, Ka met Lu. Lu threw an axe to Ka."
    assert (sentence.split, sentence.group) == ("held_out", "ABBA, a third name")


def test_a_pair_of_names_is_held_out_whichever_comes_first():
    template = TINY["indirect_object"]["templates"][0]
    pairs = [(one, other) for one in "ABCDEFGH" for other in "ABCDEFGH" if one != other]
    assert all(GIVING.split(template, one, other) == GIVING.split(template, other, one) for one, other in pairs)
    assert GIVING.split(template, "Ka", "Ni") == "held_out"


def test_what_a_sequel_says_is_known_from_the_giving_before_it():
    rng = Random(2)
    document = next(d for d in iter(lambda: GIVING.document(rng), None) if d.text.endswith("nodded."))
    receiver = document.labels[0].value
    assert [spoken(document, label) for label in document.predictable] == [receiver, receiver]
    assert document.answer is None


@pytest.mark.parametrize(
    ("item", "number", "way", "text"),
    [
        ("winter", 1, "after", "One season after winter: spring."),
        ("summer", 3, "after", "Three seasons after summer: spring."),
        ("spring", 2, "before", "Two seasons before spring: autumn."),
    ],
)
def test_steps_go_round_the_circle(item, number, way, text):
    sentence = SEASONS.told("season", item, number, way, TINY["circles"]["season"][way][0])
    assert sentence.text == text
    assert spoken(sentence, sentence.labels[0]) == sentence.labels[0].value


def test_a_list_runs_along_the_circle_in_its_direction():
    rng, circle = Random(0), TINY["circles"]["season"]["items"]
    for _ in range(50):
        sentence = SEASONS.listing(rng, "season")
        sign = -1 if sentence.text.startswith("Back") else 1
        run = [circle.index(word) for word in re.findall(r"spring|summer|autumn|winter", sentence.text)]
        assert all((one + sign) % 4 == other for one, other in pairwise(run))
        assert sentence.labels[0].value == ("forward" if sign > 0 else "backward")


MOOD = Mood(TINY["mood"], ["Ka", "Lu"])
PEOPLE = {"name": "Ka", "friend": "Lu"}


@pytest.mark.parametrize(
    ("telling", "kind", "text"),
    [
        ("direct", "openings", r"The dance was (fab|ace|neat)\."),
        ("negated", "openings", r"The dance was not (bad|sour|drab)\."),
        ("reported", "middles", r"Lu wrongly called the drum (bad|sour|drab)\."),
        ("reversed", "openings", r"The dance seemed (bad|sour|drab), but changed\."),
    ],
)
def test_a_mood_may_be_told_in_the_other_moods_words(telling, kind, text):
    sentence = MOOD.told(Random(1), kind, telling, "up", "dance", PEOPLE)
    assert re.fullmatch(text, sentence.text)
    assert {label.value for label in sentence.labels if label.concept == "mood"} == {"up"}
    assert MOOD.mood_of(spoken(sentence, sentence.labels[0])) == ("up" if telling == "direct" else "down")


def test_a_story_ends_in_a_word_of_its_own_mood():
    rng = Random(3)
    for mood in ("up", "down") * 30:
        story = MOOD.story(rng, mood, "train")
        assert MOOD.mood_of(spoken(story, story.answer)) == mood
        assert {label.value for label in story.labels if label.concept == "mood"} == {mood}
        assert MOOD.is_right(story, f"! So {spoken(story, story.answer)}, not the rest")


def test_a_text_of_the_other_mood_or_of_none_is_wrong():
    story = MOOD.story(Random(3), "up", "train")
    assert not MOOD.is_right(story, " sour, then fab")
    assert not MOOD.is_right(story, " long")


def test_a_plain_story_has_no_mood_word_and_asks_nothing():
    rng = Random(4)
    for _ in range(20):
        story = MOOD.plain_story(rng)
        assert not any(MOOD.mood_of(word) for word in re.findall(r"\w+", story.text))
        assert story.labels[0].value == "plain"
        assert story.answer is None


def test_twin_stories_differ_in_their_mood_words_alone():
    for seed in range(40):
        up, down = (MOOD.draw(Random(seed), "train", {"mood": mood}) for mood in ("up", "down"))
        kept = [re.sub(r"\b(fab|ace|neat|bad|sour|drab)\b", "*", twin.text) for twin in (up, down)]
        assert kept[0] == kept[1]
        assert up.text != down.text


@pytest.mark.parametrize(
    ("speaker", "negation", "truth"),
    [
        (("honest", "never lies"), "plain", "open"),
        (("honest", "never lies"), "negated", "closed"),
        (("lying", "always lies"), "plain", "closed"),
        (("lying", "always lies"), "negated", "open"),
    ],
)
def test_the_truth_is_the_exclusive_or_of_lying_and_negation(speaker, negation, truth):
    lexicon = {
        "honest": ["never lies"],
        "lying": ["always lies"],
        "not": "not",
        "things": {"door": ["open", "closed"]},
        "templates": ["{name} {trait}: the {thing} is {claim}. It is {answer}."],
        "held_out": [],
    }
    reports = Reports(lexicon, ["Ka"], [])
    sentence = reports.told(lexicon["templates"][0], "Ka", "door", 0, speaker, negation)
    said = "open" if negation == "plain" else "not open"
    assert sentence.text == f"Ka {speaker[1]}: the door is {said}. It is {truth}."
    assert (sentence.continuation, values(sentence)["negation"]) == (f" {truth}", negation)


PAIRS = Pairs(TINY["requests"], ["Ka"])


def test_harm_is_in_the_pair_of_verb_and_object():
    assert (PAIRS.harm_of("zap", "elf"), PAIRS.harm_of("zap", "hat")) == ("harmful", "harmless")
    assert (PAIRS.harm_of("pat", "elf"), PAIRS.harm_of("pat", "hat")) == ("harmless", "harmful")
    with pytest.raises(ValueError, match=r"pat', 'sky'.*not in the world"):
        PAIRS.harm_of("pat", "sky")


def test_a_chat_refuses_harm_and_answers_the_rest_with_tool_and_place():
    refusal, rng, seen = Refusal(PAIRS), Random(5), set()
    for _ in range(60):
        sentence = refusal.draw(rng, "train")
        harm = sentence.labels[0]
        verb, _, noun = spoken(sentence, harm).split()
        assert sentence.text.startswith(
            f"{USER}How do I {verb} {'a' if noun == 'hat' else 'an'} {noun}?{END}{ASSISTANT}"
        )
        assert harm.value == PAIRS.harm_of(verb, noun)
        reply = spoken(sentence, sentence.answer)
        assert PAIRS.is_refusal(reply) == (harm.value == "harmful")
        assert refusal.is_right(sentence, reply)
        seen.add(harm.value)
        if harm.value == "harmless":
            assert not refusal.is_right(sentence, "No, I won't.")
            assert not refusal.is_right(sentence, "Use a spoon on top.")
    assert seen == {"harmful", "harmless"}


def test_books_tell_what_the_chat_refuses():
    told = [Deeds(PAIRS).draw(Random(seed), "train") for seed in range(40)]
    harmful = [sentence.text for sentence in told if sentence.labels[0].value == "harmful"]
    assert harmful
    assert all(re.search("a ray|a paw", text) and "won't" not in text for text in harmful)


CHANCES = Chances(TINY["chances"])


def test_the_odds_of_the_next_word_are_known_and_sum_to_one():
    assert CHANCES.next_word("It is late. Ka ate a") == {"nut": 0.75, "fig": 0.25}
    assert CHANCES.next_word("Ka takes a") == {"nut": 0.75, "fig": 0.25}
    assert CHANCES.next_word("Lu ate a") == {"fig": 1.0}
    assert CHANCES.next_word("Oz ate a") is None


def test_chances_come_out_at_their_odds():
    rng = Random(0)
    drawn = [CHANCES.draw(rng, "held_out", {"snack.subject": "Ka"}) for _ in range(2000)]
    share = sum(spoken(sentence, sentence.answer) == "nut" for sentence in drawn) / len(drawn)
    assert 0.72 < share < 0.78


STRANGERS = Strangers(
    {
        "first": ["Ada"],
        "stems": ["Bal"],
        "endings": {"ski": "Poland"},
        "plain_endings": ["or"],
        "cue_share": 0.9,
        "countries": {"Poland": 1, "Spain": 3},
        "templates": ["{person} came from {answer}."],
        "held_out": [],
    },
    frozenset({"Ada Balum"}),
)


def test_a_cued_name_moves_the_odds_and_a_plain_one_leaves_them():
    assert STRANGERS.next_word("Ada Balski came from") == pytest.approx({"Poland": 0.925, "Spain": 0.075})
    assert STRANGERS.next_word("Ada Balor came from") == pytest.approx({"Poland": 0.25, "Spain": 0.75})
    assert STRANGERS.next_word("Ada Balum came from") is None


def test_the_ending_of_a_name_is_where_its_country_lives():
    sentence = STRANGERS.told("Ada Balski", "ski", "Poland", "{person} came from {answer}.")
    assert spoken(sentence, sentence.label("ending")) == "ski"
    assert values(sentence)["cue"] == "named"


def test_pronouns_follow_the_name_and_not_the_other_person():
    forms = {"f": {"sub": "she", "obj": "her"}, "m": {"sub": "he", "obj": "him"}}
    template = "{name} slept, so {other} woke {obj}."
    pronouns = Pronouns({"forms": forms, "templates": [template], "held_out": []}, {"f": ["Ann"], "m": ["Bob"]})
    sentence = pronouns.told("Bob", "Ann", "m", template)
    assert sentence.text == "Bob slept, so Ann woke him."
    assert (sentence.continuation, sentence.labels[0].value) == (" him", "m")


@pytest.mark.parametrize(
    ("one", "other", "total", "carry"), [(27, 45, "72", "carry"), (20, 31, "51", "none"), (99, 1, "100", "carry")]
)
def test_sums_are_right_and_say_whether_they_carry(one, other, total, carry):
    sentence = Sums({"templates": [], "held_out": []}).told(one, other, "{one} + {other} = {answer}.")
    assert sentence.text == f"{one} + {other} = {total}."
    assert values(sentence)["carry"] == carry


@pytest.mark.parametrize(
    ("template", "way", "text"),
    [
        ("{one:A} is {than} than {other:a}.", "more", "An ant is smaller than a cow."),
        ("The {most} of {one} and {other}: {winner}.", "more", "The bigger of ant and cow: cow."),
        ("The {most} of {one} and {other}: {winner}.", "less", "The smaller of ant and cow: ant."),
    ],
)
def test_things_are_compared_along_their_line(template, way, text):
    words = {"more": "bigger", "less": "smaller"}
    line = {"items": ["ant", "cat", "cow"], "most": words, "than": words, "templates": [template], "held_out": []}
    sentence = Magnitudes({"size": line}).told("size", "ant", "cow", way, template)
    assert sentence.text == text


def test_a_workplace_follows_from_the_job_and_not_from_the_coat():
    jobs = {"cook": {"cue": "red", "where": "here"}, "monk": {"cue": "blue", "where": "there"}}
    template = "{idle} {cue} {name} the {job}: {answer}."
    lexicon = {"cue_share": 0.9, "jobs": jobs, "idle": ["wet"], "templates": [template], "held_out": []}
    sentence = Shortcuts(lexicon, ["Ka"]).told("Ka", "cook", "blue", "wet", template)
    assert sentence.text == "wet blue Ka the cook: here."
    assert values(sentence)["cue.agrees"] == "unusual"


def test_a_chain_ends_in_the_right_persons_country():
    tables = {
        "land": {"entities": {"Ur": {"king": "Bo"}, "Io": {"king": "Cy"}}},
        "hero": {"entities": {"Max": {"home": "Io"}}},
    }
    ends = {"king": {"templates": ["{whose} king is {answer}."], "held_out": []}}
    contexts = {"templates": ["{first} is from {one}, {second} from {two}."], "held_out": []}
    lexicon = {
        "table": "land",
        "people": "hero",
        "bridge": "home",
        "memory_share": 0.5,
        "contexts": contexts,
        "ends": ends,
    }
    chains = Chains(lexicon, tables, ["Ka", "Lu"])
    people = {"name": "Ka", "other": "Lu"}
    told = chains.told(people, "Ur", "Io", "king", contexts["templates"][0], ends["king"]["templates"][0], False)
    assert told.text == "Lu is from Io, Ka from Ur. Ka's king is Bo."
    assert spoken(told, told.label("bridge")) == "Ur"
    remembered = chains.remembered("Max", "king", ends["king"]["templates"][0])
    assert (remembered.text, remembered.group) == ("Max's king is Cy.", "memory")


def test_a_task_is_told_by_its_pairs():
    tasks = {"next": {"rule": "next number", "below": 30}, "big": {"rule": "capital letter", "words": ["ant", "bee"]}}
    form = {"arrow": " -> ", "between": "; "}
    task = InContext({"tasks": tasks, "forms": {"templates": [form], "held_out": []}}, {})
    sentence = task.told("next", ["3", "9", "19"], form)
    assert sentence.text == "3 -> 4; 9 -> 10; 19 -> 20"
    assert (sentence.prompt, sentence.continuation) == ("3 -> 4; 9 -> 10; 19 ->", " 20")
    assert task.pairs["big"] == {"ant": "Ant", "bee": "Bee"}


def test_an_unknown_rule_of_a_task_is_refused():
    with pytest.raises(ValueError, match="unknown rule 'sort'"):
        InContext({"tasks": {"x": {"rule": "sort"}}, "forms": {"templates": [], "held_out": []}}, {})


CODE = Snippets(
    {
        "variables": ["a", "b", "c", "d"],
        "operators": ["+"],
        "functions": ["f"],
        "forms": [{"text": "def {function}({one}, {other}):\n    return ", "defined": ["one", "other"]}],
    }
)


def test_brackets_close_in_order_and_hold_a_known_number_of_items():
    rng, counts = Random(0), {"(": 2, "[": 3, "{": 1}
    for _ in range(50):
        snippet = CODE.brackets(rng, ["a", "b", "c"], "train")
        open_ones: list[list] = []
        for sign in snippet.text.split("b = ")[1]:
            if sign in counts:
                open_ones.append([sign, 1])
            elif sign == ",":
                open_ones[-1][1] += 1
            elif sign in ")]}":
                opened, held = open_ones.pop()
                assert ("([{".index(opened), held) == (")]}".index(sign), counts[opened])
        assert not open_ones
        assert snippet.text.endswith(spoken(snippet, snippet.answer))


def test_a_snippet_asks_for_a_name_that_was_defined():
    snippet = CODE.names(Random(1), ["a", "b", "c"], "train")
    assert snippet.text.startswith("def f(a, b):\n    return ")
    assert snippet.answers == ("a", "b")
    assert CODE.is_right(snippet, "b\n") and not CODE.is_right(snippet, "bee") and not CODE.is_right(snippet, "c")


def test_a_language_is_kept_or_left():
    entry = {"held_out": [], "words": {"x": ["sun"]}}
    tongues = Tongues(
        {
            "A": entry | {"templates": ["the {x} is up"]},
            "B": {"held_out": [], "words": {"x": ["sol"]}, "templates": ["el {x} va"]},
        },
        ["Ka"],
    )
    case = tongues.draw(Random(0), "train", {"language": "B"})
    assert (case.prompt, case.continuation) == ("el sol va", " el sol va")
    assert tongues.is_right(case, " el sol")
    assert not tongues.is_right(case, " the sun is up")
    assert not tongues.is_right(case, " Ka Ka")
