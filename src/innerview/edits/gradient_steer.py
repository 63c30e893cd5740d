"""Go up a score of the activation, by its gradient."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerview.edits.calling import code_of_function, is_same_function, name_of
from innerview.edits.code import code_of
from innerview.edits.context import Context
from innerview.edits.edit import Edit, number_of
from innerview.edits.shapes import per_token, times, wide
from innerview.errors import EditError
from innerview.models.site import Site


@dataclass(frozen=True, eq=False)
class GradientSteer(Edit):
    """Go up a differentiable score of the activation: `n_steps` times `x + step_size × ∇ score(x)`.

    With `is_unit` each token's gradient is brought to length 1 first, so that a step has the length `step_size`. The gradient is
    taken on a detached copy, under `no_grad` too; what flows through the edit flows as if the change were a constant.

    Attributes:
        score: Function of the activation [batch, pos, ...], in float32 for half precision, to scores [batch, pos].
        step_size: How far a step goes; below 0 down.
        n_steps: Number of steps.
        is_unit: Whether gradients are brought to length 1.
        name: What to call the score.

    Reference: arXiv:1912.02164
    """

    score: Callable[[Tensor], Tensor]
    step_size: float = 1.0
    n_steps: int = field(default=1, kw_only=True)
    is_unit: bool = field(default=False, kw_only=True)
    name: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        self._set(
            name=name_of(self.score, self.name, "GradientSteer"), step_size=number_of(self.step_size, "step_size")
        )
        if isinstance(self.n_steps, bool) or not isinstance(self.n_steps, int) or self.n_steps < 1:
            raise EditError(f"n_steps counts steps, from 1; it is {self.n_steps!r}")
        super().__post_init__()

    @property
    def label(self) -> str:
        times_said = "" if self.n_steps == 1 else f"{self.n_steps} × "
        return f"{times_said}{self.step_size:+g} up {self.name}{self._behind}"

    def with_coefficient(self, coefficient: float) -> "GradientSteer":
        """The same edit with another step size."""
        return dataclasses.replace(self, step_size=coefficient)

    def check(self, site: Site) -> None:
        """Refuse a site whose second axis is not that of tokens.

        Raises:
            EditError: It is a site of attention scores or patterns.
        """
        super().check(site)
        if site.pos_axis != 1:
            raise EditError(
                f"{self.label} gives one score a token, and {site.name!r} is {site.shape}; go up a score of 'attn.q' or 'attn.heads'"
            )

    def is_same(self, other: Edit) -> bool:
        """Whether the other edit does the same: its score is the same function."""
        return super().is_same(other) and is_same_function(self.score, other.score)  # type: ignore[attr-defined]

    def _said(self) -> list[str]:
        numbers = [repr(self.step_size), f"n_steps={self.n_steps}", f"is_unit={self.is_unit}"]
        kept = [f"{n}={code_of(v)}" for n, v in (("heads", self.heads), ("neurons", self.neurons)) if v is not None]
        return [code_of_function(self.name), *numbers, f"site={self.site!r}", f"where={self.where.to_code()}", *kept]

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        start = wide(x)
        mask = None if context is None else context.mask
        with torch.inference_mode(False), torch.enable_grad():
            moved = start.detach().clone()
            for _ in range(self.n_steps):
                moved = moved.detach() + self._gradient(moved.detach(), mask) * (self.step_size * times(share, moved))
        return (start + (moved.detach() - start.detach())).to(x.dtype)

    def _gradient(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x.requires_grad_()
        score = self.score(x)
        if not isinstance(score, Tensor) or score.shape != x.shape[:2]:
            got = list(score.shape) if isinstance(score, Tensor) else type(score).__name__
            raise EditError(
                f"{self.name} gives {got} for an activation of shape {list(x.shape)}; "
                f"it must give one score a token, shape {list(x.shape[:2])}"
            )
        # Tokens that the edit leaves alone have no say, where a score looks at several.
        total = score.sum() if mask is None else torch.where(mask, score, torch.zeros_like(score)).sum()
        if not total.requires_grad:
            raise EditError(f"{self.name} does not depend on the activation through torch, so it has no gradient")
        (gradient,) = torch.autograd.grad(total, x, allow_unused=True)
        if gradient is None:
            raise EditError(f"{self.name} does not depend on the activation, so it has no gradient")
        if not torch.isfinite(gradient).all():
            raise EditError(f"the gradient of {self.name} at {self.site!r} holds NaN or infinity; look at the score")
        if not self.is_unit:
            return gradient
        norm = gradient.flatten(2).norm(dim=-1)
        return gradient / per_token(torch.where(norm > 0, norm, torch.ones_like(norm)), x)
