"""Row 6 on a GPU: peak memory of encoding 4096 tokens by a million features; and how time and memory grow, with rows 1 and 4."""

import torch

from benchmarks.gpu.drawn import Drawn, Size, checked, contender, dense_jump, once, workload
from benchmarks.gpu.rates import wait
from benchmarks.gpu.row import run
from benchmarks.result import Claim, Row, Workload
from innerview.kernels.encode import encode

SIZES = (Size(4096, 1 << 20, 512),)
# What the peers' JumpReLU holds: the matrix of tokens and features, whether each is above, and their product.
TARGET = 1 / 100


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against the dense computation that the peers run."""
    notes = [
        "Memory of activations: the peak while encoding, less what was held before. The dense computation is the peers', in plain PyTorch, by tokens until it fits.",
        "The target is ours ÷ theirs: 0.01× is a hundredth.",
    ]
    done = [memory(size, rounds, device) for size in sizes]
    return Row("6", "Peak memory of encoding on a GPU, a million features", done, notes, {})


def memory(size: Size, rounds: int | None, device: str) -> Workload:
    """Peaks of both, and their times on an eighth of the tokens."""
    drawn = Drawn.of(size, torch.bfloat16, device)
    one, plain = drawn.encoder(), dense_jump(drawn)
    eighth = drawn.x[: max(1, len(drawn.x) // 8)]
    contenders = [
        contender("innerview", "ours", device, lambda: encode(one, eighth, "fused")),
        contender("dense", "peer", device, lambda: plain(eighth)),
    ]
    gate = checked(drawn, "fused")
    done = workload(
        f"JumpReLU, {drawn.name}, times of an eighth", gate, contenders, rounds, [("innerview", "dense", None)]
    )
    ours = peak(lambda: encode(one, drawn.x, "fused"), device)
    theirs = 8 * peak(lambda: plain(eighth), device)
    done.claims.append(Claim("activations' memory, innerview", once(ours / 2**20), "MiB"))
    done.claims.append(Claim("activations' memory, dense, eight times that of an eighth", once(theirs / 2**20), "MiB"))
    done.claims.append(Claim("activations' memory of innerview ÷ dense's", once(ours / max(1, theirs)), "×", TARGET))
    return done


def peak(call, device: str) -> int:
    """Bytes that a call holds at most beyond what is held before it; 0 where nothing counts them."""
    if device != "cuda":
        return 0
    call()
    wait(device)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    wait(device)
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    run(row)
