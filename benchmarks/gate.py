"""What must hold before times are worth anything: everybody's answer is the same."""

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.pairing import Contender, DisagreementError

CLOSE = 1e-4


def same_tensors(contenders: Sequence[Contender], *, exact: Sequence[str]) -> str:
    """What was checked: tensors, or lists of them, equal to the first contender's, to the last bit for those in `exact`.

    Raises:
        DisagreementError: One differs.
    """
    first = contenders[0]
    wanted = _one(first.call())
    worst, equal = 0.0, [first.name]
    for contender in contenders[1:]:
        got = _one(contender.call())
        if got.shape != wanted.shape:
            raise DisagreementError(
                f"{contender.name} gives shape {list(got.shape)}, {first.name} {list(wanted.shape)}"
            )
        gap = float((got - wanted).abs().max())
        limit = 0.0 if contender.name in exact else CLOSE
        if not gap <= limit:
            raise DisagreementError(f"{contender.name} differs from {first.name} by {gap:.3g}; allowed is {limit:g}")
        worst = max(worst, gap)
        if torch.equal(got, wanted):
            equal.append(contender.name)
    return f"tensors equal to the last bit ({', '.join(equal)}), the others within {worst:.1g}"


def _one(answer: Tensor | list[Tensor]) -> Tensor:
    return answer if isinstance(answer, Tensor) else torch.stack(answer)


def same_ids(contenders: Sequence[Contender], *, length: int) -> str:
    """What was checked: everybody wrote the same `length` tokens in each row.

    Raises:
        DisagreementError: One wrote others, or another number.
    """
    wanted = contenders[0].call()
    for contender in contenders:
        got = contender.call()
        if got != wanted or any(len(row) != length for row in got):
            raise DisagreementError(
                f"{contender.name} wrote {got}; {contenders[0].name} wrote {wanted}; {length} tokens were asked for"
            )
    return f"the same {length} tokens from everybody"


def other_ids(edited: Contender, unedited: Contender) -> str:
    """What was checked: the edit changes what is written in every row.

    Raises:
        DisagreementError: A row is written as without it.
    """
    pairs = zip(edited.call(), unedited.call(), strict=True)
    same = [row for row, (with_edit, without) in enumerate(pairs) if with_edit == without]
    if same:
        raise DisagreementError(
            f"{edited.name} writes row {same[0]} as {unedited.name} does; the edit is too weak to see"
        )
    return "others than unedited in every row"
