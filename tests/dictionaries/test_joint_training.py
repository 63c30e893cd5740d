"""Crosscoders and cross-layer transcoders, trained: what they share is found, and what is left fits activations as they are."""

import pytest
import torch
from torch import Tensor

import innerview as iv
from tests.networks import opened

FAST = iv.Optimization(3e-3)
SETTINGS = iv.TrainingSettings(batch_tokens=128)


def two_sites(n: int = 8000) -> tuple[dict[str, Tensor], iv.Superposition, Tensor, Tensor]:
    """The same features at two sites, by directions of each site's own, the second ten times as large."""
    world = iv.toy_superposition(n, 24, 12, active=2.0, families=2, groups=0)
    of = torch.Generator().manual_seed(7)
    here, there = (torch.nn.functional.normalize(torch.randn(24, width, generator=of), dim=-1) for width in (12, 16))
    return {"a": world.codes @ here, "b": 10 * world.codes @ there + 3.0}, world, here, there


@pytest.mark.parametrize(
    "architecture", [iv.ReLU(l1=1.0), iv.BatchTopK(2), iv.TanhJumpReLU(sparsity=3.0, steepness=1.0)], ids=repr
)
def test_a_crosscoder_finds_what_two_sites_share(architecture: iv.ReLU) -> None:
    by_site, _, here, there = two_sites()
    made = iv.train_crosscoder(
        by_site, ["a", "b"], architecture, n_features=24, n_tokens=80_000, optimization=FAST, settings=SETTINGS, progress=False
    )  # fmt: skip
    sae = made.dictionary
    assert isinstance(sae, iv.Crosscoder) and sae.sites == ("a", "b") and sae.widths == (12, 16)
    # Rows' lengths are in scaled units and sum to 1: neither site outweighs the other for being larger.
    torch.testing.assert_close(sae.norms().sum(-1), torch.ones(24), atol=1e-4, rtol=0)
    assert 0.3 < float(sae.norms()[:, 0].mean()) < 0.7
    decoded = sae.decode(sae.encode(by_site))
    for site in ("a", "b"):
        x = by_site[site]
        assert float((decoded[site] - x).square().sum() / (x - x.mean(0)).square().sum()) < 0.35
    rows = [torch.nn.functional.normalize(part, dim=-1) for part in sae.weights.decoder.split([12, 16], dim=-1)]
    both = torch.minimum(here @ rows[0].T, there @ rows[1].T)
    assert float((both.amax(1) > 0.8).float().mean()) > 0.6


def test_a_crosscoder_is_trained_on_a_network_and_goes_on_from_its_state(tmp_path) -> None:
    network = opened("llama")
    rows = torch.randint(3, 60, (64, 24), generator=torch.Generator().manual_seed(0))
    sites = ["blocks.0.resid", "blocks.1.resid"]
    options = {"texts": rows, "n_features": 40, "optimization": FAST, "progress": False, "folder": tmp_path}
    settings = iv.TrainingSettings(batch_tokens=64, n_tokens=64 * 12)
    first = iv.train_crosscoder(network, sites, iv.TopK(4), settings=settings, **options)
    again = iv.train_crosscoder(network, sites, iv.TopK(4), settings=settings, **options)
    assert torch.equal(first.dictionary.weights.decoder, again.dictionary.weights.decoder)
    assert first.dictionary.normalisations == again.dictionary.normalisations and again.training.is_complete
    acts = iv.capture(network, rows[:2].tolist(), sites)
    assert first.dictionary.encode(acts).n_features == 40


def test_a_cross_layer_transcoder_reads_each_layer_and_writes_later_ones() -> None:
    world = iv.toy_superposition(8000, 12, 12, active=1.5, families=0, groups=0)
    of = torch.Generator().manual_seed(1)
    out = [torch.randn(12, 8, generator=of) for _ in range(3)]
    first, second = world.codes[:, :6] @ world.directions[:6], world.codes[:, 6:] @ world.directions[6:]
    # The second layer's output hangs on features that only the first layer's input has, too.
    wrote = (
        5 * world.codes[:, :6] @ out[0][:6],
        world.codes[:, :6] @ out[1][:6] + world.codes[:, 6:] @ out[2][6:] - 2.0,
    )
    by_site = {"in.0": first, "in.1": 30 * second, "out.0": wrote[0], "out.1": wrote[1]}
    made = iv.train_cross_layer_transcoder(
        by_site, ["in.0", "in.1"], ["out.0", "out.1"], iv.TanhJumpReLU(sparsity=0.1), n_features=16, n_tokens=100_000,
        optimization=iv.Optimization(1e-2), settings=SETTINGS, progress=False,
    )  # fmt: skip
    clt = made.dictionary
    assert isinstance(clt, iv.CrossLayerTranscoder) and clt.n_features == (16, 16)
    assert set(clt.weights.decoders) == {(0, 0), (0, 1), (1, 1)}
    decoded = clt.decode(clt.encode(by_site))
    for site in ("out.0", "out.1"):
        y = by_site[site]
        assert float((decoded[site] - y).square().sum() / (y - y.mean(0)).square().sum()) < 0.3, site
    alone = clt.pair(1, 1).decode(clt.pair(1, 1).encode(by_site["in.1"]))
    y = wrote[1] - wrote[1].mean(0)
    assert float((alone - alone.mean(0) - y).square().sum() / y.square().sum()) > 0.4


@pytest.mark.parametrize("has_skip", [False, True])
def test_a_transcoder_with_a_skip_explains_what_is_linear_and_what_is_not(has_skip: bool) -> None:
    world = iv.toy_superposition(6000, 24, 12, active=2.0, families=2, groups=0)
    of = torch.Generator().manual_seed(4)
    y = world.codes.clamp(max=1.0) @ torch.randn(24, 10, generator=of) + world.activations @ torch.randn(
        12, 10, generator=of
    )
    made = iv.train_dictionary(
        {"in": world.activations, "out": y}, "in", iv.TopK(4), site_out="out", has_skip=has_skip, n_features=48,
        n_tokens=60_000, batch_tokens=128, optimization=FAST, progress=False,
    ).dictionary  # fmt: skip
    assert (made.weights.skip is not None) == has_skip and made.site_out == "out"
    error = made.decode(made.encode(world.activations), world.activations) - y
    assert float(error.square().sum() / (y - y.mean(0)).square().sum()) < (0.15 if has_skip else 0.3)


def test_one_dictionary_of_several_sites_is_refused_by_what_trains_one() -> None:
    with pytest.raises(iv.DictionaryError, match=r"has one site, not \('a', 'b'\); .*iv.train_crosscoder"):
        iv.train_dictionary(two_sites(100)[0], ("a", "b"), iv.TopK(2))  # type: ignore[arg-type]


def test_what_cannot_be_trained_jointly_is_refused() -> None:
    by_site = two_sites(300)[0]
    with pytest.raises(iv.DictionaryError, match="two sites or more"):
        iv.train_crosscoder(by_site, ["a"], iv.TopK(2))
    with pytest.raises(iv.DictionaryError, match="one site a layer"):
        iv.train_cross_layer_transcoder(by_site, ["a", "b"], ["b"])
    with pytest.raises(iv.DictionaryError, match="read only once; give a list"):
        iv.train_crosscoder(iter([by_site]), ["a", "b"], iv.TopK(2))
    with pytest.raises(iv.DictionaryError, match="layers have one width"):
        iv.train_cross_layer_transcoder(by_site, ["a", "b"], ["a", "b"], settings=SETTINGS)
