"""Features whose decoder rows lie nearest, block by block: never features × features."""

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.features.view import Partner

BLOCK = 1 << 14


@torch.no_grad()
def nearest(decoder: Float[Tensor, "n_features d"], feature: int, k: int) -> tuple[Partner, ...]:
    """The `k` features with the largest cosine to one; a row of zeros, or with NaN, has none, and is nobody's."""
    row = decoder[feature].float()
    length = row.norm()
    if not bool(length > 0) or not bool(torch.isfinite(length)) or k < 1:
        return ()
    return similar(decoder, row, k, without=feature)


@torch.no_grad()
def similar(
    decoder: Float[Tensor, "n_features d"], vector: Float[Tensor, "d"], k: int, *, without: int = -1
) -> tuple[Partner, ...]:
    """The `k` features whose rows have the largest cosine with a vector.

    Args:
        decoder: Rows of features.
        vector: What they are held against.
        k: How many.
        without: A feature that is left out.
    """
    cosines = all_cosines(decoder, vector)
    if without >= 0:
        cosines[without] = -torch.inf
    best = cosines.topk(min(k, len(cosines)))
    found = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return tuple(Partner(index, value) for index, value in found if value > -torch.inf)


@torch.no_grad()
def all_cosines(decoder: Float[Tensor, "n_features d"], vector: Float[Tensor, "d"]) -> Float[Tensor, "n_features"]:
    """Cosine of each row with a vector; −∞ for a row of zeros."""
    unit = vector.to(decoder.device, torch.float32)
    unit = unit / unit.norm()
    parts = []
    for block in decoder.detach().split(BLOCK):
        rows = block.float()
        length = rows.norm(dim=1)
        parts.append(
            (rows @ unit / length.clamp(min=1e-30)).masked_fill(~((length > 0) & torch.isfinite(length)), -torch.inf)
        )
    return torch.cat(parts)
