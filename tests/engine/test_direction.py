"""A direction keeps its own numbers, refuses what is none, and travels as text without loss or silent damage."""

import base64
import json
import math
import random
import string
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.errors import DirectionError
from tests.networks import direction

UNIT = torch.eye(4)[0]


def rebuilt(made: iv.Direction) -> iv.Direction:
    """What a reader's paste of its code gives."""
    return eval(made.to_code(), {"iv": iv})


def coded(body: bytes, vector: bytes = UNIT.numpy().tobytes()) -> str:
    """A code with a right checksum around any content."""
    packed = len(body).to_bytes(4, "little") + body + vector
    return base64.b64encode(zlib.crc32(packed).to_bytes(4, "little") + packed).decode()


def test_the_code_of_a_direction_gives_it_back_to_the_last_bit() -> None:
    made = direction(name="“glad” 🙂")
    again = rebuilt(made)
    assert torch.equal(again.vector, made.vector) and again.to_dict() == made.to_dict()


def test_a_code_with_any_one_character_changed_or_lost_is_refused() -> None:
    packed = direction(width=5).to_code().split('"')[1]
    chosen = random.Random(0)
    for at in range(len(packed)):
        other = chosen.choice([c for c in string.ascii_letters + string.digits + "+/=! " if c != packed[at]])
        for damaged in (packed[:at] + other + packed[at + 1 :], packed[:at] + packed[at + 1 :]):
            if damaged == packed:
                continue
            with pytest.raises(DirectionError, match=r"the text is damaged"):
                iv.Direction.from_code(damaged)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (5, r"a text, not 5 of type int"),
        ("", r"damaged"),
        ("é", r"damaged"),
        (coded(b"[" * 200_000), r"damaged"),
        (coded(b"[]"), r"damaged"),
        (coded(b'{"sight": 1}'), r"damaged"),
        (coded(json.dumps({"site": "s", "scale": "x"}).encode()), r"scale of 'direction' is a finite number, not 'x'"),
        (coded(json.dumps({"site": "s"}).encode(), b"\0\0\0"), r"damaged"),
    ],
)
def test_what_is_no_code_is_refused(given: Any, message: str) -> None:
    with pytest.raises(DirectionError, match=message):
        iv.Direction.from_code(given)


def test_numbers_of_other_libraries_become_plain_ones() -> None:
    made = iv.Direction.from_vector(UNIT, "s", scale=np.float32(2), residual_norm=torch.tensor(3.0))
    assert (type(made.scale), type(made.residual_norm), type(made.center)) == (float, float, float)
    assert rebuilt(made).to_dict() == made.to_dict()


def test_a_direction_owns_its_numbers() -> None:
    given = UNIT.clone()
    made = [iv.Direction(given, "s", 1.0), iv.Direction.from_vector(given, "s")]
    array = np.array([1.0, 0.0, 0.0, 0.0], dtype=np.float32)
    made.append(iv.Direction(array, "s", 1.0))
    given.mul_(3)
    array *= 3
    assert all(torch.equal(d.vector, UNIT) for d in made)


def test_heads_are_flattened_where_a_site_has_them() -> None:
    vector = torch.arange(1.0, 9.0).view(2, 4)
    made = iv.Direction.from_vector(vector, "blocks.1.attn.heads")
    assert torch.allclose(made.vector * vector.norm(), vector.flatten())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iv.Direction.from_vector("abc", "s"), r"takes a vector of numbers, not 'abc'"),
        (lambda: iv.Direction.from_vector([[1.0], [1.0, 2.0]], "s"), r"takes a vector of numbers"),
        (lambda: iv.Direction.from_vector(None, "s"), r"takes a vector of numbers"),
        (lambda: iv.Direction.from_vector(UNIT.to(torch.complex64), "s"), r"real numbers"),
        (lambda: iv.Direction.from_vector(torch.ones(2, 4), "blocks.1.resid"), r"shape \[2, 4\].*give real numbers of shape"),
        (lambda: iv.Direction(UNIT[None], "blocks.1.resid"), r"shape \[1, 4\].*vector.squeeze"),
        (lambda: iv.Direction.from_vector(torch.ones(1, 2, 4), "blocks.1.attn.heads"), r"shape \[1, 2, 4\]"),
        (lambda: iv.Direction.from_vector(torch.tensor(2.0), "s"), r"shape \[\]"),
        (lambda: iv.Direction.from_vector(UNIT, None), r"site of a direction is a text, not None"),
        (lambda: iv.Direction.from_vector(UNIT, "s", name=5), r"name of a direction is a text, not 5"),
        (lambda: iv.Direction.from_vector(UNIT, "s", name="\ud800"), r"half a character"),
        (lambda: iv.Direction(UNIT, "s", "2"), r"scale of 'direction' is a finite number, not '2'"),
        (lambda: iv.Direction(UNIT, "s", True), r"scale .* not True"),
        (lambda: iv.Direction(UNIT, "s", math.inf), r"scale .* not inf"),
        (lambda: iv.Direction(UNIT, "s", -1.0), r"must be above 0"),
        (lambda: iv.Direction(UNIT, "s", center=math.nan), r"center of 'direction' is a finite number, not nan"),
        (lambda: iv.Direction(UNIT, "s", center=None), r"center .* not None"),
        (lambda: iv.Direction(UNIT, "s", residual_norm="x"), r"residual_norm .* not 'x'"),
        (lambda: iv.Direction(UNIT, "s", residual_norm=-1), r"residual_norm .* is -1; a norm is not below 0"),
        (lambda: iv.Direction(UNIT, "s", scale_n="many"), r"scale_n .* 'many'"),
    ],
)  # fmt: skip
def test_what_makes_no_direction_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(DirectionError, match=message):
        make()
