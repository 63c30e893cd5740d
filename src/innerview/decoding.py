"""Decoding: the loop that chooses a token, keeps it and feeds it."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from innerview.models.stepping import Steps


@torch.no_grad()
def decode(
    steps: Steps, ids: Tensor, *, room: int, stops: Iterable[int], pad_id: int, sampler: Any, on_step: Callable[[Tensor], None]
) -> None:  # fmt: skip
    """Write until every row has ended, or there is no room left. What stands behind a row's end is padding.

    Args:
        steps: The forwards.
        ids: The prompts' ids, shape [rows, width].
        room: Tokens to write at most.
        stops: Ids that end a row.
        pad_id: What is fed in a row that has ended.
        sampler: Makes scores whose largest entry is the draw; None takes the likeliest token.
        on_step: Told behind each token the ids so far, shape [rows, width + n], on the CPU. It raises to stop.
    """
    rows, width = ids.shape
    ends, closed = frozenset(stops), [False] * rows
    kept = torch.empty((rows, width + room), dtype=torch.long)
    kept[:, :width] = ids
    scores = steps.first()
    with steps.decoding():
        for n in range(width, width + room):
            if sampler is not None:
                scores = sampler(kept[:, :n], scores)
            fresh = scores.argmax(dim=-1)
            if ends:
                fresh = _padded(fresh, closed, ends, pad_id)
            kept[:, n] = fresh
            on_step(kept[:, : n + 1])
            if n + 1 == width + room or (ends and all(closed)):
                return
            scores = steps.next(fresh)


def _padded(fresh: Tensor, closed: list[bool], ends: frozenset[int], pad_id: int) -> Tensor:
    """The next tokens, pads in rows that have ended; rows that end here are closed."""
    listed = fresh.tolist()
    if any(closed):
        listed = [pad_id if is_closed else one for one, is_closed in zip(listed, closed, strict=True)]
        fresh = torch.tensor(listed, device=fresh.device)
    for row, one in enumerate(listed):
        closed[row] = closed[row] or one in ends
    return fresh
