"""How far a network's odds are from the world's own, on prompts with several right endings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import log_softmax

from innerview.pocket.sentence import Sentence
from training.greedy import Loaded

BATCH = 64


def divergences(loaded: Loaded, cases: Sequence[Sentence]) -> list[float]:
    """KL of the world's odds from the network's, in nats, for each case; what the network gives to other words counts against it."""
    rows = [(index, word) for index, case in enumerate(cases) for word in case.odds]
    texts = [(cases[index].prompt, f"{cases[index].prompt} {word}") for index, word in rows]
    found = [math.nan] * len(rows)
    for start in range(0, len(rows), BATCH):
        found[start : start + BATCH] = log_odds(loaded, texts[start : start + BATCH])
    totals = [0.0] * len(cases)
    for (index, word), log_q in zip(rows, found, strict=True):
        p = cases[index].odds[word]
        totals[index] += p * (math.log(p) - log_q)
    return totals


@torch.no_grad()
def log_odds(loaded: Loaded, texts: Sequence[tuple[str, str]]) -> list[float]:
    """The log probability of what each second text adds to the first, in nats."""
    ids = [loaded.tokenizer(whole)["input_ids"] for _, whole in texts]
    starts = [len(loaded.tokenizer(prompt)["input_ids"]) for prompt, _ in texts]
    width = max(map(len, ids))
    padded = torch.tensor([row + [loaded.tokenizer.pad_token_id] * (width - len(row)) for row in ids])
    logs = log_softmax(loaded.network(padded, use_cache=False).logits.float(), dim=-1)
    return [
        sum(logs[row, place - 1, ids[row][place]].item() for place in range(starts[row], len(ids[row])))
        for row in range(len(texts))
    ]
