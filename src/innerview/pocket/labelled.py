"""Labelled sentences and prompts with right answers, drawn from the world for a study."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from innerview.pocket.behaviour import TRIES, Behaviour, Concept
from innerview.pocket.sentence import Sentence, Split
from innerview.pocket.world import World, load_world


@dataclass(frozen=True)
class Labelled:
    """A sentence with the value of one concept; `text[start:end]` is where the value lives.

    Attributes:
        pair: Sentences of the same pair differ in the concept and in what follows from it, and in nothing else; None where
            the concept comes in no pairs.
        sentence: The whole sentence, with every other label it carries.
    """

    text: str
    value: str
    start: int
    end: int
    pair: int | None
    sentence: Sentence


@dataclass(frozen=True)
class Prompt:
    """A prompt, and what rightly follows it.

    Attributes:
        answers: Each right continuation, the space before it left out.
        odds: How often the world says each, where several are right and it knows.
        group: The kind of case.
    """

    text: str
    answers: tuple[str, ...]
    odds: Mapping[str, float]
    group: str
    sentence: Sentence


def concepts(lexicon: Path | str | None = None) -> tuple[Concept, ...]:
    """Every concept that the world's labels speak of, with its kind and its values.

    Args:
        lexicon: Another world's file of words; the bundled one when None.
    """
    return world_of(lexicon).concepts()


def sentences(
    concept: str,
    split: Split = "train",
    seed: int = 0,
    *,
    pairs: int = 100,
    values: tuple[str, str] | None = None,
    behaviour: str | None = None,
    lexicon: Path | str | None = None,
) -> tuple[Labelled, ...]:
    """Sentences in pairs: the first of a pair has one value of the concept, the second another.

    A concept that is not paired (`Concept.is_paired`) gives as many sentences with values as they come.

    Args:
        concept: A name from `concepts()`.
        split: "train", or "held_out" for templates, names, requests and combinations that training never saw.
        pairs: How many pairs.
        values: The two values; the first two for a flag or class, two at random for anything else, when None.
        behaviour: Which part of the world writes them, where several speak of the concept; the first that does when None.
        lexicon: Another world's file of words; the bundled one when None.
    Raises:
        ValueError: The concept is unknown, or has no pairs with these values.
    """
    world = world_of(lexicon)
    found = concept_of(world, concept, behaviour)
    writer, drawn = world.behaviours[found.behaviour], []
    if not found.is_paired and values is None:
        return tuple(as_they_come(writer, found, split, 2 * pairs, seed))
    for pair in range(pairs):
        drawn += pair_of(writer, found, values, split, pair, seed)
    return tuple(drawn)


def concept_of(world: World, name: str, behaviour: str | None = None) -> Concept:
    """The concept of a name, of one behaviour or of the first that has it.

    Raises:
        ValueError: There is none.
    """
    having = [concept for concept in world.concepts() if concept.name == name]
    for concept in having:
        if behaviour in (None, concept.behaviour):
            return concept
    if having:
        has = ", ".join(concept.behaviour for concept in having)
        raise ValueError(f"no concept {name!r} in the behaviour {behaviour!r}; behaviours that have it: {has}")
    raise ValueError(f"no concept {name!r} in the world {world.name!r}; iv.pocket.concepts() lists them")


def pair_of(
    behaviour: Behaviour, concept: Concept, values: tuple[str, str] | None, split: Split, pair: int, seed: int
) -> list[Labelled]:
    """Two sentences from equal generators, one for each value, both of the split.

    Raises:
        ValueError: No pair came in many tries.
    """
    for attempt in range(TRIES):
        key = f"pair {concept.name} {seed} {pair} {attempt}"
        two = values or values_of(concept, Random(key + " values"))
        twins = [behaviour.draw(Random(key), split, {concept.name: value}) for value in two]
        labels = [twin.label(concept.name) for twin in twins]
        if all(label and label.value == value for label, value in zip(labels, two, strict=True)) and all(
            twin.split == split for twin in twins
        ):
            return [
                Labelled(twin.text, label.value, label.start, label.end, pair, twin)
                for twin, label in zip(twins, labels, strict=True)
                if label
            ]
    raise ValueError(
        f"no {split} pair of sentences with {concept.name!r} as {values or 'two values'}; "
        "give other values, or a concept whose value can be set"
    )


def as_they_come(behaviour: Behaviour, concept: Concept, split: Split, count: int, seed: int) -> list[Labelled]:
    """Sentences of the split that speak of the concept, whatever value it has in them.

    Raises:
        ValueError: Too few came in many tries.
    """
    rng, found = Random(f"{concept.name} {seed}"), []
    for _ in range(TRIES + 50 * count):
        sentence = behaviour.sentence(rng, split)
        label = sentence.label(concept.name)
        if label:
            found.append(Labelled(sentence.text, label.value, label.start, label.end, None, sentence))
        if len(found) == count:
            return found
    raise ValueError(f"only {len(found)} {split} sentences of {concept.name!r} came in many tries; ask for fewer")


def values_of(concept: Concept, rng: Random) -> tuple[str, str]:
    """Two values to set against each other."""
    if concept.kind in ("flag", "class"):
        return concept.values[0], concept.values[1]
    one, other = rng.sample(concept.values, 2)
    return one, other


def prompts(
    behaviour: str,
    split: Split = "held_out",
    seed: int = 0,
    *,
    count: int = 200,
    lexicon: Path | str | None = None,
) -> tuple[Prompt, ...]:
    """Prompts of a behaviour with their right answers, no two alike.

    Args:
        behaviour: A behaviour's name, as `concepts()` gives it.
        split: "held_out", or "train" for what training has seen.
        count: How many at most; a small world may have fewer.
        lexicon: Another world's file of words; the bundled one when None.
    Raises:
        ValueError: The behaviour is unknown.
    """
    cases = world_of(lexicon).cases(behaviour, count, seed, split)
    return tuple(Prompt(case.prompt, answers_of(case), case.odds, case.group, case) for case in cases)


def answers_of(case: Sentence) -> tuple[str, ...]:
    """The right continuations of a case, the space before them left out."""
    return case.answers or tuple(case.odds) or (case.continuation.lstrip(" "),)


def texts(count: int, seed: int | str = 0, *, lexicon: Path | str | None = None) -> tuple[str, ...]:
    """Documents as the network read them in training, to look at or to train a dictionary on; another seed gives other ones.

    Args:
        count: How many; each is some dozens of words.
        seed: Of which ones.
        lexicon: Another world's file of words; the bundled one when None.
    Raises:
        ValueError: The count is no whole number from 1.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"count is a whole number from 1, not {count!r}")
    return tuple(document.text for document in islice(world_of(lexicon).documents(f"texts {seed}"), count))


def next_word(prompt: str, *, lexicon: Path | str | None = None) -> dict[str, float]:
    """How often the world itself goes on with each word after the prompt; the odds sum to one.

    Raises:
        ValueError: The world does not know the prompt.
    """
    return world_of(lexicon).next_word(prompt)


def world_of(lexicon: Path | str | None) -> World:
    """The world of a lexicon, the bundled one when None."""
    return load_world(None if lexicon is None else Path(lexicon))
