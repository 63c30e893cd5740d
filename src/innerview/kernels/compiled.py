"""Codes through torch.compile: the reference's passes over the pre-activations melted into one. Taken only where it is told."""

from functools import cache
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels import reference
from innerview.kernels.path import Path, Task
from innerview.kernels.rules import Encoder, Sparse


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Sparse:
    """Codes, as `reference.encode` gives them."""
    size = max(1, reference.BLOCK // encoder.n_features)
    weight, bias = encoder.weight.to(encoder.wide), encoder.bias.to(encoder.wide)
    starts = list(range(0, max(len(x), 1), size))
    blocks = (x[start : start + size] for start in starts)
    return Sparse.joined([reference.gathered(_tile()(weight, bias, encoder.rule, one)) for one in blocks], starts)


def refusal(task: Task) -> str | None:
    """Why this cannot do a task; None where it can."""
    if task.rule == "Largest":
        return "a compiler has nothing to melt into a choice of the k largest"
    return None


def seconds(task: Task) -> float:
    """Never the fastest by itself: its first call compiles, for a minute or more."""
    return inf


COMPILED = Path("compiled", encode, refusal, seconds, "torch.compile")


@cache
def _tile():
    """The dense codes of a block, compiled when it is first called; for any number of rows."""

    def tile(weight: Tensor, bias: Tensor, rule, x: Tensor) -> Tensor:
        pre = torch.nn.functional.linear(x.to(weight.dtype), weight, bias)
        return reference.activated(rule, pre).to(x.dtype)

    return torch.compile(tile, dynamic=True)
