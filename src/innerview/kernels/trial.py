"""Whether a path's programs give the reference's codes on this GPU: tried once for each rule and format, before it is first believed."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Generator, Tensor

from innerview.kernels import reference
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Rule, Sparse

# Few and many tokens go by tiles of different shapes; features that fill no tile.
TRIED = ((16, 515, 256), (130, 515, 256))
K = 8

Encode = Callable[[Encoder, Tensor], Sparse]


@cache
def why_not(
    encode: Encode, rule: str, dtype: torch.dtype, device: str = "cuda", *, is_exact: bool = False
) -> str | None:
    """Why a path is not believed on this device, in words; None where its codes are the reference's in every trial.

    Args:
        encode: The path's own.
        rule: Name of the rule's class.
        dtype: Format of the weight.
        device: Kind of device.
        is_exact: Whether its codes are float64's, of any numbers.
    """
    try:
        wrong = [size for size in TRIED if not _agrees(encode, rule, dtype, device, size, is_exact)]
    except Exception as error:
        # Triton, its assembler and the driver each raise their own; whichever it is, other paths are there.
        return f"its programs do not run here ({type(error).__name__}: {str(error)[:120]})"
    return (
        f"its codes differ from the reference's in {len(wrong)} of {len(TRIED)} trials on this device"
        if wrong
        else None
    )


def _agrees(
    encode: Encode, rule: str, dtype: torch.dtype, device: str, size: tuple[int, int, int], is_exact: bool
) -> bool:
    n, m, d = size
    drawn = Generator().manual_seed(0)

    def whole(*shape: int) -> Tensor:
        return torch.randint(-2, 3, shape, generator=drawn).to(device, dtype)

    # Sums of small whole numbers are exact in every order, and ties are many.
    one = Encoder(whole(m, d), whole(m), _rule(rule, whole(m) + 30, whole(m).abs() + 1))
    x = whole(n, d)
    if not _same(encode(one, x), reference.encode(one, x)):
        return False
    if not is_exact:
        return True
    weight, x = torch.randn(m, d, generator=drawn), torch.randn(n, d, generator=drawn)
    # Each threshold lies one float32 below a pre-activation.
    some = (x.double() @ weight.double().T).float()[torch.arange(m) % n, torch.arange(m)]
    cut = torch.nextafter(some, torch.full_like(some, -torch.inf)).to(device)
    one = Encoder(weight.to(device), torch.zeros(m, device=device), _rule(rule, cut, torch.ones_like(cut)))
    wide = Encoder(one.weight.double(), one.bias.double(), _rule(rule, cut.double(), torch.ones_like(cut).double()))
    got, wanted = encode(one, x.to(device)), reference.encode(wide, x.to(device).double())
    return _same(
        Sparse(got.tokens, got.features, got.features), Sparse(wanted.tokens, wanted.features, wanted.features)
    )


def _rule(name: str, cut: Tensor, scale: Tensor) -> Rule:
    match name:
        case "Largest":
            return Largest(K)
        case "Behind":
            return Behind(-cut, scale, torch.zeros_like(cut))
        case _:
            return Above(cut)


def _same(ours: Sparse, theirs: Sparse) -> bool:
    return all(torch.equal(getattr(ours, name), getattr(theirs, name)) for name in ("tokens", "features", "values"))
