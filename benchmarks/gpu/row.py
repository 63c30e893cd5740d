"""The command line of a GPU row: measure, and write what was measured as JSON."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import machine, table
from benchmarks.result import Row


def run(row: Callable[[int | None, str], Row]) -> None:
    """Measure a row; write it to `--output`, or print it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path)
    parser.add_argument("--rounds", type=int)
    asked = parser.parse_args()
    # float32 means float32, in the peers too.
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    measured = row(asked.rounds, "cuda").to_dict()
    if asked.output:
        asked.output.write_text(json.dumps(measured, ensure_ascii=False))
    else:
        print("\n".join(table.row(measured | {"load": machine.load()})))
