"""Features that are active at the same tokens, by pointwise mutual information."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.best import mixed
from innerview.features.seen import Seen
from innerview.features.tallies import Tallies, best_of_each

# Pairs that are counted of each chunk, and held in all: beyond, tokens are drawn and rare pairs let go.
CHUNK_PAIRS, MOST_PAIRS = 1 << 20, 1 << 22
# Pairs that came together less often say nothing.
LEAST = 5
RATE_BITS = 40


@dataclass(frozen=True, eq=False)
class Partners:
    """For each feature those that go with it most.

    Attributes:
        indices: Their numbers, −1 behind the last, int32, shape [n_features, k].
        values: How strongly, float32, shape [n_features, k].
        counts: Tokens at which both were active, among those that were looked at, int32, shape [n_features, k].
        n_tokens: Tokens that were looked at.
        missed: So many tokens a pair may have been together besides.
    """

    indices: Int[Tensor, "n_features k"]
    values: Float[Tensor, "n_features k"]
    counts: Int[Tensor, "n_features k"]
    n_tokens: int
    missed: int = 0


@dataclass(eq=False)
class Together:
    """Counts of pairs of features at tokens drawn by their place alone.

    Attributes:
        pairs: How often both of a pair were active.
        alone: Tokens at which each was, among those drawn, int64, shape [n_features].
        n_tokens: Tokens that were drawn.
        rate: Share of the tokens that is drawn, in parts of 2⁴⁰; 0 before the first chunk said how many pairs a token has.
    """

    pairs: Tallies
    alone: Int[Tensor, "n_features"]
    n_tokens: int = 0
    rate: int = 0

    @classmethod
    def empty(cls, n_features: int, device: torch.device) -> "Together":
        """Nothing was counted yet."""
        return cls(Tallies.empty(MOST_PAIRS, device), torch.zeros(n_features, dtype=torch.int64, device=device))

    def add(self, seen: Seen, read: Int[Tensor, "tokens"]) -> None:
        """Count the pairs of a chunk.

        Args:
            seen: Its codes.
            read: Its tokens that count, whether or not anything was active there.
        """
        features, places = seen.features[seen.by_token], seen.places[seen.by_token]
        if not self.rate and len(features):
            size = torch.unique_consecutive(places, return_counts=True)[1]
            pairs = int((size * (size - 1) // 2).sum())
            self.rate = int(min(1.0, CHUNK_PAIRS / max(1, pairs)) * (1 << RATE_BITS))
        self.n_tokens += int((mixed(read) < self.rate).sum())
        is_drawn = mixed(places) < self.rate
        features, places = features[is_drawn], places[is_drawn]
        self.alone += torch.bincount(features, minlength=len(self.alone))
        self.pairs.add(_pairs(features, places, len(self.alone)))

    def partners(self, k: int) -> Partners:
        """For each feature the `k` with the largest PMI in nats, of those that came together often enough."""
        self.pairs.merge()
        n, often = len(self.alone), self.pairs.counts >= LEAST
        keys, counts = self.pairs.keys[often], self.pairs.counts[often]
        one, other = keys // n, keys % n
        alone = self.alone.double() if self.alone.device.type != "mps" else self.alone.float()
        pmi = (counts * (self.n_tokens / alone[one] / alone[other])).log()
        owners, others = torch.cat([one, other]), torch.cat([other, one])
        values, counts = pmi.repeat(2), counts.repeat(2)
        best, _ = best_of_each(owners, values, k, n)
        is_there = best >= 0
        at = best.clamp(min=0)
        if not len(owners):
            blank = torch.zeros(n, k)
            return Partners(blank.int() - 1, blank, blank.int(), self.n_tokens, self.pairs.missed)
        return Partners(
            torch.where(is_there, others[at], -1).int().cpu(), torch.where(is_there, values[at], 0.0).float().cpu(),
            torch.where(is_there, counts[at], 0).int().cpu(), self.n_tokens, self.pairs.missed,
        )  # fmt: skip


def _pairs(features: Int[Tensor, "codes"], places: Int[Tensor, "codes"], n: int) -> Int[Tensor, "pairs"]:
    """Each two codes of one token as one number, the smaller feature first; codes are sorted by token, then by feature."""
    if not len(features):
        return features
    size = torch.unique_consecutive(places, return_counts=True)[1]
    last = size.cumsum(0).repeat_interleave(size)
    at = torch.arange(len(features), device=features.device)
    # Each code goes with those behind it at its token.
    many = last - 1 - at
    first = at.repeat_interleave(many)
    step = torch.arange(len(first), device=first.device) - (many.cumsum(0) - many)[first]
    return features[first] * n + features[first + 1 + step]
