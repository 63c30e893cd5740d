"""The toy model of superposition: what it says of its features holds of its tokens."""

import pytest
import torch

import innerview as iv


def test_activations_are_the_sums_of_the_features_that_are_active() -> None:
    world = iv.toy_superposition(500, 40, 16)
    assert world.activations.shape == (500, 16) and world.codes.shape == (500, 40)
    torch.testing.assert_close(world.activations, world.codes @ world.directions)
    torch.testing.assert_close(world.directions.norm(dim=-1), torch.ones(40))
    assert float(world.codes.min()) == 0.0 and float(world.codes[world.codes > 0].min()) >= 0.5


def test_features_are_active_as_often_as_it_says() -> None:
    world = iv.toy_superposition(40_000, 64, 32, active=5.0)
    counted = (world.codes > 0).float().mean(0)
    # Five standard errors of a share of 40,000.
    assert float(((counted - world.chances).abs() / (world.chances / 40_000).sqrt()).max()) < 5
    assert float((world.codes > 0).sum(-1).float().mean()) == pytest.approx(5.0, abs=0.1)


def test_children_are_active_only_with_their_parent_and_exclude_one_another() -> None:
    world = iv.toy_superposition(5000, families=3, children=4)
    children = (world.parents >= 0).nonzero()[:, 0]
    assert len(children) == 12
    on = world.codes > 0
    assert not (on[:, children] & ~on[:, world.parents[children]]).any()
    for parent in range(3):
        own = on[:, world.parents == parent]
        assert int(own.sum(-1).max()) == 1
        assert float(own.any(-1)[on[:, parent]].float().mean()) == pytest.approx(0.5, abs=0.1)


def test_features_of_a_group_are_correlated_and_others_are_not() -> None:
    world = iv.toy_superposition(20_000, correlation=0.8)
    related = torch.corrcoef((world.codes > 0).float().T)
    same = (world.groups[:, None] == world.groups) & (world.groups >= 0)[:, None] & ~torch.eye(64, dtype=torch.bool)
    free = (world.groups < 0) & (world.parents < 0) & (torch.arange(64) >= 4)
    apart = free[:, None] & free & ~torch.eye(64, dtype=torch.bool)
    assert float(related[same].min()) > 0.2 and float(related[apart].abs().max()) < 0.05


def test_at_most_one_feature_without_a_parent_is_active_where_they_exclude_one_another() -> None:
    world = iv.toy_superposition(20_000, 24, 12, active=1.2, groups=0, is_exclusive=True)
    on = world.codes > 0
    assert int(on[:, world.parents < 0].sum(-1).max()) == 1 and int(on.sum(-1).max()) == 2
    counted = on.float().mean(0)
    assert float(((counted - world.chances).abs() / (world.chances / 20_000).sqrt()).max()) < 5


def test_siblings_have_the_cosine_that_is_asked() -> None:
    world = iv.toy_superposition(1, 400, 4096, families=5, children=4, sibling_cosine=0.4)
    rows = world.directions[world.parents == 2]
    assert float((rows @ rows.T - torch.eye(4)).sum() / 12) == pytest.approx(0.4, abs=0.05)


def test_the_same_seed_draws_the_same_and_more_tokens_are_others_of_the_same_features() -> None:
    first, second = iv.toy_superposition(50, seed=3), iv.toy_superposition(50, seed=3)
    assert torch.equal(first.activations, second.activations)
    more = first.more(50, seed=1)
    assert torch.equal(more.directions, first.directions) and not torch.equal(more.codes, first.codes)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(iv.DictionaryError, match="more than 10"):
        iv.toy_superposition(10, 10)
    with pytest.raises(iv.DictionaryError, match="too many for sparse codes"):
        iv.toy_superposition(10, active=40.0)
    with pytest.raises(iv.DictionaryError, match="correlation is from 0 to below 1, not 1"):
        iv.toy_superposition(10, correlation=1)
