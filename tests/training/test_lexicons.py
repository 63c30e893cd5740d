"""The other world: made by one command, whole, and without a word of the first."""

import json
import re
from itertools import islice

import pytest

from innerview.bundled import bundled_lexicon
from innerview.pocket.world import load_world
from training.lexicons.make_other import OUT, other_lexicon


@pytest.fixture(scope="module")
def first():
    return json.loads(bundled_lexicon().read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def other():
    return load_world(OUT)


def test_the_committed_file_is_what_the_command_makes(first, other):
    assert other_lexicon(first, 1) == other.lexicon
    assert other_lexicon(first, 2) != other.lexicon


def test_every_part_of_the_first_world_is_in_the_other(other):
    world = load_world()
    assert list(other.behaviours) == list(world.behaviours)
    assert [concept.name for concept in other.concepts()][:4] == [concept.name for concept in world.concepts()][:4]
    for name in set(other.behaviours) - {"small talk"}:
        assert len(other.cases(name, 10, 0)) == 10


def test_no_entity_or_name_of_the_first_world_is_in_the_others_text(first, other):
    text = " ".join(document.text for document in islice(other.documents(0), 800))
    words = set(re.findall(r"\w+", text))
    facts = first["facts"]
    entities = {name for kind in ("country", "person", "city") for name in facts[kind]["entities"]}
    names = {name for group in first["names"].values() for name in group}
    assert not words & (entities | names)


def test_facts_are_dealt_anew_and_spelling_follows_the_new_words(first, other):
    countries = other.lexicon["facts"]["country"]["entities"]
    moods = {w for kinds in first["mood"]["values"].values() for of in kinds.values() for w in of}
    assert not moods & set(other.behaviours["mood"].table)
    assert len(countries) == len(first["facts"]["country"]["entities"])
    spelled = other.lexicon["words"]["spelled"]["entities"]
    assert all(facts["letter"] == name[0].lower() and facts["ends"] == name[-1] for name, facts in spelled.items())
