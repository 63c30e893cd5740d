"""Templates are filled, and the place of each word is known."""

import pytest

from innerview.pocket.filling import fill, prefix_pattern
from innerview.pocket.sentence import Label, Sentence, joined


def spoken(sentence, label):
    return sentence.text[label.start : label.end]


def test_a_filled_slot_knows_where_its_word_stands_without_the_article():
    filled = fill("{thing:A} or {thing:a} and {thing:cap}, {other}", {"thing": "apple", "other": "pear"})
    assert filled.text == "An apple or an apple and Apple, pear"
    assert filled.spans == {"thing": [(3, 8), (15, 20), (25, 30)], "other": [(32, 36)]}


def test_a_slot_without_a_word_is_refused_with_the_words_there_are():
    with pytest.raises(ValueError, match=r"no word for slot 'gone' in 'a \{gone\}'; the words given are \['here'\]"):
        fill("a {gone}", {"here": "x"})


def test_an_unknown_form_is_refused_with_the_forms_there_are():
    with pytest.raises(ValueError, match=r"unknown form 'plural' of a slot in .* the forms are a, A, cap"):
        fill("{thing:plural}", {"thing": "x"})


def test_a_prompt_is_known_again_by_its_template():
    pattern = prefix_pattern("The moon of {entity} is {answer:a}.")
    assert pattern.search("It rained. The moon of Una is an")["entity"] == "Una"
    assert pattern.search("The moon of Una is an egg") is None
    assert prefix_pattern("{answer} goes round {entity}.").search("Una") is None


def test_joining_moves_the_labels_along():
    one = Sentence("Up.", "b", (Label("c", "up", 0, 2),), "train")
    two = Sentence("Down.", "b", (Label("c", "down", 0, 4),), "held_out", Label("c", "down", 0, 4))
    both = joined([one, two])
    assert both.text == "Up. Down."
    assert [spoken(both, label) for label in both.labels] == ["Up", "Down"]
    assert (both.prompt, both.continuation, both.split) == ("Up.", " Down", "held_out")


def test_joining_nothing_is_refused():
    with pytest.raises(ValueError, match=r"received \[\]"):
        joined([])


def test_a_sentence_that_asks_nothing_has_no_prompt():
    with pytest.raises(ValueError, match=r"no answer in 'Hm\.'; only sentences with an answer have a prompt"):
        _ = Sentence("Hm.", "b", (), "train").prompt
