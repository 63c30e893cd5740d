"""Activations of many tokens as rows of one matrix."""

from typing import Any

from torch import Tensor

from innerview.activations import Activations
from innerview.edits.shapes import numbers
from innerview.errors import EditError


def samples_of(given: Any, site: str, what: str) -> Tensor:
    """The activations of real tokens, shape [n, width]; heads are joined.

    Args:
        given: Activations, or a tensor [n, width], [batch, pos, width] or [batch, pos, head, d_head].
        site: Which of the activations.
        what: What to call them in an error.
    Raises:
        EditError: There are none, or the shape is another.
        SiteError: The site was not captured.
    """
    if isinstance(given, Activations):
        value = given[site]
        has_tokens = given.mask is not None and value.shape[:2] == given.mask.shape
        given = value[given.mask.to(value.device)] if has_tokens else value  # type: ignore[union-attr]
        rows = numbers(given.detach(), what)
        return rows.flatten(1) if has_tokens else _rows(rows, what)
    return _rows(numbers(given.detach() if isinstance(given, Tensor) else given, what), what)


def _rows(value: Tensor, what: str) -> Tensor:
    if value.ndim == 4:
        value = value.flatten(2)
    if value.ndim not in (2, 3) or not value.numel():
        raise EditError(f"{what} are [n, width] or [batch, pos, width], at least one, not {list(value.shape)}")
    return value.flatten(0, -2)
