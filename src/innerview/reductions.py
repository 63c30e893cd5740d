"""Reductions: one number, or one vector a row, of what passes at a site, computed where it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from innerview.direction import Direction
from innerview.edits.shapes import flat, wide
from innerview.errors import CaptureError
from innerview.models.site import Site

Kind = Literal["mean", "max", "last"]
KINDS = ("mean", "max", "last")


@dataclass(frozen=True, eq=False)
class OverTokens:
    """The mean, the maximum or the last of a row's chosen tokens, shape [batch, ...]. Half precision is summed in float32."""

    kind: Kind
    keeps_tokens = False

    def apply(self, site: Site, x: Tensor, axis: int | None, mask: Tensor | None) -> Tensor:
        """The reduction of an activation.

        Args:
            x: Activation.
            axis: Its axis of tokens.
            mask: True for the tokens that count, shape [batch, tokens]; None for all.
        Raises:
            CaptureError: The site has no axis of tokens.
        """
        if axis is None:
            raise CaptureError(
                f"reduce={self.kind!r} goes over tokens, and {site.name!r} of shape {list(x.shape)} has no axis of tokens known; "
                "reduce the result yourself"
            )
        first = x.movedim(axis, 1)
        if mask is None:
            mask = torch.ones(first.shape[:2], dtype=torch.bool)
        mask = mask.to(x.device)
        if self.kind == "last":
            # Chosen tokens are packed to the left or stand where they are; the last one is the last True.
            last = mask.shape[1] - 1 - mask.flip(1).to(torch.uint8).argmax(dim=1)
            return first[torch.arange(first.shape[0], device=x.device), last]
        spread = mask.view(*mask.shape, *(1,) * (first.ndim - 2))
        if self.kind == "max":
            return first.masked_fill(~spread, -torch.inf).amax(dim=1)
        return torch.where(spread, wide(first), 0).sum(dim=1) / spread.sum(dim=1)


@dataclass(frozen=True, eq=False)
class OntoDirections:
    """The projection onto each of several directions, in natural steps from its center, shape [batch, pos, n]."""

    directions: tuple[Direction, ...]
    keeps_tokens = True

    def apply(self, site: Site, x: Tensor, axis: int | None, mask: Tensor | None) -> Tensor:
        """The projections of an activation.

        Raises:
            EditError: A direction has another width.
        """
        seen = wide(flat(x, self.directions[0].vector.numel()))
        for direction in self.directions:
            flat(seen, direction.vector.numel())
        vectors = torch.stack([d.vector for d in self.directions]).to(seen.device, seen.dtype)
        center = torch.tensor([d.center for d in self.directions], device=seen.device, dtype=seen.dtype)
        step = torch.tensor([d.scale or 1.0 for d in self.directions], device=seen.device, dtype=seen.dtype)
        return (seen @ vectors.T - center) / step


Reduction = OverTokens | OntoDirections


def reduction_of(given: Any) -> Reduction | None:
    """What `reduce=` says; None keeps activations as they are.

    Raises:
        CaptureError: It is neither a word of KINDS nor directions.
    """
    if given is None:
        return None
    if isinstance(given, str) and given in KINDS:
        return OverTokens(given)  # type: ignore[arg-type]
    listed = (given,) if isinstance(given, Direction) else given
    is_list = isinstance(listed, Sequence) and not isinstance(listed, str) and bool(listed)
    if is_list and all(isinstance(d, Direction) for d in listed):
        return OntoDirections(tuple(listed))
    raise CaptureError(f"reduce= is one of {', '.join(map(repr, KINDS))}, or a list of directions, not {given!r}")
