"""Numbers that are none are refused, with how many and where."""

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DictionaryError


def refuse_not_finite(block: Float[Tensor, "rows width"], since: int | Tensor = 0) -> None:
    """Refuse NaN and infinity, which TopK would take for the largest of all.

    Args:
        block: Some tokens' activations.
        since: The first one's number among all, or the number of each.
    Raises:
        DictionaryError: There is one; how many, and where the first is.
    """
    # One sum tells it in most cases, at a fraction of the cost of looking at each number.
    if bool(torch.isfinite(block.sum())):
        return
    bad = ~torch.isfinite(block)
    if not bool(bad.any()):
        return
    row = int(bad.any(dim=1).nonzero()[0, 0])
    token = row + since if isinstance(since, int) else int(since[row])
    value = float(block[row][bad[row]][0])
    raise DictionaryError(
        f"the activations hold NaN or infinity in {int(bad.sum())} of {bad.numel()} numbers, first {value} at token {token} (counted flat); "
        "half-precision networks overflow: run the network in float32 or bfloat16, or leave these tokens out"
    )
