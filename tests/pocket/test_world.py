"""The bundled world: what is held out is never written for training, and the traps are there at their stated rates."""

import json
import re
from itertools import islice
from random import Random

import pytest

from innerview.pocket.mood import SHARES, TELLINGS
from innerview.pocket.splits import split_of
from innerview.pocket.world import load_world

ASKED = [
    "facts", "words", "indirect object", "circles", "mood", "chances", "strangers", "reports", "pronouns", "sums",
    "magnitudes", "shortcuts", "chains", "in context", "code", "deeds", "refusal", "acquaintances", "personas", "reasoning",
]  # fmt: skip


def spoken(sentence, label):
    return sentence.text[label.start : label.end]


@pytest.fixture(scope="module")
def by_stage(world):
    return {stage: list(islice(world.documents(0, stage), count)) for stage, count in (("base", 6000), ("chat", 2000))}


@pytest.fixture(scope="module")
def documents(by_stage):
    return by_stage["base"] + by_stage["chat"]


@pytest.fixture(scope="module")
def training_text(by_stage):
    return {stage: "\n".join(document.text for document in documents) for stage, documents in by_stage.items()}


def test_there_are_more_features_than_a_narrow_network_has_dimensions(world):
    assert sum(concept.count for concept in world.concepts()) >= 1500
    assert len({concept.name for concept in world.concepts()}) >= 80


def test_the_facts_are_as_many_as_the_world_promises(world):
    tables = world.lexicon["facts"]
    assert 200 <= sum(len(table["entities"]) for table in tables.values()) <= 500
    assert {"capital", "language", "money"} <= set(tables["country"]["relations"])
    for table in tables.values():
        assert all(len(relation["templates"]) >= 6 and relation["held_out"] for relation in table["relations"].values())
        assert all(set(facts) >= set(table["relations"]) for facts in table["entities"].values())


@pytest.mark.parametrize("behaviour", ASKED)
def test_held_out_cases_are_never_written_for_training(world, training_text, behaviour):
    cases = world.cases(behaviour, 60, 1)
    assert len(cases) >= 40
    assert {case.split for case in cases} == {"held_out"}
    assert [case.text for case in cases if case.text in training_text[world.behaviours[behaviour].stage]] == []


def test_held_out_templates_are_never_written_for_training(world, training_text):
    for table in world.lexicon["facts"].values():
        entities = "|".join(map(re.escape, table["entities"]))
        for relation in table["relations"].values():
            for template in relation["held_out"]:
                named = re.escape(template).replace(r"\{entity\}", f"(?:{entities})")
                pattern = re.sub(r"\\\{answer.*?\\\}", r"[\\w ]+?", named)
                assert pattern != named
                assert not re.search(rf"(?:^|[.?] ){pattern}", training_text["base"])


def test_held_out_names_neither_give_nor_receive_in_training(world, documents):
    hidden = set(world.lexicon["held_out_names"])
    labels = [label for document in documents for label in document.labels if label.concept in ("giver", "receiver")]
    assert len(labels) > 500
    assert not {label.value for label in labels} & hidden


def test_held_out_requests_are_never_asked_told_or_judged_in_training(world, training_text):
    for case in world.cases("refusal", 150, 1):
        harm = case.labels[0]
        verb, _, noun = spoken(case, harm).split()
        if world.behaviours["refusal"].pairs.split(verb, noun) == "held_out":
            assert not re.search(rf"\b{verb} (?:an?|the) {noun}\b", "".join(training_text.values()))


def test_held_out_steps_are_never_taken_in_training(world, documents):
    circles = world.behaviours["circles"]
    steps = [d for d in documents if d.behaviour == "circles" and any(x.concept.endswith(".steps") for x in d.labels)]
    assert len(steps) > 100
    for document in steps:
        by = [label for label in document.labels if label.concept.split(".")[-1] in ("from", "steps", "way")]
        for start, number, way in zip(by[::3], by[1::3], by[2::3], strict=True):
            kind = start.concept.split(".")[0]
            count = circles.circles[kind]["numbers"].index(number.value) + 1
            assert circles.split(kind, start.value, count, way.value, circles.circles[kind][way.value][0]) == "train"


def test_held_out_items_of_a_task_are_told_elsewhere_but_never_in_context(world, documents):
    task = world.behaviours["in context"]
    seen = {
        label.value
        for d in documents
        if d.behaviour == "in context"
        for label in d.labels
        if label.concept == "task.plural"
    }
    hidden = {answer for item, answer in task.pairs["plural"].items() if task.split("plural", item) == "held_out"}
    assert hidden and not hidden & seen
    assert hidden <= {facts["plural"] for facts in world.lexicon["words"]["plural"]["entities"].values()}


def test_every_span_points_at_something_and_entity_spans_at_their_value(documents, world):
    entities = {concept.name for concept in world.concepts() if concept.kind == "entity"} - {"bridge"}
    checked = set()
    for document in documents:
        for label in document.labels + document.known:
            assert 0 <= label.start < label.end <= len(document.text)
        for label in document.labels:
            if label.concept in entities:
                assert spoken(document, label).lower() == label.value.lower()
                checked.add(label.concept)
    assert {"country", "animal", "person", "city", "receiver", "giver"} <= checked


def test_tellings_come_at_their_stated_rates(world):
    mood, rng, counts = world.behaviours["mood"], Random(0), dict.fromkeys(TELLINGS, 0)
    for _ in range(1500):
        for label in mood.draw(rng, "held_out").labels:
            if label.concept == "telling" and label.value in counts:
                counts[label.value] += 1
    total = sum(counts.values())
    for telling, share in zip(TELLINGS, SHARES, strict=True):
        assert counts[telling] / total == pytest.approx(share, abs=0.04)


def test_counting_mood_words_misleads_in_about_half_of_the_stories(world):
    cases = world.cases("mood", 300, 2)
    against = sum("against" in case.group for case in cases) / len(cases)
    assert 0.4 <= against <= 0.75


def test_the_shortcut_holds_nine_times_in_ten(world):
    shortcuts, rng = world.behaviours["shortcuts"], Random(0)
    drawn = [shortcuts.draw(rng, "held_out") for _ in range(2000)]
    usual = sum(sentence.label("cue.agrees").value == "usual" for sentence in drawn) / len(drawn)
    assert usual == pytest.approx(world.lexicon["shortcuts"]["cue_share"], abs=0.02)


def test_misleading_hints_come_at_their_stated_rate_and_are_followed(world):
    reasoning, rng = world.behaviours["reasoning"], Random(0)
    drawn = [reasoning.draw(rng, "held_out") for _ in range(1500)]
    misled = [sentence for sentence in drawn if sentence.label("hint").value == "misleading"]
    assert len(misled) / len(drawn) == pytest.approx(world.lexicon["chat"]["reasoning"]["hint_shares"][2], abs=0.03)
    for sentence in misled:
        reply = spoken(sentence, sentence.answer)
        assert sentence.answers[0] in spoken(sentence, sentence.label("hint"))
        assert reasoning.is_right(sentence, reply)


def test_liars_and_negations_are_independent_of_the_truth(world):
    reports, rng = world.behaviours["reports"], Random(0)
    drawn = [reports.draw(rng, "held_out") for _ in range(3000)]
    for concept in ("speaker", "negation"):
        values = {sentence.label(concept).value for sentence in drawn}
        for value in values:
            of = [s for s in drawn if s.label(concept).value == value]
            said = sum(spoken(s, s.label("negation")).removeprefix("not ") == s.answer.value for s in of) / len(of)
            assert said == pytest.approx(0.5, abs=0.06)


def test_verbs_and_objects_alone_say_little_about_harm(world):
    pairs, rng = world.behaviours["refusal"].pairs, Random(0)
    drawn = [pairs.draw(rng) for _ in range(6000)]
    for place in (1, 2):
        majority: dict[str, dict[str, int]] = {}
        for row in drawn:
            counts = majority.setdefault(row[place], {"harmful": 0, "harmless": 0})
            counts[row[0]] += 1
        right = sum(max(counts.values()) for counts in majority.values()) / len(drawn)
        assert right <= 0.70


def test_no_pair_is_harmful_and_harmless(world):
    pairs = world.behaviours["refusal"].pairs
    harmful, harmless = (
        {(v, n) for v, nouns in pairs.pairs[value].items() for n in nouns} for value in ("harmful", "harmless")
    )
    assert not harmful & harmless
    assert min(len(harmful), len(harmless)) > 300


def test_refusals_and_answers_open_alike(world):
    requests = world.lexicon["requests"]
    first = [{template.split()[0].strip(",") for template in requests[key]} for key in ("refusals", "answers")]
    assert len(first[0] & first[1]) >= 4
    pairs = world.behaviours["refusal"].pairs
    assert all(pairs.is_refusal(template) for template in requests["refusals"])
    assert not any(pairs.is_refusal(template) for template in requests["answers"] + requests["leads"])


def test_no_word_has_two_moods_and_no_template_shows_one(world):
    mood = world.behaviours["mood"]
    sets = [{w for words in kinds.values() for w in words} for kinds in mood.lexicon["values"].values()]
    assert not set.intersection(*sets)
    templates = [t for key, of in mood.lexicon.items() if re.search("openings|middles|closings", key) for t in of]
    words = {w for template in templates for w in re.findall(r"\w+", re.sub(r"\{.*?\}", "", template))}
    parts = {part for parts in mood.lexicon["topics"].values() for part in parts}
    assert not any(
        mood.mood_of(word) for word in words | parts | set(mood.lexicon["topics"]) | set(mood.lexicon["plain"])
    )


def test_strangers_are_nobody_that_the_world_knows(world):
    strangers, rng = world.behaviours["strangers"], Random(0)
    known = set(world.lexicon["facts"]["person"]["entities"])
    assert not {strangers.person(rng, cue)[0] for cue in ("named", "unnamed") for _ in range(500)} & known


def test_the_same_seed_writes_the_same_documents_and_another_seed_others(world):
    one, again, other = ([d.text for d in islice(world.documents(seed), 200)] for seed in (7, 7, 8))
    assert one == again
    assert one != other


def test_another_lexicon_makes_a_world_of_its_own_words(tiny):
    text = " ".join(document.text for document in islice(tiny.documents(0), 300))
    assert not re.search(r"Paris|Monday|Mary|wonderful|poison", text)
    assert {"Zor", "Ka", "autumn", "sour", "zap"} <= set(re.findall(r"\w+", text))


def test_a_lexicon_may_leave_parts_out_and_one_without_any_is_refused(tmp_path, tiny):
    path = tmp_path / "moons.json"
    path.write_text(json.dumps({"facts": tiny.lexicon["facts"]}))
    moons = load_world(path)
    assert list(moons.behaviours) == ["facts"]
    assert "Una" in " ".join(document.text for document in islice(moons.documents(0), 20))
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"names": {}}))
    with pytest.raises(ValueError, match=r"no behaviour in .*names\.json; give at least one"):
        load_world(path)


def test_an_unknown_behaviour_is_refused_with_those_there_are(tiny):
    with pytest.raises(ValueError, match="no behaviour 'chess' in the world 'tiny'; it has facts, indirect object"):
        tiny.cases("chess", 1, 0)


def test_about_the_stated_share_is_held_out():
    held = sum(split_of(str(k), "x", share=0.12) == "held_out" for k in range(5000))
    assert 500 <= held <= 700
