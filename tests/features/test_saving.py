"""Dashboards on disk: what is read back shows the same, others can read it, and hostile files are refused."""

import gzip
import json
import os
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

import innerview as iv
from innerview.features.view import Label
from tests.features import made

# Names of the rows in Neuronpedia's bulk import, as its public tools write them.
FEATURE = {
    "modelId", "layer", "index", "creatorId", "createdAt", "maxActApprox", "hasVector", "vector", "vectorLabel", "vectorDefaultSteerStrength",
    "hookName", "topkCosSimIndices", "topkCosSimValues", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
    "correlated_neurons_indices", "correlated_neurons_pearson", "correlated_neurons_l1", "correlated_features_indices",
    "correlated_features_pearson", "correlated_features_l1", "neg_str", "neg_values", "pos_str", "pos_values", "frac_nonzero",
    "freq_hist_data_bar_heights", "freq_hist_data_bar_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
    "decoder_weights_dist", "sourceSetName",
}  # fmt: skip
ACTIVATION = {
    "id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue", "values", "creatorId", "dataSource", "dataIndex",
    "dfaValues", "dfaTargetIndex", "dfaMaxValue", "createdAt", "lossValues", "logitContributions", "binMin", "binMax", "binContains",
    "qualifyingTokenIndex",
}  # fmt: skip
EXPLANATION = {
    "id", "modelId", "layer", "index", "description", "authorId", "embedding", "triggeredById", "typeName", "explanationModelName", "notes",
    "createdAt",
}  # fmt: skip


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """A dashboard and the folder that it was written to."""
    model, own = made.opened("llama"), made.dictionary()
    dash = iv.dashboard(own, model, made.corpus()).with_labels([Label(7, "Montage </script>", 0.5, "hand")])
    return dash, dash.save(tmp_path_factory.mktemp("kept") / "dashboard")


def test_what_is_read_back_shows_the_same(kept: tuple) -> None:
    dash, folder = kept
    alone, whole = iv.load_dashboard(folder), iv.load_dashboard(folder, dash.dictionary, dash.model)
    pd.testing.assert_frame_equal(alone.frame(), dash.frame())
    for feature in range(made.N):
        one, other = alone[feature], dash[feature]
        pd.testing.assert_frame_equal(one.frame(), other.frame())
        for name in (
            "feature",
            "model",
            "site",
            "n_tokens",
            "n_active",
            "quantiles",
            "together",
            "neurons",
            "fired_on",
            "bos",
        ):
            assert getattr(one, name) == getattr(other, name)
        np.testing.assert_array_equal(one.histogram.counts, other.histogram.counts)
        assert [w.id for w in one.promoted] == [w.id for w in other.promoted]
        assert [w.text for w in one.suppressed] == [w.text for w in other.suppressed]
        assert [p.index for p in one.nearest] == [p.index for p in other.nearest]
    assert alone[7].label.text == "Montage </script>" and alone[7].label.score == 0.5
    np.testing.assert_array_equal(whole.on_text(7, "w1 w9").values, dash.on_text(7, "w1 w9").values)
    with pytest.raises(iv.FeatureError, match="read from files alone"):
        alone.on_text(7, "w1 w9")


def test_loss_effects_of_a_dashboard_from_files_say_that_only_the_stretch_is_run(kept: tuple) -> None:
    dash, folder = kept
    view = iv.load_dashboard(folder, dash.dictionary, dash.model).effects(5, examples=1)
    assert view.stretches[0].examples[0].effects is not None
    assert any("read by itself" in note for note in view.notes)


def test_others_read_the_files_without_us(kept: tuple) -> None:
    dash, folder = kept
    tensors, said = load_file(folder / "features.safetensors"), json.loads((folder / "dashboard.json").read_text())
    assert all(len(tensor) == made.N for tensor in tensors.values())
    assert torch.equal(tensors["spread.count"], dash.statistics.spread.count)
    assert said["n_tokens"] == dash.statistics.n_tokens and said["labels"][0]["feature"] == 7
    first = tensors["top.ids"][7, 0]
    assert tuple(said["tokens"][str(i)] for i in first[first >= 0].tolist()) == dash[7].stretches[0].examples[0].words


def test_a_feature_takes_at_most_25_kb(kept: tuple) -> None:
    _, folder = kept
    assert sum(path.stat().st_size for path in folder.iterdir()) / made.N < 25_000


def test_parquet_holds_a_row_a_feature(kept: tuple, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    dash, _ = kept
    table = parquet.read_table(dash.save(tmp_path) / "features.parquet").to_pandas()
    assert len(table) == made.N and table["label"][7] == "Montage </script>"
    again = parquet.read_table(dash.with_labels({3: "half \ud800"}).save(tmp_path) / "features.parquet").to_pandas()
    assert again["label"][3] == "half \\ud800"
    assert list(table["examples"][7][0]["tokens"]) == list(dash[7].stretches[0].examples[0].words)


def test_another_dictionary_and_another_folder_are_refused(kept: tuple, tmp_path: Path) -> None:
    dash, folder = kept
    small = made.dictionary()
    few = iv.Dictionary(
        iv.Weights(small.weights.encoder[:4], torch.zeros(4), small.weights.decoder[:4], small.weights.decoder_bias), iv.ReLU(),
        small.manifest,
    )  # fmt: skip
    with pytest.raises(iv.FeatureError, match="of 48 features, and the dictionary has 4"):
        iv.load_dashboard(folder, few, dash.model)
    with pytest.raises(iv.FeatureError, match="no folder"):
        iv.load_dashboard(tmp_path / "nothing")
    with pytest.raises(iv.FeatureError, match=r"no file 'dashboard\.json'"):
        iv.load_dashboard(tmp_path)


def copied(folder: Path, to: Path) -> Path:
    to.mkdir()
    for path in folder.iterdir():
        (to / path.name).write_bytes(path.read_bytes())
    return to


def shown(folder: Path) -> None:
    """Read a folder, and show every feature of what is read."""
    try:
        found = iv.load_dashboard(folder)
    except iv.FeatureError:
        return
    found.frame(words=True)
    for feature in range(len(found)):
        found[feature].frame()


@pytest.mark.parametrize("name", ["dashboard.json", "features.safetensors"])
def test_fuzzed_files_are_refused_by_our_error_or_show_something(kept: tuple, tmp_path: Path, name: str) -> None:
    _, folder = kept
    target, rng = copied(folder, tmp_path / "fuzzed") / name, random.Random(name)
    body = target.read_bytes()
    for _ in range(60):
        changed = bytearray(body)
        for _ in range(rng.choice((1, 3, 40))):
            # The front holds what the rest is: most changes go there.
            changed[min(len(body) - 1, int(rng.expovariate(1 / 2000)))] = rng.randrange(256)
        target.write_bytes(bytes(changed[: rng.choice((len(body), len(body), rng.randrange(len(body))))]))
        shown(target.parent)


def hostile() -> dict[str, object]:
    return {
        "n_features": [47, 10**12, -1, "48", None, True],
        "n_tokens": [-5, "many", 1.5],
        "before": [-1, 32, 10**9, None],
        "floor": [10**6, "x", True],
        "tokens": [{"x": "w"}, {"1": 3}, [], "w"],
        "labels": [[{"feature": 99, "text": "x", "score": None, "source": ""}], [3], {}, [{"feature": 1}]],
        "counted": [{"together": {"n_tokens": -1, "missed": 0}}, []],
        "innerview_dashboard": [2, "1", None],
        "model": [3, None],
        "texts_told": [3, [4], "x", ["x"] * 100],
    }


@pytest.mark.parametrize("key", list(hostile()))
def test_a_field_of_another_kind_is_refused(kept: tuple, tmp_path: Path, key: str) -> None:
    target = copied(kept[1], tmp_path / "changed")
    said = json.loads((target / "dashboard.json").read_text())
    for value in hostile()[key]:
        (target / "dashboard.json").write_text(json.dumps(said | {key: value}))
        with pytest.raises(iv.FeatureError):
            iv.load_dashboard(target)
    (target / "dashboard.json").write_text(json.dumps({k: v for k, v in said.items() if k != key}))
    if key not in ("floor", "tokens", "counted", "texts_told"):
        with pytest.raises(iv.FeatureError):
            iv.load_dashboard(target)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("spread.count", lambda t: t[:-1]), ("spread.bins", lambda t: t[:, :-1].contiguous()), ("spread.bins", lambda t: t.long()),
        ("spread.total", lambda t: t * torch.nan), ("spread.most", lambda t: t * torch.nan), ("spread.count", lambda t: t - 10**6),
        ("spread.floors", lambda t: t + 10**6), ("spread.count", lambda t: t + 1), ("sample.places", lambda t: torch.full_like(t, -1)),
        ("top.values", lambda t: t + torch.inf), ("top.ids", lambda t: t - 5), ("top.ids", lambda t: torch.full_like(t, -1)),
        ("top.ids", lambda t: t[:, :, :-1].contiguous()), ("top.places", lambda t: t.flip(1).contiguous()),
        ("together.indices", lambda t: t + 1000), ("together.values", lambda t: t[:, :3].contiguous()),
        ("written.nearest_ids", lambda t: t + 1000), ("profile.ids", lambda t: t.float()), ("sample.texts", lambda t: t[:, :2].contiguous()),
    ],
)  # fmt: skip
def test_a_tensor_of_another_shape_or_with_impossible_numbers_is_refused(kept: tuple, tmp_path: Path, name: str, change: object) -> None:  # fmt: skip
    target = copied(kept[1], tmp_path / "changed")
    tensors = load_file(target / "features.safetensors")
    save_file(tensors | {name: change(tensors[name])}, target / "features.safetensors")
    with pytest.raises(iv.FeatureError, match=name.replace(".", r"\.") + "|" + name.split(".")[0]):
        iv.load_dashboard(target)


def test_links_that_lead_out_and_special_files_are_refused(kept: tuple, tmp_path: Path) -> None:
    target = copied(kept[1], tmp_path / "linked")
    (target / "dashboard.json").rename(tmp_path / "elsewhere.json")
    (target / "dashboard.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(iv.FeatureError, match="leads out of it"):
        iv.load_dashboard(target)
    (target / "dashboard.json").unlink()
    os.mkfifo(target / "dashboard.json")
    with pytest.raises(iv.FeatureError, match="no regular file"):
        iv.load_dashboard(target)


def rows(path: Path) -> list[dict]:
    body = path.read_bytes()
    return [json.loads(line) for line in (gzip.decompress(body) if path.suffix == ".gz" else body).splitlines()]


def test_an_upload_has_neuronpedias_folders_and_fields(kept: tuple, tmp_path: Path) -> None:
    dash, _ = kept
    upload = iv.NeuronpediaUpload("small", "res-made", "somebody", creator_id="c1", dataset="made")
    folder = dash.to_neuronpedia(tmp_path, upload)
    assert folder == tmp_path / "small" / "1-res-made"
    features, activations = (rows(folder / name / "batch-0.jsonl.gz") for name in ("features", "activations"))
    active = [i for i in range(made.N) if dash[i].n_active]
    assert [int(row["index"]) for row in features] == active
    assert all(set(row) == FEATURE for row in features) and all(set(row) == ACTIVATION for row in activations)
    assert {row["layer"] for row in features + activations} == {"1-res-made"}
    assert len({row["id"] for row in activations}) == len(activations)
    (seven,) = (row for row in features if row["index"] == "7")
    view = dash[7]
    assert seven["pos_str"] == [word.text for word in view.promoted] and seven["frac_nonzero"] == view.density
    assert seven["topkCosSimIndices"] == [one.index for one in view.nearest]
    assert sum(seven["freq_hist_data_bar_heights"]) == view.n_active
    assert sum(seven["logits_hist_data_bar_heights"]) == 67
    mine = [row for row in activations if row["index"] == "7"]
    assert len(mine) == sum(len(part.examples) for part in view.stretches)
    assert mine[0]["maxValue"] == pytest.approx(view.stretches[0].most) == max(row["maxValue"] for row in mine)
    assert all(len(row["tokens"]) == len(row["values"]) and row["values"][row["maxValueTokenIndex"]] == pytest.approx(row["maxValue"], abs=1e-3) for row in mine)  # fmt: skip
    (explained,) = rows(folder / "explanations" / "batch-0.jsonl.gz")
    assert (
        set(explained) == EXPLANATION and explained["description"] == "Montage </script>" and explained["index"] == "7"
    )
    (source,) = rows(folder / "source.jsonl")
    assert source["id"] == "1-res-made" and source["setName"] == "res-made" and source["dataset"] == "made"
    for name, key in (("release", "name"), ("model", "id"), ("sourceset", "name")):
        (row,) = rows(folder / f"{name}.jsonl")
        assert row[key] in ("res-made", "small")


def test_an_uploads_names_become_folders_and_nothing_else(kept: tuple) -> None:
    for wrong in ("../out", "a/b", "", ".", "a b"):
        with pytest.raises(iv.FeatureError, match="name of letters"):
            iv.NeuronpediaUpload(wrong, "set", "me")
    assert kept[0].statistics.site == made.SITE
