"""Training: on what, in which order, from which seed; resumed, stopped, shared among processes."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.dictionaries.training.harvest import CONTEXT, Harvest
from innerview.dictionaries.training.initial import geometric_median
from innerview.dictionaries.training.processes import Processes
from innerview.dictionaries.training.windows import Chunk, mixed
from innerview.opened import opened as kernels
from tests.networks import opened

SITE = "blocks.1.resid"
FAST = iv.Optimization(3e-3)


def acts(n: int = 2048, width: int = 12, seed: int = 0) -> Tensor:
    return iv.toy_superposition(
        n, n_features=20, width=width, active=2.0, families=2, groups=2, group_size=3, seed=seed
    ).activations


def trained(source: object = None, architecture: object = None, **given: object) -> iv.DictionaryTraining:
    options = {"n_features": 24, "batch_tokens": 64, "n_tokens": 2048, "optimization": FAST, "progress": False} | given
    return iv.train_dictionary(acts() if source is None else source, SITE, architecture or iv.TopK(3), **options)  # type: ignore[arg-type]


def equal_weights(one: iv.Dictionary, other: iv.Dictionary, atol: float = 0.0) -> bool:
    mine, others = one.weights.tensors(), other.weights.tensors()
    return mine.keys() == others.keys() and all(torch.allclose(mine[n], others[n], rtol=0, atol=atol) for n in mine)


ARCHITECTURES = [
    iv.TopK(3), iv.BatchTopK(3), iv.JumpReLU(l0=3e-3, bandwidth=0.05), iv.JumpReLU(l0=0.1, l0_target=3.0, bandwidth=0.05),
    iv.Gated(l1=0.1), iv.ReLU(l1=0.5), iv.ReLU(l1=0.5, has_unit_rows=True),
]  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=repr)
def test_training_lowers_what_is_not_explained_and_measures_what_it_made(architecture) -> None:
    made = trained(architecture=architecture, n_tokens=64 * 80)
    history = made.frame()
    assert made.is_complete and made.tokens == 64 * 80
    assert history["fvu"].iloc[-1] < 0.8 * history["fvu"].iloc[0] and history["fvu"].iloc[-1] < 0.45
    dictionary = made.dictionary
    told = dictionary.manifest.statistics
    x = acts()
    codes = dictionary.encode(x).dense()
    error = x - dictionary.reconstruct(x)
    fvu = float(error.square().sum() / (x - x.mean(0)).square().sum())
    assert fvu == pytest.approx(told["fvu"], rel=0.05)
    assert float((codes != 0).sum(1).float().mean()) == pytest.approx(told["l0"], rel=0.05)
    assert torch.isfinite(codes).all() and len(told["median"]) == 24 and max(told["density"]) <= 1


def test_the_median_and_density_of_a_feature_are_those_of_its_codes() -> None:
    x = acts(640)
    made = trained(x, n_tokens=640)
    codes = made.dictionary.encode(x).dense()
    told = made.dictionary.manifest.statistics
    for feature in range(24):
        values = codes[:, feature][codes[:, feature] != 0]
        assert told["density"][feature] == pytest.approx(len(values) / 640)
        # Of an even number the lower of the two in the middle, as torch's median.
        assert told["median"][feature] == pytest.approx(float(values.median()) if len(values) else 0.0, rel=1e-5)
    feature = int(torch.tensor(told["density"]).argmax())
    step = told["median"][feature] * float(made.dictionary.weights.decoder[feature].norm())
    assert made.dictionary.direction(feature).scale == pytest.approx(
        step / made.dictionary.manifest.normalisation.factor
    )


def test_the_same_seed_gives_the_same_dictionary_and_another_seed_another() -> None:
    one, again, other = trained(seed=1), trained(seed=1), trained(seed=2)
    assert equal_weights(one.dictionary, again.dictionary) and one.histories == again.histories
    assert not equal_weights(one.dictionary, other.dictionary, atol=1e-3)


def test_inputs_are_scaled_to_mean_squared_length_one_and_the_factor_is_recorded() -> None:
    x = acts(1024) * 37
    manifest = trained(x, n_tokens=1024).dictionary.manifest
    assert manifest.normalisation.kind == "constant"
    assert (x * manifest.normalisation.factor).square().sum(1).mean() == pytest.approx(1.0, rel=0.02)
    plain = trained(x, n_tokens=1024, settings=iv.TrainingSettings(normalisation="none")).dictionary
    assert plain.manifest.normalisation.kind == "none"


def test_a_scaled_input_gives_the_same_codes_but_for_the_scale() -> None:
    x = acts(1024)
    small, large = trained(x, n_tokens=1024).dictionary, trained(x * 64, n_tokens=1024).dictionary
    torch.testing.assert_close(small.encode(x[:20]).dense(), large.encode(64 * x[:20]).dense(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(64 * small.reconstruct(x[:20]), large.reconstruct(64 * x[:20]), rtol=1e-4, atol=1e-3)


def test_several_dictionaries_over_one_pass_are_each_what_it_would_be_alone() -> None:
    source = {"blocks.0.resid": acts(), "blocks.1.resid": acts(width=16, seed=3)}
    specs = [
        iv.DictionarySpec("blocks.0.resid", iv.TopK(3), 24, optimization=FAST),
        iv.DictionarySpec("blocks.1.resid", iv.BatchTopK(2), 40, seed=5, optimization=FAST),
        iv.DictionarySpec("blocks.1.resid", iv.TopK(2), 40, seed=6, optimization=FAST),
    ]
    settings = iv.TrainingSettings(n_tokens=1024, batch_tokens=64)
    made = iv.train_dictionaries(source, specs, settings=settings, progress=False)
    assert [d.n_features for d in made.dictionaries] == [24, 40, 40] and set(made.frame()["dictionary"]) == {0, 1, 2}
    alone = iv.train_dictionaries(source, specs[1:2], settings=settings, progress=False)
    assert equal_weights(made.dictionaries[1], alone.dictionary)
    assert "FVU" in made.figure().to_json()
    with pytest.raises(iv.DictionaryError, match="3 dictionaries were trained"):
        made.dictionary


def test_a_transcoder_reads_one_site_and_writes_another() -> None:
    x = acts(4096)
    table = torch.randn(12, 9, generator=torch.Generator().manual_seed(0))
    source = {"blocks.1.mlp.in": 5 * x, "blocks.1.mlp.out": 0.2 * torch.relu(x) @ table}
    made = iv.train_dictionary(
        source, "blocks.1.mlp.in", iv.TopK(4), site_out="blocks.1.mlp.out", has_skip=True, n_features=64, n_tokens=12_000,
        batch_tokens=128, optimization=FAST, progress=False,
    ).dictionary  # fmt: skip
    error = source["blocks.1.mlp.out"] - made.reconstruct(source["blocks.1.mlp.in"])
    spread = source["blocks.1.mlp.out"] - source["blocks.1.mlp.out"].mean(0)
    assert made.is_transcoder and error.square().sum() / spread.square().sum() < 0.4
    assert made.manifest.statistics["fvu"] < 0.4


# Where tokens come from.


def test_windows_give_each_token_once_mixed_and_go_on_where_they_are_told() -> None:
    def chunks(loads: list[int]) -> Iterator[Chunk]:
        for nth, size in enumerate((7, 30, 1, 45, 17)):
            start = (0, 7, 37, 38, 83)[nth]

            def load(nth: int = nth, start: int = start, size: int = size) -> dict[str, Tensor]:
                loads.append(nth)
                return {"x": torch.arange(start, start + size).float()}

            yield Chunk(size, load)

    loads: list[int] = []
    whole = [batch["x"] for batch in mixed(chunks(loads), 40, 10, 3)]
    assert torch.equal(torch.cat(whole).sort().values, torch.arange(100).float()) and loads == [0, 1, 2, 3, 4]
    assert not torch.equal(whole[0], torch.arange(10).float())
    later: list[int] = []
    rest = [batch["x"] for batch in mixed(chunks(later), 40, 10, 3, first=5)]
    assert all(torch.equal(a, b) for a, b in zip(whole[5:], rest, strict=True)) and later == [3, 4]


def texts(n: int = 60) -> list[str]:
    of = torch.Generator().manual_seed(4)
    return [" ".join(f"w{i}" for i in torch.randint(0, 64, (3 + k % 9,), generator=of).tolist()) for k in range(n)]


def test_harvested_activations_are_those_of_a_capture_without_bos() -> None:
    model = opened("gpt2")
    rows = [[1, 5, 6, 7], [1, 9, 10], [1, 20, 21, 22, 23]]
    source = Harvest(model, rows, 64, keeps_bos=False, context=4, processes=Processes())
    (batch,) = source.batches([SITE], 9, 0)
    cut = [[1, 5, 6, 7], [1, 9, 10], [1, 20, 21, 22], [1, 23]]
    wanted = torch.cat([iv.capture(model, [row], SITE)[SITE][0, 1:] for row in cut])
    assert batch[SITE].shape == wanted.shape == (9, 32)
    middle = batch[CONTEXT][:, 8]
    by_id = {int(i): v for i, v in zip([i for row in cut for i in row[1:]], wanted, strict=True)}
    for token, value in zip(middle.tolist(), batch[SITE], strict=True):
        torch.testing.assert_close(value, by_id[token], rtol=1e-5, atol=1e-5)
    assert source.bos == "excluded"


def test_a_network_trains_a_dictionary_while_it_reads_texts() -> None:
    model = opened("gpt2")
    made = iv.train_dictionary(
        model, SITE, iv.TopK(4), texts=texts(), n_features=48, n_tokens=4000, batch_tokens=100,
        optimization=FAST, settings=iv.TrainingSettings(buffer_tokens=200, report_every=5), progress=False,
    )  # fmt: skip
    manifest = made.dictionary.manifest
    assert (manifest.site, manifest.model, manifest.bos) == (SITE, model.name, "absent")
    assert made.frame()["fvu"].iloc[-1] < 0.6
    assert made.dictionary.encode(iv.capture(model, "w1 w2 w3", SITE)).shape == (1, 3)


def test_texts_may_come_only_once_and_may_run_out() -> None:
    model = opened("gpt2")
    made = iv.train_dictionary(
        model, SITE, iv.TopK(4), texts=iter(texts(30)), n_features=48, n_tokens=100_000, batch_tokens=50, progress=False
    )
    assert not made.is_complete and 0 < made.tokens < 300 and made.dictionary.n_features == 48
    with pytest.raises(iv.DictionaryError, match="give n_tokens"):
        iv.train_dictionary(model, SITE, iv.TopK(4), texts=iter(texts(3)), batch_tokens=4, progress=False)


def test_a_store_and_an_iterable_of_tensors_are_sources_too(tmp_path: Path) -> None:
    model = opened("gpt2")
    store = iv.open_store(tmp_path / "acts")
    iv.capture(model, texts(40), SITE, to=store)
    store.flush()
    options = {"n_features": 40, "batch_tokens": 50, "optimization": FAST, "progress": False}
    made = iv.train_dictionary(store, SITE, iv.TopK(3), n_tokens=3000, **options)  # type: ignore[arg-type]
    assert made.is_complete and made.frame()["fvu"].iloc[-1] < 0.6 and made.dictionary.manifest.model == model.name
    # The store knows the tokenizer's BOS, and which tokens are first in their rows.
    assert store.bos == made.dictionary.manifest.bos == "absent"
    with_bos = iv.open_store(tmp_path / "with bos")
    iv.capture(model, [[1, 5, 6], [1, 7, 8, 9]], SITE, to=with_bos)
    with_bos.flush()
    assert with_bos.bos == "prepended" and iv.open_store(tmp_path / "with bos").bos == "prepended"
    iv.capture(model, [[5, 6, 7]], SITE, to=with_bos)
    assert with_bos.flush() == 10 and with_bos.bos == "unknown"
    pieces = iter(acts(900).split(70))
    given = iv.train_dictionary(pieces, SITE, iv.TopK(3), n_tokens=800, **options)  # type: ignore[arg-type]
    assert given.is_complete and given.tokens == 800


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        (torch.zeros(500, 4), {}, "mean squared length 0.0"),
        (torch.ones(10, 4), {"n_tokens": None}, "10 tokens are fewer than one batch of 64"),
        ({"blocks.0.resid": torch.ones(99, 4)}, {}, "no activations of 'blocks.1.resid'; given are those of blocks.0.resid"),
        (torch.ones(99, 4, dtype=torch.int64), {}, "real numbers of shape"),
        (7, {}, "not int"),
        (torch.ones(99, 4), {"texts": ["a"]}, "drop them"),
        (torch.ones(99, 4), {"has_skip": True}, "for transcoders"),
        (torch.full((500, 4), float("nan")), {}, "mean squared length nan"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_refused(source: object, options: dict, message: str) -> None:
    with pytest.raises(iv.DictionaryError, match=message):
        trained(source, **options)


def test_the_first_bias_is_the_geometric_median() -> None:
    x = acts(500) + 3
    found = geometric_median(x)

    def total(point: Tensor) -> float:
        return float((x.double() - point.double()).norm(dim=1).sum())

    of = torch.Generator().manual_seed(0)
    assert all(total(found) < total(found + 0.05 * torch.randn(12, generator=of)) for _ in range(20))
    assert total(found) < total(x.mean(0))


# Stopped, killed, watched.


def test_an_interrupt_and_a_stop_keep_what_is_trained() -> None:
    seen = []

    def interrupted() -> Iterator[Tensor]:
        for nth, piece in enumerate(acts(300 * 64).split(64)):
            if nth == 200:
                os.kill(os.getpid(), signal.SIGINT)
            yield piece

    settings = iv.TrainingSettings(buffer_tokens=64)
    made = trained(interrupted(), n_tokens=300 * 64, settings=settings)
    assert (
        not made.is_complete and 64 * 128 <= made.tokens <= 64 * 200 and made.dictionary.encode(acts(5)).n_tokens == 5
    )

    def begun(kind: str, thing: Any) -> None:
        if kind == "training":
            seen.append(thing)
            thing.listen(lambda t: t.stop())

    end = kernels.listen(begun)
    try:
        stopped = trained(n_tokens=64 * 60)
    finally:
        end()
    assert stopped.tokens == 64 * 25 and seen[0].state == "stopped" and len(seen[0].histories[0]) == 1


def test_a_monitor_sees_the_curves_and_examples_of_a_few_features() -> None:
    model = opened("gpt2")
    seen = []
    end = kernels.listen(lambda kind, thing: seen.append(thing) if kind == "training" else None)
    try:
        iv.train_dictionary(
            model, SITE, iv.TopK(4), texts=texts(), n_features=48, n_tokens=3000, batch_tokens=100, progress=False
        )
    finally:
        end()
    (live,) = seen
    assert live.state == "done" and live.step == live.n_steps == 30 and live.histories[0][-1]["tokens"] == 3000
    examples = live.examples[0]
    assert 0 < len(examples) <= 8
    for listed in examples.values():
        assert len(listed) <= 5 and all(3 <= one.ids[one.place] < 67 and one.value > 0 for one in listed)
        assert [one.value for one in listed] == sorted((one.value for one in listed), reverse=True)


def child(job: Callable[..., None], *told: object, **env: str) -> Any:
    """A process of its own, forked, so that it need not import everything anew."""

    def run() -> None:
        os.environ.update(env)
        torch.set_num_threads(1)
        job(*told)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = multiprocessing.get_context("fork").Process(target=run)
        made.start()
    return made


def ended(process: Any) -> int | None:
    process.join(120)
    return process.exitcode


def to_be_killed(folder: Path | None, out: Path, kill_at: int) -> None:
    def told(live: Any) -> None:
        if kill_at and live.step >= kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    kernels.listen(lambda kind, thing: thing.listen(told) if kind == "training" else None)  # type: ignore[attr-defined]
    settings = iv.TrainingSettings(n_tokens=3200, batch_tokens=64, save_every_s=0.0, report_every=7, buffer_tokens=256)
    architectures = (iv.BatchTopK(3), iv.JumpReLU(bandwidth=0.05))
    specs = [iv.DictionarySpec(SITE, one, 24, optimization=FAST) for one in architectures]
    pieces = list(acts(1000).split(90))
    made = iv.train_dictionaries(pieces, specs, settings=settings, folder=folder, progress=False)
    save(out, [made])


def save(out: Path, trainings: list[iv.DictionaryTraining]) -> None:
    weights = [one.weights.tensors() for made in trainings for one in made.dictionaries]
    torch.save({"weights": weights, "histories": [list(h) for made in trainings for h in made.histories]}, out)


def test_a_training_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    assert ended(child(to_be_killed, None, tmp_path / "whole.pt", 0)) == 0
    assert ended(child(to_be_killed, tmp_path / "state", tmp_path / "no.pt", 20)) == -signal.SIGKILL
    assert not (tmp_path / "no.pt").exists() and (tmp_path / "state" / "training.state").exists()
    assert ended(child(to_be_killed, tmp_path / "state", tmp_path / "again.pt", 0)) == 0
    one, other = (torch.load(tmp_path / name, weights_only=True) for name in ("whole.pt", "again.pt"))
    for mine, others in zip(one["weights"], other["weights"], strict=True):
        assert all(torch.allclose(mine[n], others[n], rtol=0, atol=1e-6) for n in mine)
    for mine, others in zip(one["histories"], other["histories"], strict=True):
        assert len(mine) == len(others) == 8
        assert all(a["loss"] == pytest.approx(b["loss"], abs=1e-6) for a, b in zip(mine, others, strict=True))


def test_a_state_of_another_training_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    first = trained(folder=tmp_path)
    again = trained(folder=tmp_path)
    assert (
        again.is_complete and equal_weights(first.dictionary, again.dictionary) and again.histories == first.histories
    )
    with pytest.raises(iv.DictionaryError, match="of another training"):
        trained(folder=tmp_path, architecture=iv.TopK(4))
    (tmp_path / "training.state").write_bytes(b"no state")
    with pytest.raises(iv.DictionaryError, match="is no state of a training"):
        trained(folder=tmp_path)


SHARED = (iv.TopK(3), iv.BatchTopK(3), iv.JumpReLU(l0=0.1, l0_target=3.0, bandwidth=0.05), iv.Gated(l1=0.1))


def to_be_shared(out: Path) -> None:
    specs = [iv.DictionarySpec(SITE, one, 24, optimization=FAST) for one in SHARED]
    settings = iv.TrainingSettings(n_tokens=1600, batch_tokens=64, report_every=5, buffer_tokens=256, dead_after=300)
    made = [iv.train_dictionaries(acts(1000), specs, settings=settings, progress=False)]
    model = opened("gpt2")
    made.append(iv.train_dictionaries(model, specs[:1], texts=texts(), settings=settings, progress=False))
    if os.environ.get("RANK", "0") == "0":
        save(out, made)


def test_two_processes_train_as_one_does(tmp_path: Path) -> None:
    alone = child(to_be_shared, tmp_path / "one.pt")
    port = str(29_600 + os.getpid() % 300)
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared = [child(to_be_shared, tmp_path / "two.pt", RANK=str(rank), **meeting) for rank in range(2)]
    assert [ended(one) for one in (alone, *shared)] == [0, 0, 0]
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one.pt", "two.pt"))
    assert len(one["weights"]) == 5
    for mine, others in zip(one["weights"], two["weights"], strict=True):
        assert all(torch.allclose(mine[n], others[n], rtol=0, atol=1e-4) for n in mine)
    for mine, others in zip(one["histories"], two["histories"], strict=True):
        assert all(a == pytest.approx(b, abs=1e-4, rel=1e-4) for a, b in zip(mine, others, strict=True))


def test_a_short_training_takes_a_higher_rate() -> None:
    published = iv.TopK(3).optimization(24)
    assert published.steps and published.fitted(published.steps) == published == published.fitted(10**9)
    assert published.fitted(published.steps // 4).learning_rate == pytest.approx(
        min(2 * published.learning_rate, max(published.learning_rate, 1e-2))
    )
    given = iv.Optimization(3e-4)
    assert given.fitted(1) == given
    shorter = iv.Optimization(3e-4, steps=10_000)
    assert shorter.fitted(2500).learning_rate == pytest.approx(6e-4)
    assert shorter.fitted(1).learning_rate == pytest.approx(1e-2)


def test_rows_of_one_forward_are_of_about_one_length() -> None:
    model = iv.open_model("pocket")
    texts = [[5 + n % 50] * (2 + 7 * n % 60) for n in range(3000)]
    harvest = Harvest(model, texts, 30_000, False, 256, Processes())
    rows = [len(row) for row in texts]
    forwards: list[list[int]] = []
    harvest._harvested = lambda held, sites: forwards.append([len(row) for row in held]) or {}  # type: ignore[method-assign]
    for chunk in harvest._chunks(["blocks.0.resid"], 0):
        chunk.load()
    assert sorted(n for held in forwards for n in held) == sorted(rows)
    assert sum(len(held) * max(held) for held in forwards) < 1.5 * sum(rows)
