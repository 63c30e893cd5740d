"""Counts of very many kinds of things in bounded memory: the frequent ones stay, and how far a count may be short is known.

Reference: Manku and Motwani, "Approximate frequency counts over data streams" (2002)
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

# Numbers are sorted beside their places: so many bits of a key are left to the places.
PLACE_BITS = 24


def ordered(keys: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Places of the keys in rising order, equal ones as they came: keys from 0, below 2³⁹, at most 2²⁴ of them.

    On a CPU numpy sorts plain numbers several times faster than torch sorts numbers with their places.
    """
    if not keys.is_cpu or len(keys) > 1 << PLACE_BITS:
        return keys.sort(stable=True).indices
    packed = (keys.numpy() << PLACE_BITS) | np.arange(len(keys), dtype=np.int64)
    packed.sort()
    return torch.from_numpy(packed & ((1 << PLACE_BITS) - 1))


def risen(keys: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """The keys in rising order."""
    return torch.from_numpy(np.sort(keys.numpy())) if keys.is_cpu else keys.sort().values


@dataclass(eq=False)
class Tallies:
    """How often each key came, and the sum of what came with it.

    Attributes:
        most: Keys that are held at the end of a merge.
        keys: Rising, int64, shape [held].
        counts: Times of each, int64, shape [held].
        sums: Sum of the values of each, float32, shape [held].
        missed: So many times a key may have come besides, or without being here at all.
    """

    most: int
    keys: Int[Tensor, "held"]
    counts: Int[Tensor, "held"]
    sums: Float[Tensor, "held"]
    missed: int = 0
    _waiting: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list, repr=False)

    @classmethod
    def empty(cls, most: int, device: torch.device) -> "Tallies":
        """Nothing came yet."""
        keys = torch.zeros(0, dtype=torch.int64, device=device)
        return cls(most, keys, keys.clone(), torch.zeros(0, device=device))

    def add(self, keys: Int[Tensor, "n"], values: Float[Tensor, "n"] | None = None) -> None:
        """Count some keys.

        Args:
            keys: From 0; below 2³⁹ where there are values.
            values: What is summed by key; none sums nothing.
        """
        if not len(keys):
            return
        order = None if values is None else ordered(keys)
        found, group, counts = torch.unique_consecutive(
            risen(keys) if order is None else keys[order], return_inverse=True, return_counts=True
        )
        sums = torch.zeros(len(found), device=keys.device)
        if values is not None and order is not None:
            sums.index_add_(0, group, values[order])
        self._waiting.append((found, counts, sums))
        if sum(len(one[0]) for one in self._waiting) > self.most:
            self.merge()

    def merge(self) -> None:
        """Put what waits with the rest, and let go of the rarest where there are too many."""
        if not self._waiting:
            return
        parts = [(self.keys, self.counts, self.sums), *self._waiting]
        self._waiting = []
        keys, counts, sums = (torch.cat(list(column)) for column in zip(*parts, strict=True))
        # Runs that rise each by themselves: a stable sort merges them.
        order = torch.from_numpy(np.argsort(keys.numpy(), kind="stable")) if keys.is_cpu else keys.argsort(stable=True)
        self.keys, group = torch.unique_consecutive(keys[order], return_inverse=True)
        self.counts = torch.zeros_like(self.keys).index_add_(0, group, counts[order])
        self.sums = torch.zeros(len(self.keys), device=keys.device).index_add_(0, group, sums[order])
        if len(self.keys) > self.most:
            self._prune()

    def _prune(self) -> None:
        least = int(self.counts.sort(descending=True).values[self.most])
        kept = self.counts > least
        self.keys, self.counts, self.sums = self.keys[kept], self.counts[kept], self.sums[kept]
        self.missed += least


def best_of_each(
    owners: Int[Tensor, "n"], scores: Float[Tensor, "n"], k: int, n_owners: int
) -> tuple[Int[Tensor, "n_owners k"], Int[Tensor, "n_owners"]]:
    """Places of each owner's `k` largest scores, −1 behind the last, and how many each has."""
    order = scores.sort(descending=True, stable=True).indices
    order = order[owners[order].sort(stable=True).indices]
    counts = torch.bincount(owners, minlength=n_owners)
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[owners[order]]
    kept = rank < k
    made = order.new_full((n_owners, k), -1)
    made[owners[order][kept], rank[kept]] = order[kept]
    return made, counts.clamp(max=k)
