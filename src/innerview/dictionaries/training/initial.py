"""The weights that training starts from, and what is measured on the first tokens."""

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.training.subspace import ActiveSubspace
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError


def norm_factor(x: Float[Tensor, "rows d"]) -> float:
    """What brings the mean squared length of activations to 1.

    Raises:
        DictionaryError: They are all zero, or not finite.
    """
    mean = float(x.double().square().sum(dim=-1).mean())
    if not 0 < mean < float("inf"):
        raise DictionaryError(
            f"the first {len(x)} activations have mean squared length {mean}; nothing can be trained on them"
        )
    return mean**-0.5


def geometric_median(x: Float[Tensor, "rows d"], steps: int = 50) -> Float[Tensor, "d"]:
    """The point with the least sum of distances to all rows, by Weiszfeld's iteration."""
    x = x.double()
    found = x.mean(dim=0)
    for _ in range(steps):
        weights = 1 / (x - found).norm(dim=-1).clamp(min=1e-9)
        moved = (weights[:, None] * x).sum(dim=0) / weights.sum()
        is_there = float((moved - found).norm()) < 1e-7 * float(found.norm() + 1e-12)
        found = moved
        if is_there:
            break
    return found.float()


def initial_weights(
    architecture: Architecture, n_features: int, x: Tensor, target: Tensor, seed: int, *, is_transcoder: bool, has_skip: bool,
    init: ActiveSubspace | None = None,
) -> Weights:  # fmt: skip
    """Random decoder rows of one length; the encoder is the decoder transposed, or of rows of its own in a transcoder.

    Args:
        architecture: What is trained.
        n_features: Features.
        x: First inputs, normalised, shape [rows, d_in].
        target: What they are to become, normalised, shape [rows, d_out].
        seed: Of the rows.
        is_transcoder: Whether another site is written than read.
        has_skip: Whether there is a linear map beside the features.
        init: Where rows start; anywhere when None.
    """
    of = torch.Generator().manual_seed(seed)
    d_in, d_out = x.shape[1], target.shape[1]
    decoder = torch.nn.functional.normalize(torch.randn(n_features, d_out, generator=of), dim=-1)
    encoder = decoder.clone()
    if is_transcoder:
        encoder = torch.nn.functional.normalize(torch.randn(n_features, d_in, generator=of), dim=-1)
    bias = torch.zeros(d_out)
    if is_transcoder:
        bias = target.float().mean(dim=0).cpu()
    elif architecture.starts_at_median:
        bias = geometric_median(target.cpu())
    skip = torch.zeros(d_out, d_in) if has_skip else None
    extras = architecture.initial_extras(n_features, d_in)
    made = Weights(
        encoder * architecture.initial_encoder,
        torch.zeros(n_features),
        decoder * architecture.initial_norm,
        bias,
        skip,
        extras,
    )
    made = made if init is None else init.applied(made, x, target)
    return architecture.initial(made)
