"""The difference of means between two classes of prompts.

Reference: arXiv:2312.06681 (contrastive activation addition), arXiv:2308.10248
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.capturing import capture
from innerview.direction import Direction
from innerview.errors import DirectionError
from innerview.models import text
from innerview.models.model import Model
from innerview.opened import opened

CHUNK = 32
OUTLIER = 10.0
FEW = 4
# Below this share of the gap on the prompts themselves, the held-out gap is noise, and no unit to measure in.
GENERALISES = 0.1


def contrast(
    model: Model, positive: Any, negative: Any, *, site: str, position: int | Literal["mean"] = -1, name: str | None = None
) -> Direction:  # fmt: skip
    """The unit vector from the negative prompts' mean activation to the positive ones'.

    One natural step is the gap between the classes' mean projections on prompts that the direction was not fitted on (two folds, averaged);
    with fewer than 4 prompts a class, or where next to nothing of the gap holds out, the gap on the prompts themselves.

    Args:
        model: The network.
        positive: Prompts that show the concept: texts, chats or ids.
        negative: Prompts that do not.
        site: Where to read, one site.
        position: Token to read, negative from the end; `"mean"` averages the tokens behind BOS.
        name: What to call it.
    Raises:
        DirectionError: The means coincide, or a position is past the end.
    Reference: arXiv:2312.06681
    """
    where = model.site(site)
    if where.axes and where.axes[:2] != ("batch", "pos"):
        raise DirectionError(
            f"{where.name} is {where.shape}, not one activation a token; read a site such as 'blocks.*.resid'"
        )
    up, up_norms = _read(model, positive, where.name, position)
    down, down_norms = _read(model, negative, where.name, position)
    gap = up.mean(0) - down.mean(0)
    length = float(gap.norm())
    if not length < float("inf"):
        raise DirectionError(f"activations at {where.name} hold NaN or infinity; look at the network and the prompts")
    if not length > 1e-9 * float(up.norm(dim=1).mean() + down.norm(dim=1).mean()):
        raise DirectionError(
            f"the means of {len(up)} positive and {len(down)} negative prompts coincide at {where.name} (distance {length:.3g}); "
            "give prompts that differ, or read another site or position"
        )
    vector = gap / length
    scale, kind = _step(up, down, length)
    center = float((up.mean(0) + down.mean(0)) @ vector) / 2
    made = Direction(
        vector.float(), where.name, scale, kind, min(len(up), len(down)), _median_norm(torch.cat([up_norms, down_norms])), center,
        name or "contrast", f"difference of means over {len(up)} and {len(down)} prompts, position {position}",
    )  # fmt: skip
    opened.add("direction", made)
    return made


def _read(model: Model, prompts: Any, site: str, position: int | str) -> tuple[Float[Tensor, "n width"], Tensor]:
    """One activation a prompt in float64, and the norms of all tokens behind BOS."""
    tokens = text.encode(model, prompts)
    rows = tokens.rows()
    found, norms = [], []
    for start in range(0, len(rows), CHUNK):
        acts = capture(model, rows[start : start + CHUNK], site)
        assert acts.mask is not None and acts.tokens is not None
        for value, keep, ids in zip(acts[site], acts.mask, acts.tokens, strict=True):
            real = value[keep].double().flatten(1).cpu()
            first = int(text.starts_with_bos(model, ids[keep].tolist()))
            body = real[first:] if len(real) > first else real
            found.append(body.mean(0) if position == "mean" else _at(real, position))
            norms.append(body.norm(dim=1))
    return torch.stack(found), torch.cat(norms)


def _at(real: Tensor, position: Any) -> Tensor:
    if isinstance(position, bool) or not isinstance(position, int) or not -len(real) <= position < len(real):
        raise DirectionError(
            f"no position {position!r} in a prompt of {len(real)} tokens; use {-len(real)} to {len(real) - 1}, or 'mean'"
        )
    return real[position]


def _step(up: Tensor, down: Tensor, length: float) -> tuple[float, str]:
    """One natural step, and what it was measured as."""
    if min(len(up), len(down)) < FEW:
        return length, "gap of the class means, on the prompts themselves"
    gaps = []
    for fold in (0, 1):
        fitted = up[fold::2].mean(0) - down[fold::2].mean(0)
        held = up[1 - fold :: 2].mean(0) - down[1 - fold :: 2].mean(0)
        gaps.append(float(held @ fitted / fitted.norm()) if float(fitted.norm()) > 0 else 0.0)
    held_out = sum(gaps) / 2
    if held_out > 0:
        return held_out, "gap of the class means on held-out prompts"
    return (
        length,
        f"gap of the class means on the prompts themselves (held out it is {held_out:.3g}: it does not generalise)",
    )


def _median_norm(norms: Tensor) -> float:
    """Median norm without outlier tokens."""
    return float(norms[norms <= OUTLIER * norms.median()].median())
