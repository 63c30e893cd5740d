"""Shuffling of tokens that come in an order: windows of them are filled, mixed, and handed out in batches."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

Batch = dict[str, Tensor]


@dataclass(eq=False)
class Chunk:
    """Tokens that are loaded when a window needs them.

    Attributes:
        n_tokens: How many there are.
        load: Gives their activations by site, each shape [n_tokens, ...].
    """

    n_tokens: int
    load: Callable[[], Batch]
    loaded: Batch | None = field(default=None, repr=False)


Fill = Callable[[list[Chunk]], None]


def fill(chunks: list[Chunk]) -> None:
    """Load what is not loaded yet."""
    for chunk in chunks:
        chunk.loaded = chunk.loaded or chunk.load()


def mixed(
    chunks: Iterator[Chunk], window_tokens: int, batch_tokens: int, seed: int, *, first: int = 0, fill: Fill = fill
) -> Iterator[Batch]:
    """Batches of tokens, mixed within windows; what remains behind the last whole batch is left out.

    Args:
        chunks: Where the tokens come from, in order.
        window_tokens: Tokens of a window, whole batches of them.
        batch_tokens: Tokens of a batch.
        seed: Of the order.
        first: Batches to leave out at the front; chunks that only they need are not loaded.
        fill: Loads the chunks of a window.
    """
    done = 0
    for nth, held in enumerate(_windows(chunks, window_tokens)):
        n = sum(stop - start for _, start, stop in held)
        n_batches = n // batch_tokens
        if done + n_batches > first and n_batches:
            fill([chunk for chunk, _, _ in held])
            tensors = _joined(held)
            order = torch.randperm(n, generator=torch.Generator().manual_seed(seed * 1_000_003 + nth))
            for batch in range(max(0, first - done), n_batches):
                index = order[batch * batch_tokens : (batch + 1) * batch_tokens]
                yield {name: tensor[index.to(tensor.device)] for name, tensor in tensors.items()}
        done += n_batches
        for chunk, _, stop in held:
            if stop == chunk.n_tokens:
                chunk.loaded = None


def _windows(chunks: Iterator[Chunk], size: int) -> Iterator[list[tuple[Chunk, int, int]]]:
    held: list[tuple[Chunk, int, int]] = []
    room = size
    for chunk in chunks:
        start = 0
        while start < chunk.n_tokens:
            stop = min(chunk.n_tokens, start + room)
            held.append((chunk, start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield held
                held, room = [], size
    if held:
        yield held


def _joined(held: list[tuple[Chunk, int, int]]) -> Batch:
    parts = [(chunk.loaded or {}, start, stop) for chunk, start, stop in held]
    return {name: torch.cat([loaded[name][start:stop] for loaded, start, stop in parts]) for name in parts[0][0]}
