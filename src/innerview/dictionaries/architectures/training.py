"""What the losses of several architectures share: squared errors, dead features, decoder rows of length 1."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from innerview.dictionaries.architectures.architecture import Step
from innerview.dictionaries.entries import Active, Entries, picked, summed
from innerview.dictionaries.weights import Weights


@torch.no_grad()
def products(weights: Weights, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows n_features"]:
    """`x @ encoder.T`, without gradients; under autocast in its number format."""
    return x.detach() @ weights.encoder.detach().T


def reconstructed(
    weights: Weights, values: Float[Tensor, "n"], entries: Entries, x: Tensor
) -> Float[Tensor, "rows d_out"]:
    """What codes at entries stand for, with gradients."""
    made = summed(values, weights.decoder, entries) + weights.decoder_bias
    return made if weights.skip is None else made + x @ weights.skip.T


def squared_error(decoded: Tensor, target: Tensor) -> Tensor:
    """Mean over the rows of the squared length of the error."""
    return (decoded - target).square().sum(dim=-1).mean()


def largest(pre: Float[Tensor, "rows n"], k: int) -> Tensor:
    """Places of the k largest numbers of each row, in no order, shape [rows, k]."""
    if k >= pre.shape[-1]:
        return torch.arange(pre.shape[-1], device=pre.device).expand_as(pre)
    if pre.device.type != "cpu" or pre.dtype == torch.bfloat16:
        return pre.topk(k, dim=-1, sorted=False).indices
    # numpy's partition is several times as fast on a CPU as torch's topk.
    return torch.from_numpy(np.argpartition(pre.numpy(), pre.shape[-1] - k, axis=-1)[:, -k:].copy())


def auxiliary(weights: Weights, x: Tensor, pre: Tensor, error: Tensor, step: Step, k: int) -> Float[Tensor, ""] | None:
    """Squared error of the error's reconstruction by the k dead features with the largest pre-activations; None without dead ones.

    Reference: arXiv:2406.04093, appendix A.2
    """
    dead = step.dead.nonzero().squeeze(1)
    if not dead.numel():
        return None
    chosen = dead[largest(pre[:, dead], min(k, dead.numel()))]
    entries = Entries.of_rows(chosen, weights.n_features)
    values = (picked(x, weights.encoder, pre, entries) + _bias_gradient(weights, entries)).relu()
    return squared_error(summed(values, weights.decoder, entries), error)


def _bias_gradient(weights: Weights, entries: Entries) -> Tensor:
    """The encoder's bias at entries less its own value: what carries its gradient where the value is in the product already."""
    bias = entries.each(weights.encoder_bias)
    return bias - bias.detach()


def picked_with_bias(weights: Weights, x: Tensor, pre: Tensor, entries: Entries) -> Float[Tensor, "n"]:
    """Pre-activations at entries, with gradients for the encoder, its bias and the input; `pre` has the bias in it."""
    return picked(x, weights.encoder, pre, entries) + _bias_gradient(weights, entries)


def active(entries: Entries, values: Tensor) -> Active:
    """Codes without their gradients."""
    return Active(entries, values.detach())


@torch.no_grad()
def remove_parallel_gradients(weights: Weights) -> None:
    """Take from the gradient of each row of the decoder, of length 1, what would only change its length."""
    grad = weights.decoder.grad
    if grad is not None:
        along = (grad * weights.decoder).sum(dim=-1)
        grad.addcmul_(along[:, None], weights.decoder, value=-1)


@torch.no_grad()
def unit_rows(weights: Weights) -> None:
    """Scale each row of the decoder to length 1."""
    weights.decoder.div_(torch.linalg.vector_norm(weights.decoder, dim=-1, keepdim=True).clamp_(min=1e-12))
