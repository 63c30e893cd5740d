"""The reliability scoreboard in small counts; `python -m tests.soak` runs it whole."""

import pytest

from tests.soak import ROWS


@pytest.mark.parametrize("number", sorted(ROWS))
def test_a_row_of_the_scoreboard_holds(number: int) -> None:
    run, small, full = ROWS[number]
    assert 0 < small < full and run.__doc__
    run(small)
