"""Least squares over nonnegative numbers, for many rows at once, with gradients."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Gram = Float[Tensor, "n n"]
Rows = Float[Tensor, "rows n"]


def nonnegative_codes(
    decoder: Float[Tensor, "n d"], x: Float[Tensor, "rows d"], steps: int = 2000, tolerance: float = 1e-6
) -> Rows:
    """Codes `y ≥ 0` with the least `‖x − y @ decoder‖²`, by accelerated projected gradients, then exactly on their support.

    Gradients are those of the solution itself (the implicit function theorem on the support), not of the way to it.

    Args:
        decoder: A row a feature.
        x: What is taken apart.
        steps: Projected gradients, at most.
        tolerance: How far the optimality conditions may be missed, as a share of the largest product with a row.
    """
    with torch.no_grad():
        gram, product = decoder @ decoder.T, x @ decoder.T
        codes = _projected(gram, product, steps, tolerance)
        # A step to the least squares of the support may leave the orthant; what left is dropped, and the rest goes on.
        for _ in range(4):
            support = codes > 0
            stepped = codes + _solved(gram, support, (product - codes @ gram) * support)
            codes = torch.where((stepped >= 0).all(-1, keepdim=True), stepped, codes)
    support = codes > 0
    missing = (x - codes @ decoder) @ decoder.T * support
    return torch.where(support, codes + _OnSupport.apply(gram, support, missing), torch.zeros_like(codes))


def _projected(gram: Gram, product: Rows, steps: int, tolerance: float) -> Rows:
    """Projected gradients with momentum, which starts again wherever it climbs (O'Donoghue and Candès, arXiv:1204.3982)."""
    rate = 1.0 / torch.linalg.matrix_norm(gram, 2).clamp_min(torch.finfo(gram.dtype).tiny)
    codes = torch.zeros_like(product)
    ahead, momentum = codes, product.new_ones(len(product), 1)
    scale = product.abs().amax(-1, keepdim=True)
    for step in range(steps):
        slope = ahead @ gram - product
        new = (ahead - rate * slope).relu()
        climbs = ((ahead - new) * (new - codes)).sum(-1, keepdim=True) > 0
        following = torch.where(climbs, 1.0, (1 + (1 + 4 * momentum**2).sqrt()) / 2)
        ahead = torch.where(climbs, new, new + (momentum - 1) / following * (new - codes))
        codes, momentum = new, following
        if step % 20 == 19 and not _misses(gram, product, codes, tolerance * scale).any():
            break
    return codes


def _misses(gram: Gram, product: Rows, codes: Rows, tolerance: Tensor) -> Bool[Tensor, "rows"]:
    """Rows whose optimality conditions are missed: no slope where a code is above 0, none downward elsewhere."""
    slope = codes @ gram - product
    worst = torch.where(codes > 0, slope.abs(), (-slope).relu())
    return (worst > tolerance).any(-1)


def _solved(gram: Gram, support: Bool[Tensor, "rows n"], right: Rows) -> Rows:
    """`z` on each row's support with `(z @ gram) = right` there, by conjugate gradients."""
    found, left = torch.zeros_like(right), right
    way, size = left, left.square().sum(-1, keepdim=True)
    enough = size * torch.finfo(right.dtype).eps ** 2
    for _ in range(min(right.shape[-1], 200)):
        pushed = way @ gram * support
        bend = (way * pushed).sum(-1, keepdim=True)
        going = (size > enough) & (bend > 0)
        if not going.any():
            break
        pace = torch.where(going, size / torch.where(going, bend, 1.0), 0.0)
        found, left = found + pace * way, left - pace * pushed
        new = left.square().sum(-1, keepdim=True)
        way = left + torch.where(going, new / torch.where(going, size, 1.0), 0.0) * way
        size = new
    return found


class _OnSupport(torch.autograd.Function):
    """The inverse of the Gram matrix on each row's support, applied; it is symmetric, so its gradient is itself."""

    @staticmethod
    def forward(ctx: Any, gram: Tensor, support: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(gram, support)
        return _solved(gram, support, right)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, Tensor]:
        gram, support = ctx.saved_tensors
        return None, None, _solved(gram, support, grads[0] * support)
