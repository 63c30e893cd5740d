"""Carry activations of one kind to where those of another are: an affine map."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.edits.context import Context
from innerview.edits.edit import Edit, number_of
from innerview.edits.samples import samples_of
from innerview.edits.shapes import flat, numbers, times, wide
from innerview.errors import EditError
from innerview.where import Where


@dataclass(frozen=True, eq=False)
class Transport(Edit):
    """Carry the activation by an affine map, `x + coefficient × (A x + b − x)`; per neuron, `A` is a factor for each, `a × x + b`.

    Attributes:
        matrix: Factor of each neuron, shape [width], or a matrix, shape [width, width].
        bias: What is added behind, shape [width].
        coefficient: 0 changes nothing, 1 carries the whole way.
        name: What to call it.

    Reference: arXiv:2410.23054 (per neuron), arXiv:2402.09631 (full)
    """

    matrix: Float[Tensor, "width *width_in"]
    bias: Float[Tensor, "width"]
    coefficient: float = 1.0
    name: str = field(default="an affine map", kw_only=True)

    def __post_init__(self) -> None:
        matrix, bias = numbers(self.matrix, "the matrix"), numbers(self.bias, "the bias")
        if bias.ndim != 1 or tuple(matrix.shape) not in ((len(bias),), (len(bias), len(bias))):
            raise EditError(
                f"a matrix of shape {list(matrix.shape)} and a bias of shape {list(bias.shape)} are no map; "
                "give [width] or [width, width], and [width]"
            )
        coefficient = number_of(self.coefficient, "a coefficient")
        self._set(matrix=_floating(matrix), bias=_floating(bias), coefficient=coefficient)
        super().__post_init__()

    @classmethod
    def between(
        cls, source: Any, target: Any, site: str, *, full: bool = False, ridge: float = 1e-6, coefficient: float = 1.0,
        where: Where = Where(), heads: Any = None, neurons: Any = None,
    ) -> "Transport":  # fmt: skip
        """The optimal transport between Gaussians fitted to two sets of activations.

        Per neuron `a = σ_target / σ_source` and `b = μ_target − a μ_source`; a neuron that is constant in the source is only moved.
        In full `A = S^-½ (S^½ T S^½)^½ S^-½` and `b = μ_target − A μ_source`, with covariances `S` and `T`.

        Args:
            source: Activations to carry: captured ones, or a tensor [n, width] or [batch, pos, width].
            target: Activations to carry them to, likewise.
            site: Which of them, and where the edit applies.
            full: Whether the map mixes neurons.
            ridge: Share of the mean variance that is added to both covariances of a full map, which too few tokens leave singular.
            coefficient: How far to carry.
            where: Tokens that the edit applies to.
            heads: Heads that it applies to.
            neurons: Neurons that it applies to.
        Raises:
            EditError: A set has less than two tokens, or their widths differ.
        """
        a, b = (samples_of(g, site, f"{n} activations").double() for g, n in ((source, "source"), (target, "target")))
        if min(len(a), len(b)) < 2 or a.shape[1] != b.shape[1]:
            raise EditError(
                f"source and target of shapes {list(a.shape)} and {list(b.shape)} cannot be matched; give at least 2 tokens of one width each"
            )
        matrix = _full(a, b, ridge) if full else _per_neuron(a, b)
        bias = b.mean(0) - (matrix @ a.mean(0) if full else matrix * a.mean(0))
        name = f"transport of {len(a)} tokens to {len(b)}"
        return cls(
            matrix.float(), bias.float(), coefficient, site=site, where=where, heads=heads, neurons=neurons, name=name
        )

    @property
    def width(self) -> int:
        return len(self.bias)

    @property
    def label(self) -> str:
        return f"{self.coefficient:g} × {self.name}{self._behind}"

    def with_coefficient(self, coefficient: float) -> "Transport":
        """The same edit, carrying less or more of the way."""
        return dataclasses.replace(self, coefficient=coefficient)

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        whole = flat(wide(x), self.width)
        key = (whole.device, whole.dtype)
        matrix = self._kept(("matrix", *key), lambda: self.matrix.to(*key))
        bias = self._kept(("bias", *key), lambda: self.bias.to(*key))
        carried = (whole @ matrix.T if matrix.ndim == 2 else whole * matrix) + bias
        if self.coefficient != 1 or share is not None:
            carried = whole + (carried - whole) * (self.coefficient * times(share, whole))
        return carried.to(x.dtype).view(x.shape)


def _floating(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_floating_point() else tensor.float()


def _per_neuron(source: Tensor, target: Tensor) -> Tensor:
    deviation = source.std(0)
    # A constant has no spread to match: rounding alone would be blown up to the target's.
    is_constant = deviation <= 1e-7 * source.abs().amax(0)
    return torch.where(is_constant, torch.ones_like(deviation), target.std(0) / deviation)


def _full(source: Tensor, target: Tensor, ridge: float) -> Tensor:
    s, t = _covariance(source, ridge), _covariance(target, ridge)
    values, vectors = torch.linalg.eigh(s)
    if float(values.min()) <= 1e-12 * float(values.max()):
        raise EditError(
            f"{len(source)} source tokens do not span their {source.shape[1]} neurons; give more, or a ridge above {ridge:g}"
        )
    root, back = (vectors * values**p @ vectors.T for p in (0.5, -0.5))
    inner, axes = torch.linalg.eigh(root @ t @ root)
    return back @ (axes * inner.clamp(min=0).sqrt() @ axes.T) @ back


def _covariance(samples: Tensor, ridge: float) -> Tensor:
    found = torch.atleast_2d(torch.cov(samples.T))
    return found + ridge * found.diagonal().mean() * torch.eye(len(found), dtype=found.dtype)
