"""Encoders and inputs that are drawn for the tests of kernels: of exact sums, and of any."""

import torch
from torch import Tensor

from innerview.kernels import Above, Behind, Encoder, Largest

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
RULES = ("relu", "above", "behind", "largest")


def encoder(
    rule: str, n_features: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0, k: int = 3
) -> Encoder:
    """An encoder of small whole numbers, whose sums are exact in every format that sums, so that ties are many."""
    drawn = torch.Generator().manual_seed(seed)

    def whole(*shape: int, reach: int = 2) -> Tensor:
        return torch.randint(-reach, reach + 1, shape, generator=drawn).to(dtype)

    rules = {
        "relu": lambda: Above(),
        "above": lambda: Above(whole(n_features, reach=3)),
        "behind": lambda: Behind(whole(n_features), whole(n_features).abs() + 1, whole(n_features)),
        "largest": lambda: Largest(k),
    }
    return Encoder(whole(n_features, d), whole(n_features), rules[rule]())


def inputs(n_tokens: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """Tokens of small whole numbers."""
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, (n_tokens, d), generator=drawn).to(dtype)


def real_encoder(
    rule: str, n_features: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 0, k: int = 8
) -> Encoder:
    """An encoder of normal numbers, with thresholds that let some in a hundred through."""
    drawn = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=drawn)

    weight = torch.nn.functional.normalize(normal(n_features, d)) * (1 + 0.1 * normal(n_features, 1).abs())
    rules = {
        "relu": lambda: Above(),
        "above": lambda: Above((2.3 + 0.1 * normal(n_features)).to(dtype)),
        "behind": lambda: Behind(
            (normal(n_features) - 2).to(dtype),
            (0.3 * normal(n_features)).exp().to(dtype),
            (normal(n_features) - 1).to(dtype),
        ),
        "largest": lambda: Largest(k),
    }
    return Encoder(weight.to(dtype), (0.1 * normal(n_features)).to(dtype), rules[rule]())


def real_inputs(n_tokens: int, d: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    """Tokens of normal numbers, of lengths that differ."""
    drawn = torch.Generator().manual_seed(seed)
    return (torch.randn(n_tokens, d, generator=drawn) * (0.5 + torch.rand(n_tokens, 1, generator=drawn))).to(dtype)
