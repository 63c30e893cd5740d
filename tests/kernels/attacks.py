"""Encoders and inputs that are made to break a screen, and what must hold of codes whatever they are of."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from innerview.kernels import Above, Encoder, Largest, Sparse

Attack = Callable[[Generator], tuple[Tensor, Tensor, Tensor]]
N, M, D = 12, 96, 67


def hold(encoder: Encoder, x: Tensor, found: Sparse) -> None:
    """Codes hold all that float64 says is active, nothing else, and values within float32's rounding.

    Features whose float64 pre-activation lies within 2⁻⁴⁰ of the lengths of their threshold, or of the k-th, may fall either way, and so may
    what float32 flushes to zero.
    """
    wanted, near = oracle(encoder, x)
    got = torch.zeros_like(wanted)
    got[found.tokens, found.features] = found.values.double()
    wrong = ((got > 0) != (wanted > 0)) & ~near
    assert not bool(wrong.any()), f"{int((wanted[wrong] > 0).sum())} codes lost, {int((got[wrong] > 0).sum())} made up"
    lengths = x.double().norm(dim=1)[:, None] * encoder.weight.double().norm(dim=1) + encoder.bias.double().abs()
    both = (got > 0) & (wanted > 0)
    scale = getattr(encoder.rule, "scale", torch.ones(())).double()
    shift = getattr(encoder.rule, "shift", torch.zeros(())).double()
    allowed = (2 * encoder.d + 4) * 2.0**-24 * (lengths * scale + shift.abs()) + 2.0**-126 * encoder.d
    assert bool(((got - wanted).abs() <= allowed)[both].all())


def oracle(encoder: Encoder, x: Tensor) -> tuple[Tensor, Tensor]:
    """Codes by float64, dense, and where float64 itself cannot tell."""
    pre = x.double() @ encoder.weight.double().T + encoder.bias.double()
    room = 2.0**-120 + 2.0**-40 * (
        x.double().norm(dim=1)[:, None] * encoder.weight.double().norm(dim=1) + encoder.bias.double().abs()
    )
    rule = encoder.rule
    if isinstance(rule, Largest):
        k = min(rule.k, encoder.n_features)
        ordered = pre.sort(dim=1, descending=True, stable=True)
        kept = torch.zeros_like(pre).scatter(1, ordered.indices[:, :k], 1.0)
        kth = ordered.values[:, k - 1 : k].clamp(min=0.0)
        return pre.clamp(min=0.0) * kept, ((pre - kth).abs() <= room) | (pre.abs() <= room)
    if isinstance(rule, Above):
        cut = torch.zeros(encoder.n_features) if rule.threshold is None else rule.threshold
        cut = cut.double().clamp(min=0.0)
        return torch.where(pre > cut, pre, 0.0), (pre - cut).abs() <= room
    gate, magnitude = pre + rule.gate.double(), pre * rule.scale.double() + rule.shift.double()
    return torch.where(gate > 0, magnitude.clamp(min=0.0), 0.0), (gate.abs() <= room) | (magnitude.abs() <= room)


def _thresholds(weight: Tensor, x: Tensor) -> Tensor:
    """Of each feature a pre-activation of its own, one place of float32 below: as near to what passes as can be."""
    pre = (x.double() @ weight.double().T).float()
    picked = pre[torch.arange(len(weight)) % len(x), torch.arange(len(weight))]
    return torch.nextafter(picked, torch.full_like(picked, -torch.inf)).clamp(min=0.0)


def cancellation(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Large numbers that cancel to some millionths of themselves."""
    half = torch.randn(M, D // 2, generator=drawn) * 1000
    weight = torch.cat([half, half, torch.randn(M, D - 2 * (D // 2), generator=drawn) * 0.01], dim=1)
    own = torch.randn(N, D // 2, generator=drawn)
    x = torch.cat(
        [own, -own * (1 + 2.0**-20 * torch.randn(N, 1, generator=drawn)), torch.ones(N, D - 2 * (D // 2))], dim=1
    )
    return weight, x, _thresholds(weight, x)


def one_huge_coordinate(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A coordinate a million times the others in some rows, in some features, in both."""
    weight, x = torch.randn(M, D, generator=drawn), torch.randn(N, D, generator=drawn)
    x[::2, 3] = 1e6
    x[::3, 11] = -1e6
    weight[::5, 3] = 0.0
    weight[::7, 20] = 1e6
    return weight, x, _thresholds(weight, x)


def denormals(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers that are denormal in float32 beside normal ones, rows and features of nothing else too."""
    weight, x = torch.randn(M, D, generator=drawn), torch.randn(N, D, generator=drawn)
    x[:, ::2] *= 1e-41
    weight[:, 1::3] *= 1e-42
    weight[::6] *= 1e-25
    x[3] *= 1e-40
    weight[7] *= 1e-40
    return weight, x, _thresholds(weight, x)


def halfway(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Every number halfway between two bfloat16 numbers, all rounded one way."""
    places = torch.randint(0, 64, (M + N, D), generator=drawn) * 2.0**-6 + 1 + 2.0**-8
    weight, x = places[:M], places[M:]
    return weight, x, _thresholds(weight, x)


def halfway_at_one(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x = w = (1 + 2⁻⁸)·1, which doubles what a bound of one residual allows."""
    weight, x = torch.full((M, D), 1 + 2.0**-8), torch.full((N, D), 1 + 2.0**-8)
    signs = torch.where(torch.rand(M, 1, generator=drawn) < 0.7, 1.0, -1.0)
    return weight * signs, x, _thresholds(weight * signs, x)


def halfway_of_whole_numbers(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Every number halfway between two steps of int8, all rounded one way."""
    weight = (torch.randint(0, 63, (M, D), generator=drawn) * 2 + 0.499) / 127
    x = (torch.randint(0, 63, (N, D), generator=drawn) * 2 + 0.499) / 127
    weight[:, 0], x[:, 0] = 1.0, 1.0
    return weight, x, _thresholds(weight, x)


def residuals_aligned(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """What rounding takes off each feature points along the inputs: the worst case of the bound itself."""
    x = torch.randn(N, D, generator=drawn)
    grid = torch.randn(M, D, generator=drawn).to(torch.bfloat16).float()
    step = grid.abs() * 2.0**-9 * 0.98
    weight = grid + step * torch.sign(x[torch.arange(M) % N])
    return weight, x, _thresholds(weight, x)


def zeros(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Rows and features of zeros."""
    weight, x = torch.randn(M, D, generator=drawn), torch.randn(N, D, generator=drawn)
    weight[::3], x[::3] = 0.0, 0.0
    return weight, x, _thresholds(weight, x)


def ties(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Features that are copies of one another."""
    weight = torch.randn(M // 8, D, generator=drawn).repeat(8, 1)
    x = torch.randn(N, D, generator=drawn)
    return weight, x, _thresholds(weight, x)


def extremes(drawn: Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Lengths over seventy powers of ten, beyond bfloat16's and float32's sums."""
    weight = torch.randn(M, D, generator=drawn) * 10.0 ** torch.linspace(-30, 15, M)[:, None]
    x = torch.randn(N, D, generator=drawn) * 10.0 ** torch.linspace(-30, 20, N)[:, None]
    return weight, x, _thresholds(weight, x)


ATTACKS: tuple[Attack, ...] = (
    cancellation, one_huge_coordinate, denormals, halfway, halfway_at_one, halfway_of_whole_numbers, residuals_aligned, zeros, ties, extremes,
)  # fmt: skip
