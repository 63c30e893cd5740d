"""Batches of the full world's documents, written by another process while the network learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from random import Random

from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast

from innerview.pocket.behaviour import Stage
from innerview.pocket.world import World
from training.batches import CHUNK, Batch, grouped, padded, tokenized


@dataclass(frozen=True, eq=False)
class Batches(IterableDataset):
    """Batches without end of about `batch_tokens` tokens, padding counted; the same seed gives the same ones.

    A document is cut at the context.
    """

    world: World
    tokenizer: PreTrainedTokenizerFast
    seed: str
    batch_tokens: int
    context: int
    stage: Stage = "base"

    def __iter__(self) -> Iterator[Batch]:
        documents, rng = self.world.documents(self.seed, self.stage), Random(f"batches {self.seed}")
        while True:
            rows = tokenized(list(islice(documents, CHUNK)), self.tokenizer, self.context)
            groups = list(grouped(sorted(rows, key=lambda row: len(row.ids)), self.batch_tokens))
            rng.shuffle(groups)
            yield from (padded(group, self.tokenizer.pad_token_id) for group in groups)

    def ahead(self) -> Iterator[Batch]:
        """The same batches, written by another process."""
        return iter(DataLoader(self, batch_size=None, num_workers=1, prefetch_factor=64))
