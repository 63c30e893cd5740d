"""Effects at equal cost are read between strengths as a push that costs its square would have them."""

import pytest
import torch

import innerview as iv
from training.compare_features import Comparing, at_cost, candidates, interval, material


def swept(gain: float) -> iv.Sweep:
    """Effect `gain × s + nth prompt`, cost `s² / 10`."""
    strengths = [0.0, 1.0, 2.0, 4.0]
    values = torch.tensor([[gain * s + nth for nth in range(3)] for s in strengths])
    cost = torch.tensor([[s * s / 10] * 3 for s in strengths])
    return iv.Sweep("m", "e", "effect", strengths, ["a", "b", "c"], values, torch.zeros(3), cost, None, None)


def test_the_effect_at_a_cost_lies_between_the_strengths_around_it() -> None:
    for cost, strength in ((0.1, 1.0), (0.225, 1.5), (0.9, 3.0), (1.6, 4.0)):
        found = at_cost(swept(2.0), cost)
        assert found is not None
        torch.testing.assert_close(found, 2.0 * strength + torch.arange(3.0))
    assert at_cost(swept(2.0), 1.7) is None
    one, other = at_cost(swept(2.0), 0.9), at_cost(swept(1.0), 0.9)
    assert one is not None and other is not None
    # Paired: prompts differ widely, their differences not at all.
    assert interval(one - other) == (pytest.approx(3.0), pytest.approx(0.0, abs=1e-6))
    assert interval(one)[1] > 1.0


def test_each_kind_of_direction_lies_in_the_same_neurons() -> None:
    told = Comparing(pairs=6, n_features=12)
    model = iv.open_model("pocket")
    given = material(told, model, "held_out")
    assert len(given.positive) == len(given.negative) == 6 and not set(given.words[0]) & set(given.words[1])
    found = candidates(told, model)
    assert list(found) == ["difference of means", "semi-NMF", "TopK"] and len(found["difference of means"]) == 1
    for listed in found.values():
        for one in listed:
            assert one.site == "blocks.4.mlp.hidden" and one.scale is not None and one.scale > 0
