"""Which tokens each feature is most often active on."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.seen import Seen
from innerview.features.tallies import Tallies, best_of_each

MOST_PAIRS = 1 << 23


@dataclass(frozen=True, eq=False)
class Profile:
    """For each feature the tokens that it is most often active on.

    Attributes:
        ids: Ids of the tokens, −1 behind the last, int32, shape [n_features, k].
        counts: Times that the feature was active on each, int32, shape [n_features, k].
        means: Mean activation there, float32, shape [n_features, k].
        reads: Times that each token was read, int32, shape [n_features, k].
        missed: So many times besides a feature may have been active on a token.
    """

    ids: Int[Tensor, "n_features k"]
    counts: Int[Tensor, "n_features k"]
    means: Float[Tensor, "n_features k"]
    reads: Int[Tensor, "n_features k"]
    missed: int = 0


@dataclass(eq=False)
class Profiling:
    """Counts of feature and token under way.

    Attributes:
        used: How often each pair came, and its activations' sum.
        read: Times that each token was read, int64, shape [vocab].
        n_features: Features.
    """

    used: Tallies
    read: Int[Tensor, "vocab"]
    n_features: int

    @classmethod
    def empty(cls, n_features: int, vocab: int, device: torch.device) -> "Profiling":
        """Nothing was counted yet."""
        return cls(Tallies.empty(MOST_PAIRS, device), torch.zeros(vocab, dtype=torch.int64, device=device), n_features)

    @property
    def vocab(self) -> int:
        """A number above every id."""
        return len(self.read)

    def add(self, seen: Seen, ids: Int[Tensor, "codes"], read: Int[Tensor, "tokens"]) -> None:
        """Count a chunk's codes.

        Args:
            seen: Its codes.
            ids: The id of each code's token.
            read: Ids of all its tokens that count.
        """
        self.read += torch.bincount(read, minlength=self.vocab)
        self.used.add(seen.features * self.vocab + ids, seen.values)

    def profile(self, k: int) -> Profile:
        """For each feature the `k` tokens it was most often active on."""
        self.used.merge()
        owners, ids = self.used.keys // self.vocab, self.used.keys % self.vocab
        counts, n = self.used.counts, self.n_features
        if not len(owners):
            blank = torch.zeros(n, k)
            return Profile(blank.int() - 1, blank.int(), blank, blank.int(), self.used.missed)
        best, _ = best_of_each(owners, counts.float(), k, n)
        is_there, at = best >= 0, best.clamp(min=0)
        means = self.used.sums / counts
        return Profile(
            torch.where(is_there, ids[at], -1).int().cpu(), torch.where(is_there, counts[at], 0).int().cpu(),
            torch.where(is_there, means[at], 0.0).float().cpu(), torch.where(is_there, self.read[ids[at]], 0).int().cpu(),
            self.used.missed,
        )  # fmt: skip
