"""What one pass counts of every feature, against the same by hand from a plain hook's activations, row by row."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import innerview as iv
from innerview.features.best import Best
from innerview.features.examples import Shown
from innerview.features.kept import Drawn
from innerview.features.spread import PER_OCTAVE
from innerview.features.statistics import usually_kept
from tests.features import made
from tests.networks import blocks

BIN = 2 ** (1 / PER_OCTAVE)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def read(request: pytest.FixtureRequest) -> tuple:
    """A network, a dictionary, rows, their statistics in several chunks, and every feature at every token by hand."""
    model, own, rows = made.opened(request.param), made.dictionary(), made.corpus()
    found = iv.feature_statistics(model, own, rows, chunk_tokens=128, neurons=True)
    return model, own, rows, found, made.all_dense(model, own, rows)


def test_counts_sums_and_maxima_are_those_of_a_plain_hook(read: tuple) -> None:
    *_, found, by_hand = read
    whole = np.concatenate(by_hand)
    assert found.n_tokens == len(whole) and found.is_whole
    np.testing.assert_array_equal(found.spread.count.numpy(), (whole != 0).sum(axis=0))
    np.testing.assert_allclose(found.spread.total.numpy(), whole.sum(axis=0), rtol=1e-4)
    active = (whole != 0).any(axis=0)
    assert 0 < active.sum() < made.N
    np.testing.assert_allclose(found.spread.most.numpy()[active], whole.max(axis=0)[active], rtol=1e-4)
    np.testing.assert_allclose(found.density.numpy(), (whole != 0).mean(axis=0))


def test_the_histogram_counts_each_activation_in_its_bin_and_silence_beside(read: tuple) -> None:
    *_, found, by_hand = read
    whole = np.concatenate(by_hand)
    for feature in range(made.N):
        one, values = found.histogram(feature), whole[:, feature]
        assert one.zero + one.counts.sum() == len(values)
        if len(one.edges):
            # Floats on a border may fall on either side.
            wanted = np.histogram(values[values > 0], one.edges)[0]
            assert np.abs(wanted - one.counts).sum() <= 2
            assert one.counts[0] > 0 and one.counts[-1] > 0


def test_quantiles_are_exact_for_few_activations_and_within_a_bin_for_many(read: tuple) -> None:
    *_, found, by_hand = read
    whole, few, many = np.concatenate(by_hand), 0, 0
    for feature in range(made.N):
        values = whole[:, feature][whole[:, feature] > 0]
        told = found.quantiles(feature)
        if not len(values):
            assert told == {}
            continue
        is_few = len(values) <= found.sample.k
        few, many = few + is_few, many + (not is_few)
        for q, value in told.items():
            wanted = np.quantile(values, q)
            below, above = np.quantile(values, q, method="lower"), np.quantile(values, q, method="higher")
            if is_few:
                assert value == pytest.approx(wanted, rel=1e-4)
            else:
                assert below / BIN * 0.999 <= value <= above * BIN * 1.001
        assert found.frame()["median"][feature] == pytest.approx(told[0.5], rel=1e-5)
    assert few > 1 and many > 1


def test_features_of_very_different_sizes_have_quantiles_and_a_histogram_of_their_own() -> None:
    model, plain, rows = made.opened(), made.dictionary(), made.corpus()
    sizes = torch.logspace(-9, 9, made.N)
    weights = replace(plain.weights, encoder=plain.weights.encoder * sizes[:, None], extras={})
    found = iv.feature_statistics(model, replace(plain, weights=weights, architecture=iv.ReLU()), rows, chunk_tokens=96)
    x = np.concatenate([made.hooked(model, row, blocks(model.module)[1]).double().numpy()[1:] for row in rows])
    whole, checked = np.maximum(x @ weights.encoder.double().numpy().T, 0), 0
    for feature in range(0, made.N, 3):
        values = whole[:, feature][whole[:, feature] > 0]
        if len(values) > found.sample.k:
            for q in (0.1, 0.5, 0.9):
                assert (
                    np.quantile(values, q) / BIN * 0.99
                    <= found.quantiles(feature)[q]
                    <= np.quantile(values, q) * BIN * 1.01
                )
            one = found.histogram(feature)
            assert len(one.counts) > 10 and one.edges[0] <= values.max() <= one.edges[-1] * 1.001
            checked += 1
    assert checked > 12


def test_the_strongest_examples_are_the_strongest_of_their_rows(read: tuple) -> None:
    *_, found, by_hand = read
    for feature in range(made.N):
        peaks = sorted((row[:, feature].max() for row in by_hand), reverse=True)
        wanted = [value for value in peaks if value > 0][: found.top.k]
        np.testing.assert_allclose(found.top.activations(feature), wanted, rtol=1e-4)
        texts = [one.text for one in found.top.drawn(feature)]
        assert len(set(texts)) == len(texts)


def test_an_example_shows_its_tokens_and_the_feature_at_each(read: tuple) -> None:
    _, _, rows, found, by_hand = read
    shown = 0
    for feature in range(0, made.N, 5):
        for one in [*found.top.drawn(feature), *found.sample.drawn(feature)]:
            row = rows[one.text]
            assert list(one.ids) == row[one.start : one.start + len(one.ids)]
            wanted = np.concatenate([[0.0], by_hand[one.text][:, feature]])[one.start : one.start + len(one.ids)]
            np.testing.assert_allclose(one.values, wanted, rtol=1e-3, atol=1e-4)
            shown += 1
    assert shown > 100


def test_examples_lie_between_the_true_quantiles_of_their_stretch(read: tuple) -> None:
    *_, found, by_hand = read
    whole, seen = np.concatenate(by_hand), 0
    for feature in range(made.N):
        values = whole[:, feature][whole[:, feature] > 0]
        if len(values) < 100:
            continue
        for stretch in found.stretches(feature, str)[1:]:
            low, high = np.quantile(values, (stretch.low, stretch.high))
            for one in stretch.examples:
                value = one.values[one.drawn]
                assert stretch.least <= value <= stretch.most
                assert low / BIN * 0.999 <= value <= high * BIN * 1.001
                seen += 1
    assert seen > 50


def test_the_draw_is_uniform_over_all_activations() -> None:
    model, own = made.opened(), made.dictionary(k=12)
    rows = made.corpus() + made.corpus(5)
    found = iv.feature_statistics(model, own, rows, together=False, tokens=False, neurons=False)
    whole = np.concatenate(made.all_dense(model, own, [list(row) for row in dict.fromkeys(map(tuple, rows))]))
    ranks = []
    for feature in range(made.N):
        values = np.sort(whole[:, feature][whole[:, feature] > 0])
        if len(values) > 100:
            ranks += (np.searchsorted(values, found.sample.activations(feature)) / len(values)).tolist()
    deciles = np.histogram(ranks, 10, (0, 1))[0] / len(ranks)
    assert len(ranks) > 500 and np.abs(deciles - 0.1).max() < 0.045


def test_no_window_is_shown_twice_for_a_feature(read: tuple) -> None:
    *_, found, _ = read
    for feature in range(made.N):
        ids = [one.ids for stretch in found.stretches(feature, str) for one in stretch.examples]
        assert len(set(ids)) == len(ids)


def test_examples_come_from_other_texts_while_there_are_some() -> None:
    def drawn(text: int, ids: tuple[int, ...], value: float) -> Drawn:
        return Drawn(text, 0, ids, np.full(len(ids), value, dtype=np.float32), 0, 0)

    listed = [
        drawn(3, (1, 2), 9.0),
        drawn(3, (1, 2, 3), 8.0),
        drawn(4, (1, 2), 7.0),
        drawn(5, (4, 5), 6.0),
        drawn(6, (6, 7), 5.0),
    ]
    shown = Shown()
    assert [(one.text, one.value) for one in shown.new(listed, 3)] == [(3, 9.0), (5, 6.0), (6, 5.0)]
    # Only what is left: the same words of another text are no other example.
    assert [(one.text, one.value) for one in shown.new(listed, 3)] == [(3, 8.0)]


def test_pairs_of_features_have_the_mutual_information_of_their_tokens(read: tuple) -> None:
    *_, found, by_hand = read
    active = np.concatenate(by_hand) > 0
    both = active.T.astype(np.int64) @ active
    alone, n = active.sum(axis=0), len(active)
    assert found.together.n_tokens == n and found.together.missed == 0
    for feature in range(made.N):
        others = [j for j in range(made.N) if j != feature and both[feature, j] >= 5]
        pmi = {j: np.log(both[feature, j] * n / alone[feature] / alone[j]) for j in others}
        wanted = sorted(pmi.values(), reverse=True)[:10]
        told = found.partners(feature)
        np.testing.assert_allclose([one.value for one in told], wanted, rtol=1e-5, atol=1e-6)
        assert all(one.n == both[feature, one.index] for one in told)


def test_neurons_have_pearsons_correlation(read: tuple) -> None:
    model, _, rows, found, by_hand = read
    block = blocks(model.module)[1].mlp
    last = block.c_proj if hasattr(block, "c_proj") else block.down_proj
    kept = []
    handle = last.register_forward_pre_hook(lambda _m, given: kept.append(given[0][0, 1:]))
    with torch.no_grad():
        for row in rows:
            model.module(torch.tensor([row]))
    handle.remove()
    neurons, whole = torch.cat(kept).double().numpy(), np.concatenate(by_hand)
    for feature in np.flatnonzero((whole > 0).sum(axis=0) > 5)[:10]:
        wanted = np.array([np.corrcoef(whole[:, feature], one)[0, 1] for one in neurons.T])
        told = found.correlated(int(feature))
        best = np.sort(np.abs(wanted))[::-1][: len(told)]
        np.testing.assert_allclose([abs(one.value) for one in told], best, atol=1e-4)
        np.testing.assert_allclose([one.value for one in told], wanted[[one.index for one in told]], atol=1e-4)


def test_tokens_that_a_feature_fires_on_are_counted(read: tuple) -> None:
    _, _, rows, found, by_hand = read
    ids, whole = np.concatenate([row[1:] for row in rows]), np.concatenate(by_hand)
    for feature in range(0, made.N, 3):
        counts = np.bincount(ids[whole[:, feature] > 0], minlength=67)
        told = found.fired_on(feature, str)
        assert [one.n for one in told] == sorted(counts[counts > 0].tolist(), reverse=True)[:10]
        for one in told:
            here = whole[:, feature][(ids == one.id) & (whole[:, feature] > 0)]
            assert one.n == len(here) and one.share == pytest.approx(len(here) / (whole[:, feature] > 0).sum())
            assert one.mean == pytest.approx(here.mean(), rel=1e-4) and one.of == (ids == one.id).sum()


def test_how_the_corpus_is_cut_into_chunks_changes_nothing() -> None:
    model, own, rows = made.opened(), made.dictionary(k=6), made.corpus()
    one, other = (iv.feature_statistics(model, own, rows, chunk_tokens=size) for size in (64, 4096))
    pd_one, pd_other = one.frame(), other.frame()
    np.testing.assert_allclose(pd_one.to_numpy(), pd_other.to_numpy(), rtol=1e-5)
    assert torch.equal(one.sample.places.sort().values, other.sample.places.sort().values)
    assert torch.equal(one.top.ids, other.top.ids)


def test_texts_that_are_the_same_are_read_once() -> None:
    model, own, rows = made.opened(), made.dictionary(), made.corpus()
    once, twice = (iv.feature_statistics(model, own, given) for given in (rows, rows + rows[:7]))
    assert twice.n_tokens == once.n_tokens and twice.n_twice == 7 and once.n_twice == 0
    assert any("7 texts or pieces" in note for note in twice.notes)


@pytest.mark.parametrize(
    ("bos", "counts"), [("unknown", False), ("excluded", False), ("absent", False), ("prepended", True)]
)
def test_a_bos_counts_only_where_the_manifest_says_it_was_trained_on(bos: str, counts: bool) -> None:
    model, own, rows = made.opened(), made.dictionary(bos=bos), made.corpus()
    found = iv.feature_statistics(model, own, rows)
    assert found.bos is counts
    assert found.n_tokens == sum(map(len, rows)) - (0 if counts else len(rows))
    assert any("front of a text" in note for note in found.notes) is not counts


def test_a_text_longer_than_the_network_reads_comes_in_pieces_with_its_own_positions() -> None:
    model, own = made.opened(), made.dictionary(k=4)
    whole = [1, *(3 + i % 60 for i in range(150))]
    found = iv.feature_statistics(model, own, [whole])
    assert found.n_tokens == 150
    for feature in range(made.N):
        for one in found.top.drawn(feature):
            first = 1 if one.ids[0] == 1 else 0
            assert list(one.ids)[first:] == whole[one.start + first : one.start + len(one.ids)]


def test_only_the_layers_up_to_the_site_run_and_each_row_once() -> None:
    model, own, rows = made.opened(), made.dictionary(), made.corpus()
    seen = [0, 0]
    first, last = blocks(model.module)[0], blocks(model.module)[2]
    handles = [
        block.register_forward_pre_hook(lambda _m, given, nth=nth: seen.__setitem__(nth, seen[nth] + len(given[0])))
        for nth, block in enumerate((first, last))
    ]
    iv.feature_statistics(model, own, rows, neurons=False)
    for handle in handles:
        handle.remove()
    assert seen == [len(rows), 0]


def interrupted(model: iv.Model, at: int, run: object) -> iv.FeatureStatistics:
    """What a pass leaves that a person stops in its forward number `at`."""
    count = iter(range(1000))

    def stop(*_: object) -> None:
        if next(count) == at:
            raise KeyboardInterrupt

    handle = blocks(model.module)[0].register_forward_pre_hook(stop)
    try:
        return run()
    finally:
        handle.remove()


def test_an_interrupt_leaves_what_was_read_and_a_folder_goes_on(tmp_path: Path) -> None:
    model, own, rows = made.opened(), made.dictionary(k=5), made.corpus()

    def run(folder: Path | None = tmp_path / "pass") -> iv.FeatureStatistics:
        return iv.feature_statistics(model, own, rows, chunk_tokens=96, folder=folder, neurons=True)

    part = interrupted(model, 4, run)
    whole = run(None)
    assert not part.is_whole and 0 < part.n_tokens < whole.n_tokens
    assert any("not read to its end" in note for note in part.notes)
    seen = [0]
    handle = blocks(model.module)[0].register_forward_pre_hook(lambda *_: seen.__setitem__(0, seen[0] + 1))
    on = run()
    again = run()
    handle.remove()
    assert on.is_whole and on.n_tokens == whole.n_tokens == again.n_tokens and 0 < seen[0] < 12
    np.testing.assert_allclose(on.frame().to_numpy(), whole.frame().to_numpy(), rtol=1e-5)
    assert torch.equal(on.sample.ids, whole.sample.ids) and torch.equal(on.top.places, whole.top.places)
    assert torch.equal(on.profile.counts, whole.profile.counts)
    np.testing.assert_allclose(on.together.values, whole.together.values, rtol=1e-5)
    np.testing.assert_allclose(on.neurons.values, whole.neurons.values, atol=1e-4)


def test_an_interrupt_while_chunks_are_counted_counts_the_chunk_whole(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, own, rows = made.opened(), made.dictionary(k=5), made.corpus()
    whole = iv.feature_statistics(model, own, rows, chunk_tokens=96)
    offer, count = Best.offer, iter(range(1000))

    def struck(best: Best, *given: object) -> None:
        if next(count) == 5:
            signal.raise_signal(signal.SIGINT)
        offer(best, *given)

    monkeypatch.setattr(Best, "offer", struck)
    part = iv.feature_statistics(model, own, rows, chunk_tokens=96, folder=tmp_path)
    assert not part.is_whole and int(part.spread.count.sum()) == 5 * part.n_tokens
    monkeypatch.undo()
    on = iv.feature_statistics(model, own, rows, chunk_tokens=96, folder=tmp_path)
    assert torch.equal(on.spread.bins, whole.spread.bins) and torch.equal(on.sample.places, whole.sample.places)


def test_texts_may_come_one_by_one_as_a_column_or_alone() -> None:
    model, own = made.opened(), made.dictionary(k=5)
    texts = [f"w{i} w{i + 1} w5 w{2 * i}" for i in range(25)]
    wanted = iv.feature_statistics(model, own, texts).frame().to_numpy()
    rows = [list(model.tokenizer(text)["input_ids"]) for text in texts]
    for given in ((text for text in texts), pd.Series(texts), tuple(texts), rows, torch.tensor(rows), np.array(rows)):
        np.testing.assert_allclose(iv.feature_statistics(model, own, given).frame().to_numpy(), wanted)
    assert iv.feature_statistics(model, own, texts[3]).n_tokens == 4
    assert iv.feature_statistics(model, own, rows[3]).n_tokens == 4
    with pytest.raises(iv.TextError, match="no prompt in an empty list"):
        iv.feature_statistics(model, own, [])


def test_a_folder_of_another_pass_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    model, own, rows = made.opened(), made.dictionary(), made.corpus()
    iv.feature_statistics(model, own, rows, folder=tmp_path)
    for change in ({"seed": 1}, {"top": 3}):
        with pytest.raises(iv.FeatureError, match="of another pass"):
            iv.feature_statistics(model, own, rows, folder=tmp_path, **change)
    moved, changed, prepared = made.dictionary(), made.dictionary(), made.dictionary()
    moved.weights.extras["threshold"][3] += 0.1
    changed.weights.decoder[7, 5] += 0.1
    halved = replace(prepared.manifest, normalisation=iv.Normalisation("constant", factor=0.5))
    others = (made.dictionary(seed=2), moved, changed, replace(prepared, manifest=halved))
    for other in others:
        with pytest.raises(iv.FeatureError, match="of another pass"):
            iv.feature_statistics(model, other, rows, folder=tmp_path)
    # Another network of the same name, and a corpus that grew.
    for network, given in ((made.opened(seed=1), rows), (model, [*rows, [1, 5, 6]])):
        with pytest.raises(iv.FeatureError, match="of another pass"):
            iv.feature_statistics(network, own, given, folder=tmp_path)
    path = tmp_path / "pass.safetensors"
    body = path.read_bytes()
    flipped = bytearray(body)
    flipped[-4000] ^= 16
    for damaged in (body[:100], b"", body[:-50], b"\xff" * 64, bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(iv.FeatureError, match="damaged"):
            iv.feature_statistics(model, own, rows, folder=tmp_path)


def test_what_is_no_dictionary_or_no_number_is_refused() -> None:
    model = made.opened()
    with pytest.raises(iv.FeatureError, match="read from a Dictionary, not from str"):
        iv.feature_statistics(model, "sae", ["w1 w2"])
    with pytest.raises(iv.FeatureError, match="top is a whole number from 1, not 0"):
        iv.feature_statistics(model, made.dictionary(), ["w1 w2"], top=0)


def test_features_that_are_never_active_have_no_figures_but_a_row() -> None:
    model, own = made.opened(), made.dictionary()
    own.weights.extras["threshold"].fill_(1e6)
    found = iv.feature_statistics(model, own, made.corpus()[:5], neurons=True)
    frame = found.frame()
    assert (frame["n_active"] == 0).all() and frame["median"].isna().all() and frame["max"].isna().all()
    assert found.stretches(0, str) == () and found.partners(0) == () and found.fired_on(0, str) == ()


def test_of_very_many_features_fewer_examples_are_kept() -> None:
    assert usually_kept(1536) == usually_kept(131_072) == (16, 32)
    top, sample = usually_kept(1_048_576)
    assert 4 <= top < 16 and sample == 2 * top and (top + sample) * 32 * 4 * 1_048_576 < 2 << 30
