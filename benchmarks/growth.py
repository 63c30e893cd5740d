"""How encoding grows: time and memory a token over tokens and over features, on a CPU: `python -m benchmarks.growth`.

Written to `results/growth-<machine>.json`: each point with its path, seconds, peak of resident memory beyond the weights, and codes. Each
point is the median of some calls, in a process of its own, so that the peak of one is not the peak of another.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

import innerview as iv
from benchmarks import environment, machine
from benchmarks.encoders import Drawn, checked
from benchmarks.row_6_memory import peaks

D, L0, K = 256, 64, 64
TOKENS = (512, 2048, 8192, 32_768, 65_536)
FEATURES = (4096, 16_384, 65_536, 262_144, 1_048_576)
# Features while tokens grow, and tokens while features grow.
AT_FEATURES, AT_TOKENS = 16_384, 512
CALLS = 5


def point(n_tokens: int, n_features: int, rule: str) -> dict[str, Any]:
    """What encoding takes at one size."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(machine.cores())
    drawn = Drawn.of(n_tokens, n_features, D, L0)
    ours = drawn.dictionary(iv.TopK(K) if rule == "TopK" else iv.JumpReLU())
    gate = checked(Drawn(drawn.weight, drawn.threshold, drawn.x[:512], L0), ours)
    took = []
    for _ in range(CALLS):
        start = time.perf_counter()
        codes = ours.encode(drawn.x)
        took.append(time.perf_counter() - start)
    seconds, peak = statistics.median(took), statistics.median(peaks(lambda: ours.encode(drawn.x)))
    return {
        "rule": rule, "tokens": n_tokens, "features": n_features, "d": D, "gate": gate,
        "path": iv.kernels.explain(ours, drawn.x).path, "seconds": seconds, "microseconds_a_token": seconds / n_tokens * 1e6,
        "microseconds_a_token_and_1000_features": seconds / n_tokens / n_features * 1e9,
        "peak_bytes": peak, "peak_bytes_a_token": peak / n_tokens, "codes": len(codes), "bytes_of_codes": 20 * len(codes),
        "bytes_of_dense": 4 * n_tokens * n_features,
    }  # fmt: skip


def main() -> int:
    """Measure every point, or the one that is told, and write what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--point", type=int, nargs=2, metavar=("TOKENS", "FEATURES"))
    parser.add_argument("--rule", choices=("JumpReLU", "TopK"), default="JumpReLU")
    parser.add_argument("--most", type=int, default=1 << 40, help="largest product of tokens and features")
    asked = parser.parse_args()
    if asked.point:
        print(json.dumps(point(*asked.point, asked.rule)))
        return 0
    environment.make()
    sizes = [(n, AT_FEATURES) for n in TOKENS] + [(AT_TOKENS, m) for m in FEATURES]
    points, failed = [], 0
    for rule in ("JumpReLU", "TopK"):
        for n, m in dict.fromkeys(sizes):
            if n * m > asked.most:
                continue
            call = [str(environment.PYTHON), "-m", "benchmarks.growth", "--point", str(n), str(m), "--rule", rule]
            done = subprocess.run(call, cwd=environment.ROOT, stdout=subprocess.PIPE, text=True)
            if done.returncode:
                print(f"{rule}, {n} tokens, {m} features failed", file=sys.stderr)
                failed += 1
                continue
            points.append(json.loads(done.stdout.splitlines()[-1]))
            print(f"{rule}, {n} tokens, {m} features: {points[-1]['microseconds_a_token']:.1f} µs a token", flush=True)
    path = Path(__file__).parent / "results" / f"growth-{machine.name()}.json"
    told = {
        "machine": machine.name(),
        "date": datetime.date.today().isoformat(),
        "versions": machine.versions(),
        "points": points,
    }
    path.write_text(json.dumps(told, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote benchmarks/results/{path.name}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
