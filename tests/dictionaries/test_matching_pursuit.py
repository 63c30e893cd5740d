"""Matching pursuit, against a loop over tokens in float64 written from the paper, and by its own promises."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from tests.dictionaries.test_losses import a_step, check


def a_dictionary(architecture: Any, n: int = 24, d: int = 8, *, unit: bool = False, seed: int = 0) -> iv.Dictionary:
    torch.manual_seed(seed)
    decoder = torch.randn(n, d)
    decoder = decoder / decoder.norm(dim=-1, keepdim=True) if unit else decoder
    weights = Weights(torch.randn(n, d), torch.randn(n), decoder, torch.randn(d))
    return iv.Dictionary(weights, architecture, Manifest(True, Normalisation(), site="blocks.0.resid"))


def by_hand(x: Any, rows: Any, steps: int, below: float = 0.0, *, at_repeat: bool = False) -> Any:
    """Codes of one token: the atom of length 1 with the largest product, its projection taken off, again."""
    lengths = (rows**2).sum(1) ** 0.5
    left, codes = x.copy(), 0 * lengths
    for _ in range(steps):
        products = [float(left @ row / length) for row, length in zip(rows, lengths, strict=True)]
        best = max(range(len(rows)), key=lambda i: products[i])
        if products[best] <= 0:
            break
        repeated = codes[best] != 0
        codes[best] += products[best] / lengths[best]
        left = left - products[best] * rows[best] / lengths[best]
        if (at_repeat and repeated) or (left @ left) ** 0.5 < below:
            break
    return codes


@pytest.mark.parametrize("unit", [True, False])
@pytest.mark.parametrize("steps", [1, 5, 40])
@pytest.mark.parametrize(("below", "at_repeat"), [(0.0, False), (0.8, False), (0.0, True), (0.8, True)])
def test_codes_are_those_of_the_loop(unit: bool, steps: int, below: float, at_repeat: bool) -> None:
    sae = a_dictionary(iv.MatchingPursuit(steps, below, at_repeat), unit=unit).to(dtype=torch.float64)
    x = torch.randn(3, 7, 8, dtype=torch.float64)
    rows, bias = sae.weights.decoder.numpy(), sae.weights.decoder_bias
    expected = [by_hand((token - bias).numpy(), rows, steps, below, at_repeat=at_repeat) for token in x.flatten(0, 1)]
    found = sae.encode(x).dense().flatten(0, 1)
    torch.testing.assert_close(found, torch.tensor(np.stack(expected)), atol=1e-12, rtol=1e-12)


def test_the_bare_product_is_taken_off_where_asked_and_is_the_same_for_rows_of_length_one() -> None:
    x = torch.randn(20, 8)
    unit = a_dictionary(iv.MatchingPursuit(6), unit=True)
    bare = dataclasses.replace(unit, architecture=iv.MatchingPursuit(6, projects=False))
    torch.testing.assert_close(unit.encode(x).dense(), bare.encode(x).dense())
    longer = dataclasses.replace(bare, weights=dataclasses.replace(bare.weights, decoder=1.1 * unit.weights.decoder))
    assert not torch.allclose(longer.encode(x).dense() * 1.1, bare.encode(x).dense(), atol=1e-3)


def test_how_long_the_rows_are_changes_codes_by_their_length_alone() -> None:
    x = torch.randn(20, 8)
    sae = a_dictionary(iv.MatchingPursuit(6), unit=True)
    lengths = torch.rand(24) + 0.5
    longer = dataclasses.replace(
        sae, weights=dataclasses.replace(sae.weights, decoder=sae.weights.decoder * lengths[:, None])
    )
    torch.testing.assert_close(longer.encode(x).dense() * lengths, sae.encode(x).dense())
    torch.testing.assert_close(longer.reconstruct(x), sae.reconstruct(x))


def test_more_steps_never_reconstruct_worse_and_their_number_is_free_at_inference() -> None:
    x = torch.randn(50, 8)
    sae = a_dictionary(iv.MatchingPursuit(32))
    errors = []
    for steps in (1, 2, 4, 8, 16):
        used = dataclasses.replace(sae, architecture=iv.MatchingPursuit(steps))
        assert int(used.encode(x).l0().max()) <= steps
        errors.append((used.reconstruct(x) - x).square().sum(-1))
    for worse, better in itertools.pairwise(errors):
        assert bool((better <= worse + 1e-5).all())
    assert float(errors[-1].mean()) < 0.5 * float(errors[0].mean())


def test_gradients_are_those_of_finite_differences() -> None:
    sae = a_dictionary(iv.MatchingPursuit(4)).to(dtype=torch.float64)
    x = torch.randn(3, 8, dtype=torch.float64, requires_grad=True)
    decoder = sae.weights.decoder.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, decoder: sae.architecture.pursue(decoder, x), (x, decoder))


def test_a_row_of_zeros_is_never_taken_and_a_token_of_zeros_has_no_codes() -> None:
    sae = a_dictionary(iv.MatchingPursuit(8))
    sae.weights.decoder[3] = 0.0
    codes = sae.encode(torch.cat([torch.randn(10, 8), sae.weights.decoder_bias[None]])).dense()
    assert bool(codes.isfinite().all()) and not codes[:, 3].any() and not codes[-1].any()


@pytest.mark.parametrize(("fields", "said"), [({"steps": 0}, "steps"), ({"stops_below": -1.0}, "stops_below")])
def test_numbers_out_of_range_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(iv.DictionaryError, match=said):
        iv.MatchingPursuit(**fields)


def test_a_transcoder_cannot_pursue() -> None:
    weights = Weights(torch.randn(4, 8), torch.zeros(4), torch.randn(4, 6), torch.zeros(6))
    with pytest.raises(iv.DictionaryError, match="6 wide, the input 8"):
        iv.Dictionary(weights, iv.MatchingPursuit(2), Manifest(False, Normalisation()))


@pytest.mark.parametrize("dead", [0, 3])
def test_its_loss_is_the_squared_length_of_what_is_left_and_turns_dead_rows_towards_it(dead: int) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        left, rows = x, w["decoder"] / (w["decoder"] ** 2).sum(1, keepdim=True).sqrt()
        made = w["decoder_bias"].expand_as(target)
        for _ in range(3):
            best = (left @ rows.T).argmax(1)
            taken = torch.relu((left * rows[best]).sum(1, keepdim=True)) * rows[best]
            left, made = left - taken, made + taken
        parts = {"reconstruction": ((made - target) ** 2).sum(1).mean()}
        if dead:
            parts["revival"] = -0.5 * (left.detach() @ rows[:dead].T).mean()
        return parts

    check(iv.MatchingPursuit(3, revival=0.5), formula, a_step(dead=dead))


def test_what_training_leaves_encodes_with_the_decoder() -> None:
    sae = a_dictionary(iv.MatchingPursuit(3))
    architecture, weights = sae.architecture.finished(sae.weights, 100)
    assert torch.equal(weights.encoder, weights.decoder) and not weights.encoder_bias.any()
    x = torch.randn(5, 8)
    torch.testing.assert_close(architecture.encode(weights, x), sae.architecture.encode(sae.weights, x))
