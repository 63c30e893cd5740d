"""Row 5 on a GPU: JumpReLU codes of 1 and of 16 tokens, 131,072 features, bound by reading the weights once."""

import torch

from benchmarks.gpu.drawn import Drawn, Size, checked, contender, dense_jump, same, tensors_like, workload
from benchmarks.gpu.row import run
from benchmarks.result import Row, Workload
from benchmarks.ways import with_peers
from innerview.kernels.encode import encode

SIZES = (Size(1, 131_072, 2304), Size(16, 131_072, 2304))


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against SAELens', and a read of the weights."""
    notes = [
        "The limit reads the weights once and sums them.",
        "Targets are ours ÷ theirs: 0.556× is 1.8 times as fast.",
    ]
    done = [few(size, rounds, device) for size in sizes]
    return Row("5", "JumpReLU codes of few tokens on a GPU", done, notes, with_peers.load()[1])


def few(size: Size, rounds: int | None, device: str) -> Workload:
    """Codes of few tokens by everybody."""
    drawn = Drawn.of(size, torch.bfloat16, device)
    one, name, theirs = drawn.encoder(), "plain PyTorch", dense_jump(drawn)
    if "sae_lens" in with_peers.load()[0]:
        with tensors_like(drawn.weight):
            name, theirs = "SAELens", with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
    # Whole numbers of 64 bits: a sum of bfloat16 is bound by its conversions.
    words = drawn.weight.view(-1)[: drawn.weight.numel() // 4 * 4].view(torch.int64)
    contenders = [
        contender("reading the weights", "limit", device, words.sum),
        contender("innerview", "ours", device, lambda: encode(one, drawn.x, "fused")),
        contender(name, "peer", device, lambda: theirs(drawn.x)),
    ]
    gate = checked(drawn, "fused") + same(drawn, "fused", 0, contenders[2:])
    targets = [("innerview", name, 1 / 1.8), ("innerview", "reading the weights", 1 / 0.85)]
    return workload(f"JumpReLU, {drawn.name}", gate, contenders, rounds, targets)


if __name__ == "__main__":
    run(row)
