"""Dictionaries encode and decode as their formulas say, written out in float64; what does not fit is refused."""

import dataclasses

import pytest
import torch

import innerview as iv
import innerview.dictionaries.codes as codes_file
from innerview.errors import DictionaryError
from tests.dictionaries.made import ARCHITECTURES, NORMALISATIONS, WIDTH, codes_of, decoded, dictionary
from tests.networks import opened

CASES = [(a, n, b, s) for a in ARCHITECTURES for n in NORMALISATIONS for b in (False, True) for s in (False, True)]


def tokens(*shape: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return torch.randn(*shape, WIDTH, generator=torch.Generator().manual_seed(seed)) * size


@pytest.mark.parametrize(("architecture", "normalisation", "subtracts", "skip"), CASES)
def test_codes_and_reconstructions_are_those_of_the_formulas(
    architecture: str, normalisation: str, subtracts: bool, skip: bool
) -> None:
    own, x = dictionary(architecture, normalisation, subtracts=subtracts, skip=skip, seed=len(architecture)), tokens(5)
    expected = codes_of(own, x)
    found = own.encode(x)
    assert 0 < len(found) < expected.numel() and (expected != 0).sum() == len(found)
    torch.testing.assert_close(found.dense().double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.decode(found, x).double(), decoded(own, expected, x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(own.decode(found.dense(), x), own.decode(found, x), atol=1e-5, rtol=1e-5)
    some = own.encode_features(x, [7, 0, 31])
    torch.testing.assert_close(some, found.dense()[:, [7, 0, 31]], atol=1e-6, rtol=1e-6)
    if own.architecture.is_elementwise and not own.manifest.normalisation.is_per_token:
        read = torch.stack([own.reading(i).of(x) for i in range(own.n_features)], dim=-1)
        torch.testing.assert_close(read.double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_codes_do_not_hang_on_blocks_axes_or_number_formats(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    own, x = dictionary(architecture, seed=3), tokens(3, 7)
    whole = own.encode(x)
    monkeypatch.setattr(codes_file, "BLOCK", own.n_features * 4)
    most = 0

    def watched(rows: torch.Tensor) -> torch.Tensor:
        nonlocal most
        most = max(most, len(rows))
        return own.encode_dense(rows)

    parts = codes_file.coded(x, watched, own.n_features)
    assert most == 4 and parts.shape == whole.shape == (3, 7)
    assert torch.equal(parts.tokens, whole.tokens) and torch.equal(parts.features, whole.features)
    torch.testing.assert_close(parts.values, whole.values)
    assert own.encode(x[0, 0]).shape == () and torch.allclose(own.encode(x[0, 0]).dense(), whole.dense()[0, 0])
    half = own.encode(x.bfloat16())
    torch.testing.assert_close(half.dense(), own.encode(x.bfloat16().float()).dense())
    wide = own.to(dtype=torch.float64).encode(x.double())
    assert wide.values.dtype == torch.float64
    torch.testing.assert_close(wide.dense().float(), whole.dense(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nothing_gives_no_codes_in_the_right_shape(architecture: str) -> None:
    own = dictionary(architecture)
    for shape in ((0,), (2, 0)):
        found = own.encode(torch.zeros(*shape, WIDTH))
        assert len(found) == 0 and found.shape == shape and own.decode(found).shape == (*shape, WIDTH)
    silent = iv.Codes.from_dense(torch.zeros(4, own.n_features))
    torch.testing.assert_close(own.decode(silent), own.weights.decoder_bias.expand(4, -1))


def test_captured_activations_are_encoded_at_the_dictionarys_site_without_pads() -> None:
    model, own = opened("llama"), dictionary("jump_relu")
    acts = iv.capture(model, ["w1 w2 w3 w4 w5", "w6 w7"], ["blocks.1.resid", "blocks.0.resid"])
    assert acts.mask is not None
    found = own.encode(acts)
    assert found.n_tokens == int(acts.mask.sum()) and bool(acts.mask.flatten()[found.tokens].all())
    row = own.encode(acts["blocks.1.resid"][1, acts.mask[1]])
    torch.testing.assert_close(found.dense()[1, acts.mask[1]], row.dense())
    assert not own.encode_features(acts, [0, 1])[~acts.mask].any()
    holes = dataclasses.replace(acts, tensors={"blocks.1.resid": acts["blocks.1.resid"].clone()})
    holes["blocks.1.resid"][~acts.mask] = torch.nan
    torch.testing.assert_close(own.encode(holes).values, found.values)
    with pytest.raises(iv.SiteError, match="was not captured"):
        own.at("blocks.2.resid").encode(acts)
    with pytest.raises(DictionaryError, match=r"site of this dictionary is unknown .* dictionary.at\(site=...\)"):
        own.at("unknown").encode(acts)


def test_heads_are_read_side_by_side() -> None:
    model, own = opened("llama"), dictionary(site="blocks.1.attn.heads")
    acts = iv.capture(model, ["w1 w2 w3"], "blocks.1.attn.heads")
    assert acts["blocks.1.attn.heads"].ndim == 4
    found = own.encode(acts)
    assert found.shape == (1, 3)
    torch.testing.assert_close(found.dense(), own.encode(acts["blocks.1.attn.heads"].flatten(-2)).dense())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("architecture", ["relu", "top_k"])
def test_numbers_that_are_none_are_refused_with_their_place(architecture: str, bad: float) -> None:
    own, x = dictionary(architecture), tokens(4, 3)
    x[2, 1, 5] = bad
    with pytest.raises(DictionaryError, match=rf"in 1 of 384 numbers, first {bad} at token 7 .* run the network in"):
        own.encode(x)
    with pytest.raises(DictionaryError, match="NaN or infinity"):
        own.encode_features(x, [1])
    # Large numbers whose sum overflows are numbers.
    assert len(own.encode(torch.full((1, WIDTH), 3e38))) >= 0


def test_what_does_not_fit_is_refused() -> None:
    own, x = dictionary("relu"), tokens(2)
    with pytest.raises(DictionaryError, match=r"shape \[2, 31\] do not fit a dictionary that reads 32 numbers a token"):
        own.encode(x[:, :31])
    with pytest.raises(DictionaryError, match=r"shape \[\] do not fit"):
        own.encode(torch.tensor(1.0))
    with pytest.raises(DictionaryError, match=r"real numbers, not torch.int64; token ids go through iv.capture"):
        own.encode(torch.ones(2, WIDTH, dtype=torch.long))
    with pytest.raises(DictionaryError, match="not list"):
        own.encode([1.0])  # type: ignore[arg-type]
    for number in (-1, 48, 1.5, True, "3"):
        with pytest.raises(DictionaryError, match=r"0 to 47"):
            own.encode_features(x, [number])  # type: ignore[list-item]
    for given in ([], [1, 1]):
        with pytest.raises(DictionaryError, match="each once, at least one"):
            own.clamp(given, 1.0)
    with pytest.raises(DictionaryError, match="of 47 features, and the dictionary has 48"):
        own.decode(iv.Codes.from_dense(torch.ones(2, 47)))
    with pytest.raises(DictionaryError, match=r"real numbers \[..., 48\], not torch.float32 \[2, 47\]"):
        own.decode(torch.ones(2, 47))
    with pytest.raises(DictionaryError, match=r"tokens \[2\] are not of activations of tokens \[3\]"):
        own.decode(own.encode(x), tokens(3))
    with pytest.raises(DictionaryError, match=r"a manifest has no 'hook'; its fields are .*site"):
        own.at(hook="x")
    for one in (dictionary("relu", "layer_norm"), dictionary("relu", skip=True)):
        with pytest.raises(DictionaryError, match=r"give decode\(codes, x\)"):
            one.decode(one.encode(x))
    with pytest.raises(DictionaryError, match="the manifest of a dictionary are Manifest, not 'here'"):
        iv.Dictionary(own.weights, own.architecture, "here")  # type: ignore[arg-type]


@pytest.mark.parametrize("field", ["factor", "epsilon"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_a_normalisation_that_cannot_be_is_refused(field: str, value: float) -> None:
    with pytest.raises(DictionaryError, match=f"the {field} of a normalisation"):
        iv.Normalisation("constant", **{field: value})  # type: ignore[arg-type]


def test_gradients_flow_through_codes_and_reconstructions() -> None:
    own = dictionary("jump_relu", "layer_norm", dtype=torch.float64)
    x = tokens(2).double().requires_grad_()
    codes = own.encode(x)
    (given,) = torch.autograd.grad(own.decode(codes, x).pow(2).sum(), x)
    dense = own.decode(own.encode_dense(x), x).pow(2).sum()
    torch.testing.assert_close(given, torch.autograd.grad(dense, x)[0])
    assert torch.autograd.gradcheck(lambda y: own.decode(own.encode_dense(y), y), (x,), eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("architecture", ["relu", "top_k"])
@pytest.mark.parametrize("normalisation", ["none", "constant", "layer_norm"])
def test_a_features_step_is_its_median_activation_in_the_networks_units(architecture: str, normalisation: str) -> None:
    own, x = dictionary(architecture, normalisation, seed=5), tokens(9, 11, seed=2, size=3.0)
    assert own.direction(2).scale is None
    with pytest.raises(
        iv.DirectionError, match=r"'feature 2' has no natural step \(not measured; sae.measured\(acts\)"
    ):
        iv.Add(own.direction(2), 2)
    known = own.measured(x)
    dense = own.encode(x).dense().flatten(0, 1)
    for feature in range(0, own.n_features, 5):
        values = dense[:, feature][dense[:, feature] > 0]
        found = known.direction(feature)
        row = own.weights.decoder[feature]
        torch.testing.assert_close(found.vector, row / row.norm())
        assert found.site == "blocks.1.resid" and found.name == f"feature {feature}"
        if not len(values):
            assert found.scale is None
            continue
        scales = [x.flatten(0, 1).std(dim=-1).median() + 1e-5] if normalisation == "layer_norm" else [1 / 0.37 if normalisation == "constant" else 1.0]  # fmt: skip
        assert found.scale == pytest.approx(float(values.median() * row.norm() * scales[0]), rel=1e-4)
        assert found.scale_n == len(values) and found.scale_kind == "median non-zero activation × ‖W_dec row‖"


def test_a_row_of_zeros_is_no_direction() -> None:
    own = dictionary()
    own.weights.decoder[4] = 0.0
    with pytest.raises(DictionaryError, match="row of feature 4 is zero"):
        own.direction(4)


def test_a_per_token_scale_or_competing_features_give_no_plain_reading() -> None:
    with pytest.raises(
        DictionaryError, match=r"each token is normalised \(layer_norm\), so feature 3 .* encode_features"
    ):
        dictionary("relu", "layer_norm").reading(3)
    with pytest.raises(DictionaryError, match="compete, so feature 3 cannot be read without the others"):
        dictionary("top_k").reading(3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_weights_and_activations_may_lie_on_two_devices() -> None:
    own, x = dictionary("jump_relu"), tokens(3)
    there = own.to("cuda")
    assert there.encode(x).values.device.type == "cuda"
    torch.testing.assert_close(there.encode(x).dense().cpu(), own.encode(x).dense())
    torch.testing.assert_close(own.clamp(2, 3.0).apply(x.cuda()).cpu(), own.clamp(2, 3.0).apply(x))
    torch.testing.assert_close(there.clamp(2, 3.0).apply(x), own.clamp(2, 3.0).apply(x))
