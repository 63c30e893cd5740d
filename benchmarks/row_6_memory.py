"""Row 6: peak memory of encoding 4096 tokens by 131,072 features, beyond what was held before."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import innerview as iv
from benchmarks.encoders import Drawn, checked, workload
from benchmarks.pairing import Contender, Span
from benchmarks.result import Claim, Row
from benchmarks.row import run
from benchmarks.ways import with_peers

N_TOKENS, N_FEATURES, D, L0 = 4096, 131_072, 256, 64
TARGET = 1 / 30
MEASURED = 3
MIB = 1 << 20


def row(rounds: int | None) -> Row:
    """Bytes beyond those held before, ours against SAELens'; the times are of a sixteenth of the tokens."""
    drawn = Drawn.of(N_TOKENS, N_FEATURES, D, L0)
    ours = drawn.dictionary(iv.JumpReLU())
    found, missing = with_peers.load()
    few = Drawn(drawn.weight, drawn.threshold, drawn.x[: N_TOKENS // 16], L0)
    plain = drawn.weight.T.contiguous()
    name, theirs = "plain PyTorch", lambda x: (pre := x @ plain).relu() * (pre > drawn.threshold)
    if "sae_lens" in found:
        name, theirs = "SAELens", with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
    peer = Contender(name, "peer", lambda: theirs(few.x))
    gate = checked(few, ours, [peer])
    own = peaks(lambda: ours.encode(drawn.x))
    other = peaks(lambda: theirs(drawn.x))
    ratio = Span.of([a / b for a, b in zip(own, other, strict=True)])
    claims = [
        Claim(f"innerview's peak of activations ÷ {name}'s", ratio, "×", TARGET),
        Claim("innerview's peak beyond the weights", Span.of(own, 1 / MIB), "MiB"),
        Claim(f"{name}'s peak beyond the weights", Span.of(other, 1 / MIB), "MiB"),
        Claim(
            "of it in innerview's case the codes",
            Span.of([len(ours.encode(drawn.x)) * 20.0] * MEASURED, 1 / MIB),
            "MiB",
        ),
    ]
    contenders = [Contender("innerview", "ours", lambda: ours.encode(few.x)), peer]
    done = workload(
        f"JumpReLU, L0 {L0}, memory of {drawn.name}; times of {len(few.x)} tokens", gate, contenders, rounds, [], claims
    )
    notes = [
        "Peaks are of the process's resident memory, reset before each call (Linux, glibc). Ours keeps a copy of the weight in the screen's format beside it, a quarter of its bytes for int8, made before."
    ]
    return Row("6", "Peak memory, 4096 tokens, 131k features", [done], notes, missing)


def peaks(call: Callable[[], Any]) -> list[float]:
    """Bytes of resident memory at the peak of a call beyond those before it, some times."""
    call()
    return [_peak(call) for _ in range(MEASURED)]


def _peak(call: Callable[[], Any]) -> float:
    # What earlier calls left with the allocator goes back first, else it would be used again unseen. 5 resets the peak to what is resident now.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    kept = call()
    peak = _status("VmHWM")
    del kept
    return max(1.0, float(peak - before))


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    run(row)
