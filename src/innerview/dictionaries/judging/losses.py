"""Next-token cross-entropy of texts, row by row, with and without edits."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.capturing import capture
from innerview.models.model import Model

# Logits that are held at once: 256 MiB of float32.
MOST_LOGITS = 1 << 26
MOST_TOKENS = 8192


def groups(rows: list[list[int]], vocab: int | None) -> Iterator[list[int]]:
    """Numbers of the rows that run together: as many as their logits leave room for."""
    most = max(1, min(MOST_TOKENS, MOST_LOGITS // (vocab or 1 << 15)))
    held: list[int] = []
    width = 0
    for nth, row in enumerate(rows):
        width = max(width, len(row))
        if held and width * (len(held) + 1) > most:
            yield held
            held, width = [], len(row)
        held.append(nth)
    if held:
        yield held


def losses(acts: Activations) -> Tensor:
    """Summed cross-entropy of each row's next tokens in nats, shape [rows], from captured logits."""
    assert acts.tokens is not None and acts.mask is not None
    logits, found = acts["logits"], []
    for row, ids, mask in zip(logits, acts.tokens, acts.mask, strict=True):
        kept = ids[mask.to(ids.device)].to(row.device)
        said = row[mask.to(row.device)][:-1].float()
        found.append(torch.nn.functional.cross_entropy(said, kept[1:], reduction="sum").double().cpu())
    return torch.stack(found)


def edited_losses(model: Model, rows: list[list[int]], edits: list[Any]) -> Tensor:
    """The same of rows under edits, and nothing else that is attached."""
    return losses(capture(model, rows, "logits", edits=edits, hermetic=True, batch_size=len(rows), progress=False))
