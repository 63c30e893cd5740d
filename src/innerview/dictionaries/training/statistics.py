"""What is measured of a finished dictionary on the last tokens that it was trained on."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.dictionary import Dictionary


@torch.no_grad()
def measured(
    dictionary: Dictionary, x: Float[Tensor, "tokens d_in"], target: Float[Tensor, "tokens d_out"]
) -> dict[str, Any]:
    """Median non-zero activation and density of each feature, and how well all reconstruct.

    Args:
        dictionary: The dictionary.
        x: Activations that it reads.
        target: Activations that it is to give.
    """
    x, target = x.float().cpu(), target.float().cpu()
    codes = dictionary.encode(x)
    counts = torch.bincount(codes.features, minlength=dictionary.n_features)
    # Sorted by feature, then by value, the median of each feature lies in the middle of its stretch.
    by_value = codes.values.argsort()
    order = by_value[codes.features[by_value].argsort(stable=True)]
    starts = counts.cumsum(0) - counts
    middle = (starts + (counts - 1).clamp(min=0) // 2).clamp(max=max(0, len(codes) - 1))
    values = codes.values[order] if len(codes) else codes.values.new_zeros(1)
    median = torch.where(counts > 0, values[middle], torch.zeros(()))
    error = target - dictionary.decode(codes, x)
    spread = (target - target.mean(dim=0)).square().sum()
    return {
        "median": median.tolist(),
        "density": (counts / max(1, len(x))).tolist(),
        "measured_tokens": len(x),
        "l0": float(counts.sum() / max(1, len(x))),
        "fvu": float(error.square().sum() / spread) if spread > 0 else float("nan"),
    }
