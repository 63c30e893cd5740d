"""Run the CPU rows of the performance table: `make bench`, or `python -m benchmarks.run [--rows 10,16] [--rounds 40]`.

Each row runs in a process of its own, in the benchmarks' own environment. Results go to `results/<machine>.json` and
`results/<machine>.md`; rows that were not run keep what they had.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import environment, machine, table

ROWS = {
    "1": "row_1_jump_relu",
    "2": "row_2_jump_relu_narrow",
    "3": "row_3_exact_codes",
    "4": "row_4_top_k",
    "5": "row_5_few_tokens",
    "6": "row_6_memory",
    "7": "row_7_chosen_features",
    "8": "row_8_decoding",
    "9": "row_9_steer_one_feature",
    "10": "row_10_capture_one_layer",
    "10b": "row_10b_small_network",
    "11": "row_11_capture_every_layer",
    "12": "row_12_steered_decoding",
    "14": "row_14_dashboards",
    "15": "row_15_widgets",
    "16": "row_16_opening",
    "S2": "row_s2_dictionary_training",
}
RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Run the rows that were asked for and write the results; 1 when one failed."""
    asked = _arguments()
    missing = environment.make()
    name = machine.name()
    path = RESULTS / f"{name}.json"
    results = json.loads(path.read_text()) if path.exists() else {"machine": name, "rows": []}
    rows = {row["number"]: row for row in results["rows"]}
    failed = []
    for number in asked.rows:
        print(f"row {number}: {ROWS[number]}", flush=True)
        row = _row(number, asked.rounds)
        if row is None:
            failed.append(number)
            continue
        row["missing"] |= missing
        rows[number] = row
        # Behind each row: a run that is broken off keeps what it measured.
        results["date"] = datetime.date.today().isoformat()
        results["versions"] = _versions()
        results["rows"] = [rows[number] for number in ROWS if number in rows]
        _write(path, results)
    for number in failed:
        print(f"row {number} failed; its results are as they were", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Run the CPU rows of the performance table.")
    parser.add_argument(
        "--rows", type=lambda text: text.split(","), default=list(ROWS), help="numbers of rows, with commas"
    )
    parser.add_argument("--rounds", type=int, default=None, help="rounds of each measurement (20 or more)")
    asked = parser.parse_args()
    unknown = [number for number in asked.rows if number not in ROWS]
    if unknown:
        parser.error(f"no row {unknown[0]!r}; the rows are {', '.join(ROWS)}")
    return asked


def _row(number: str, rounds: int | None) -> dict[str, Any] | None:
    """What one row measured, None when it failed."""
    load, since, busy, own = machine.load(), time.monotonic(), machine.busy_s(), machine.own_s()
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "row.json"
        call = [str(environment.PYTHON), "-m", f"benchmarks.{ROWS[number]}", "--output", str(output)]
        call += [] if rounds is None else ["--rounds", str(rounds)]
        done = subprocess.run(call, cwd=environment.ROOT)
        if done.returncode:
            return None
        row = json.loads(output.read_text()) | {"load": load}
        if busy is not None and (now := machine.busy_s()) is not None:
            others = now - busy - (machine.own_s() - own)
            row["others"] = round(max(0.0, others) / (time.monotonic() - since) / machine.cores(), 2)
        return row


def _versions() -> dict[str, str]:
    """Versions in the benchmarks' environment."""
    code = "import json; from benchmarks import machine; print(json.dumps(machine.versions()))"
    done = subprocess.run(
        [str(environment.PYTHON), "-c", code], cwd=environment.ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def _write(path: Path, results: dict[str, Any]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    path.with_suffix(".md").write_text(table.page(results))
    print(f"wrote benchmarks/results/{path.name} and benchmarks/results/{path.with_suffix('.md').name}")


if __name__ == "__main__":
    sys.exit(main())
