"""GroupMax: the largest of each group, and nothing else."""

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.architectures import Step
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from tests.dictionaries.test_losses import FEATURES, ROWS, a_step, check, error_of, pre_of


def test_codes_are_the_largest_of_each_group() -> None:
    torch.manual_seed(0)
    weights = Weights(torch.randn(12, 5), torch.randn(12), torch.randn(12, 5), torch.randn(5))
    sae = iv.Dictionary(weights, iv.GroupMax(4), Manifest(True, Normalisation())).to(dtype=torch.float64)
    x = torch.randn(30, 5, dtype=torch.float64)
    own = sae.weights
    pre = (x - own.decoder_bias).numpy() @ own.encoder.numpy().T + own.encoder_bias.numpy()
    expected = torch.zeros(30, 12, dtype=torch.float64)
    for row, numbers in enumerate(pre):
        for start in range(0, 12, 3):
            best = max(range(start, start + 3), key=lambda i: numbers[i])
            expected[row, best] = max(float(numbers[best]), 0.0)
    torch.testing.assert_close(sae.encode(x).dense(), expected)
    assert int(sae.encode(x).l0().max()) <= 4


def test_of_equals_the_lowest_feature_wins() -> None:
    weights = Weights(torch.ones(4, 2), torch.zeros(4), torch.ones(4, 2), torch.zeros(2))
    sae = iv.Dictionary(weights, iv.GroupMax(2), Manifest(False, Normalisation()))
    assert sae.encode(torch.ones(1, 2)).features.tolist() == [0, 2]


def test_groups_of_several_sizes_are_refused() -> None:
    weights = Weights(torch.ones(5, 2), torch.zeros(5), torch.ones(5, 2), torch.zeros(2))
    with pytest.raises(iv.DictionaryError, match="5 features do not make 2 groups"):
        iv.Dictionary(weights, iv.GroupMax(2), Manifest(False, Normalisation()))


@pytest.mark.parametrize("dead", [0, 4])
def test_its_loss_is_top_ks_with_the_features_of_a_group_competing(dead: int) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        pre = pre_of(w, x)
        best = pre.view(ROWS, 1, FEATURES).argmax(-1)
        codes = torch.relu(torch.zeros_like(pre).scatter(1, best, pre.gather(1, best)))
        parts = {"reconstruction": error_of(w, codes, x, target)}
        if dead:
            error = (target - codes @ w["decoder"] - w["decoder_bias"]).detach()
            by_dead = torch.relu(pre[:, :dead]) @ w["decoder"][:dead]
            parts["auxiliary"] = ((by_dead - error) ** 2).sum(1).mean() / 32
        return parts

    check(iv.GroupMax(1), formula, a_step(dead=dead))


def test_training_keeps_what_inference_keeps() -> None:
    torch.manual_seed(1)
    weights = Weights(torch.randn(12, 5), torch.randn(12), torch.randn(12, 5), torch.randn(5))
    x = torch.randn(30, 5)
    step = Step(0, 10, torch.zeros(12, dtype=torch.int64), 0, 100)
    found = iv.GroupMax(4).losses(weights, x, x, step).codes
    torch.testing.assert_close(found.dense(), iv.GroupMax(4).encode(weights, x))
