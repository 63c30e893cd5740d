"""Contrast and projection, against float64 arithmetic on captured activations."""

from typing import Any

import pytest
import torch

import innerview as iv
from innerview.errors import DirectionError
from tests.networks import FAMILIES, direction, opened, ragged

SITE = "blocks.1.resid"


@pytest.fixture(params=FAMILIES)
def model(request: pytest.FixtureRequest) -> iv.Model:
    return opened(request.param)


def last(model: iv.Model, rows: list[list[int]], position: Any) -> torch.Tensor:
    """One activation a prompt, read one prompt at a time."""
    found = []
    for row in rows:
        value = iv.capture(model, [row], SITE)[SITE][0].double()
        found.append(value.mean(0) if position == "mean" else value[position])
    return torch.stack(found)


@pytest.mark.parametrize("position", [-1, 0, -2, "mean"])
def test_a_contrast_is_the_difference_of_means(model: iv.Model, position: Any) -> None:
    up, down = ragged((3, 5, 4, 6, 3, 7), seed=1), ragged((4, 4, 6, 3, 5, 5), seed=50)
    d = iv.contrast(model, up, down, site=SITE, position=position, name="mood")
    gap = last(model, up, position).mean(0) - last(model, down, position).mean(0)
    assert torch.allclose(d.vector.double(), gap / gap.norm(), atol=1e-5)
    assert (d.name, d.site, d.scale_n) == ("mood", SITE, 6) and d.scale is not None and d.residual_norm is not None
    assert abs(float(d.vector.norm()) - 1) < 1e-6


def test_classes_that_coincide_are_refused(model: iv.Model) -> None:
    rows = ragged((3, 4))
    with pytest.raises(
        DirectionError, match=r"the means of 2 positive and 2 negative prompts coincide at blocks.1.resid"
    ):
        iv.contrast(model, rows, rows, site=SITE)


def test_a_position_past_the_end_is_refused(model: iv.Model) -> None:
    with pytest.raises(DirectionError, match=r"no position 5 in a prompt of 3 tokens; use -3 to 2, or 'mean'"):
        iv.contrast(model, ragged((3, 6)), ragged((4, 6)), site=SITE, position=5)


def test_a_projection_is_the_dot_product_in_steps(model: iv.Model) -> None:
    rows, d = ragged((3, 6)), direction(SITE)
    acts = iv.capture(model, rows, SITE)
    found = iv.project(acts, d)
    for i, row in enumerate(rows):
        alone = iv.capture(model, [row], SITE)[SITE][0].double()
        assert torch.allclose(found.values[i, : len(row)].double(), alone @ d.vector.double() / d.scale, atol=1e-4)
    assert len(found.frame()) == 9 and found.words == acts.words


def test_adding_a_contrast_moves_the_projection_by_its_steps(model: iv.Model) -> None:
    d = iv.contrast(model, ragged((3, 5, 4, 6), seed=1), ragged((4, 4, 6, 3), seed=50), site=SITE)
    rows = ragged((5,))
    plain = iv.project(iv.capture(model, rows, SITE), d).values
    moved = iv.project(iv.capture(model, rows, SITE, edits=[iv.Add(d, 2.0)]), d).values
    gone = iv.capture(model, rows, SITE, edits=[iv.ProjectOut(d)])[SITE] @ d.vector
    assert torch.allclose(moved - plain, torch.full_like(plain, 2.0), atol=1e-3) and gone.abs().max() < 1e-3


def test_a_projection_of_the_wrong_width_is_refused(model: iv.Model) -> None:
    acts = iv.capture(model, ragged((3,)), SITE)
    with pytest.raises(DirectionError, match=r"direction 'd' is 7 wide, and blocks.1.resid is 32"):
        iv.project(acts, direction(SITE, width=7))
