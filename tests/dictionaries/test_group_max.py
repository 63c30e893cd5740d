"""GroupMax: the largest of each group, and nothing else."""

import pytest
import torch

import innerview as iv
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights


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
