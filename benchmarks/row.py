"""The command line of a row: measure, and write what was measured as JSON."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import machine, table
from benchmarks.result import Row


def run(row: Callable[[int | None], Row]) -> None:
    """Measure a row; write it to `--output`, or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(machine.cores())
    measured = row(asked.rounds).to_dict()
    if asked.output:
        asked.output.write_text(json.dumps(measured, ensure_ascii=False))
    else:
        print("\n".join(table.row(measured | {"load": machine.load()})))
