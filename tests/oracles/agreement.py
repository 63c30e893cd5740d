"""How closely two libraries must agree, and on which networks: the hard ones of the table."""

import torch
from torch import Tensor

from tests.networks import ids

TOKENS = ids(2, 9)
LAYERS = (0, 1)
# Grouped queries; a window of 3 under 9 tokens; caps that bind, norms behind; parallel blocks with fused queries; parallel blocks behind
# one norm; fused projections of both kinds; norms of queries and keys; ALiBi.
FAMILIES = (
    "gpt2", "llama", "mistral", "gemma2", "gemma3_text", "gpt_neox", "gpt_neox in a chain", "phi", "phi3", "qwen2", "qwen3", "bloom", "opt",
    "gptj", "gpt_neo",
)  # fmt: skip


def differ(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, as a share of the largest number (of 1 at least); infinite where shapes differ."""
    if found.shape != wanted.shape:
        return float("inf")
    return float((found - wanted).abs().max() / wanted.abs().max().clamp(min=1))


def visible(found: Tensor, wanted: Tensor) -> float:
    """The same over what no mask hides, however either library writes a hidden score."""
    seen = wanted > -1e4
    if not torch.equal(seen, found > -1e4):
        return float("inf")
    return differ(found[seen], wanted[seen])
