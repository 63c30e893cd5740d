"""Whether this processor's rough products keep the bound that is put on them: tried once, with the numbers that break what breaks."""

from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from innerview.kernels import bounds
from innerview.kernels.bounds import Kind

# One token goes another way through the libraries than many; the widths are no powers of two.
TRIED = ((1, 515, 40), (67, 1030, 130))


def why_not(kind: Kind) -> str | None:
    """Why rough products of a kind cannot be used on this CPU; None where every one that was tried keeps its bound."""
    if kind == "float32" and torch.get_float32_matmul_precision() != "highest":
        return "float32 products may be rounded to bfloat16 (torch.set_float32_matmul_precision)"
    return _broken(kind)


@cache
def _broken(kind: Kind) -> str | None:
    try:
        broken = [True for left, right in _trials(kind) if not _keeps(left, right, kind)]
    except (AttributeError, RuntimeError) as error:
        return f"this torch has no such product ({error})"
    return f"its products miss their bound in {len(broken)} of the trials on this processor" if broken else None


def product(rows: Tensor, columns: Tensor, kind: Kind) -> Tensor:
    """Rough products of rows and columns: int32 sums of int8, or in the rows' own format."""
    if kind != "int8":
        return rows @ columns.T
    # torch's product of one int8 column is wrong (torch 2.13 on a CPU gives what lay in memory).
    return rows.int() * columns.T.int() if rows.shape[1] == 1 else torch._int_mm(rows, columns.T)


def _trials(kind: Kind) -> Iterator[tuple[Tensor, Tensor]]:
    drawn = torch.Generator().manual_seed(0)
    for n, d, m in TRIED:
        left, right = torch.randn(n, d, generator=drawn), torch.randn(m, d, generator=drawn)
        yield left, right
        # All products at their largest and of one sign, where sums of 16 bits overflow.
        yield torch.ones(n, d), -torch.ones(m, d)
        # Large ones that cancel around small ones, where sums in a low precision lose the small.
        left[:, ::2] *= 1000
        right[:, 2::4] = -right[:, 0 : d - 2 : 4]
        left[:, 2::4] = left[:, 0 : d - 2 : 4]
        yield left, right


def _keeps(left: Tensor, right: Tensor, kind: Kind) -> bool:
    if kind == "int8":
        # The trial's numbers as whole ones, without the loops, which are not woken for this.
        whole, others = _whole(left), _whole(right)
        return torch.equal(product(whole, others, kind).double(), whole.double() @ others.double().T)
    rows, columns = bounds.rounded(left, kind), bounds.rounded(right, kind)
    made = product(rows.numbers, columns.numbers, kind).double()
    wanted = rows.numbers.double() @ columns.numbers.double().T
    room = bounds.summing(kind, left.shape[1]) * rows.length[:, None] * columns.length
    return bool(((made - wanted).abs() <= room + bounds.half(kind) * made.abs()).all())


def _whole(numbers: Tensor) -> Tensor:
    scale = numbers.abs().amax(dim=1, keepdim=True) / bounds.WHOLE
    return (numbers / scale).round().to(torch.int8)
