"""Attributions to features: exact where everything is linear, complete where it is not, and as ablations say where they are small."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import MetricError
from tests.dictionaries.made import WIDTH, codes_of, decoded, dictionary
from tests.networks import ids, opened

SITE = "blocks.1.resid"
METHODS = (iv.GradientTimesActivation(), iv.IntegratedGradients())


def linear() -> tuple[iv.Model, torch.nn.Linear, torch.nn.Linear]:
    """Two linear maps; `module:0` gives what the dictionary reads."""
    torch.manual_seed(3)
    first, last = torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, 9)
    return iv.open_model(torch.nn.Sequential(first, last).eval()), first, last


def third(logits: Tensor) -> Tensor:
    return logits[..., 3].flatten(1).sum(dim=1) * 2.0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("architecture", "normalisation"), [("relu", "none"), ("top_k", "constant"), ("gated", "layer_norm")])  # fmt: skip
def test_of_a_linear_metric_of_a_linear_network_they_are_exact(
    method: iv.GradientTimesActivation | iv.IntegratedGradients, architecture: str, normalisation: str
) -> None:
    model, first, last = linear()
    own = dictionary(architecture, normalisation, site="module:0")
    x = torch.randn(2, 4, WIDTH, generator=torch.Generator().manual_seed(0))
    found = iv.attribute_features(model, own, x, third, method)
    with torch.no_grad():
        hidden = first(x)
        flat = hidden.flatten(0, 1)
        codes = codes_of(own, flat)
        nothing = decoded(own, torch.zeros_like(codes), flat)
        reader = last.weight[3].double() * 2.0
        change = ((flat.double() - nothing) @ reader).view(2, 4).sum(dim=1)
        each = torch.stack([(decoded(own, _only(codes, i), flat) - nothing) @ reader for i in range(codes.shape[1])])
        missed = (flat.double() - decoded(own, codes, flat)) @ reader
    torch.testing.assert_close(found.totals[0], change, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.features[0].dense().flatten(0, 1).double(), each.T, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.errors[0].flatten().double(), missed, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.clean, third(last(first(x))).detach())


def _only(codes: Tensor, feature: int) -> Tensor:
    made = torch.zeros_like(codes)
    made[:, feature] = codes[:, feature]
    return made


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_integrated_gradients_sum_to_what_is_lost_without_the_dictionary(family: str) -> None:
    model = opened(family)
    resid = dictionary("jump_relu", "layer_norm", seed=1)
    across = dictionary("relu", skip=True, site="blocks.1.mlp.in", site_out="blocks.1.mlp.out", seed=2)
    prompts = ["w1 w2 w3", "w4 w5 w6 w7 w8"]
    metric = iv.logit_difference(5, 6)
    found = iv.attribute_features(model, [resid, across], prompts, metric, iv.IntegratedGradients())
    assert found.gaps is not None and found.baselines is not None
    for site, own in enumerate((resid, across)):
        for row, prompt in enumerate(prompts):
            acts = iv.capture(model, prompt, [own.site, own.site_out])
            nothing = decoded(own, torch.zeros(acts[own.site].shape[1], own.n_features), acts[own.site][0])
            edit = iv.Replace(nothing.float(), site=own.site_out)
            without = iv.capture(model, prompt, "logits", edits=[edit])["logits"][0, -1]
            whole = iv.capture(model, prompt, "logits")["logits"][0, -1]
            change = float((whole[5] - whole[6]) - (without[5] - without[6]))
            assert float(found.totals[site, row]) == pytest.approx(change, abs=1e-3 * max(1.0, abs(change)))
    # A few points on one stretch miss more, and say so.
    rough = iv.attribute_features(model, resid, prompts, metric, iv.IntegratedGradients(steps=2, most_steps=2))
    assert rough.gaps is not None and float(rough.gaps.abs().max()) > float(found.gaps.abs().max())


def test_gradient_times_activation_is_the_gradient_of_what_is_spliced_in() -> None:
    model, own = opened("llama"), dictionary("jump_relu", seed=1)
    x = ids(1, 5)
    with iv.spliced(model, own) as splice:
        logits = model.module(x).logits[0, -1]
        gradients = splice.gradients(logits[5] - logits[6])
    found = iv.attribute_features(model, own, x, iv.logit_difference(5, 6))
    torch.testing.assert_close(
        found.features[0].dense(), (gradients.codes * splice.codes).detach(), atol=1e-4, rtol=1e-4
    )
    error = (gradients.error * splice.error).sum(dim=-1)
    torch.testing.assert_close(found.errors[0], error.detach(), atol=1e-4, rtol=1e-4)
    assert found.baselines is None and found.gaps is None


def test_small_features_stand_for_what_their_ablation_changes() -> None:
    model, own = opened("gpt2"), dictionary("relu", seed=1)
    # Rows so short that a feature is a small change.
    own.weights.decoder.mul_(1e-3)
    x, metric = ids(1, 4), iv.logit_difference(5, 6)
    found = iv.attribute_features(model, own, x, metric)
    by_feature = found.features[0].dense().sum(dim=(0, 1))
    whole = iv.capture(model, x, "logits")["logits"][0, -1].double()
    top = by_feature.abs().argsort(descending=True)[:5].tolist()
    for feature in top:
        without = iv.capture(model, x, "logits", edits=[own.ablate(feature)])["logits"][0, -1].double()
        effect = float((whole[5] - whole[6]) - (without[5] - without[6]))
        assert float(by_feature[feature]) == pytest.approx(effect, rel=0.15, abs=2e-4)


def test_batches_and_padding_change_nothing() -> None:
    model, own = opened("llama"), dictionary("top_k")
    prompts = ["w1 w2 w3", "w4 w5 w6 w7 w8", "w9 w1"]
    whole, one = (
        iv.attribute_features(model, own, prompts, iv.logit_difference(5, 6), batch_size=size) for size in (8, 1)
    )
    torch.testing.assert_close(whole.features[0].dense(), one.features[0].dense(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(whole.errors[0], one.errors[0], atol=1e-4, rtol=1e-4)
    assert not whole.errors[0][0, 3:].any() and whole.features[0].shape == (3, 5)
    chosen = iv.attribute_features(model, own, prompts, iv.logit_difference(5, 6), where=iv.Where(positions=-1))
    assert not chosen.errors[0][0, :2].any() and chosen.errors[0][0, 2] != 0


def test_they_show_themselves_in_a_frame_and_a_figure(tmp_path: Path) -> None:
    model, own = opened("llama"), dictionary("top_k")
    found = iv.attribute_features(model, own, ["w1 w2 w3", "w4 w5"], iv.logit_difference(5, 6))
    frame = found.frame()
    assert frame.columns.tolist() == ["site", "part", "prompt", "pos", "token", "feature", "activation", "attribution"]
    errors = frame[frame["part"] == "error"]
    assert len(errors) == 5 and errors["feature"].isna().all() and len(frame) == 5 + len(found.features[0])
    assert frame["attribution"].sum() == pytest.approx(float(found.totals.sum()), rel=1e-4)
    assert set(frame[frame["prompt"] == 1]["token"]) == set(found.words[1])
    summary = found.summary()
    assert summary["attribution"].abs().is_monotonic_decreasing
    assert summary["attribution"].sum() * 2 == pytest.approx(float(found.totals.sum()), rel=1e-4)
    bars = found.figure().data[0]
    assert max(bars.x, key=abs) == pytest.approx(summary["attribution"][0]) and len(bars.x) <= 20
    assert "Gradient × activation" in found.to_html(tmp_path / "page.html").read_text(encoding="utf-8")


def test_what_has_no_gradient_is_refused() -> None:
    model, own = opened("llama"), dictionary()
    with pytest.raises(MetricError, match="'cut' has no gradient; make it of the logits"):
        iv.attribute_features(model, own, "w1 w2", cut)
    with pytest.raises(MetricError, match=r"a method is iv.GradientTimesActivation\(\) or .* not 'ig'"):
        iv.attribute_features(model, own, "w1 w2", iv.logit_difference(5, 6), "ig")  # type: ignore[arg-type]
    with pytest.raises(MetricError, match="no gradients; leave the block"), torch.inference_mode():
        iv.attribute_features(model, own, "w1 w2", iv.logit_difference(5, 6))
    for wrong in ({"steps": 0}, {"steps": 1.5}, {"tolerance": 0.0}, {"most_steps": True}):
        with pytest.raises(MetricError, match=next(iter(wrong))):
            iv.IntegratedGradients(**wrong)  # type: ignore[arg-type]
    with torch.no_grad():
        assert len(iv.attribute_features(model, own, "w1 w2", iv.logit_difference(5, 6)).features[0])


def cut(logits: Tensor) -> Tensor:
    return logits[:, 0, 3].detach()
