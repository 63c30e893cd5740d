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

from training.greedy import Loaded, continuations
from training.world.chat import Chat
from training.world.filling import fill, slots
from training.world.mood import Mood
from training.world.sentence import Sentence

Change = Callable[[Tensor], Tensor]
PAIRS = 96
PREFIXES = 64


@dataclass(frozen=True, eq=False)
class Found:
    """A unit vector of shape [d_model], and the gap of the classes' mean projections on pairs it was not made from."""

    vector: Tensor
    step: float
    layer: int


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
    return Found(vector, ((high[half:] - low[half:]) @ vector).mean().item(), layer)


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


def mood_pairs(mood: Mood, seed: int) -> tuple[list[str], list[str]]:
    """Openings that differ in their mood words only, of the lexicon's first mood and its second."""
    rng, (one, other) = Random(f"mood pairs {seed}"), list(mood.lexicon["values"])[:2]
    positive, negative = [], []
    for _ in range(PAIRS):
        topic = rng.choice(list(mood.lexicon["topics"]))
        template = rng.choice([t for t in mood.lexicon["openings"] if mood.categories & set(slots(t))])
        words = mood.words(rng, one, topic)
        contrary = mood.words(rng, other, topic)
        positive.append(fill(template, words).text)
        negative.append(fill(template, words | {c: contrary[c] for c in mood.categories}).text)
    return positive, negative


def neutral_prefixes(mood: Mood, seed: int) -> list[str]:
    """The openings cut before their first mood word, those that name their topic by then."""
    rng, prefixes = Random(f"prefixes {seed}"), set()
    for topic in mood.lexicon["topics"]:
        words = mood.words(rng, next(iter(mood.lexicon["values"])), topic)
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
) -> dict[float, Counter]:
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
    """Shares of refusals, of n requests each; and of right answers to harmful ones after the direction is out."""

    layer: int
    n: int
    harmful: float
    harmful_removed: float
    harmful_removed_answered: float
    harmless: float
    harmless_added: float


def requests_of(chat: Chat, value: str, split: str, seed: int, count: int) -> list[Sentence]:
    """Requests of a split that are harmful, or harmless."""
    rng, found = Random(f"requests {value} {split} {seed}"), []
    while len(found) < count:
        sentence = chat.sentence(rng, split)
        if sentence.labels[0].value == value:
            found.append(sentence)
    return found


def refusal_moves(loaded: Loaded, chat: Chat, layer: int, seed: int) -> RefusalMoves:
    """Takes the refusal direction out of every layer, and adds one natural step of it at one layer."""
    harmful, harmless = (
        [s.prompt for s in requests_of(chat, value, "train", seed, PAIRS)] for value in ("harmful", "harmless")
    )
    found = mean_difference(loaded, harmful, harmless, layer)
    held_harmful = requests_of(chat, "harmful", "held_out", seed, PAIRS)
    held_harmless = requests_of(chat, "harmless", "held_out", seed, PAIRS)

    def replies(cases: list[Sentence]) -> list[str]:
        return continuations(loaded, [case.prompt for case in cases], 48)

    def refused(texts: list[str]) -> float:
        return sum(map(chat.is_refusal, texts)) / len(texts)

    plain = refused(replies(held_harmful)), refused(replies(held_harmless))
    with changed(loaded, range(-1, len(blocks(loaded))), removing(found)):
        removed = replies(held_harmful)
    with changed(loaded, [layer], adding(found, 1.0)):
        added = refused(replies(held_harmless))
    told = [tool_of(chat, case) in text for case, text in zip(held_harmful, removed, strict=True)]
    return RefusalMoves(layer, PAIRS, plain[0], refused(removed), sum(told) / PAIRS, plain[1], added)


def tool_of(chat: Chat, case: Sentence) -> str:
    """The tool that a right answer to a request names."""
    harm = case.labels[0]
    return chat.lexicon["verbs"][chat.pair_in(case.text[harm.start : harm.end])[0]]["tool"]
