"""Muon: momentum, orthogonalised, for the matrices inside the blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

STEPS = 5
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(torch.optim.Optimizer):
    """Steps along the nearest orthogonal matrix to the momentum, float32, matrices of a shape together.

    torch.optim.Muon computes in bfloat16, which a CPU without units for it does slowly.
    With several threads each takes a part of every shape's matrices.
    Reference: https://kellerjordan.github.io/posts/muon; arXiv:2504.16041 on how early it generalises.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        threads: int = 1,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.threads = threads
        self.pool = ThreadPoolExecutor(threads)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step of every matrix that has a gradient."""
        for group in self.param_groups:
            for matrices in by_shape(group["params"]):
                directions = self.orthogonal(torch.stack([self.pushed(p, group["momentum"]) for p in matrices]))
                scale = max(1.0, matrices[0].shape[0] / matrices[0].shape[1]) ** 0.5
                for matrix, direction in zip(matrices, directions, strict=True):
                    matrix.mul_(1 - group["lr"] * group["weight_decay"])
                    matrix.add_(direction, alpha=-group["lr"] * scale)

    def orthogonal(self, matrices: Tensor) -> Tensor:
        """Each matrix orthogonalised, the threads' parts side by side."""
        return torch.cat(list(self.pool.map(orthogonal, matrices.chunk(self.threads))))

    def pushed(self, matrix: nn.Parameter, momentum: float) -> Tensor:
        """The momentum after this gradient, looked ahead as Nesterov does."""
        state = self.state[matrix]
        buffer = state.setdefault("momentum", torch.zeros_like(matrix))
        buffer.lerp_(matrix.grad, 1 - momentum)
        return matrix.grad.lerp(buffer, momentum)


def by_shape(matrices: Iterable[nn.Parameter]) -> list[list[nn.Parameter]]:
    """The matrices with a gradient, those of a shape together."""
    groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
    for matrix in matrices:
        if matrix.grad is not None:
            groups[matrix.shape].append(matrix)
    return list(groups.values())


@torch.no_grad()
def orthogonal(matrices: Tensor) -> Tensor:
    """Each matrix with its singular values pushed toward one, by five Newton-Schulz steps; shape [n, rows, columns]."""
    wide = matrices.mT if matrices.shape[1] > matrices.shape[2] else matrices
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if matrices.shape[1] > matrices.shape[2] else x
