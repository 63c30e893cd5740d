"""Judging dictionaries: figures equal loops written by hand, and the dictionaries whose figures are known have them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.dictionaries.architectures import ReLU, TopK
from innerview.dictionaries.judging.absorption import absorption
from innerview.dictionaries.judging.assignment import assigned
from innerview.dictionaries.judging.probing import best_feature, f1_of, fitted, sparse_accuracies
from innerview.dictionaries.manifest import Manifest, Normalisation
from innerview.dictionaries.weights import Weights
from innerview.errors import DictionaryError
from tests.networks import WIDTH, WORDS, blocks, opened, ragged

SITE = "blocks.0.resid"
ROWS = ragged((6, 11, 4, 9, 8, 3))


def dictionary(weights: Weights, architecture: Any = ReLU(), **fields: Any) -> iv.Dictionary:
    given: dict[str, Any] = {"site": SITE, "model": "toy", "source": "a test", "bos": "absent"} | fields
    return iv.Dictionary(weights, architecture, Manifest(False, Normalisation(), **given))


def identity() -> iv.Dictionary:
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    return dictionary(Weights(both, torch.zeros(2 * WIDTH), both, torch.zeros(WIDTH)))


def random_one(n: int = 96, seed: int = 0, width: int = WIDTH, **fields: Any) -> iv.Dictionary:
    drawn = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, width, generator=drawn)
    weights = Weights(
        rows / 8, torch.zeros(n), rows / rows.norm(dim=-1, keepdim=True), torch.randn(width, generator=drawn)
    )
    return dictionary(weights, TopK(5), **fields)


def by_hand(model: iv.Model, change: Any, site_of: Any = lambda root: blocks(root)[0]) -> tuple[float, list[Tensor]]:
    """Mean next-token cross-entropy with a hook of our own that changes a module's output, and what came out before it did."""
    seen: list[Tensor] = []

    def hook(_: nn.Module, __: Any, output: Any) -> Any:
        x = output[0] if isinstance(output, tuple) else output
        seen.append(x[0].clone())
        new = change(x)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = site_of(model.module).register_forward_hook(hook)
    total = count = 0.0
    with torch.no_grad():
        for row in ROWS:
            logits = model.module(input_ids=torch.tensor([row])).logits[0].double()
            total += float(nn.functional.cross_entropy(logits[:-1], torch.tensor(row[1:]), reduction="sum"))
            count += len(row) - 1
    handle.remove()
    return total / count, seen


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_every_figure_equals_a_loop_written_by_hand(family: str) -> None:
    model, sae = opened(family, layers=2), random_one()
    found = iv.evaluate_dictionary(sae, model, ROWS)
    plain, seen = by_hand(model, lambda x: x)
    x = torch.cat(seen)
    w = sae.weights
    pre = x @ w.encoder.T
    kept = pre.topk(5, dim=-1)
    codes = torch.zeros_like(pre).scatter(-1, kept.indices, kept.values).relu()
    made = codes @ w.decoder + w.decoder_bias

    def reconstruct(x: Tensor) -> Tensor:
        pre = x @ w.encoder.T
        kept = pre.topk(5, dim=-1)
        return torch.zeros_like(pre).scatter(-1, kept.indices, kept.values).relu() @ w.decoder + w.decoder_bias

    wanted = {
        "ce": plain, "ce_spliced": by_hand(model, reconstruct)[0], "ce_zero": by_hand(model, torch.zeros_like)[0],
        "ce_mean": by_hand(model, lambda y: x.mean(0).expand_as(y))[0], "l0": float((codes > 0).sum(-1).float().mean()),
        "fvu": float((x - made).square().sum() / (x - x.mean(0)).square().sum()),
        "cosine": float(torch.cosine_similarity(x, made, dim=-1).mean()), "n_dead": int((codes > 0).sum(0).eq(0).sum()),
        "n_dense": int(((codes > 0).float().mean(0) > 0.1).sum()), "n_tokens": len(x), "n_predicted": len(x) - len(ROWS),
    }  # fmt: skip
    for name, value in wanted.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-4, abs=1e-5), name
    assert torch.equal(found.counts, (codes > 0).sum(0))
    assert torch.allclose(found.largest, codes.amax(0), atol=1e-4)
    share = (wanted["ce_mean"] - wanted["ce_spliced"]) / (wanted["ce_mean"] - wanted["ce"])
    assert found.recovered_of_mean == pytest.approx(share, rel=1e-3)


def test_the_identity_loses_nothing_and_a_zero_one_is_zero_ablation() -> None:
    model = opened("llama", layers=2)
    whole = iv.evaluate_dictionary(identity(), model, ROWS)
    assert abs(whole.ce_rise) < 1e-6 and whole.fvu < 1e-10 and whole.cosine > 1 - 1e-6
    assert whole.recovered_of_mean == pytest.approx(1.0, abs=1e-5)
    assert whole.l0 == pytest.approx(WIDTH, abs=1e-6) and whole.n_dead == 0
    nothing = dictionary(Weights(torch.zeros(4, WIDTH), torch.zeros(4), torch.zeros(4, WIDTH), torch.zeros(WIDTH)))
    none = iv.evaluate_dictionary(nothing, model, ROWS)
    assert none.ce_spliced == pytest.approx(none.ce_zero, abs=1e-6) and none.l0 == 0 and none.n_dead == 4
    assert none.recovered_of_zero == pytest.approx(0.0, abs=1e-6)


def test_a_transcoder_is_put_in_the_place_of_what_it_writes() -> None:
    model = opened("gpt2", layers=2)
    sae = random_one(site="blocks.1.mlp.in", site_out="blocks.1.mlp.out")
    found = iv.evaluate_dictionary(sae, model, ROWS)
    zero = by_hand(model, torch.zeros_like, lambda root: root.transformer.h[1].mlp)[0]
    acts = iv.capture(model, ROWS, ["blocks.1.mlp.in", "blocks.1.mlp.out"])
    x, wanted = (acts[site][acts.mask] for site in ("blocks.1.mlp.in", "blocks.1.mlp.out"))
    fvu = (wanted - sae.reconstruct(x)).square().sum() / (wanted - wanted.mean(0)).square().sum()
    assert found.ce_zero == pytest.approx(zero, rel=1e-5) and found.fvu == pytest.approx(float(fvu), rel=1e-4)


def test_special_tokens_are_left_out_where_the_dictionary_says_so() -> None:
    model = opened("llama", layers=2)
    rows = [[1, *row] for row in ROWS]
    sae = random_one(bos="excluded")
    found = iv.evaluate_dictionary(sae, model, rows)
    assert found.n_tokens == sum(map(len, ROWS)) and found.n_predicted == sum(map(len, ROWS))
    acts = iv.capture(model, rows, SITE)
    x = acts[SITE][acts.mask & (acts.tokens != 1)]
    assert found.l0 == pytest.approx(float(sae.encode(x).l0().float().mean()))
    assert iv.evaluate_dictionary(sae, model, rows, skip_special=False).n_tokens == sum(map(len, rows))


def test_the_histogram_counts_every_feature_once() -> None:
    found = iv.evaluate_dictionary(random_one(), opened("llama", layers=2), ROWS)
    table = found.histogram()
    assert table["features"].sum() == found.n_features and table["features"].iloc[0] == found.n_dead
    logs = found.density[found.counts > 0].log10()
    low, high = table["low"].iloc[5], table["high"].iloc[5]
    assert table["features"].iloc[5] == int(((logs > low - 1e-6) & (logs <= high + 1e-6)).sum())
    figure = found.figure()
    assert sum(figure.data[0].y) == found.n_features and "CE rise" in figure.layout.title.text
    frame = found.frame()
    assert frame.loc["FVU", "value"] == found.fvu and frame.loc["FVU", "n"] == found.n_tokens
    assert frame.loc["CE rise (nats)", "n"] == found.n_predicted


def test_a_random_networks_dictionary_stands_beside_it() -> None:
    model, control = opened("llama", layers=2), opened("llama", seed=5, layers=2)
    found = iv.evaluate_dictionary(random_one(), model, ROWS, against=(random_one(seed=2), control))
    alone = iv.evaluate_dictionary(random_one(seed=2), control, ROWS)
    assert found.against is not None
    assert found.frame()["random_network"].tolist() == pytest.approx(alone.frame()["value"].tolist())
    assert len(found.figure().data) == 2


def test_an_interrupt_keeps_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = opened("llama", layers=2), [0]
    monkeypatch.setattr("innerview.dictionaries.judging.losses.MOST_TOKENS", 12)

    def stop(*_: object) -> None:
        seen[0] += 1
        if seen[0] == 13:
            raise KeyboardInterrupt

    whole = iv.evaluate_dictionary(random_one(), model, ROWS)
    handle = model.module.register_forward_pre_hook(stop)
    part = iv.evaluate_dictionary(random_one(), model, ROWS)
    handle.remove()
    assert whole.is_whole and not part.is_whole
    assert 0 < part.n_predicted < whole.n_predicted and part.n_tokens == whole.n_tokens
    assert math.isfinite(part.ce_rise) and "stopped early" in part.figure().layout.title.text


def test_texts_with_nothing_to_predict_are_refused() -> None:
    with pytest.raises(DictionaryError, match="text 1 has one token, so nothing in it is predicted"):
        iv.evaluate_dictionary(random_one(), opened("llama", layers=2), [[5, 6], [7]])


def test_texts_longer_than_the_network_reads_are_cut_and_not_refused() -> None:
    model = opened("llama", layers=2)
    size = model.context
    assert size
    row = ragged((2 * size + 2,))[0]
    found = iv.evaluate_dictionary(random_one(), model, [row])
    pieces = iv.evaluate_dictionary(random_one(), model, [row[:size], row[size : 2 * size], row[2 * size :]])
    n = 2 * size + 2
    assert found.n_tokens == n and found.n_predicted == n - 3 and found.ce_rise == pytest.approx(pieces.ce_rise)
    again = iv.evaluate_dictionary(random_one(), model, [[1, *row]])
    assert again.n_tokens == n + 3 and again.n_predicted == n


# Matching.


def permuted(sae: iv.Dictionary, order: Tensor) -> iv.Dictionary:
    w = sae.weights
    return dictionary(Weights(w.encoder[order] * 3, w.encoder_bias[order], w.decoder[order], w.decoder_bias), TopK(5))


def test_a_permuted_copy_is_matched_whole_and_another_seed_hardly() -> None:
    sae, order = random_one(), torch.randperm(96, generator=torch.Generator().manual_seed(9))
    found = iv.match_features(sae, permuted(sae, order))
    assert found.share == 1.0 and torch.equal(order[found.partners], found.features)
    assert found.encoder.min() > 1 - 1e-5 and found.is_exact
    # The decoders of these are drawn anew, so that nothing is alike but by chance.
    assert iv.match_features(sae, random_one(seed=3)).share < 0.1


def test_dictionaries_of_several_sizes_are_matched_by_the_smaller() -> None:
    sae = random_one()
    part = permuted(sae, torch.arange(40, 70))
    for found in (iv.match_features(sae, part), iv.match_features(part, sae)):
        assert found.share == 1.0 and found.n_features == 30
    assert iv.match_features(sae, part).features.tolist() == list(range(40, 70))


def test_a_feature_is_shared_where_encoder_and_decoder_both_agree() -> None:
    sae = random_one()
    w = sae.weights
    turned = dictionary(Weights(-w.encoder, w.encoder_bias, w.decoder, w.decoder_bias), TopK(5))
    found = iv.match_features(sae, turned)
    assert found.share < 0.1 and found.summary().loc["decoder"].iloc[0] < 0.5
    frame = iv.match_features(sae, sae).frame()
    assert frame["is_shared"].all() and (frame["feature"] == frame["partner"]).all()


def test_large_dictionaries_are_matched_by_their_most_alike_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("innerview.dictionaries.judging.matching.MOST_EXACT", 10)
    sae, order = random_one(), torch.randperm(96, generator=torch.Generator().manual_seed(9))
    found = iv.match_features(sae, permuted(sae, order))
    assert not found.is_exact and found.share == 1.0 and "not the exact" in found.figure().layout.title.text


def test_dictionaries_of_other_widths_are_not_compared() -> None:
    with pytest.raises(DictionaryError, match="cannot be compared; give dictionaries of one site"):
        iv.match_features(random_one(), random_one(width=16))


@pytest.mark.parametrize(("n", "m", "seed"), [(1, 1, 0), (7, 7, 1), (30, 30, 2), (12, 40, 3), (60, 61, 4)])
def test_the_assignment_is_the_best_there_is(n: int, m: int, seed: int) -> None:
    scipy = pytest.importorskip("scipy.optimize")
    drawn = np.random.default_rng(seed)
    for score in (drawn.normal(size=(n, m)), drawn.integers(0, 3, size=(n, m)).astype(float)):
        found = assigned(score)
        rows, columns = scipy.linear_sum_assignment(-score)
        assert len(set(found.tolist())) == n
        assert score[np.arange(n), found].sum() == pytest.approx(score[rows, columns].sum())


# Labels.


def planted(n: int = 2000, *, is_absorbed: bool, seed: int = 0) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """A concept with a feature of its own, and a narrower thing with another; where absorbed, that one does the concept's work too."""
    drawn = torch.Generator().manual_seed(seed)
    axes = torch.eye(8)
    y = torch.rand(n, generator=drawn) < 0.5
    narrow = y & (torch.rand(n, generator=drawn) < 0.04)
    rest = torch.rand(n, generator=drawn)
    x = y[:, None] * axes[0] + narrow[:, None] * axes[1] + rest[:, None] * axes[2]
    x = x + 0.01 * torch.randn(n, 8, generator=drawn)
    if is_absorbed:
        decoder = torch.stack([axes[0], axes[0] + axes[1], axes[2]])
        codes = torch.stack([(y & ~narrow).float(), narrow.float(), rest], dim=1)
    else:
        decoder = torch.stack([axes[0], axes[1], axes[2]])
        codes = torch.stack([y.float(), narrow.float(), rest], dim=1)
    return decoder, (x, codes, y)


def test_planted_absorption_is_found_and_none_where_there_is_none() -> None:
    decoder, train = planted(is_absorbed=True)
    test = planted(is_absorbed=True, seed=1)[1]
    found = absorption(decoder, train, test)
    narrow = int((test[1][:, 1] > 0).sum())
    assert found.main == (0,) and found.absorbing == (1,) and found.n_absorbed == narrow > 20
    assert found.n == int(test[2].sum()) and found.share == narrow / found.n
    clean = absorption(
        planted(is_absorbed=False)[0], planted(is_absorbed=False)[1], planted(is_absorbed=False, seed=1)[1]
    )
    assert clean.main == (0,) and clean.n_absorbed == 0 and clean.absorbing == () and clean.n > 100


def family(n: int = 3000, *, absorbed: float, seed: int = 0) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor], Tensor]:
    """A concept with three narrower things, at a sixth of its tokens each; at the first, so much of the concept is carried by the narrow feature."""
    drawn = torch.Generator().manual_seed(seed)
    axes = torch.eye(12)
    y = torch.rand(n, generator=drawn) < 0.4
    which = (torch.rand(n, generator=drawn) * 6).long()
    narrow = y[:, None] & (which[:, None] == torch.arange(3))
    rest = torch.rand(n, 2, generator=drawn)
    size = 0.8 + 0.4 * torch.rand(n, generator=drawn)
    x = (y * size)[:, None] * axes[0] + narrow.float() @ axes[1:4] + rest @ axes[4:6]
    x = x + 0.02 * torch.randn(n, 12, generator=drawn)
    taken = (narrow * absorbed).sum(dim=1)
    codes = torch.cat([((1 - taken) * y * size)[:, None], narrow.float() * size[:, None], rest], dim=1)
    decoder = torch.cat([axes[:1], axes[1:4] + absorbed * axes[0], axes[4:6]])
    return decoder, (x, codes, y), narrow.any(dim=1)


def test_absorption_by_features_that_are_not_rare_is_no_split() -> None:
    decoder, train, _ = family(absorbed=1.0)
    _, test, narrow = family(absorbed=1.0, seed=1)
    found = absorption(decoder, train, test)
    # Known by construction: the concept's own feature is silent at every token of a narrower thing, which is half of them.
    assert found.main == (0,) and set(found.absorbing) == {1, 2, 3}
    assert found.n_absorbed == int(narrow[test[2]].sum()) and 0.45 < found.share < 0.55
    assert found.fraction == pytest.approx(found.share, abs=1e-6)
    # By F1 alone each of these looks like a part of a split, and nothing is absorbed.
    assert absorption(decoder, train, test, peer=0.0).share == 0.0


def test_absorption_in_part_is_told_by_its_fraction() -> None:
    whole, half = (
        absorption(family(absorbed=part)[0], family(absorbed=part)[1], family(absorbed=part, seed=1)[1])
        for part in (0.0, 0.5)
    )
    # Nothing is silent in either; in one the concept's feature fires at half strength where a narrower one carries the rest.
    assert whole.share == half.share == 0.0 and whole.fraction < 0.01
    assert half.fraction == pytest.approx(0.5 * 0.5, abs=0.05)


def test_a_concept_split_into_peers_is_not_absorbed() -> None:
    drawn = torch.Generator().manual_seed(0)
    axes, n = torch.eye(8), 3000
    y = torch.rand(n, generator=drawn) < 0.4
    is_one = torch.rand(n, generator=drawn) < 0.55
    parts = torch.stack([y & is_one, y & ~is_one], dim=1).float()
    decoder = torch.stack([axes[0] + axes[1], axes[0] + axes[2]])
    x = parts @ decoder + 0.02 * torch.randn(n, 8, generator=drawn)
    found = absorption(decoder, (x, parts, y), (x, parts, y))
    assert found.main == (0, 1) and found.share == 0.0 and found.fraction == 0.0 and found.n > 1000


def test_a_silent_feature_whose_concept_nothing_carries_is_not_absorbed() -> None:
    decoder, (x, codes, y) = planted(is_absorbed=True)
    codes = codes.clone()
    codes[:, 1] = 0.0
    found = absorption(decoder, (x, codes, y), (x, codes, y))
    assert found.main == (0,) and found.n_absorbed == 0


def test_a_probe_finds_the_direction_and_says_so_in_the_inputs_own_units() -> None:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(500, 6, generator=drawn) * torch.tensor([1.0, 5, 1, 1, 100, 0])
    y = x[:, 1] - 2.0 > 0
    probe = fitted(x, y)
    assert probe.accuracy(x, y) > 0.97 and int((probe.weight * x.std(0)).abs().argmax()) == 1 and probe.weight[5] == 0
    assert torch.equal(probe.score(x) > 0, x @ probe.weight + probe.bias > 0)


def test_probes_on_few_features_and_the_best_feature_are_judged_on_what_was_held_out() -> None:
    drawn = torch.Generator().manual_seed(0)
    y = torch.rand(300, generator=drawn) < 0.4
    codes = torch.rand(300, 20, generator=drawn) * (torch.rand(300, 20, generator=drawn) < 0.3)
    codes[:, 7] = y * (0.5 + torch.rand(300, generator=drawn))
    halves = (codes[:150], y[:150]), (codes[150:], y[150:])
    best = best_feature(*halves)
    assert best.feature == 7 and best.f1 == 1.0
    assert sparse_accuracies(*halves, (1, 5))[1] == 1.0
    noise = (torch.rand(150, 20, generator=drawn), y[:150]), (torch.rand(150, 20, generator=drawn), y[150:])
    assert sparse_accuracies(*noise, (5,))[5] < 0.75
    assert float(f1_of(torch.tensor([True, True, False]), torch.tensor([True, False, True]))) == 0.5


@dataclass
class Item:
    """A labelled sentence."""

    text: str
    value: str
    start: int
    end: int
    pair: int | None = None


def items(n: int, seed: int) -> list[Item]:
    """Sentences whose one word says the label."""
    drawn, made = np.random.default_rng(seed), []
    for nth in range(n):
        for value, word in (("yes", "w10"), ("no", "w20")):
            before = " ".join(drawn.choice(WORDS[30:], size=3))
            made.append(Item(f"{before} {word} w5", value, len(before) + 1, len(before) + 1 + len(word), nth))
    return made


def test_concepts_are_scored_in_sentences_and_stand_in_the_table() -> None:
    model = opened("llama", layers=2)
    listed = items(80, 0)
    word = iv.capture(model, [[WORDS.index("w10")]], "embed")["embed"][0, 0]
    rows = torch.stack([word / word.norm(), torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))])
    weights = Weights(rows, torch.tensor([-0.8 * float(word.norm()), 0.0]), rows.clone(), torch.zeros(WIDTH))
    sae = dictionary(weights, site="embed")
    found = iv.evaluate_dictionary(
        sae, model, [item.text for item in listed], labelled={"word": listed, "none": listed[:2]}
    )
    assert found.concepts is not None and found.concepts.left_out == ("none",)
    frame = found.concepts.frame()
    assert (
        sorted(frame["value"]) == ["no", "yes"] and (frame["n_test"] == 80).all() and (frame["majority"] == 0.5).all()
    )
    yes = frame.set_index("value").loc["yes"]
    assert (yes["feature"], yes["f1"], yes["probe_1"]) == (0, 1.0, 1.0) and yes["probe_raw"] > 0.7
    # The label's own token tells it wholly, so that every one of the concept is there to be absorbed.
    assert yes["n_absorbable"] == 40
    assert found.frame().loc["probe on the activation", "n"] == 1
