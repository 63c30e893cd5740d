"""The dictionaries that ship with the bundled model."""

import pytest
import torch

import innerview as iv
from innerview.bundled import bundled_dictionaries

NAMES = bundled_dictionaries("pocket")
SENTENCES = [
    "The film was long and dull.",
    "When Mary and John went to the shop, John gave a book to",
    "Paris is the capital of",
]


def test_every_layer_has_a_dictionary_and_the_middle_has_three_more() -> None:
    model = iv.open_model("pocket")
    layers = [f"blocks.{layer}.resid" for layer in range(model.n_layers or 0)]
    assert set(NAMES) == {*layers, "blocks.4.mlp", "blocks.4.resid.second_seed", "blocks.4.resid.top_k"}


@pytest.mark.parametrize("name", NAMES)
def test_each_is_of_its_site_and_gives_back_what_it_reads(name: str) -> None:
    model = iv.open_model("pocket")
    sae = iv.load_dictionary("pocket", site=name)
    assert sae.manifest.bos == "excluded" and sae.manifest.dtype == "float16" and sae.manifest.model == "pocket"
    sites = [str(sae.site), str(sae.site_out)]
    acts = iv.capture(model, SENTENCES, list(dict.fromkeys(sites)), progress=False)
    assert acts.mask is not None
    mask = acts.mask.clone()
    mask[:, 0] = False
    x, target = (acts[site][mask] for site in sites)
    codes = sae.encode(x)
    error = (sae.decode(codes, x) - target).square().sum()
    assert float(error / (target - target.mean(0)).square().sum()) < 0.25
    assert 1 < len(codes) / len(x) < 60


@pytest.mark.parametrize("name", NAMES)
def test_a_step_of_nearly_every_feature_was_measured(name: str) -> None:
    sae = iv.load_dictionary("pocket", site=name)
    median = torch.tensor(sae.manifest.statistics["median"])
    assert float((median > 0).float().mean()) > 0.95
    busiest = int(torch.tensor(sae.manifest.statistics["density"]).argmax())
    step = sae.direction(busiest)
    assert step.scale is not None and step.scale > 0 and step.scale_n > 0


def test_a_feature_steers() -> None:
    model = iv.open_model("pocket")
    sae = iv.load_dictionary("pocket", site="blocks.3.resid")
    feature = int(torch.tensor(sae.manifest.statistics["median"]).argmax())
    acts = iv.capture(model, SENTENCES[:1], ["blocks.3.resid"], progress=False)
    edited = iv.capture(
        model, SENTENCES[:1], ["blocks.3.resid"], edits=[iv.Add(sae.direction(feature), 2)], progress=False
    )
    moved = (edited["blocks.3.resid"] - acts["blocks.3.resid"])[0, 2:]
    wanted = 2 * sae.direction(feature).scale * torch.nn.functional.normalize(sae.weights.decoder[feature], dim=0)
    torch.testing.assert_close(moved, wanted.expand_as(moved), atol=1e-3, rtol=1e-3)
