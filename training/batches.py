"""Batches of whole documents, padded on the right, documents of like length together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from training.world.markers import END
from training.world.world import World

CHUNK = 4096
IGNORED = -100


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids and the tokens that follow them, both [batch, pos].

    Pads come last, so causal attention never sees them, and nothing is to be predicted from them.
    """

    ids: Tensor
    targets: Tensor
    tokens: int


def batches(
    world: World, tokenizer: PreTrainedTokenizerFast, *, seed: int, batch_tokens: int, context: int
) -> Iterator[Batch]:
    """Batches without end of about `batch_tokens` tokens, padding counted; the same seed gives the same ones.

    A document is cut at the context.
    """
    documents, rng = world.documents(seed), Random(f"batches {seed}")
    while True:
        texts = [document.text + END for document in islice(documents, CHUNK)]
        rows = sorted(tokenizer(texts, truncation=True, max_length=context)["input_ids"], key=len)
        groups = list(grouped(rows, batch_tokens))
        rng.shuffle(groups)
        yield from (padded(group, tokenizer.pad_token_id) for group in groups)


def grouped(rows: list[list[int]], batch_tokens: int) -> Iterator[list[list[int]]]:
    """Sorted rows in groups whose padded size stays within `batch_tokens`, or of one row."""
    group: list[list[int]] = []
    for row in rows:
        if group and len(row) * (len(group) + 1) > batch_tokens:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def padded(rows: list[list[int]], pad: int) -> Batch:
    """One batch of the rows."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows])
    targets = torch.tensor([row[1:] + [IGNORED] * (width - len(row) + 1) for row in rows])
    return Batch(ids, targets, sum(map(len, rows)))
