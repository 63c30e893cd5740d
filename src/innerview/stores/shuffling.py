"""The order in which a store is read in shuffled batches: blocks of neighbours are shuffled, then the tokens of a buffer of blocks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Tokens that are read together: long enough that a disk reads at its full speed.
BLOCK_TOKENS = 256


@dataclass(frozen=True)
class Block:
    """Neighbouring tokens of one shard."""

    shard: int
    start: int
    stop: int


def blocks_of(sizes: Sequence[int]) -> list[Block]:
    """The blocks of shards of these sizes, in tokens."""
    return [
        Block(shard, start, min(start + BLOCK_TOKENS, size))
        for shard, size in enumerate(sizes)
        for start in range(0, size, BLOCK_TOKENS)
    ]


def buffers(sizes: Sequence[int], buffer_tokens: int, seed: int) -> Iterator[tuple[list[Block], Tensor]]:
    """Blocks that are held at once, and the order of their tokens; every token of the store comes once.

    Args:
        sizes: Tokens of each shard.
        buffer_tokens: Tokens that are held at once.
        seed: Of the order.
    """
    drawn = torch.Generator().manual_seed(seed)
    listed = blocks_of(sizes)
    order = torch.randperm(len(listed), generator=drawn).tolist()
    held: list[Block] = []
    count = 0
    for nth, place in enumerate(order):
        held.append(listed[place])
        count += held[-1].stop - held[-1].start
        if count >= buffer_tokens or nth == len(order) - 1:
            # Sorted, so that each shard is opened once and read forward.
            yield sorted(held, key=lambda b: (b.shard, b.start)), torch.randperm(count, generator=drawn)
            held, count = [], 0


def batches(
    filled: Iterator[tuple[int, Callable[[], dict[str, Tensor]]]], batch_tokens: int, first: int
) -> Iterator[dict[str, Tensor]]:
    """Batches cut from buffers that stand behind one another; the last may be smaller.

    Args:
        filled: Tokens of each buffer, and what reads it.
        batch_tokens: Tokens of a batch.
        first: Batches that are left out at the front; buffers that hold nothing else are not read.
    """
    skipped = first * batch_tokens
    rest: dict[str, Tensor] = {}
    for count, read in filled:
        if count <= skipped:
            skipped -= count
            continue
        values = {name: value[skipped:] for name, value in read().items()}
        skipped = 0
        if rest:
            values = {name: torch.cat([rest[name], value]) for name, value in values.items()}
        whole = len(next(iter(values.values()))) // batch_tokens * batch_tokens
        for start in range(0, whole, batch_tokens):
            yield {name: value[start : start + batch_tokens] for name, value in values.items()}
        rest = {name: value[whole:] for name, value in values.items()}
    if rest and len(next(iter(rest.values()))):
        yield rest
