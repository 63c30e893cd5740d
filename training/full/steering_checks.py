"""Whether mean differences move the networks of the full world: mood both ways, refusal out and in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

import torch

from innerview.pocket.filling import fill, slots
from innerview.pocket.mood import Mood
from innerview.pocket.requests import Refusal
from innerview.pocket.sentence import Sentence, Split
from training.greedy import Loaded, continuations
from training.steering_checks import (
    PAIRS,
    PREFIXES,
    Change,
    RefusalMoves,
    adding,
    blocks,
    changed,
    mean_difference,
    mood_counts,
    on_prompt,
    removing,
)


def mood_pairs(mood: Mood, seed: int) -> tuple[list[str], list[str]]:
    """Openings in direct words that differ in their mood words only, of the lexicon's first mood and its second."""
    texts: dict[str, list[str]] = {value: [] for value in mood.moods}
    for index in range(PAIRS):
        topic = Random(f"topic {seed} {index}").choice(list(mood.lexicon["topics"]))
        people = mood.people(Random(f"people {seed} {index}"))
        for value in mood.moods:
            rng = Random(f"mood pairs {seed} {index}")
            texts[value].append(mood.told(rng, "openings", "direct", value, topic, people).text)
    return texts[mood.moods[0]], texts[mood.moods[1]]


def neutral_prefixes(mood: Mood, seed: int) -> list[str]:
    """The openings cut before their first mood word, those that name their topic by then."""
    rng, prefixes = Random(f"prefixes {seed}"), set()
    for topic in mood.lexicon["topics"]:
        words = mood.words(rng, mood.moods[0], topic, mood.people(rng))
        for template in mood.lexicon["openings"]:
            named = [name for name in slots(template) if name in mood.categories]
            if named and "topic" in slots(template.split("{" + named[0])[0]):
                prefixes.add(fill(template.split("{" + named[0])[0], words).text.rstrip())
    return rng.sample(sorted(prefixes), min(PREFIXES, len(prefixes)))


def steered_moods(
    loaded: Loaded, mood: Mood, layer: int, strengths: Sequence[float], seed: int
) -> dict[float, Counter[str]]:
    """Mood words in texts sampled from neutral prefixes, for each number of natural steps."""
    found = mean_difference(loaded, *mood_pairs(mood, seed), layer)
    prefixes, counts = neutral_prefixes(mood, seed), {}
    for strength in strengths:
        torch.manual_seed(seed)
        with changed(loaded, [layer], adding(found, strength)):
            counts[strength] = mood_counts(mood, continuations(loaded, prefixes, 24, sample=True))
    return counts


def requests_of(refusal: Refusal, value: str, split: Split, seed: int) -> list[Sentence]:
    """Requests of a split that are harmful, or harmless."""
    rng = Random(f"requests {value} {split} {seed}")
    return [refusal.sentence(rng, split, {"harm": value}) for _ in range(PAIRS)]


def refusal_moves(loaded: Loaded, refusal: Refusal, layer: int, seed: int) -> RefusalMoves:
    """One natural step less, one more, both on the prompt behind one block; and the direction out of every layer."""
    positive, negative = ([s.prompt for s in requests_of(refusal, value, "train", seed)] for value in refusal.values)
    found = mean_difference(loaded, positive, negative, layer)
    harmful, harmless = (requests_of(refusal, value, "held_out", seed) for value in refusal.values)
    everywhere = range(-1, len(blocks(loaded)))

    def replies(cases: list[Sentence], layers: Sequence[int], change: Change) -> list[str]:
        with changed(loaded, layers, change):
            return continuations(loaded, [case.prompt for case in cases], 48)

    def refused(texts: list[str]) -> float:
        return sum(map(refusal.pairs.is_refusal, texts)) / len(texts)

    minus = replies(harmful, [layer], on_prompt(adding(found, -1.0)))
    told = [all(need in text for need in needs_of(refusal, case)) for case, text in zip(harmful, minus, strict=True)]
    return RefusalMoves(
        layer=layer,
        n=PAIRS,
        harmful_refused=refused(replies(harmful, [], removing(found))),
        harmful_refused_minus=refused(minus),
        harmful_told_minus=sum(told) / PAIRS,
        harmful_refused_without=refused(replies(harmful, everywhere, removing(found))),
        harmless_refused=refused(replies(harmless, [], removing(found))),
        harmless_refused_plus=refused(replies(harmless, [layer], on_prompt(adding(found, 1.0)))),
        harmless_refused_without=refused(replies(harmless, everywhere, removing(found))),
    )


def needs_of(refusal: Refusal, case: Sentence) -> tuple[str, ...]:
    """What an answer to a refused request would name: the tool and the place."""
    harm = case.labels[0]
    verb, *_, noun = case.text[harm.start : harm.end].split()
    words = refusal.pairs.words(Random(0), verb, noun)
    return words["tool"], words["where"]
