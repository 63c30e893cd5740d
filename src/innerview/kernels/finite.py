"""Numbers that are none are refused, with how many and where."""

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.errors import DictionaryError
from innerview.kernels.derived import derived, is_fixed
from innerview.kernels.rules import Encoder


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


def refuse_weights(encoder: Encoder) -> None:
    """Refuse NaN and infinity in a weight, and NaN in what stands beside it: its features would look silent. Each weight is looked at once.

    Not where it trains: a look at every step would cost what a step costs.

    Raises:
        DictionaryError: There is one; in which features.
    """
    if not is_fixed(encoder.weight):
        return
    beside = {
        "bias": encoder.bias,
        **{name: one for name, one in vars(encoder.rule).items() if isinstance(one, Tensor)},
    }
    # Each by itself: several dictionaries may share a weight.
    bad = {"weight": derived(encoder.weight, "not finite", _not_finite)}
    # An infinite threshold is a feature that is off, and meant.
    bad |= {name: derived(one, "NaN", lambda tensor: tensor.isnan().nonzero()[:, 0]) for name, one in beside.items()}
    for name, features in bad.items():
        if len(features):
            raise DictionaryError(
                f"the dictionary's {name} holds {'NaN or infinity' if name == 'weight' else 'NaN'} in {len(features)} of {encoder.n_features} features, "
                f"first in feature {int(features[0])}; it was damaged, or its training diverged: load another copy"
            )


def _not_finite(weight: Tensor) -> Tensor:
    """Numbers of the features whose row holds NaN or infinity."""
    if bool(torch.isfinite(weight.sum())):
        return torch.empty(0, dtype=torch.long)
    return (~torch.isfinite(weight)).any(dim=1).nonzero()[:, 0]
