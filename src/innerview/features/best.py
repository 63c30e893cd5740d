"""For each feature the few codes with the largest keys, and the feature's values around each: bounded, whatever is offered."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.features.seen import Seen

# Keys are whole numbers below this, so that a feature and a key fit into one number that is sorted by.
KEY_BITS = 40


def value_keys(values: Float[Tensor, "codes"]) -> Int[Tensor, "codes"]:
    """Keys in the order of the values: the bits of a float32 in the order of its number."""
    bits = values.float().contiguous().view(torch.int32).long()
    return torch.where(bits < 0, -1 - (bits & 0x7FFFFFFF), bits) + (1 << 31)


def mixed(x: Int[Tensor, "n"]) -> Int[Tensor, "n"]:
    """Numbers that look random, the same for the same ones: SplitMix64's last 40 bits.

    Reference: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014)
    """
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15)):
        x = (x ^ ((x >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (x ^ ((x >> 31) & ((1 << 33) - 1))) & ((1 << KEY_BITS) - 1)


def random_keys(seen: Seen, seed: int) -> Int[Tensor, "codes"]:
    """Keys that hang on token, feature and seed alone, so that a draw does not hang on how the corpus was cut."""
    return mixed(seen.places * seen.n_features + seen.features + (seed + 1) * 0x9E3779B97F4A7C)


@dataclass(eq=False)
class Best:
    """The codes with the largest keys.

    Attributes:
        keys: −1 where there is none yet, int64, shape [n_features, k].
        places: Token of each in the corpus, int64, shape [n_features, k].
        values: Value of each, float32, shape [n_features, k].
        around: Values of the feature at the tokens around each, float32, shape [n_features, k, width].
        before: Tokens before the code's own in `around`.
    """

    keys: Int[Tensor, "n_features k"]
    places: Int[Tensor, "n_features k"]
    values: Float[Tensor, "n_features k"]
    around: Float[Tensor, "n_features k width"]
    before: int

    @classmethod
    def empty(cls, n_features: int, k: int, before: int, behind: int, device: torch.device) -> "Best":
        """Room for `k` codes of each feature."""
        keys = torch.full((n_features, k), -1, dtype=torch.int64, device=device)
        values = torch.zeros(n_features, k, device=device)
        around = torch.zeros(n_features, k, before + 1 + behind, device=device)
        return cls(keys, keys.clone(), values, around, before)

    @property
    def k(self) -> int:
        """Codes that are kept of each feature."""
        return self.keys.shape[1]

    def offer(self, seen: Seen, keys: Int[Tensor, "codes"], chosen: Int[Tensor, "chosen"] | None = None) -> None:
        """Take those codes whose keys are larger than what is held.

        Args:
            seen: Codes of a chunk.
            keys: A key for each.
            chosen: Places of the codes that are offered; all when None.
        """
        floor = self.keys.amin(dim=1)
        if chosen is None:
            chosen = (keys > floor[seen.features]).nonzero()[:, 0]
        else:
            chosen = chosen[keys[chosen] > floor[seen.features[chosen]]]
        if not len(chosen):
            return
        owners, offered, offered_keys = self._by_feature(seen, keys, chosen)
        both = torch.cat([self.keys[owners], offered_keys], dim=1)
        is_in = torch.zeros_like(both, dtype=torch.bool).scatter_(1, both.topk(self.k, dim=1).indices, True)
        is_new = is_in[:, self.k :] & (offered_keys >= 0)
        # As many slots are free as codes come in, unless there are empty ones; both are listed row by row.
        is_free = ~is_in[:, : self.k]
        is_free &= is_free.cumsum(dim=1) <= is_new.sum(dim=1, keepdim=True)
        owner, slot = is_free.nonzero(as_tuple=True)
        owner, taken = owners[owner], offered[is_new]
        self.keys[owner, slot] = offered_keys[is_new]
        self.places[owner, slot] = seen.places[taken]
        self.values[owner, slot] = seen.values[taken]
        self.around[owner, slot] = seen.around(taken, self.before, self.around.shape[2] - self.before - 1)

    def _by_feature(self, seen: Seen, keys: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features that are offered codes, and each one's largest `k`: places in `seen` and keys, shape [owners, k]."""
        features = seen.features[chosen]
        order = ((features << KEY_BITS) | ((1 << KEY_BITS) - 1 - keys[chosen])).argsort()
        chosen, features = chosen[order], features[order]
        owners, group, counts = torch.unique_consecutive(features, return_inverse=True, return_counts=True)
        rank = torch.arange(len(chosen), device=chosen.device) - (counts.cumsum(0) - counts)[group]
        is_kept = rank < self.k
        group, rank, chosen = group[is_kept], rank[is_kept], chosen[is_kept]
        places = chosen.new_full((len(owners), self.k), -1)
        found = places.clone()
        places[group, rank], found[group, rank] = chosen, keys[chosen]
        return owners, places, found
