"""Row 2: JumpReLU encoding into codes, d 768, 24,576 features."""

from benchmarks.encoders import Drawn
from benchmarks.result import Row
from benchmarks.row import run
from benchmarks.row_1_jump_relu import encoding, notes
from benchmarks.ways import with_peers

N_TOKENS, N_FEATURES, D, L0 = 512, 24_576, 768, 116
TARGETS = {"SAELens": 1 / 1.4, "compiled, then nonzero": 1 / 1.4, "the product": 1 / 0.85}


def row(rounds: int | None) -> Row:
    """Ours against SAELens', the same compiled, and the float32 product alone."""
    drawn = Drawn.of(N_TOKENS, N_FEATURES, D, L0)
    missing = with_peers.load()[1]
    return Row("2", "JumpReLU codes, d 768, 24.6k features", [encoding(drawn, rounds, TARGETS)], notes(drawn), missing)


if __name__ == "__main__":
    run(row)
