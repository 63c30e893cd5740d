"""Features on the bundled network: text in, words out, with its own tokenizer and BOS."""

import numpy as np
import pytest
import torch

import innerview as iv
from innerview.models import text

SITE = "blocks.3.resid"


@pytest.fixture(scope="module")
def model() -> iv.Model:
    return iv.open_model("pocket")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [one.text for concept in ("mood", "weekday", "language") for one in iv.pocket.sentences(concept, pairs=25)]


@pytest.fixture(scope="module")
def trained(model: iv.Model, texts: list[str]) -> iv.Dictionary:
    """Directions of single tokens as features, so that what each fires on is known beforehand."""
    acts = iv.capture(model, texts, "blocks.0.resid_in")
    real = acts["blocks.0.resid_in"][acts.mask]
    ids = acts.tokens[acts.mask]
    counts = torch.bincount(ids, minlength=model.vocab)
    counts[model.tokenizer.all_special_ids] = 0
    chosen = counts.argsort(descending=True)[2:26]
    rows = torch.stack([real[ids == one].mean(dim=0) for one in chosen])
    rows = rows / rows.norm(dim=1, keepdim=True)
    products = real @ rows.T
    # Above the threshold are the token's own occurrences alone.
    own = torch.stack([products[ids == one, nth].min() for nth, one in enumerate(chosen)])
    others = torch.stack([products[ids != one, nth].max() for nth, one in enumerate(chosen)])
    told = own > others
    assert told.sum() >= 8
    rows, threshold = rows[told], ((own + others) / 2)[told]
    weights = iv.Weights(
        rows, torch.zeros(len(rows)), rows.clone(), torch.zeros(rows.shape[1]), extras={"threshold": threshold}
    )
    manifest = iv.Manifest(
        False, iv.Normalisation(), site="blocks.0.resid_in", bos="excluded", statistics={"ids": chosen[told].tolist()}
    )
    return iv.Dictionary(weights, iv.JumpReLU(), manifest)


def test_features_of_tokens_are_found_by_their_word(model: iv.Model, texts: list[str], trained: iv.Dictionary) -> None:
    dash = iv.dashboard(trained, model, texts)
    for feature, token in enumerate(trained.manifest.statistics["ids"]):
        view = dash[feature]
        (only,) = view.fired_on
        assert only.id == token and only.share == 1.0 and only.n == only.of == view.n_active
        assert only.text == text.token_word(model.tokenizer, token)
        examples = [one for part in view.stretches for one in part.examples]
        assert all(one.ids[one.drawn] == token for one in examples)
        assert feature in set(dash.search(only.text, k=50)["feature"])


def test_what_is_shown_of_a_text_is_the_text(model: iv.Model, trained: iv.Dictionary) -> None:
    given = "It was late — naïve cafés, 日本, <b>bold</b> & 🙂 done."
    told = iv.feature_on_text(model, trained, 0, given)
    assert model.tokenizer.decode(told.ids, skip_special_tokens=True) == given
    assert len(told.words) == len(told.values) == len(told.ids) and told.values.dtype == np.float32
    assert not told.is_read[0] and told.is_read[1:].all()


def test_words_that_a_feature_promotes_raise_with_it(model: iv.Model) -> None:
    # A feature that writes what the logit of one word reads promotes that word.
    head = iv.unembedding(model).matrix.detach()
    rows = head.T[500:520].clone()
    own = iv.Dictionary(
        iv.Weights(rows, torch.zeros(20), rows.clone(), torch.zeros(rows.shape[1])), iv.ReLU(),
        iv.Manifest(False, iv.Normalisation(), site="blocks.7.resid"),
    )  # fmt: skip
    dash = iv.dashboard(own, model)
    promoted = [dash[feature].promoted for feature in range(20)]
    assert sum(500 + feature in [word.id for word in words] for feature, words in enumerate(promoted)) >= 12
    # By hand: the network's own head and norm weight.
    weight = model.module.model.norm.weight.detach().double()
    wanted = (rows[3].double() * weight) @ model.module.lm_head.weight.detach().double().T
    assert [word.id for word in promoted[3]] == wanted.topk(10).indices.tolist()
    np.testing.assert_allclose([word.logit for word in promoted[3]], wanted.topk(10).values, rtol=1e-2)


def test_a_dashboard_and_a_feature_show_themselves_with_table_and_text(model: iv.Model, texts: list[str], trained: iv.Dictionary) -> None:  # fmt: skip
    dash = iv.dashboard(trained, model, texts)
    for shown in (dash, dash[0]):
        bundle = shown._repr_mimebundle_()
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        assert "application/vnd.jupyter.widget-view+json" in data and "<" in data["text/html"] and data["text/plain"]
