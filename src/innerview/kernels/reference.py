"""What the kernels mean: plain torch, a block of rows at a time. Everything faster is tested against this."""

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels.rules import Above, Behind, Encoder, Largest, Rule, Sparse

# Pre-activations that are held at once: 64 MiB of float32.
BLOCK = 1 << 24


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Sparse:
    """Codes of prepared inputs.

    Products are summed, biases added, and numbers compared in `encoder.wide`; values are rounded to the weight's own format at the
    end, and one that rounds to 0 is no code.

    Args:
        encoder: What encodes.
        x: Finite numbers, in the format and on the device of the weight.
    """
    size = max(1, BLOCK // encoder.n_features)
    weight, bias = encoder.weight.to(encoder.wide), encoder.bias.to(encoder.wide)
    parts: list[Sparse] = []
    # A block of no rows too, which says on which device and in which format nothing was found.
    starts = list(range(0, max(len(x), 1), size))
    for start in starts:
        pre = torch.nn.functional.linear(x[start : start + size].to(encoder.wide), weight, bias)
        parts.append(gathered(activated(encoder.rule, pre).to(encoder.weight.dtype)))
    return Sparse.joined(parts, starts)


def gathered(dense: Float[Tensor, "tokens n_features"]) -> Sparse:
    """The codes of a dense tensor; what is 0 is no code."""
    tokens, features = dense.nonzero(as_tuple=True)
    return Sparse(tokens, features, dense[tokens, features])


def activated(rule: Rule, pre: Float[Tensor, "tokens n_features"]) -> Float[Tensor, "tokens n_features"]:
    """Dense codes of pre-activations by a rule."""
    match rule:
        case Above(threshold=threshold):
            codes = pre.relu()
            return codes if threshold is None else torch.where(pre > threshold.to(pre.dtype), codes, 0.0)
        case Behind(gate=gate, scale=scale, shift=shift):
            magnitude = pre * scale.to(pre.dtype) + shift.to(pre.dtype)
            return torch.where(pre + gate.to(pre.dtype) > 0, magnitude.relu(), 0.0)
        case Largest(k=k):
            return _largest(pre, k)


def _largest(pre: Tensor, k: int) -> Tensor:
    if k >= pre.shape[-1]:
        return pre.relu()
    found = pre.topk(k + 1, dim=-1)
    kept = torch.zeros_like(pre).scatter(-1, found.indices[:, :-1], found.values[:, :-1])
    # `topk` takes any of equals; a stable sort takes the lowest feature, at several times the cost: only for rows with equals at the cut.
    tied = (found.values[:, -1] == found.values[:, -2]) & (found.values[:, -1] > 0)
    if tied.any():
        values, features = pre[tied].sort(dim=-1, descending=True, stable=True)
        kept[tied] = torch.zeros_like(values).scatter(-1, features[:, :k], values[:, :k])
    return kept.relu()
