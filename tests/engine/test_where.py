"""Where an edit applies: numbers of any library are taken, and what is no number is refused."""

import dataclasses
import json
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


EVERY: dict[str, dict[str, Any]] = {
    "everywhere": {},
    "positions": {"positions": (0, -1)},
    "scope and steps": {"scope": "generated", "steps": range(2, 5)},
    "window": {"steps": slice(1, 3)},
    "open window": {"steps": slice(4, None)},
    "text": {"text": 'a "quoted" word\n', "nth": -2},
    "role": {"role": "assistant", "special": False},
    "tokens": {"tokens": {"the", " a", 3, np.int64(7)}, "special": True},
    "ramp": {"schedule": iv.Ramp(3)},
    "decay": {"schedule": iv.Decay(2.5)},
    "pulse": {"schedule": iv.Pulse(2, 3)},
    "constant": {"schedule": 0.25},
}


@pytest.mark.parametrize("name", EVERY)
def test_a_where_written_down_is_the_same_where(name: str) -> None:
    where = iv.Where(**EVERY[name])
    said = json.loads(json.dumps(where.to_dict()))
    assert iv.Where.from_dict(said) == where == eval(where.to_code(), {"iv": iv})
    assert hash(iv.Where.from_dict(said)) == hash(where)
    assert (where == iv.Where()) == (name == "everywhere")


def test_token_sets_are_sets() -> None:
    assert iv.Where(tokens=[" a", 3, 3, " a"]) == iv.Where(tokens=(3, " a"))
    assert iv.Where(tokens="the").tokens == ("the",) and iv.Where(tokens=np.array([4, 2])).tokens == (2, 4)
    assert iv.Where(tokens=5).tokens == (5,)


def test_a_function_of_the_step_is_called_once_a_step_and_cannot_be_written_down() -> None:
    asked: list[int] = []

    def share(step: int) -> float:
        asked.append(step)
        return 1.0 / (1 + step)

    schedule = iv.Where(schedule=share).schedule
    assert schedule is not None
    steps = torch.tensor([[-3, 0, 1], [4, 1, 0]])
    assert torch.allclose(schedule.factor(steps), torch.tensor([[1.0, 1.0, 0.5], [0.2, 0.5, 1.0]]))
    schedule.factor(steps)
    assert asked == [0, 1, 2, 3, 4]
    with pytest.raises(EditError, match=r"the function share cannot be written down; iv.Constant, iv.Ramp"):
        iv.Where(schedule=share).to_code()
    with pytest.raises(EditError, match=r"a schedule that is a lambda cannot be written down"):
        iv.Where(schedule=lambda step: 1.0).to_dict()
    with pytest.raises(EditError, match=r"the share that the schedule gives at step 0 is a finite number, not nan"):
        iv.Where(schedule=lambda step: math.nan).schedule.factor(steps)  # type: ignore[union-attr]


def test_functions_made_by_the_same_lines_are_one_schedule() -> None:
    def made(slope: float) -> iv.Where:
        return iv.Where(schedule=lambda step: slope * step)

    slope = 0.5
    assert made(slope) == made(slope) and made(slope) != made(0.25)


@pytest.mark.parametrize("field", ["positions", "scope", "text", "condition"])
def test_a_where_does_not_change(field: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(iv.Where(), field, None)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"scope": "all", "wher": 1}, r"a Where has no field 'wher'; it has positions"),
        ([], r"a Where is an object, not \[\]"),
        ({"steps": {"start": 1}}, r"a window of steps has the fields start and stop"),
        ({"schedule": {"kind": "wave"}}, r"no schedule .*its kind is one of constant, ramp, decay, pulse"),
        ({"schedule": {"kind": "ramp"}}, r"a schedule 'ramp' has the fields kind, steps, not \['kind'\]"),
        ({"condition": {"kind": "perhaps"}}, r"no condition .*its kind is one of compare, and, or, not"),
        ({"condition": {"kind": "not", "of": []}}, r"a condition 'not' is of 1 condition"),
        ({"condition": {"kind": "compare", "relation": ">", "limit": 1.0}}, r"a comparison has the fields"),
    ],
)
def test_a_damaged_where_is_refused_with_the_field(given: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        iv.Where.from_dict(given)


def test_a_damaged_vector_of_a_condition_is_refused() -> None:
    said = iv.Where(condition=iv.Reading("embed", [1.0, 2.0]) > 1).to_dict()
    body = said["condition"]["term"]["vector"]
    said["condition"]["term"]["vector"] = ("A" if body[0] != "A" else "B") + body[1:]
    with pytest.raises(EditError, match="the text is damaged"):
        iv.Where.from_dict(said)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iv.Where(nth=2), r"nth=2 counts occurrences of a text; give text= too"),
        (lambda: iv.Where(text="a", nth=0), r"nth counts occurrences from 1, or from -1 for the last, not 0"),
        (lambda: iv.Where(text=""), r"text is a text, not ''"),
        (lambda: iv.Where(text=3), r"text is a text, not 3 of type int"),
        (lambda: iv.Where(text="a", scope="generated"), r"is sought in the prompt, so generated tokens are none of it"),
        (lambda: iv.Where(role=["user"]), r"role is a text, not \['user'\]"),
        (lambda: iv.Where(tokens=[]), r"tokens are ids from 0 or texts of single tokens, at least one, not \[\]"),
        (lambda: iv.Where(tokens=[1.5]), r"tokens are ids from 0 .*not 1.5"),
        (lambda: iv.Where(tokens=[-1]), r"not -1"),
        (lambda: iv.Where(special="no"), r"special is True .*not 'no'"),
        (lambda: iv.Where(steps=slice(3, 1)), r"a window of steps is slice\(start, stop\) with 0 <= start < stop"),
        (lambda: iv.Where(steps=slice(0, 9, 2)), r"a window of steps is slice"),
        (lambda: iv.Where(steps=slice(-2, None)), r"a window of steps is slice"),
        (lambda: iv.Where(schedule=[1.0]), r"a schedule is Constant, Ramp.*not \[1.0\]"),
        (lambda: iv.Where(schedule=True), r"a schedule is Constant, Ramp.*not True"),
        (lambda: iv.Where(schedule=iv.Ramp), r"a schedule is Constant"),
        (lambda: iv.Pulse(0, 1), r"a pulse is on for at least 1 step, not 0"),
        (lambda: iv.Pulse(1, 1.5), r"a pulse is off for at least 1 step, not 1.5"),
        (lambda: iv.Constant(math.inf), r"a constant share is a finite number, not inf"),
        (lambda: iv.Reading("", [1.0]), r"the site of a reading is a text"),
        (lambda: iv.Reading("embed", []), r"holds NaN or infinity, or nothing"),
        (lambda: iv.Reading("embed", [math.nan]), r"holds NaN or infinity"),
        (lambda: iv.Reading("embed", [1.0], scale=0), r"the scale of reading 'reading' is 0"),
        (lambda: iv.Reading("embed", [1.0], gate=iv.Gate([1.0, 2.0])), r"a Gate as wide as its vector"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()


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
