"""A dashboard: one feature's page by its number, all of them as a table, and what is answered on demand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import innerview as iv
from innerview.features.view import Label
from tests.features import made
from tests.networks import VOCAB, WIDTH, blocks


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def built(request: pytest.FixtureRequest) -> tuple:
    """A network, a dictionary, rows, and their dashboard."""
    model, own, rows = made.opened(request.param), made.dictionary(), made.corpus()
    return model, own, rows, iv.dashboard(own, model, rows)


def ends(model: iv.Model) -> tuple[np.ndarray, np.ndarray, bool]:
    """The final norm's weight, the unembedding and whether the norm centers, by transformers' own names, float64."""
    root = model.module
    norm = root.transformer.ln_f if hasattr(root, "transformer") else root.model.norm
    return (
        norm.weight.detach().double().numpy(),
        root.lm_head.weight.detach().double().numpy(),
        hasattr(root, "transformer"),
    )


def by_hand(model: iv.Model, rows: np.ndarray) -> np.ndarray:
    """What one unit of each row adds to the logits through the final norm's weight, shape [n, vocab]."""
    weight, head, centers = ends(model)
    rows = rows - rows.mean(axis=1, keepdims=True) if centers else rows
    return rows * weight @ head.T


def test_a_view_says_what_the_statistics_say(built: tuple) -> None:
    model, own, _, dash = built
    assert len(dash) == made.N
    view = dash[7]
    assert (view.feature, view.model, view.site, view.dictionary) == (7, model.name, made.SITE, repr(own))
    assert view.n_tokens == dash.statistics.n_tokens and view.density == view.n_active / view.n_tokens > 0
    assert view.histogram.zero == view.n_tokens - view.n_active and view.source is dash
    assert view.stretches[0].low == view.stretches[0].high == 1.0
    assert len(view.frame()) == sum(len(one.ids) for part in view.stretches for one in part.examples)
    assert [one.feature for one in list(dash)[:3]] == [0, 1, 2]


def test_words_are_those_that_the_final_norm_and_the_unembedding_give(built: tuple) -> None:
    model, own, _, dash = built
    logits = by_hand(model, own.weights.decoder.double().numpy())
    for feature in (0, 7, 30):
        view = dash[feature]
        order = np.argsort(-logits[feature])
        assert [word.id for word in view.promoted] == order[:10].tolist()
        assert [word.id for word in view.suppressed] == order[::-1][:10].tolist()
        np.testing.assert_allclose([w.logit for w in view.promoted], logits[feature][order[:10]], rtol=2e-3, atol=1e-3)
        assert view.promoted[0].text == model.tokenizer.decode([view.promoted[0].id])
    whole = dash.with_words()
    assert [w.id for w in whole[7].promoted] == [w.id for w in dash[7].promoted]
    assert [p.index for p in whole[7].nearest] == [p.index for p in dash[7].nearest]
    assert whole.frame(words=True)["promotes"][7].startswith(dash[7].promoted[0].text)


def test_words_of_a_transcoder_are_read_where_it_writes_and_of_neurons_through_their_matrix(built: tuple) -> None:
    model, *_ = built
    own = made.dictionary("blocks.1.mlp.in", site_out="blocks.1.mlp.out")
    row = own.weights.decoder[3:4].double().numpy()
    assert iv.dashboard(own, model)[3].promoted[0].id == by_hand(model, row)[0].argmax()
    block = blocks(model.module)[1].mlp
    last = block.c_proj.weight.T if hasattr(block, "c_proj") else block.down_proj.weight
    width = last.shape[1]
    decoder = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    hidden = iv.Dictionary(
        iv.Weights(decoder.clone(), torch.zeros(5), decoder, torch.zeros(width)), iv.ReLU(),
        iv.Manifest(False, made.PLAIN, site="blocks.1.mlp.hidden"),
    )  # fmt: skip
    wanted = by_hand(model, (decoder @ last.detach().T).double().numpy())
    assert [iv.dashboard(hidden, model)[i].promoted[0].id for i in range(5)] == wanted.argmax(axis=1).tolist()


def test_words_of_a_site_that_writes_nothing_to_the_stream_are_refused_in_a_note(built: tuple) -> None:
    model, *_ = built
    own = made.dictionary("blocks.1.attn.in")
    view = iv.dashboard(own, model)[0]
    assert view.promoted == () and any("no site that writes to the stream" in note for note in view.notes)


def test_nearest_features_have_the_largest_cosines(built: tuple) -> None:
    _, own, _, dash = built
    rows = own.weights.decoder.double().numpy()
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -2)
    for feature in (0, 20):
        told = dash[feature].nearest
        assert [one.index for one in told] == np.argsort(-cosines[feature])[:10].tolist()
        np.testing.assert_allclose([one.value for one in told], np.sort(cosines[feature])[::-1][:10], rtol=1e-5)


def test_a_dead_row_is_near_to_nobody_and_promotes_nothing(tmp_path: Path) -> None:
    model, own = made.opened(), made.dictionary()
    own.weights.decoder[4] = 0
    dash = iv.dashboard(own, model, made.corpus())
    for one in (dash, dash.with_words()):
        assert one[4].nearest == () and all(4 not in [p.index for p in one[i].nearest] for i in range(10))
        assert len(one[3].nearest) == 10
        assert one[4].promoted == one[4].suppressed == () and len(one[3].promoted) == 10
        assert not any("words were not read" in note for note in one[4].notes)
    kept = iv.load_dashboard(dash.save(tmp_path))
    assert kept[4].promoted == () and kept[3].promoted[0].text == dash[3].promoted[0].text


def test_without_texts_what_needs_none_is_answered(built: tuple) -> None:
    model, own, _, dash = built
    bare = iv.dashboard(own, model)
    view = bare[7]
    assert view.promoted == dash[7].promoted and view.nearest == dash[7].nearest and view.stretches == ()
    assert any("no texts were read" in note for note in view.notes) and view.density == 0.0
    assert list(bare.frame().columns) == ["label", "label_score"] and "no texts read" in repr(bare)
    for call in (bare.figure, lambda: bare.save("nowhere")):
        with pytest.raises(iv.FeatureError, match="no texts were read"):
            call()


@pytest.mark.parametrize("k", [None, 5])
def test_a_feature_on_a_text_is_what_a_plain_hook_gives(k: int | None) -> None:
    model, own = made.opened("llama"), made.dictionary(k=k)
    row = [1, 5, 9, 33, 5, 60]
    wanted = made.dense(model, own, row)
    for feature in range(0, made.N, 6):
        told = iv.feature_on_text(model, own, feature, row)
        assert told.ids == tuple(row) and told.words[1] == "w2" and not told.is_read[0] and told.is_read[1:].all()
        np.testing.assert_allclose(told.values[1:], wanted[1:, feature], rtol=1e-3, atol=1e-4)
        assert told.values[0] == 0
    told = iv.dashboard(own, model).on_text(0, "w2 w6 w30")
    assert (
        told.words == ("w2", "w6", "w30") and told.is_read.all() and list(told.frame()["token"]) == ["w2", "w6", "w30"]
    )


def test_a_dictionary_that_was_trained_on_bos_shows_it() -> None:
    model, own = made.opened(), made.dictionary(bos="prepended", k=10)
    row = [1, 5, 9]
    told = [iv.feature_on_text(model, own, feature, row).values[0] for feature in range(made.N)]
    np.testing.assert_allclose(told, made.dense(model, own, row)[0], rtol=1e-3, atol=1e-4)
    assert sum(value > 0 for value in told) == 10


def test_several_texts_or_a_feature_that_is_not_there_are_refused() -> None:
    model, own = made.opened(), made.dictionary()
    with pytest.raises(iv.FeatureError, match="on one text, not on 2"):
        iv.feature_on_text(model, own, 0, ["w1 w2", "w3"])
    with pytest.raises(iv.DictionaryError, match="no feature 48"):
        iv.feature_on_text(model, own, 48, "w1")
    with pytest.raises(iv.DictionaryError, match="no feature 48"):
        iv.dashboard(own, model)[48]


class Without(nn.Module):
    """A block with one feature's part taken from what it returns, behind the BOS."""

    def __init__(self, block: nn.Module, own: iv.Dictionary, feature: int) -> None:
        super().__init__()
        self.block, self.own, self.feature = block, own, feature

    def __getattr__(self, name: str) -> object:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("block"), name)

    def forward(self, *args: object, **kwargs: object) -> object:
        out = self.block(*args, **kwargs)
        x = out[0] if isinstance(out, tuple) else out
        pre = x @ self.own.weights.encoder[self.feature]
        act = torch.where(pre > self.own.weights.extras["threshold"][self.feature], pre, 0.0)
        act[:, 0] = 0
        new = x - act[..., None] * self.own.weights.decoder[self.feature]
        return (new, *out[1:]) if isinstance(out, tuple) else new


def test_loss_effects_are_the_rise_that_transformers_has_without_the_feature(built: tuple) -> None:
    model, own, rows, dash = built
    view = dash.effects(5, examples=2)
    assert any("effects were not run" in note for note in dash[5].notes)
    assert not any("effects" in note for note in view.notes)
    examples = [one for part in view.stretches for one in part.examples if one.effects is not None]
    assert len(examples) >= 3 and sum(one.effects is not None for one in view.stretches[0].examples) == 2
    listed = blocks(model.module)
    block = listed[1]
    for one in examples[:3]:
        ids = torch.tensor([rows[one.text]])
        losses = []
        for inner in (block, Without(block, own, 5)):
            listed[1] = inner
            with torch.no_grad():
                logits = model.module(ids).logits[0, :-1]
            losses.append(nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none").numpy())
        listed[1] = block
        wanted = np.append(losses[1] - losses[0], np.nan)[one.start : one.start + len(one.ids)]
        np.testing.assert_allclose(one.effects, wanted, rtol=1e-3, atol=1e-3)
        assert np.nanmax(np.abs(one.effects)) > 1e-3
    assert np.isfinite(view.frame()["loss_effect"]).sum() > 5


def test_labels_are_attached_shown_and_searched(built: tuple) -> None:
    *_, dash = built
    named = dash.with_labels({7: "Mondays"}).with_labels([Label(9, "Monday to Friday", 0.75, "hand")])
    assert dash.labels == {} and named[7].label.text == "Mondays" and named[9].label.score == 0.75
    near = dash[7].nearest[0].index
    assert dash.with_labels({near: "beside"})[7].nearest[0].text == "beside"
    half = dash.with_labels({3: "half \ud800"})
    assert half.frame()["label"].dtype == object and half.frame()["label"][3] == "half \ud800"
    frame = named.frame()
    assert frame["label"][7] == "Mondays" and frame["label_score"][9] == 0.75 and np.isnan(frame["label_score"][7])
    found = named.search("monday")
    assert set(found["feature"][found["because"] == "label"]) == {7, 9}
    for wrong in ([3], {99: "x"}):
        with pytest.raises((iv.FeatureError, iv.DictionaryError)):
            dash.with_labels(wrong)
    with pytest.raises(iv.FeatureError, match="searched by a word"):
        dash.search(" ")


def test_a_search_finds_what_fires_on_a_word_and_what_promotes_it(built: tuple) -> None:
    _, own, _, dash = built
    token = dash.spell(dash[7].fired_on[0].id)
    found = dash.search(token, k=made.N)
    fires = found[(found["because"] == "fires on")]
    assert 7 in set(fires["feature"])
    exact = fires[(fires["feature"] == 7) & (fires["word"] == token)]
    first = dash[7].fired_on[0]
    wanted = 2 * first.n / (dash[7].n_active + first.of)
    assert exact.empty or exact["score"].iloc[0] == pytest.approx(wanted)
    best = dash[12].promoted[0]
    promoted = dash.search(best.text, k=made.N)
    assert 12 in set(promoted["feature"][promoted["because"] == "promotes"])
    assert dash.search("nothing says this").empty and own is dash.dictionary


def test_a_search_finds_what_fires_inside_a_word_of_several_tokens() -> None:
    model, own = made.opened(), made.dictionary(k=3)
    rows = [[1, 3 + i, 40, 41, 42, 3 + i] for i in range(30)]
    dash = iv.dashboard(own, model, rows)
    whole = np.stack([made.dense(model, own, row) for row in rows])
    found = dash.search(f"{model.tokenizer.decode([40])} {model.tokenizer.decode([41])}", k=made.N)
    fires = dict(zip(found["feature"], found["score"], strict=True))
    wanted = {}
    for feature in range(made.N):
        held = [one.place % 6 for one in dash.statistics.sample.drawn(feature)]
        share = sum(place in (2, 3) for place in held) / max(1, len(held))
        wanted |= {feature: share} if share else {}
        assert bool(held) == bool((whole[:, 1:, feature] > 0).any())
    assert fires == pytest.approx(wanted) and len(wanted) > 2


def test_the_table_and_the_figure_have_one_row_and_one_dot_a_feature(built: tuple) -> None:
    *_, dash = built
    frame = dash.frame()
    assert len(frame) == made.N and list(frame.columns)[:4] == ["label", "label_score", "n_active", "density"]
    assert all(np.issubdtype(frame[name].dtype, np.number) for name in frame.columns if name != "label")
    assert dash.frame(words=True)["fires_on"][7].startswith(dash[7].fired_on[0].text)
    assert len(dash.figure().data[0].x) == (frame["n_active"] > 0).sum()


def test_statistics_of_another_dictionary_are_refused() -> None:
    model, own = made.opened(), made.dictionary()
    found = iv.feature_statistics(model, own, made.corpus()[:4])
    assert iv.dashboard(own, model, found)[0].n_tokens == found.n_tokens
    few = iv.Dictionary(
        iv.Weights(torch.randn(4, WIDTH), torch.zeros(4), torch.randn(4, WIDTH), torch.zeros(WIDTH)), iv.ReLU(),
        iv.Manifest(False, made.PLAIN, site=made.SITE),
    )  # fmt: skip
    with pytest.raises(iv.FeatureError, match="of 48 features, and the dictionary has 4"):
        iv.dashboard(few, model, found)


def test_the_unembedding_has_as_many_columns_as_the_network_has_words() -> None:
    dash = iv.dashboard(made.dictionary(), made.opened("llama"))
    assert dash._readout.matrix.shape == (WIDTH, VOCAB) and not dash._readout.centers


def test_words_of_an_offloaded_network_are_the_same() -> None:
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed: offloading was not tested")
    model, own = made.opened("llama"), made.dictionary()
    wanted = iv.dashboard(own, model)[7].promoted
    accelerate.cpu_offload(model.module, execution_device="cpu")
    assert next(model.module.parameters()).is_meta
    told = iv.dashboard(own, model)[7].promoted
    assert [word.id for word in told] == [word.id for word in wanted]
    np.testing.assert_allclose([word.logit for word in told], [word.logit for word in wanted], rtol=1e-4)


def test_a_dictionary_whose_weights_are_not_finite_is_told_and_never_shown_as_numbers(tmp_path: Path) -> None:
    model, rows = made.opened(), made.corpus()[:6]
    own = made.dictionary()
    own.weights.decoder[3] = torch.nan
    dash = iv.dashboard(own, model, rows)
    for one in (dash, dash.with_words(), iv.load_dashboard(dash.save(tmp_path))):
        assert one[3].promoted == one[3].suppressed == one[3].nearest == ()
        assert len(one[5].promoted) == 10 and 3 not in [near.index for near in one[5].nearest]
        assert all(np.isfinite(near.value) for near in one[5].nearest)
    plain = made.dictionary()
    weights = iv.Weights(
        plain.weights.encoder * torch.nan, torch.zeros(made.N), plain.weights.decoder, torch.zeros(WIDTH)
    )
    wrong = iv.Dictionary(weights, iv.ReLU(), plain.manifest)
    with pytest.raises(iv.DictionaryError, match=r"NaN or infinity in \d+ of \d+ features, first in feature 0"):
        iv.dashboard(wrong, model, rows)
    with pytest.raises(iv.FeatureError, match="feature 0 is NaN or infinite where the activations are not"):
        iv.feature_on_text(model, wrong, 0, rows[0])
