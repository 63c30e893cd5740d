"""Which combinations training never sees: decided by the combination alone, so every seed agrees."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from innerview.pocket.sentence import Split


@lru_cache(maxsize=1 << 18)
def split_of(*parts: str, share: float) -> Split:
    """`held_out` for about `share` of all combinations, by a hash of the parts; order counts."""
    digest = hashlib.blake2b("\x1f".join(parts).encode(), digest_size=8).digest()
    return "held_out" if int.from_bytes(digest) < share * 2**64 else "train"


def held_out_if(is_new: object) -> Split:
    """`held_out` where it is true."""
    return "held_out" if is_new else "train"


def either(*splits: Split) -> Split:
    """`held_out` where any of them is."""
    return "held_out" if "held_out" in splits else "train"
