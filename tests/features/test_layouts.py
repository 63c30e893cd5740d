"""Decoder directions in two dimensions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import innerview as iv


def groups(n: int = 40, seed: int = 0) -> torch.Tensor:
    """Five tight groups of `n` rows each, of many lengths."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 24, generator=generator)
    rows = centres.repeat_interleave(n, 0) + 0.25 * torch.randn(5 * n, 24, generator=generator)
    return rows * (0.1 + torch.rand(5 * n, 1, generator=generator))


def test_principal_components_are_those_of_numpys_singular_values() -> None:
    rows = groups().double().numpy()
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    centred = units - units.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    expected = centred @ axes[:2].T
    found = iv.PCALayout().points(groups()).double().numpy()
    assert np.allclose(np.abs(found), np.abs(expected), atol=1e-4)
    assert abs((found * expected).sum(0)) == pytest.approx((expected**2).sum(0), rel=1e-3)


def test_a_row_of_zeros_has_no_place() -> None:
    rows = groups()
    rows[7] = 0
    for layout in (iv.PCALayout(), iv.NeighbourLayout(epochs=3)):
        points = layout.points(rows)
        assert points[7].isnan().all() and points.isnan().sum() == 2


def test_near_rows_stay_near_where_two_components_mix_the_groups() -> None:
    rows = groups()
    group = torch.arange(5).repeat_interleave(40)

    def shared(points: torch.Tensor) -> float:
        near = torch.cdist(points, points).topk(11, largest=False).indices[:, 1:]
        return float((group[near] == group[:, None]).float().mean())

    assert shared(iv.NeighbourLayout(neighbours=10).points(rows)) > 0.98
    assert shared(iv.NeighbourLayout(neighbours=10).points(rows)) >= shared(iv.PCALayout().points(rows))


def test_the_same_seed_gives_the_same_places() -> None:
    one, same, other = (iv.NeighbourLayout(epochs=20, seed=seed).points(groups()) for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_a_few_rows_are_placed_too(n: int) -> None:
    for layout in (iv.PCALayout(), iv.NeighbourLayout(epochs=5)):
        assert layout.points(groups()[:n]).isfinite().all()


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(
        iv.FeatureError, match=r"40001 rows are too many for neighbours, at most 40000; take iv.PCALayout"
    ):
        iv.NeighbourLayout().points(torch.ones(40_001, 2))
    with pytest.raises(iv.FeatureError, match="neighbours is a whole number, at least 1, not 0"):
        iv.NeighbourLayout(neighbours=0)
