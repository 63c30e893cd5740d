"""Rows 1 and 2 on a GPU: JumpReLU encoding into codes."""

import torch

from benchmarks.gpu.drawn import Drawn, Size, checked, contender, dense_jump, same, sparse, tensors_like, workload
from benchmarks.gpu.row import run
from benchmarks.result import Row, Workload
from benchmarks.ways import with_peers
from innerview.kernels.encode import encode

SIZES = (Size(4096, 16_384, 2304, 70),)
TARGETS = {"SAELens": 1 / 2.0, "compiled, then nonzero": 1 / 1.4, "the product": 1 / 0.85}
NOTES = [
    "Everybody encodes bfloat16. SAELens gives dense codes, and is timed without taking the active ones out of them; where it is not installed the same computation in plain PyTorch stands for it.",
    "Targets are ours ÷ theirs: 0.5× is twice as fast.",
]


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against SAELens', the same compiled, and the bfloat16 product alone."""
    done = [jump_relu(size, rounds, device, TARGETS) for size in sizes]
    return Row("1", "JumpReLU codes on a GPU, d 2304, 16k features", done, NOTES, with_peers.load()[1])


def jump_relu(size: Size, rounds: int | None, device: str, targets: dict[str, float]) -> Workload:
    """JumpReLU codes of some tokens by everybody."""
    drawn = Drawn.of(size, torch.bfloat16, device)
    one, plain = drawn.encoder(), dense_jump(drawn)
    compiled = torch.compile(plain) if device == "cuda" else plain
    contenders = [
        contender("the product", "limit", device, lambda: drawn.x @ drawn.weight.T),
        contender("innerview", "ours", device, lambda: encode(one, drawn.x, "fused")),
        contender("compiled, then nonzero", "peer", device, lambda: sparse(compiled(drawn.x))),
    ]
    name, theirs = "plain PyTorch", plain
    if "sae_lens" in with_peers.load()[0]:
        with tensors_like(drawn.weight):
            name, theirs = "SAELens", with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
    contenders.append(contender(name, "peer", device, lambda: theirs(drawn.x)))
    gate = checked(drawn, "fused") + same(drawn, "fused", 0, contenders[2:])
    told = {name if one == "SAELens" else one: target for one, target in targets.items()}
    return workload(
        f"JumpReLU, {drawn.name}", gate, contenders, rounds, [("innerview", *pair) for pair in told.items()]
    )


if __name__ == "__main__":
    run(row)
