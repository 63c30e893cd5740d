"""Row 2 on a GPU: JumpReLU encoding into codes, d 768, 24,576 features."""

from benchmarks.gpu.drawn import Size
from benchmarks.gpu.row import run
from benchmarks.gpu.row_1_jump_relu import NOTES, jump_relu
from benchmarks.result import Row
from benchmarks.ways import with_peers

SIZES = (Size(4096, 24_576, 768, 116),)
TARGETS = {"SAELens": 1 / 3.5, "the product": 1 / 0.75, "compiled, then nonzero": 1.0}


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against SAELens', the same compiled, and the bfloat16 product alone."""
    done = [jump_relu(size, rounds, device, TARGETS) for size in sizes]
    return Row("2", "JumpReLU codes on a GPU, d 768, 24.6k features", done, NOTES, with_peers.load()[1])


if __name__ == "__main__":
    run(row)
