"""Run the GPU rows of the performance table: `make bench-gpu`, or `python -m benchmarks.gpu.run [--rows 1,3] [--rounds 40]`.

It runs in the Python that calls it, which needs torch with CUDA; peers are measured where that Python has them. Results go to
`results/<card>.json` and `.md`, with the card's own rates beside them.
"""

import argparse
import datetime
import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, table
from benchmarks.gpu.growth import growth
from benchmarks.gpu.rates import rates

ROWS = {
    "1": "row_1_jump_relu",
    "2": "row_2_jump_relu_narrow",
    "3": "row_3_exact_codes",
    "4": "row_4_top_k",
    "5": "row_5_few_tokens",
    "6": "row_6_memory",
    "7": "row_7_chosen",
    "8": "row_8_decoding",
}
ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = ("triton", "eai-sparsify", "dictionary-learning", "flashinfer-python")


def main() -> int:
    """Run the rows that were asked for and write the results; 1 when one failed, 2 where there is no GPU."""
    asked = _arguments()
    if not torch.cuda.is_available():
        print("there is no CUDA GPU that this Python's torch can use; nothing was measured", file=sys.stderr)
        return 2
    card = torch.cuda.get_device_name()
    name = re.sub(r"[^a-z0-9]+", "-", card.lower()).strip("-")
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.exists() else {"machine": name, "rows": []}
    results |= {"card": card, "rates": rates("cuda"), "date": datetime.date.today().isoformat(), "versions": versions()}
    rows = {row["number"]: row for row in results["rows"]}
    failed = []
    for number in asked.rows:
        print(f"row {number}: {ROWS[number]}", flush=True)
        row = _row(number, asked.rounds)
        if row is None:
            failed.append(number)
        else:
            rows[number] = row
            results["rows"] = [rows[number] for number in ROWS if number in rows]
            _write(path, results)
    if asked.growth:
        print("growth over tokens and features", flush=True)
        results["growth"] = growth("cuda")
        _write(path, results)
    for number in failed:
        print(f"row {number} failed; its results are as they were", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the GPU rows of the performance table.")
    parser.add_argument(
        "--rows", type=lambda text: text.split(","), default=list(ROWS), help="numbers of rows, with commas"
    )
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each measurement (20 or more)")
    parser.add_argument("--no-growth", dest="growth", action="store_false", help="leave the growth out")
    asked = parser.parse_args()
    unknown = [number for number in asked.rows if number not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]!r} on a GPU; the rows are {', '.join(ROWS)}")
    return asked


def _row(number: str, rounds: int | None) -> dict[str, Any] | None:
    """What one row measured, None when it failed."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "row.json"
        call = [sys.executable, "-m", f"benchmarks.gpu.{ROWS[number]}", "--output", str(output)]
        call += [] if rounds is None else ["--rounds", str(rounds)]
        load = machine.load()
        return None if subprocess.run(call, cwd=ROOT).returncode else json.loads(output.read_text()) | {"load": load}


def versions() -> dict[str, str]:
    """Versions of what is measured, and of CUDA."""
    found = machine.versions()
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found | {"CUDA": torch.version.cuda or "none"}


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(table.page(results))


if __name__ == "__main__":
    sys.exit(main())
