"""Trained dictionaries against the features that are there: the toy model of superposition, seeds paired."""

from statistics import mean, stdev

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.architectures import Architecture
from innerview.dictionaries.judging.absorption import absorption

# Of Student's t, for 95 % two-sided, by the number of pairs.
T = {4: 3.182, 5: 2.776}


def trained(world: iv.Superposition, architecture: Architecture, n_tokens: int, rate: float, **options: object) -> iv.Dictionary:  # fmt: skip
    said = {"n_features": len(world.directions), "batch_tokens": 256, "progress": False} | options
    rates = iv.Optimization(rate)
    return iv.train_dictionary(
        world.activations, "toy", architecture, n_tokens=n_tokens, optimization=rates, **said
    ).dictionary  # type: ignore[arg-type]


def least_gain(better: list[float], worse: list[float]) -> float:
    """Lower end of the 95 % interval of the paired difference."""
    gains = [one - other for one, other in zip(better, worse, strict=True)]
    return mean(gains) - T[len(gains)] * stdev(gains) / len(gains) ** 0.5


def checked_one_to_one(architecture: Architecture, n_tokens: int) -> Tensor:
    """Row S1: twice as many features as dimensions, some correlated, some in hierarchies; both ways."""
    world = iv.toy_superposition(30_000, 64, 32)
    assert int((world.groups >= 0).sum()) == 16 and int((world.parents >= 0).sum()) == 12
    sae = trained(world, architecture, n_tokens, 3e-3)
    cosines, partners = world.matched(sae.weights.decoder)
    # As many features were learned as there are, so that one to one is both ways.
    assert sorted(partners.tolist()) == list(range(64))
    back = torch.nn.functional.normalize(sae.weights.decoder, dim=-1) @ world.directions.T
    assert float(cosines.mean()) >= 0.9 and float(back.amax(1).mean()) >= 0.9
    return cosines


def test_relu_finds_the_features_of_superposition_one_to_one() -> None:
    checked_one_to_one(iv.ReLU(l1=1.0), 150_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", [iv.TopK(4), iv.BatchTopK(4), iv.JumpReLU(l0=3e-2, bandwidth=0.05, first_threshold=0.05)], ids=repr
)
def test_other_architectures_find_them_too(architecture: Architecture) -> None:
    assert float((checked_one_to_one(architecture, 300_000) >= 0.9).float().mean()) > 0.75


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_matching_pursuit_finds_children_that_top_k_merges_with_their_parents() -> None:
    found: dict[str, list[float]] = {"pursuit": [], "top 4": [], "top 1": []}
    for seed in range(4):
        world = iv.toy_superposition(
            20_000, 40, 20, families=10, groups=0, active=1.4, is_exclusive=True, seed=seed
        )  # fmt: skip
        children = world.parents >= 0
        for name, architecture in (
            ("pursuit", iv.MatchingPursuit(4)),
            ("top 4", iv.TopK(4)),
            ("top 1", iv.TopK(1)),
        ):
            sae = trained(world, architecture, 100_000, 1e-2, batch_tokens=128, seed=seed)
            cosines = world.matched(sae.weights.decoder)[0][children]
            found[name].append(float((cosines >= 0.9).float().mean()))
    assert mean(found["pursuit"]) > 0.9
    assert least_gain(found["pursuit"], found["top 4"]) > 0 and least_gain(found["pursuit"], found["top 1"]) > 0.5


def absorbed(world: iv.Superposition, sae: iv.Dictionary) -> float:
    """Share of the parents' tokens at which the parent's own feature is silent and another carries it, the mean over parents.

    The parent is known, so that its direction stands for the probe, its matched feature for the main one, and what it puts there
    for the effect; another feature that carries 40 % of that does the work in its place.
    """
    held = world.more(3000, seed=101)
    codes = sae.encode(held.activations).dense() / sae.manifest.normalisation.factor
    partners = world.matched(sae.weights.decoder)[1]
    shares = []
    for parent in world.parents[world.parents >= 0].unique().tolist():
        there = held.codes[:, parent] > 0
        carried = codes[there] * (sae.weights.decoder @ world.directions[parent])
        silent = carried[:, partners[parent]] == 0
        carried[:, partners[parent]] = 0.0
        is_carried = carried.amax(-1) >= 0.4 * held.codes[there, parent]
        shares.append(float((silent & is_carried).float().mean()))
    return mean(shares)


def judged(world: iv.Superposition, sae: iv.Dictionary) -> float:
    """The share as the judge finds it, who knows tokens with labels alone; the mean over parents."""
    train, test = world.more(6000, seed=7), world.more(3000, seed=101)
    # Codes and rows make the activations times the factor of the normalisation.
    halves = [(sae.manifest.normalisation.apply(w.activations), sae.encode(w.activations).dense(), w.codes) for w in (train, test)]  # fmt: skip
    parents = world.parents[world.parents >= 0].unique().tolist()
    return mean(
        absorption(sae.weights.decoder, *((x, codes, true[:, parent] > 0) for x, codes, true in halves)).share
        for parent in parents
    )


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_matryoshka_absorbs_less_than_top_k_and_the_judge_says_so_too() -> None:
    found: dict[str, list[float]] = {"nested": [], "top k": []}
    told: dict[str, list[float]] = {"nested": [], "top k": []}
    for seed in range(4):
        world = iv.toy_superposition(20_000, 64, 32, families=8, groups=2, seed=seed)
        for name, architecture in (("nested", iv.Matryoshka(3, prefixes=(0.25,))), ("top k", iv.TopK(3))):
            sae = trained(world, architecture, 100_000, 3e-3, seed=seed)
            found[name].append(absorbed(world, sae))
            told[name].append(judged(world, sae))
    assert least_gain(found["top k"], found["nested"]) > 0, found
    assert least_gain(told["top k"], told["nested"]) > 0.1, told
    # What the labels alone tell agrees with what is known of the features.
    for name in found:
        assert mean(told[name]) == pytest.approx(mean(found[name]), abs=0.06), (name, found, told)


def low_rank(seed: int) -> iv.Superposition:
    """Activations of 64 numbers that lie in 8 dimensions."""
    world = iv.toy_superposition(8000, 24, 8, families=2, groups=0, active=2.0, seed=seed)
    turned = torch.linalg.qr(torch.randn(64, 8, generator=torch.Generator().manual_seed(seed)))[0]
    object.__setattr__(world, "activations", world.activations @ turned.T)
    return world


def test_features_that_start_in_the_active_subspace_do_not_die() -> None:
    dead: dict[str, list[float]] = {"inside": [], "anywhere": []}
    settings = iv.TrainingSettings(dead_after=4000)
    for seed in range(4):
        world = low_rank(seed)
        for name, init in (("inside", iv.ActiveSubspace()), ("anywhere", None)):
            options = {"n_features": 192, "seed": seed, "init": init, "settings": settings, "progress": False}
            made = iv.train_dictionary(
                world.activations, "toy", iv.TopK(4), n_tokens=10_240, batch_tokens=128,
                optimization=iv.Optimization(1e-3), **options,  # type: ignore[arg-type]
            )  # fmt: skip
            dead[name].append(made.histories[0][-1]["dead"])
    assert least_gain(dead["anywhere"], dead["inside"]) > 0.2, dead


def test_the_active_subspace_is_the_fewest_components_that_hold_the_share() -> None:
    world = low_rank(0)
    basis = iv.ActiveSubspace(0.9999).components(world.activations)
    assert basis.shape == (8, 64)
    torch.testing.assert_close(basis @ basis.T, torch.eye(8), atol=1e-5, rtol=0)
    fewer = iv.ActiveSubspace(0.5).components(world.activations)
    centered = world.activations - world.activations.mean(0)
    held = [float((centered @ fewer[:n].T).square().sum() / centered.square().sum()) for n in range(len(fewer) + 1)]
    assert len(fewer) < 8 and held[-1] >= 0.5 > held[-2]
    made = trained(world, iv.TopK(4), 256, 1e-3, n_features=64, init=iv.ActiveSubspace())
    rows = made.weights.decoder
    torch.testing.assert_close(rows.norm(dim=-1), torch.ones(64))
    assert float((rows - rows @ basis.T @ basis).norm()) < 0.05 * float(rows.norm())
    with pytest.raises(iv.DictionaryError, match="share is above 0 and at most 1, not 0"):
        iv.ActiveSubspace(0)
