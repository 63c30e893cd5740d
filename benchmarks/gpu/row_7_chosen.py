"""Row 7 on a GPU: 128 chosen features of 131,072, d 4096."""

import torch
from torch import Tensor

from benchmarks.gpu.drawn import Drawn, Size, contender, workload
from benchmarks.gpu.row import run
from benchmarks.pairing import DisagreementError
from benchmarks.result import Row, Workload

SIZES = (Size(4096, 131_072, 4096),)
CHOSEN = 128
TARGETS = {"all features, masked": 1 / 30, "x @ W[:, i]": 1 / 1.5, "reading x": 1 / 0.5}


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against SAEDashboard's masking and the columns of a weight that lies width-major."""
    notes = [
        "SAEDashboard computes all features and masks them; here in plain PyTorch. `x @ W[:, i]` gathers columns of a [d, features] weight.",
        "Targets are ours ÷ theirs: 0.0333× is 30 times as fast.",
    ]
    return Row("7", "Chosen features on a GPU", [chosen(size, rounds, device) for size in sizes], notes, {})


def chosen(size: Size, rounds: int | None, device: str) -> Workload:
    """A few features of some tokens by everybody."""
    drawn = Drawn.of(size, torch.bfloat16, device)
    ours, x, weight, threshold = drawn.dictionary(), drawn.x, drawn.weight, drawn.threshold
    features = torch.randperm(size.m, generator=torch.Generator().manual_seed(1))[: min(CHOSEN, size.m)].tolist()
    index, across = torch.tensor(features, device=device), weight.T.contiguous()

    def columns() -> Tensor:
        pre = x @ across[:, index]
        return pre.relu() * (pre > threshold)

    def masked() -> Tensor:
        pre = x @ across
        return (pre.relu() * (pre > threshold))[:, index]

    contenders = [
        contender("reading x", "limit", device, x.sum),
        contender("innerview", "ours", device, lambda: ours.encode_features(x, features)),
        contender("x @ W[:, i]", "peer", device, columns),
        contender("all features, masked", "peer", device, masked),
    ]
    mine, theirs = contenders[1].call(), contenders[2].call()
    # At the threshold two products of bfloat16 may lie on different sides.
    apart = int(((mine > 0) != (theirs > 0)).sum())
    if apart > 2 + 0.02 * int((theirs > 0).sum()):
        raise DisagreementError(f"{apart} of {int((theirs > 0).sum())} codes differ")
    targets = [("innerview", name, target) for name, target in TARGETS.items()]
    return workload(
        f"{len(features)} features, {drawn.name}",
        f"codes as `x @ W[:, i]` gives them, {apart} at the threshold",
        contenders,
        rounds,
        targets,
    )


if __name__ == "__main__":
    run(row)
