"""Semi-NMF: the updates as published, in numpy and float64; the codes against the best of every support."""

import itertools

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.dictionaries.factorization import updated
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.nonnegative import nonnegative_codes
from innerview.dictionaries.weights import Weights


def a_dictionary(decoder: torch.Tensor) -> iv.Dictionary:
    weights = Weights(decoder, decoder.new_zeros(len(decoder)), decoder, decoder.new_zeros(decoder.shape[1]))
    return iv.Dictionary(weights, iv.SemiNMF(), Manifest(False, Normalisation()))


def planted(n: int = 6, d: int = 40, tokens: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    """Activations of sparse signed features with sparse nonnegative codes, and the features."""
    drawn = torch.Generator().manual_seed(3)
    features = torch.zeros(n, d)
    for row in features:
        row[torch.randperm(d, generator=drawn)[:4]] = torch.randn(4, generator=drawn).sign()
    codes = torch.rand(tokens, n, generator=drawn) * (torch.rand(tokens, n, generator=drawn) < 0.3)
    return codes @ features, features


def best_support(rows: np.ndarray, token: np.ndarray) -> np.ndarray:
    """Nonnegative least squares by trying every support: least squares of each, and the best that is not negative."""
    best, least = np.zeros(len(rows)), float(token @ token)
    for size in range(1, min(rows.shape) + 1):
        for support in itertools.combinations(range(len(rows)), size):
            found = np.linalg.lstsq(rows[list(support)].T, token, rcond=None)[0]
            error = float(((token - found @ rows[list(support)]) ** 2).sum())
            if (found >= 0).all() and error < least:
                best, least = np.zeros(len(rows)), error
                best[list(support)] = found
    return best


@pytest.mark.parametrize(("n", "d"), [(6, 10), (7, 7), (8, 5)])
def test_codes_are_those_of_nonnegative_least_squares(n: int, d: int) -> None:
    torch.manual_seed(n)
    decoder, x = torch.randn(n, d, dtype=torch.float64), torch.randn(8, d, dtype=torch.float64)
    expected = torch.tensor(np.stack([best_support(decoder.numpy(), token) for token in x.numpy()]))
    found = a_dictionary(decoder).encode(x).dense()
    torch.testing.assert_close(found @ decoder, expected @ decoder, atol=1e-6, rtol=1e-6)
    if n <= d:
        # With more features than numbers the codes themselves need not be unique.
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


def test_codes_in_float32_meet_the_conditions_of_the_optimum() -> None:
    torch.manual_seed(0)
    decoder, x = torch.randn(64, 48), 100 * torch.randn(200, 48)
    codes = a_dictionary(decoder).encode(x).dense().double()
    slope = codes @ (decoder @ decoder.T).double() - (x @ decoder.T).double()
    scale = float((x @ decoder.T).abs().max())
    assert float(codes.min()) >= 0
    assert float(torch.where(codes > 0, slope.abs(), (-slope).relu()).max()) < 1e-5 * scale


def test_gradients_are_those_of_finite_differences() -> None:
    torch.manual_seed(1)
    x = torch.randn(4, 8, dtype=torch.float64, requires_grad=True)
    decoder = torch.randn(6, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, decoder: nonnegative_codes(decoder, x, 20000, 1e-13), (x, decoder))


def test_an_update_is_the_published_one() -> None:
    torch.manual_seed(2)
    x, codes = torch.randn(20, 7, dtype=torch.float64), torch.rand(20, 3, dtype=torch.float64)
    A, Y = x.numpy().T, codes.numpy()
    Z = A @ Y @ np.linalg.inv(Y.T @ Y + 1e-6 * np.eye(3))
    for column in Z.T:
        column[np.abs(column) < np.sort(np.abs(column))[-3]] = 0.0
    lengths = np.sqrt((Y**2).sum(0))
    Y, Z = Y / lengths, Z * lengths
    P, Q = A.T @ Z, Z.T @ Z
    plus, minus = lambda M: (np.abs(M) + M) / 2, lambda M: (np.abs(M) - M) / 2
    expected = Y * np.sqrt((plus(P) + Y @ minus(Q)) / (minus(P) + Y @ plus(Q)))
    features, found = updated(x, codes, 3 / 7)
    torch.testing.assert_close(features, torch.tensor(Z))
    torch.testing.assert_close(found, torch.tensor(expected))


def test_without_winners_the_error_never_rises() -> None:
    torch.manual_seed(4)
    x, codes = torch.randn(50, 12, dtype=torch.float64), torch.rand(50, 5, dtype=torch.float64)
    errors = []
    for _ in range(60):
        features, codes = updated(x, codes, 1.0)
        errors.append(float((x - codes @ features.T).square().sum()))
    assert all(later <= earlier * (1 + 1e-9) for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 0.9 * errors[0]


def test_planted_features_are_found_and_no_row_is_wider_than_its_share() -> None:
    x, features = planted()
    sae = iv.fit_semi_nmf(x.view(30, 10, 40), 6, site="blocks.0.mlp.hidden", share=0.1, steps=300)
    assert sae.site == "blocks.0.mlp.hidden" and int((sae.weights.decoder != 0).sum(-1).max()) <= 4
    normed = torch.nn.functional.normalize
    best = (normed(features, dim=-1) @ normed(sae.weights.decoder, dim=-1).T).amax(-1)
    assert int((best > 0.95).sum()) >= 5
    residual = (sae.reconstruct(x) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert float(residual) <= sae.manifest.statistics["fvu"] + 1e-6 < 0.2


def test_numbers_out_of_range_and_activations_that_are_not_finite_are_refused() -> None:
    with pytest.raises(iv.DictionaryError, match="share is above 0 and at most 1, not 0"):
        iv.fit_semi_nmf(torch.randn(9, 4), 2, share=0)
    with pytest.raises(iv.DictionaryError, match="n_features is a whole number from 1, not 0"):
        iv.fit_semi_nmf(torch.randn(9, 4), 0)
    with pytest.raises(iv.DictionaryError, match="not finite"):
        iv.fit_semi_nmf(torch.full((9, 4), torch.nan), 2, steps=3)
