"""Where an edit applies: numbers of any library are taken, and what is no number is refused."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.errors import EditError


@pytest.mark.parametrize(
    "given",
    [np.array([1, 2]), [np.int64(1), 2], torch.tensor([1, 2]), range(1, 3), (1, 2)],
    ids=["array", "numpy integers", "tensor", "range", "tuple"],
)
def test_whole_numbers_of_any_library_are_positions_and_steps(given: Any) -> None:
    for numbers in (iv.Where(positions=given).positions, iv.Where(steps=given).steps):
        assert numbers == (1, 2) and all(type(n) is int for n in numbers)


def test_one_numpy_integer_is_one_position() -> None:
    assert iv.Where(positions=np.int64(-1)).positions == (-1,)
    assert iv.Where(positions=np.array(3)).positions == (3,)


def test_a_schedule_of_numpy_numbers_is_said_in_plain_ones() -> None:
    assert iv.Ramp(np.int64(3)).to_code() == "iv.Ramp(3)"
    assert iv.Decay(np.float32(2)).to_code() == "iv.Decay(2.0)"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iv.Ramp("3"), r"at least 1 step, not '3'; give a whole number"),
        (lambda: iv.Ramp(2.5), r"not 2.5"),
        (lambda: iv.Ramp(True), r"not True"),
        (lambda: iv.Ramp(0), r"not 0"),
        (lambda: iv.Decay("x"), r"above 0 steps, not 'x'; give a finite number"),
        (lambda: iv.Decay(math.inf), r"not inf"),
        (lambda: iv.Decay(math.nan), r"not nan"),
        (lambda: iv.Decay(0), r"not 0"),
        (lambda: iv.Where(positions=np.array([1.0])), r"positions are whole numbers"),
        (lambda: iv.Where(positions=np.array([True])), r"positions are whole numbers"),
        (lambda: iv.Where(positions=np.array([], dtype=int)), r"at least one"),
        (lambda: iv.Where(steps=np.array([-1])), r"count from 0, not -1"),
        (lambda: iv.Where(positions=5.0), r"not 5.0 of type float"),
        (lambda: iv.Where(scope=["prompt"]), r"no scope \['prompt'\]"),
    ],
)
def test_what_is_no_number_of_tokens_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()
