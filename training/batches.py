"""Batches of whole documents, padded on the right, documents of like length together, written while the network learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import islice, repeat
from random import Random

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast

from innerview.pocket.behaviour import Behaviour, Stage
from innerview.pocket.indirect_object import IndirectObject
from innerview.pocket.markers import END
from innerview.pocket.mood import TELLINGS, Mood
from innerview.pocket.requests import Deeds
from innerview.pocket.sentence import Sentence, joined
from innerview.pocket.world import World

CHUNK = 4096
KNOWN_WEIGHT = 4.0
# Besides what the world tells, this share of the documents is of what forms late, until the drill is over.
DRILLED = {"indirect object": 0.15, "deeds": 0.12, "facts": 0.06, "mood": 0.05, "language": 0.03}
COINED = 400
# How many of the documents with traps give way to plainer ones at the very start.
SPARED = 0.85
# What hangs on two things together is learned in a stretch of its own: from which share of the tokens to which.
# Stories are told directly in the first half of theirs, and with traps in the second.
STRETCHES = {
    "mood": (0.38, 0.42), "deeds": (0.48, 0.52), "circles": (0.56, 0.585), "sums": (0.61, 0.635), "chains": (0.66, 0.685),
    "in context": (0.71, 0.735),
}  # fmt: skip


@dataclass(frozen=True)
class TokenRow:
    """A document's tokens, and what predicting each one weighs."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids, the tokens that follow them, and what each prediction weighs: all [batch, pos].

    Pads come last, so causal attention never sees them, and predicting them weighs nothing.
    """

    ids: Tensor
    targets: Tensor
    weights: Tensor
    tokens: int


def has_traps(document: Sentence) -> bool:
    """Whether a sentence of the document tells its mood by words of the other."""
    return any(label.concept == "telling" and label.value in TELLINGS[1:] for label in document.labels)


def told_directly(mood: Behaviour, rng: Random) -> Sentence:
    """A story without traps."""
    return mood.sentence(rng, "train", {"telling": TELLINGS[0]})


def drills_of(world: World, shares: Mapping[str, float] = DRILLED) -> list[tuple[Behaviour, float]]:
    """The behaviours to drill, and their shares.

    Who gives and who receives is told of coined names, so that copying hangs on no name; of deeds, what people think of them.
    """
    found = []
    for name, share in shares.items():
        behaviour = world.behaviours.get(name)
        if isinstance(behaviour, IndirectObject):
            behaviour = IndirectObject(behaviour.lexicon, coined(behaviour.names, behaviour.held_out_names), [])
        if isinstance(behaviour, Deeds):
            behaviour = Judgements(behaviour.pairs)
        if behaviour:
            found.append((behaviour, share))
    return found


class Judgements(Deeds):
    """Nothing but what people think of doing the one to the other: harm hangs on the pair, which takes the longest to learn."""

    def document(self, rng: Random) -> Sentence:
        """Two or three judgements."""
        return joined([self.judgement(rng) for _ in range(rng.randint(2, 3))])


def coined(names: list[str], hidden: list[str]) -> list[str]:
    """Names that nobody has: the beginning of one and the end of another."""
    rng, taken = Random("coined"), {*names, *hidden}
    found = {
        rng.choice(names)[: rng.randint(1, 3)] + rng.choice(names)[-rng.randint(2, 4) :].lower() for _ in range(COINED)
    }
    return sorted(found - taken)


@dataclass(frozen=True, eq=False)
class Batches(IterableDataset):
    """Batches without end of about `batch_tokens` tokens, padding counted; the same seed gives the same ones.

    A document is cut at the context. Over the first `easy_tokens` the stories with traps come in bit by bit; over the first
    `drill_tokens` some behaviours are told oftener, and in their stretches of `stretch_tokens` some are told alone.
    """

    world: World
    tokenizer: PreTrainedTokenizerFast
    seed: str
    batch_tokens: int
    context: int
    stage: Stage = "base"
    easy_tokens: int = 0
    drill_tokens: int = 0
    stretch_tokens: int = 0
    stretches: Mapping[str, tuple[float, float]] = field(default_factory=lambda: STRETCHES)
    shares: Mapping[str, float] = field(default_factory=lambda: DRILLED)
    earlier_tokens: int = 0

    def __iter__(self) -> Iterator[Batch]:
        rng, tokens = Random(f"batches {self.seed}"), self.earlier_tokens
        stream = self.world.documents(self.seed, self.stage)
        while True:
            kept = SPARED * max(0.0, 1 - tokens / self.easy_tokens) if self.easy_tokens else 0.0
            drills = drills_of(self.world, self.shares) if tokens < self.drill_tokens else []
            documents = (self.plainer(document, rng) if rng.random() < kept else document for document in stream)
            documents = (self.drilled(document, rng, drills) for document in documents)
            told = self.alone(tokens)
            documents = documents if told is None else (told(rng) for _ in repeat(None))
            # What is told alone is told for as long as was said: by smaller chunks.
            count = CHUNK if told is None else CHUNK // 8
            rows = tokenized(list(islice(documents, count)), self.tokenizer, self.context)
            groups = list(grouped(sorted(rows, key=lambda row: len(row.ids)), self.batch_tokens))
            rng.shuffle(groups)
            tokens += sum(len(row.ids) for row in rows)
            yield from (padded(group, self.tokenizer.pad_token_id) for group in groups)

    def plainer(self, document: Sentence, rng: Random) -> Sentence:
        """A story told directly in the place of one with traps; any other document as it is."""
        return told_directly(self.world.behaviour(Mood.name), rng) if has_traps(document) else document

    def alone(self, tokens: int) -> Callable[[Random], Sentence] | None:
        """What writes the documents of the behaviour that is told alone after so many tokens; None where all are told, or the world has it not."""
        share = tokens / self.stretch_tokens if self.stretch_tokens and self.stage == "base" else -1.0
        for name, (since, until) in self.stretches.items():
            found = drills_of(self.world, {name: 1.0}) if since <= share < until else []
            if found:
                behaviour = found[0][0]
                is_direct = isinstance(behaviour, Mood) and share < (since + until) / 2
                return partial(told_directly, behaviour) if is_direct else behaviour.document
        return None

    def drilled(self, document: Sentence, rng: Random, drills: list[tuple[Behaviour, float]]) -> Sentence:
        """The document, or now and then another in its place, of a behaviour that is drilled."""
        chance = rng.random()
        for behaviour, share in drills:
            if chance < share:
                return behaviour.document(rng)
            chance -= share
        return document

    def ahead(self) -> Iterator[Batch]:
        """The same batches, written by another process."""
        return iter(DataLoader(self, batch_size=None, num_workers=1, prefetch_factor=64))


def tokenized(documents: list[Sentence], tokenizer: PreTrainedTokenizerFast, context: int) -> list[TokenRow]:
    """The documents as token ids; what the text before it gives away weighs more."""
    texts = [document.text + END for document in documents]
    encoded = tokenizer(texts, truncation=True, max_length=context, return_offsets_mapping=True)
    spans = zip(encoded["input_ids"], encoded["offset_mapping"], documents, strict=True)
    return [TokenRow(ids, weights_of(offsets, document)) for ids, offsets, document in spans]


def weights_of(offsets: list[tuple[int, int]], document: Sentence) -> list[float]:
    """A weight for each token, from the characters it covers."""
    known = bytearray(len(document.text) + len(END))
    for label in document.predictable:
        known[label.start : label.end] = b"\x01" * (label.end - label.start)
    return [KNOWN_WEIGHT if any(known[start:end]) else 1.0 for start, end in offsets]


def grouped(rows: list[TokenRow], batch_tokens: int) -> Iterator[list[TokenRow]]:
    """Sorted rows in groups whose padded size stays within `batch_tokens`, or of one row."""
    group: list[TokenRow] = []
    for row in rows:
        if group and len(row.ids) * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def padded(rows: list[TokenRow], pad: int) -> Batch:
    """One batch of the rows; a token's weight is that of predicting it."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([row.ids + [pad] * (width - len(row.ids)) for row in rows])
    targets = torch.tensor([row.ids[1:] + [pad] * (width - len(row.ids) + 1) for row in rows])
    weights = torch.tensor([row.weights[1:] + [0.0] * (width - len(row.ids) + 1) for row in rows])
    return Batch(ids, targets, weights, sum(len(row.ids) for row in rows))
