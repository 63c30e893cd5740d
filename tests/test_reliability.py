"""The reliability scoreboard in small counts; `python -m tests.soak` runs it whole."""

import pytest

from tests.soak import ROWS

# Rows that drive a browser; without one they say that they did not run.
IN_A_BROWSER = {20}


@pytest.mark.parametrize(
    "number", [pytest.param(n, marks=[pytest.mark.browser] if n in IN_A_BROWSER else []) for n in sorted(ROWS)]
)
def test_a_row_of_the_scoreboard_holds(number: int) -> None:
    run, small, full = ROWS[number]
    assert 0 < small < full and run.__doc__
    run(small)
