"""The commands that make and judge the bundled dictionaries, run small."""

import json
from pathlib import Path

import pytest
import torch

import innerview as iv
from training.check_dictionaries import Checking, judged, labelled, main, meets, names
from training.make_dictionaries import Documents, Making, make_dictionaries, specs


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dictionaries")
    make_dictionaries(Making(out=out, tokens=512, batch_tokens=256, wider=1, layers=(0, 1), threads=1), progress=False)
    return out


def test_documents_are_the_same_each_time_and_others_for_another_seed() -> None:
    one = Documents("a", 5)
    assert list(one) == list(one) and len(list(one)) == 5 and list(one) != list(Documents("b", 5))


def test_one_dictionary_a_layer_and_three_more_in_the_middle_are_made() -> None:
    found = specs(Making(), 8, 16)
    assert [name for name in found if name.endswith(".resid")] == [f"blocks.{n}.resid" for n in range(8)]
    assert (
        len(found) == 11 and found["blocks.0.resid"].n_features == 128 and found["blocks.4.resid.second_seed"].seed == 1
    )
    assert found["blocks.4.mlp"].site_out == "blocks.4.mlp.out" and found[
        "blocks.4.resid.top_k"
    ].architecture == iv.TopK(32)


def test_what_is_made_is_read_back_in_half_the_size(made: Path) -> None:
    assert names(made) == ["blocks.0.resid", "blocks.1.mlp", "blocks.1.resid", "blocks.1.resid.second_seed", "blocks.1.resid.top_k"]  # fmt: skip
    read = iv.load_dictionary(made / "blocks.1.resid")
    width = iv.open_model("pocket").d_model
    assert read.n_features == width and read.site == "blocks.1.resid" and read.manifest.dtype == "float16"
    second = iv.load_dictionary(made / "blocks.1.resid.second_seed")
    assert not torch.equal(read.weights.encoder, second.weights.encoder)
    assert json.loads((made / "blocks.1.mlp" / "manifest.json").read_text())["site_out"] == "blocks.1.mlp.out"


def test_the_page_says_the_figures_of_every_dictionary(made: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    few = ["--folder", str(made), "--documents", "6", "--concepts", "1", "--pairs", "12", "--threads", "1"]
    code = main([*few, "--out", str(page)])
    found = judged(Checking(made, documents=6, concepts=0))
    text = page.read_text()
    for name, one in found.items():
        assert f"| {name} | {one.n_features} | {one.ce_rise:.4f} |" in text
    assert code == int(sum(meets(found[f"blocks.{n}.resid"]) for n in (0, 1)) * 2 <= 2)
    scored = text.split("## Features")[1].split("## Two")[0].splitlines()
    (transcoder,) = (line for line in scored if line.startswith("| blocks.1.mlp"))
    assert transcoder.endswith("| – | – |") and "absorbed share | absorbed fraction |" in text
    assert "| blocks.1.resid |" in text.split("## Two seeds")[1] and "probe on 5 features" in text


def test_sentences_of_every_asked_concept_are_there() -> None:
    found = labelled(Checking(Path("unused"), concepts=5, pairs=4))
    assert len(found) == 5 and all(len(items) == 8 for items in found.values())
