"""Put a given value in place of the activation."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from innerview.activations import Activations
from innerview.edits.context import Context
from innerview.edits.edit import Edit
from innerview.edits.samples import samples_of
from innerview.edits.shapes import numbers, per_row, per_token, rows_among
from innerview.errors import EditError


@dataclass(frozen=True, eq=False)
class Replace(Edit):
    """Put a given value in place of the activation; a share `s` of a schedule goes part of the way, `x + s × (value − x)`.

    Attributes:
        value: One vector for all tokens, [width] or [head, d_head]; one for each row, [batch, 1, width]; or one for each token,
            [batch, pos, width] or [pos, width], by its position in its row, so that pads and a cache change nothing.
        name: What to call it.
    """

    value: Tensor
    name: str = field(default="a given value", kw_only=True)

    def __post_init__(self) -> None:
        self._set(value=numbers(self.value, f"the value to put at {self.site!r}"))
        super().__post_init__()

    @classmethod
    def from_activations(cls, acts: Activations, site: str, *, row: int | None = None, **where: Any) -> "Replace":
        """Another prompt's activations, token by token; limit it to the tokens that the prompt has with `where=`.

        Args:
            acts: The captured activations.
            site: Which of them, and where they go.
            row: The row to take for every row; each its own when None.
            where: `where=`, `heads=` and `neurons=` of the edit.
        """
        value = acts[site] if row is None else acts[site][row : row + 1]
        if not value.shape[0]:
            raise EditError(f"no row {row} among {acts[site].shape[0]} captured rows of {site!r}")
        return cls(value.detach(), site=site, name=f"another prompt's {site}", **where)

    @classmethod
    def from_mean(cls, acts: Any, site: str, **where: Any) -> "Replace":
        """The mean over the real tokens of what was captured, or over a tensor's rows (mean ablation).

        Args:
            acts: Activations, or a tensor [n, width] or [batch, pos, width].
            site: Which of them, and where it goes.
            where: `where=`, `heads=` and `neurons=` of the edit.
        """
        rows = samples_of(acts, site, "activations to take the mean of")
        return cls(rows.double().mean(0).to(rows.dtype), site=site, name=f"the mean of {len(rows)} tokens", **where)

    @property
    def label(self) -> str:
        return f"{self.name} put in{self._behind}"

    def for_rows(self, rows: Sequence[int], of: int) -> "Replace":
        """The same edit for some rows of a batch of `of`."""
        if self.value.ndim < 3 or self.value.shape[0] == 1:
            return self
        return replace(self, value=self.value[rows_among(self.value.shape[0], rows, of, "values")])

    def _changed(self, x: Tensor, share: Tensor | None, context: Context | None) -> Tensor:
        value = self._kept((x.device, x.dtype), lambda: self.value.to(x.device, x.dtype))
        if value.ndim == x.ndim and 1 < value.shape[0] < x.shape[0] and x.shape[0] % value.shape[0] == 0:
            value = value[per_row(torch.arange(value.shape[0], device=x.device), x, "values")]
        if value.ndim == 2 and x.ndim == 3 and value.shape[0] > 1:
            # One prompt's tokens, for every row.
            value = value[None]
        in_rows = context is not None and context.has_positions and context.site.pos_axis == 1
        if in_rows and value.ndim == x.ndim and value.shape[1] > 1:
            value = self._by_position(value, x, context)  # type: ignore[arg-type]
        elif value.ndim in (1, 2) and value.numel() == x[0, 0].numel():
            value = value.reshape(x.shape[2:])
        try:
            # A tensor of its own: a network that works in place would write over the value.
            value = value.expand(x.shape).clone()
        except RuntimeError as error:
            raise EditError(
                f"a value of shape {list(self.value.shape)} does not fit {self.site!r} of shape {list(x.shape)}; "
                f"give one that broadcasts to it, such as [{x.shape[-1]}]"
            ) from error
        if share is not None:
            value = torch.lerp(x, value, per_token(share.to(x.dtype), x).expand(x.shape))
        return value

    def _by_position(self, value: Tensor, x: Tensor, context: Context) -> Tensor:
        """The value of each token of `x`; `x` itself at tokens that the edit leaves alone."""
        pos, count = context.pos, value.shape[1]
        has_value = (pos >= 0) & (pos < count)
        lacking = ~has_value if context.mask is None else context.mask & ~has_value
        if bool(lacking.any()):
            raise EditError(
                f"{self.name} at {self.site!r} has {count} positions, and the edit asks for position {int(pos[lacking].max())}; "
                f"limit it with where=iv.Where(positions=range({count})), or scope='prompt'"
            )
        try:
            each = value.expand(x.shape[0], count, *x.shape[2:])
        except RuntimeError:
            return value
        rows = torch.arange(x.shape[0], device=x.device)[:, None]
        found = each[rows, pos.expand(x.shape[:2]).clamp(0, count - 1)]
        return torch.where(per_token(has_value, x), found, x)
