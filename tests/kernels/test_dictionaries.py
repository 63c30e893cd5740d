"""Dictionaries encode by the kernels: every architecture, input and format; what they chose can be seen, and told otherwise."""

import dataclasses

import pytest
import torch

import innerview as iv
from innerview.dictionaries.encoders import encoder_of
from innerview.errors import DictionaryError
from tests.dictionaries.made import ARCHITECTURES, NORMALISATIONS, WIDTH, codes_of, dictionary

SCREENS = ("screened_int8", "screened_bfloat16", "screened_float32")


def tokens(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_path_gives_the_codes_of_the_formulas(architecture: str, normalisation: str) -> None:
    pytest.importorskip("numba")
    for options in ({}, {"subtracts": True}, {"skip": True, "d_out": 20, "site_out": "blocks.1.mlp.out"}):
        own, x = dictionary(architecture, normalisation, seed=5, **options), tokens(6)
        wanted = codes_of(own, x)
        for path in ("reference", *SCREENS):
            with iv.kernels.using(path):
                found = own.encode(x)
            assert len(found) == int((wanted > 0).sum()) > 6, path
            torch.testing.assert_close(found.dense().double(), wanted, atol=1e-5, rtol=1e-5)


def test_a_screen_follows_weights_that_are_changed_in_place() -> None:
    pytest.importorskip("numba")
    own, x = dictionary("jump_relu"), tokens(9)
    with iv.kernels.using("screened_int8"):
        before = own.encode(x)
        own.weights.encoder.neg_()
        after = own.encode(x)
    assert torch.equal(after.features, dataclasses.replace(own).encode(x).features)
    assert not torch.equal(after.dense() > 0, before.dense() > 0)


def test_weights_that_train_are_kept_by_nothing() -> None:
    pytest.importorskip("numba")
    own, x = dictionary("top_k"), tokens(9)
    own.weights.encoder.requires_grad_()
    codes = own.encode(x)
    codes.values.sum().backward()
    assert own.weights.encoder.grad is not None and float(own.weights.encoder.grad.abs().sum()) > 0
    with (
        torch.no_grad(),
        iv.kernels.using("screened_int8"),
        pytest.raises(DictionaryError, match="'screened_int8' cannot encode this: its weight trains"),
    ):
        own.encode(x)


def test_the_choice_for_a_dictionary_names_its_path_and_every_other() -> None:
    own = dictionary("top_k")
    choice = iv.kernels.explain(own, tokens(3))
    assert choice.path == "reference" and "4,608 products" in choice.why and choice.task.k == 6
    table = choice.frame()
    assert {"reference", *SCREENS, "fused"} <= set(table.path) and table.taken.sum() == 1
    large = iv.kernels.choose(dataclasses.replace(choice.task, n_tokens=1, n_features=1 << 15, d=1 << 14))
    assert large.seconds[large.path] == min(large.seconds.values()) and "ms by what was measured here" in large.why
    assert set(large.refused) | set(large.seconds) == set(table.path)


def test_an_architecture_of_its_own_is_encoded_by_no_kernel() -> None:
    class Squared(iv.ReLU):
        def activate(self, weights: iv.Weights, pre: torch.Tensor) -> torch.Tensor:
            return pre.relu() ** 2

    own = dictionary("relu")
    other = dataclasses.replace(own, architecture=Squared())
    assert encoder_of(other.architecture, other.weights) is None and other.encoder is None
    torch.testing.assert_close(other.encode(tokens(4)).dense(), own.encode(tokens(4)).dense() ** 2)
    with pytest.raises(DictionaryError, match="encodes by its own rule"):
        iv.kernels.explain(other, tokens(4))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_codes_of_other_formats_are_sums_in_float32_at_least(dtype: torch.dtype) -> None:
    own = dictionary("jump_relu", dtype=dtype)
    x = tokens(5).to(dtype)
    found, wanted = own.encode(x), own.to(dtype=torch.float64).encode(x.double())
    assert found.values.dtype == dtype and torch.equal(found.features, wanted.features)
    torch.testing.assert_close(
        found.values, wanted.values.to(dtype), rtol=1e-2 if dtype.itemsize == 2 else 1e-12, atol=0
    )


@pytest.mark.parametrize(
    ("name", "bad"), [("encoder", "nan"), ("encoder", "inf"), ("encoder_bias", "nan"), ("threshold", "nan")]
)
def test_weights_that_are_no_numbers_are_refused_and_look_not_silent(name: str, bad: str) -> None:
    own, x = dictionary("jump_relu"), tokens(3)
    own.encode(x)
    changed = own.weights.tensors()[name]
    changed[7].fill_(float(bad))
    with pytest.raises(DictionaryError, match=r"NaN( or infinity)? in 1 of \d+ features, first in feature 7"):
        own.encode(x)
    changed[7].fill_(0.5)
    assert own.encode(x).n_features == own.n_features


def test_a_threshold_that_nothing_reaches_is_a_feature_that_is_off() -> None:
    own, x = dictionary("jump_relu"), tokens(3)
    own.weights.extras["threshold"][7] = float("inf")
    assert 7 not in own.encode(x).features


def test_a_few_features_refuse_what_is_no_number_and_look_past_pads() -> None:
    for architecture in ("jump_relu", "top_k", "gated"):
        own, x = dictionary(architecture), tokens(6)
        wanted = own.encode(x).dense()[:, [3, 1]]
        torch.testing.assert_close(own.encode_features(x, [3, 1]), wanted, atol=1e-6, rtol=1e-6)
        broken = x.clone()
        broken[4, 2] = float("nan")
        with pytest.raises(DictionaryError, match="NaN or infinity in 1 of 192 numbers, first nan at token 4"):
            own.encode_features(broken, [3, 1])
