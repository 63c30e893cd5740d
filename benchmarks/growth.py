"""How cost grows with tokens and with features on a CPU, of rows 1, 4 and 14: `python -m benchmarks.growth [--rows 1,4,14]`.

Time and memory a token, into `results/<machine>.json` under `growth`; `make results` draws them.
"""

import argparse
import json
import os
from typing import Any

import torch

from benchmarks import machine, row_14_dashboards
from benchmarks.gpu.drawn import Size
from benchmarks.gpu.growth import FEATURES, TOKENS, growth
from benchmarks.row_6_memory import peaks
from benchmarks.run import RESULTS
from innerview.kernels.machine_code import compiled

# Narrow, so that a million features fit; half as many tokens as row 1 has.
FIXED = Size(256, 16_384, 256)


def main() -> None:
    """Measure what was asked for and write it."""
    parser = argparse.ArgumentParser(description="Measure how cost grows with tokens and features.")
    parser.add_argument("--rows", type=lambda text: text.split(","), default=["1", "4", "14"])
    asked = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(machine.cores())
    # Awake from the first size on: else the small ones would be of plain torch, until waking the loops pays.
    compiled()
    path = RESULTS / f"{machine.name()}.json"
    results = json.loads(path.read_text())
    kept = [series for series in results.get("growth", []) if series["row"] not in asked.rows]
    results["growth"] = kept + series(asked.rows)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"wrote the growth of rows {', '.join(asked.rows)} to benchmarks/results/{path.name}")


def series(
    rows: list[str], tokens: tuple[int, ...] = TOKENS, features: tuple[int, ...] = FEATURES, fixed: Size = FIXED
) -> list[dict[str, Any]]:
    """Each row's series over each axis."""
    chosen = [row for row in rows if row in ("1", "4")]
    made = (
        growth("cpu", tokens, features, fixed, rows=chosen, path=None, dtype=torch.float32, held=_held)
        if chosen
        else []
    )
    return made + (_dashboards() if "14" in rows else [])


def _held(call) -> int:
    return int(min(peaks(call)))


def _dashboards() -> list[dict[str, Any]]:
    points = row_14_dashboards.growth()
    made: list[dict[str, Any]] = []
    for axis in ("tokens", "features"):
        other = "features" if axis == "tokens" else "tokens"
        # The size that stays is the one that most points have.
        sizes = [getattr(one, other) for one in points]
        fixed = max(set(sizes), key=sizes.count) if axis == "tokens" else points[-1].tokens
        along = sorted((one for one in points if getattr(one, other) == fixed), key=lambda one: getattr(one, axis))
        made.append(
            {
                "row": "14",
                "title": f"Counting of dashboards beside forward and encode, {fixed:,} {other}",
                "axis": axis,
                "points": [
                    {
                        "tokens": one.tokens,
                        "features": one.features,
                        "us_a_token": one.counting_us,
                        "bytes_a_token": one.held_bytes / one.tokens,
                    }
                    for one in along
                ],
            }
        )
    return made


if __name__ == "__main__":
    main()
