"""The reliability scoreboard in small counts; `python -m tests.soak` runs it whole."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.soak import ROWS

# Rows that drive a browser; without one they say that they did not run.
IN_A_BROWSER = {20}
ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.browser] if n in IN_A_BROWSER else []) for n in sorted(ROWS)]
)
def test_a_row_of_the_scoreboard_holds(number: int) -> None:
    run, small, full = ROWS[number]
    assert 0 < small < full and run.__doc__
    if number not in IN_A_BROWSER:
        run(small)
        return
    # One process drives one browser at a time, and other tests keep theirs open.
    told = [sys.executable, "-m", "tests.soak", "--row", str(number), "--count", str(small)]
    done = subprocess.run(told, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"row {number:2d} held {small} times" in done.stdout
