"""What must hold before times are worth anything: everybody's answer is the same."""

from collections.abc import Sequence

import torch

from benchmarks.pairing import Contender, DisagreementError

CLOSE = 1e-4


def same_tensors(contenders: Sequence[Contender], *, exact: Sequence[str]) -> str:
    """What was checked: tensors equal to the first contender's, to the last bit for those in `exact`.

    Raises:
        DisagreementError: One differs.
    """
    first = contenders[0]
    wanted = first.call()
    worst, equal = 0.0, [first.name]
    for contender in contenders[1:]:
        got = contender.call()
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


def same_ids(contenders: Sequence[Contender], *, length: int) -> str:
    """What was checked: everybody wrote the same `length` tokens.

    Raises:
        DisagreementError: One wrote others, or another number.
    """
    wanted = contenders[0].call()
    for contender in contenders:
        got = contender.call()
        if got != wanted or len(got) != length:
            raise DisagreementError(
                f"{contender.name} wrote {got}; {contenders[0].name} wrote {wanted}; {length} tokens were asked for"
            )
    return f"the same {length} tokens from everybody"
