"""Texts as people have them: empty ones, columns, tables, what gives them one by one, BOS tokens too many or too few."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import pandas as pd
import pytest
import torch

import innerview as iv
from tests.features import made
from tests.networks import module, tokenizer

TEXTS = [f"w{i} w{i + 1} w5 w{2 * i}" for i in range(25)]


def counted(texts: object, **manifest: str) -> iv.FeatureStatistics:
    """What a small dictionary shows in them."""
    return iv.feature_statistics(made.opened(), made.dictionary(k=5, **manifest), texts)


def test_empty_texts_among_others_are_left_out_and_counted() -> None:
    wanted = counted(TEXTS)
    told = counted(["", TEXTS[0], " \n", *TEXTS[1:], "\t"])
    np.testing.assert_allclose(told.frame().to_numpy(), wanted.frame().to_numpy())
    assert told.n_texts == 28 and "3 empty texts were left out" in told.notes
    # Numbers of texts are those of the list that was given.
    assert {one.text for f in range(20) for one in told.top.drawn(f)} <= {1, *range(3, 27)}
    with pytest.raises(iv.TextError, match="all 2 texts are empty"):
        counted(["", "  "])


def test_texts_may_be_anything_that_gives_them_in_an_order() -> None:
    wanted = counted(TEXTS).frame().to_numpy()
    named = dict(enumerate(TEXTS))
    for given in (named.values(), map(str, TEXTS), pd.DataFrame({"text": TEXTS})["text"], np.array(TEXTS)):
        np.testing.assert_allclose(counted(given).frame().to_numpy(), wanted)


def test_a_stream_without_an_end_is_read_until_there_are_tokens_enough() -> None:
    given = []

    def stream() -> Iterator[str]:
        for i in count():
            given.append(i)
            yield f"w{i % 90} w{(i * 7) % 90} w{i % 11}"

    told = iv.feature_statistics(made.opened(), made.dictionary(k=5), stream(), max_tokens=500)
    assert 500 <= told.corpus.starts[-1] < 510 and len(given) < 320
    assert "texts were read until there were 500 tokens, as asked" in told.notes
    fewer = iv.feature_statistics(made.opened(), made.dictionary(k=5), TEXTS, max_tokens=10**9)
    assert not any("as asked" in note for note in fewer.notes) and fewer.n_texts == len(TEXTS)
    with pytest.raises(iv.FeatureError, match="max_tokens is a whole number from 1, not 0"):
        iv.feature_statistics(made.opened(), made.dictionary(k=5), TEXTS, max_tokens=0)


def test_one_row_of_ids_that_comes_one_by_one_is_one_text() -> None:
    row = [5 + i % 20 for i in range(100)]
    assert counted(iter(row)).n_texts == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pd.DataFrame({"text": TEXTS}), r"not a whole DataFrame; give such as texts\['text'\]"),
        ({"text": TEXTS}, "an order, which a dict does not give"),
        (set(TEXTS), "an order, which a set does not give"),
        (pd.Series([*TEXTS, None]), "text 25, counted from 0: .* not (nan|None)"),
        ([*TEXTS, "w1 \ud800"], "text 25, counted from 0: .* half a character"),
        ([[1, 5], [1, 999]], "text 1, counted from 0: no token 999"),
        ([*TEXTS[:70], b"w1"], "text 25, counted from 0: .* of type bytes"),
        (None, "not None"),
    ],
)
def test_what_is_no_list_of_texts_is_refused_and_a_wrong_text_is_numbered(given: object, said: str) -> None:
    with pytest.raises(iv.TextError, match=said):
        counted(given)


def test_bos_tokens_too_many_or_too_few_are_told_and_kept(tmp_path: object) -> None:
    model = iv.open_model(module("gpt2"), tokenizer=tokenizer())
    twice, bare = [[1, 1, 5, 6], [1, 7, 8], [1, 1, 9]], [[5, 6], [1, 7]]
    told = iv.feature_statistics(model, made.dictionary(), twice)
    assert any("2 of 3 rows begin with two BOS tokens" in note for note in told.notes)
    assert not any("BOS" in note for note in iv.feature_statistics(model, made.dictionary(), bare).notes)
    dash = iv.dashboard(made.dictionary(bos="prepended"), model, bare)
    assert any("1 of 2 rows have no BOS token" in note for note in dash[3].notes)
    assert iv.load_dashboard(dash.save(tmp_path))[3].notes[0] == dash[3].notes[0]  # type: ignore[arg-type]


def test_what_is_no_model_or_of_another_site_is_refused() -> None:
    model, own = made.opened(), made.dictionary()
    for call in (
        iv.feature_statistics,
        lambda m, d, t: iv.dashboard(d, m, t),
        lambda m, d, t: iv.feature_on_text(m, d, 0, t[0]),
    ):
        with pytest.raises(iv.FeatureError, match="features are read in a Model, not in str: 'pocket'"):
            call("pocket", own, TEXTS)
    found = iv.feature_statistics(model, own, TEXTS)
    with pytest.raises(
        iv.FeatureError, match=r"of features at blocks\.1\.resid, and the dictionary reads blocks\.0\.resid"
    ):
        iv.dashboard(made.dictionary("blocks.0.resid"), model, found)
    # Another name of the same site.
    assert len(iv.dashboard(made.dictionary("blocks.1.hook_resid_post"), model, found)) == made.N


def test_a_text_whose_activations_overflow_is_named() -> None:
    root = module("gpt2")
    with torch.no_grad():
        root.transformer.wte.weight[33] = float("nan")
    model = iv.open_model(root)
    with pytest.raises(
        iv.FeatureError,
        match=r"of text 2, counted from 0, hold NaN or infinity at blocks\.1\.resid, first at token \d of it",
    ):
        iv.feature_statistics(model, made.dictionary(), [[1, 5, 6], [1, 7, 8, 9], [1, 5, 6, 33, 7]])


def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_read(tmp_path: object) -> None:
    path = tmp_path / "file"  # type: ignore[operator]
    path.write_text("taken")
    with pytest.raises(iv.FeatureError, match="cannot be made a folder"):
        iv.feature_statistics(made.opened(), made.dictionary(), TEXTS, folder=path)
