"""Gradients at sites: of a number made from the logits, with respect to what passes there."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from innerview.capture_runs import Keeper
from innerview.edits.shapes import wide
from innerview.errors import CaptureError
from innerview.inputs import Call
from innerview.models.site import Point, Site

Objective = Callable[..., Tensor] | Literal["loss"]


class LiveKeeper(Keeper):
    """Keeps values, and what their gradients are taken by: a zero added at each site, or the very tensor where adding would not reach all."""

    def __init__(self, sites: list[Site], **options: Any) -> None:
        super().__init__(sites, **options)
        self.probes: dict[str, Tensor] = {}
        self._flagged: list[Tensor] = []

    def keep(self, point: Point, value: Any) -> Any:
        """Keep what a module handles, and put probes into it."""
        changed = None
        for site in self.by_point[point]:
            if not self._is_due(site):
                continue
            x = site.read(value if changed is None else changed, self.shape)
            if not x.dtype.is_floating_point:
                raise CaptureError(f"no gradient at {site.name!r}: it holds {x.dtype}, which has none; drop the site")
            # A copy: what the network does to its own tensor later is no part of what passed here.
            self.values[site.name] = x.detach().clone()
            if site.is_editable:
                probe = self.probes[site.name] = torch.zeros_like(x, requires_grad=True)
                changed = site.write(value if changed is None else changed, x + probe, self.shape)
            else:
                self.probes[site.name] = self._watched(site, x, value)
        return changed

    def _watched(self, site: Site, x: Tensor, value: Any) -> Tensor:
        """The tensor itself: everything that reads it reads this object."""
        if not any(x is item for item in (value, *(value if isinstance(value, (tuple, list)) else ()))):
            raise CaptureError(
                f"no gradient at {site.name!r}: a change there would not reach all that reads it; ask at {site.instead!r} instead"
            )
        if not x.requires_grad:
            self._flagged.append(x.requires_grad_())
        return x

    def gradients(self, scalar: Tensor) -> dict[str, Tensor]:
        """The gradient at each site; zero where the number does not depend on it."""
        found = torch.autograd.grad(scalar, list(self.probes.values()), allow_unused=True)
        return {
            name: torch.zeros_like(self.values[name]) if gradient is None else gradient
            for (name, gradient) in zip(self.probes, found, strict=True)
        }

    def let_go(self) -> None:
        """Leave tensors as they were."""
        for x in self._flagged:
            x.requires_grad_(False)


def scalar_of(objective: Any, call: Call, output: Any) -> Tensor:
    """The number whose gradients are asked for.

    Args:
        objective: `"loss"`, or what makes a number, or one for each row, of the logits (and of the mask of real tokens, if it takes two).
        call: What the network was called with.
        output: What it returned.
    Raises:
        CaptureError: It gives something else, or has read the logits of pads.
    """
    logits = _logits_of(output)
    mask = call.tokens.mask.to(logits.device) if call.tokens is not None else None
    if objective == "loss":
        return _loss(logits, call)
    has_pads = mask is not None and logits.shape[:2] == mask.shape and not bool(mask.all())
    if has_pads:
        # Whoever reads a pad by mistake gets NaN, not a number that means nothing.
        logits = logits.masked_fill(~mask.view(*mask.shape, *(1,) * (logits.ndim - 2)), torch.nan)  # type: ignore[union-attr]
    found = objective(logits, mask) if _takes_mask(objective) else objective(logits)
    if not isinstance(found, Tensor) or found.ndim > 1 or not found.requires_grad:
        told = f"shape {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise CaptureError(
            f"gradients_of= gives one number, or one for each row, made from the logits {list(logits.shape)}; it gave {told}"
        )
    scalar = found.sum()
    if has_pads and bool(scalar.isnan()):
        raise CaptureError(
            "gradients_of= has read logits of pads; take (logits, mask) and read real tokens only, or give rows of one length"
        )
    return scalar


def checked_objective(given: Any) -> Any:
    """What `gradients_of=` says.

    Raises:
        CaptureError: It cannot be called.
    """
    if given is None or given == "loss" or callable(given):
        return given
    raise CaptureError(f"gradients_of= is 'loss' or something to call with the logits, not {given!r}")


def _logits_of(output: Any) -> Tensor:
    found = getattr(output, "logits", None)
    if isinstance(found, Tensor):
        return found
    if isinstance(output, Tensor):
        return output
    items = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    found = next((item for item in items if isinstance(item, Tensor)), None)
    if found is None:
        raise CaptureError(f"the network returned a {type(output).__name__} without logits, so there is no gradient")
    return found


def _takes_mask(objective: Callable[..., Any]) -> bool:
    try:
        taken = inspect.signature(objective).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in taken) > 1


def _loss(logits: Tensor, call: Call) -> Tensor:
    """Each row's mean next-token cross-entropy in nats, summed over rows: a row's gradient does not hang on its neighbours."""
    tokens = call.tokens
    if tokens is None or logits.shape[:2] != tokens.ids.shape or logits.ndim != 3:
        raise CaptureError(
            f"gradients_of='loss' predicts the next token, and the logits are {list(logits.shape)}; give a callable"
        )
    ids, mask = tokens.ids.to(logits.device), tokens.mask.to(logits.device)
    counted = mask[:, :-1] & mask[:, 1:]
    losses = nn.functional.cross_entropy(wide(logits[:, :-1]).transpose(1, 2), ids[:, 1:], reduction="none")
    return (losses.masked_fill(~counted, 0.0).sum(dim=1) / counted.sum(dim=1)).sum()
