"""Whether mean differences move the network: mood both ways, refusal out and in. Plain torch hooks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from innerview.pocket.filling import fill, slots
from innerview.pocket.mood import Mood
from innerview.pocket.requests import Refusal
from innerview.pocket.sentence import Sentence, Split
from training.greedy import Loaded, continuations

Change = Callable[[Tensor], Tensor]
PAIRS = 96
PREFIXES = 64


@dataclass(frozen=True, eq=False)
class Found:
    """A unit vector of shape [d_model], and the gap of the classes' mean projections on pairs it was not made from."""

    vector: Tensor
    step: float


def blocks(loaded: Loaded) -> Sequence[torch.nn.Module]:
    """The network's blocks, in order."""
    return list(loaded.network.model.layers)


def last_states(loaded: Loaded, texts: Sequence[str], layer: int) -> Tensor:
    """What leaves a block at the last token of each text, shape [n, d_model]."""
    states = []
    for text in texts:
        ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            hidden = loaded.network.model(ids, output_hidden_states=True).hidden_states
        # hidden_states has the embedding first, and the last one is normed: middle layers only.
        states.append(hidden[layer + 1][0, -1])
    return torch.stack(states)


def mean_difference(loaded: Loaded, positive: list[str], negative: list[str], layer: int) -> Found:
    """The direction from the negative to the positive mean on one half, its step measured on the other."""
    high, low = last_states(loaded, positive, layer), last_states(loaded, negative, layer)
    half = len(positive) // 2
    difference = high[:half].mean(0) - low[:half].mean(0)
    vector = difference / difference.norm()
    return Found(vector, ((high[half:] - low[half:]) @ vector).mean().item())


@contextmanager
def changed(loaded: Loaded, layers: Sequence[int], change: Change) -> Iterator[None]:
    """Inside, what leaves the blocks is changed at every position; -1 is the embedding."""

    def hook(_module: torch.nn.Module, _inputs: object, output: Tensor | tuple) -> Tensor | tuple:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    places = [loaded.network.model.embed_tokens if k < 0 else blocks(loaded)[k] for k in layers]
    handles = [place.register_forward_hook(hook) for place in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def adding(found: Found, steps: float) -> Change:
    """Adds so many natural steps."""
    return lambda hidden: hidden + steps * found.step * found.vector


def removing(found: Found) -> Change:
    """Takes the direction out."""
    return lambda hidden: hidden - (hidden @ found.vector)[..., None] * found.vector


def on_prompt(change: Change) -> Change:
    """The change on the prompt only: with a cache, what is generated comes one token at a time."""
    return lambda hidden: change(hidden) if hidden.shape[1] > 1 else hidden


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


def mood_counts(mood: Mood, texts: Sequence[str]) -> Counter:
    """How many words of each mood the texts have, and how many words in all under "words"."""
    counts: Counter = Counter()
    for text in texts:
        words = re.findall(r"\w+", text)
        counts["words"] += len(words)
        counts.update(found for found in map(mood.mood_of, words) if found)
    return counts


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


@dataclass(frozen=True)
class RefusalMoves:
    """Shares of n held-out requests of each kind: refused, and answered with the right tool."""

    layer: int
    n: int
    harmful_refused: float
    harmful_refused_minus: float
    harmful_told_minus: float
    harmful_refused_without: float
    harmless_refused: float
    harmless_refused_plus: float
    harmless_refused_without: float


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
