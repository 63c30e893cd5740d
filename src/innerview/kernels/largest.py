"""The k largest of each token, exact, from the best few of each tile: with a certificate, and again where it is not given."""

from dataclasses import replace

import torch
from jaxtyping import Int
from torch import Tensor

from innerview.kernels.rules import Sparse
from innerview.kernels.slots import Part, Slots, read_out, room
from innerview.kernels.tiling import ROUNDS_TO_0, Product, Tiling

# Keys are ordered as codes are chosen: by value, of equals the lowest feature first. The bits of a float32 above 0 in the upper half,
# this less the feature in the lower; 0 is no code.
LAST = 0x7FFFFFFF
# Tokens of one launch at most, and keys.
BLOCK, KEYS = 16384, 1 << 25


def encode(product: Product, k: int) -> Sparse:
    """Codes of the k largest.

    The best few of each tile are merged. The k-th of them is certain where no tile holds back what could be better: where the last
    that a tile gave lies at or behind it. Other tokens are computed again, with all that reaches their k-th, which is a lower bound.
    """
    n, m = len(product.x), len(product.weight)
    if not n:
        return read_out([], torch.zeros(0, dtype=torch.int64, device=product.x.device), 0, product.dtype)
    tiling = Tiling.of(n, product.x.dtype)
    each = kept_of_a_tile(k, tiling.along_features(m), tiling.features)
    keys = product.best("largest", each, tiling)
    chosen = merged(keys, k)
    if each < min(m, tiling.features):
        unsure = (keys[:, :, -1] > chosen[:, k - 1 : k]).any(dim=1).nonzero()[:, 0]
        if len(unsure):
            chosen[unsure] = _again(product, unsure, chosen[unsure, k - 1], k)
    return codes_of(chosen, product.dtype)


def tokens_at_once(k: int, n_features: int, each: int = 1) -> int:
    """Tokens of one launch: so many that the keys of their tiles, times `each`, take a quarter of a gigabyte."""
    tiling = Tiling.of(BLOCK, torch.bfloat16)
    n_tiles = tiling.along_features(n_features)
    a_token = n_tiles * each * kept_of_a_tile(k, n_tiles, tiling.features)
    return max(64, min(BLOCK, KEYS // max(1, a_token)))


def kept_of_a_tile(k: int, n_tiles: int, most: int) -> int:
    """How many of a tile are kept, so that where features fall as they may few tokens have more in it."""
    mean = k / n_tiles
    wanted = round(mean + 5 * mean**0.5 + 2)
    return min(1 << (wanted - 1).bit_length(), most, k)


def merged(keys: Int[Tensor, "rows tiles each"], k: int) -> Int[Tensor, "rows k"]:
    """The k largest keys of each row, falling, 0 where there are fewer."""
    flat = keys.flatten(1)
    found = flat.topk(min(k, flat.shape[1]), dim=1).values
    return torch.nn.functional.pad(found, (0, k - found.shape[1]))


def codes_of(chosen: Int[Tensor, "rows k"], dtype: torch.dtype) -> Sparse:
    """Codes of falling keys; those whose value rounds to 0 are none."""
    least = int(torch.tensor(ROUNDS_TO_0[dtype]).view(torch.int32))
    counts = (chosen >> 32 > least).sum(dim=1)
    words = ((LAST - (chosen & LAST)) << 32) | (chosen >> 32)
    k = words.shape[1]
    padded = torch.nn.functional.pad(words, (0, room(k) - k))
    return read_out([Part(Slots(padded, counts.int()))], counts, int(counts.sum()), dtype)


def keys_of(slots: Slots) -> Int[Tensor, "rows capacity"]:
    """Keys of the words in slots, 0 behind their counts."""
    keys = ((slots.words & LAST) << 32) | (LAST - (slots.words >> 32))
    places = torch.arange(slots.capacity, device=keys.device)
    return keys.masked_fill(places >= slots.counts[:, None], 0)


def _again(product: Product, rows: Tensor, least: Tensor, k: int) -> Tensor:
    """The k largest keys of some rows, of all features that reach the value of a key."""
    some = replace(product.of_rows(rows), by_row=(least >> 32).int().view(torch.float32))
    found = torch.zeros(len(rows), k, dtype=torch.int64, device=rows.device)
    capacity, left = room(4 * k, len(product.weight)), torch.arange(len(rows), device=rows.device)
    while len(left):
        slots = Slots.empty(len(left), capacity, rows.device)
        some.of_rows(left).fill("at_least", slots)
        fits = slots.counts <= capacity
        found[left] = merged(keys_of(slots)[:, None], k)
        left, capacity = left[~fits], room(int(slots.counts.max()), len(product.weight))
    return found
