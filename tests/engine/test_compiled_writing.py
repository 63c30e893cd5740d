"""Texts written by compiled code: as the network writes them that is not compiled, and nothing compiled anew for other data."""

import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters
from transformers import MistralConfig, MistralForCausalLM

import innerview as iv
from innerview.errors import CaptureError, EditError
from tests.networks import VOCAB, direction, ids, opened, ragged

SITE, READ = "blocks.1.resid", "blocks.0.resid"


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def made(model: iv.Model, backend: str | Callable[..., Any] = "eager", **options: Any) -> iv.Compiled:
    given = {"rows": 3, "tokens": 32, "slots": 2, "capture": [READ]} | options
    return iv.compiled(model, [SITE], backend=backend, **given)


def tokens(model: Any, prompt: Any, **options: Any) -> list[list[int]]:
    run = iv.generate(model, prompt, **{"max_new_tokens": 8} | options)
    run.wait()
    assert not isinstance(model, iv.Compiled) or run.decoder == "compiled"
    return run.tokens_so_far


def graphs() -> int:
    assert not counters["graph_break"]
    return counters["stats"]["unique_graphs"]


EDITS: dict[str, Callable[[], list[iv.Edit]]] = {
    "nothing": lambda: [],
    "an addition": lambda: [iv.Add(direction(), 0.5)],
    "a stronger one": lambda: [iv.Add(direction(), -2.0)],
    "two": lambda: [iv.Add(direction(), 0.5), iv.Cap(direction(seed=1), at_most=0.2)],
    "a projection": lambda: [iv.ProjectOut(direction())],
    "of generated tokens": lambda: [iv.Add(direction(), 1.0, where=iv.Where(scope="generated"))],
    "of the prompt": lambda: [iv.Add(direction(), 1.0, where=iv.Where(scope="prompt"))],
    "of some steps": lambda: [iv.Add(direction(), 2.0, where=iv.Where(steps=slice(2, 4)))],
    "of one position": lambda: [iv.Add(direction(), 2.0, where=iv.Where(positions=(1, 8)))],
    "of a schedule": lambda: [iv.Add(direction(), 2.0, where=iv.Where(schedule=iv.Ramp(6)))],
}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_edits_strengths_and_lengths_compile_nothing_anew(family: str, backend: str) -> None:
    model = opened(family)
    prompts = [ragged((5, 5, 5)), ragged((7, 3, 5), seed=3), ragged((2, 11, 4), seed=5)]
    wanted = {(n, i): tokens(model, rows, edits=make()) for n, make in EDITS.items() for i, rows in enumerate(prompts)}
    live = made(model, backend)
    assert tokens(live, prompts[0]) == wanted["nothing", 0]
    before = graphs()
    assert before == 1
    for (name, i), found in wanted.items():
        assert tokens(live, prompts[i], edits=EDITS[name]()) == found, (name, i)
    assert graphs() == before
    # The edits are seen: the texts differ from the plain ones.
    assert sum(found != wanted["nothing", i] for (name, i), found in wanted.items()) > 20


def test_draws_ends_and_several_sequences(family: str) -> None:
    eos = tokens(opened(family), ragged((6, 4, 5)))[0][2]
    model = opened(family, eos=eos)
    edits = [iv.Add(direction(), 0.5)]
    live = made(model)
    for options in ({}, {"temperature": 0.9, "seed": 4}, {"temperature": 0.9, "top_k": 9, "seed": 1}):
        given = {"edits": edits, **options}
        assert tokens(live, ragged((6, 4, 5)), **given) == tokens(model, ragged((6, 4, 5)), **given)
    several = {"temperature": 1.1, "num_return_sequences": 3, "edits": edits}
    assert tokens(live, ragged((6,)), **several) == tokens(model, ragged((6,)), **several)
    assert graphs() == 1


def test_readings_and_captures_of_copied_sites(model: iv.Model) -> None:
    given = {"readings": [direction(READ, name="read")], "capture": [READ], "edits": [iv.Add(direction(), 0.5)]}
    live, rows = made(model), ragged((6, 4))
    found = iv.generate(live, rows, max_new_tokens=7, **given)
    # The other run hooks the network that the first one compiles.
    assert found.wait()
    wanted = iv.generate(model, rows, max_new_tokens=7, **given)
    assert found.texts == wanted.texts
    for one, other in zip(found.projections["read"], wanted.projections["read"], strict=True):
        assert len(one) == len(other) and one == pytest.approx(other, abs=1e-4)
    assert torch.allclose(found.activations[READ], wanted.activations[READ], atol=1e-4)
    with pytest.raises(
        CaptureError, match=r"copies blocks.0.resid, and not 'blocks.2.resid'; compile it with capture="
    ):
        iv.generate(live, rows, capture="blocks.2.resid")


def test_edits_change_while_it_writes(model: iv.Model) -> None:
    first, then = [iv.Add(direction(), 0.5)], [iv.Add(direction(seed=1), -3.0)]

    def switch(run: iv.Generation) -> None:
        if len(run.tokens_so_far[0]) == 3:
            run.update(then)

    live = made(model)
    found = tokens(live, ragged((5,)), edits=first, on_token=switch)
    assert found == tokens(model, ragged((5,)), edits=first, on_token=switch)
    assert found != tokens(model, ragged((5,)), edits=first)


def test_edits_of_everybody_hold_beside_and_behind_a_run(model: iv.Model) -> None:
    live, x = made(model), ids(2, 5)
    pushed, others = iv.Add(direction(), 1.5), [iv.Add(direction(seed=1), 2.0)]
    with torch.no_grad():
        plain = model.module(x).logits
        with iv.editing(model, [pushed]):
            wanted = model.module(x).logits
    live.set([pushed])
    seen: list[torch.Tensor] = []

    def look(run: iv.Generation) -> None:
        # In the run's own thread, and in another: the network's own forwards know nothing of the run's edits.
        with torch.no_grad():
            seen.append(model.module(x).logits)
        other = threading.Thread(target=lambda: seen.append(model.module(x).logits.detach()))
        other.start()
        other.join()

    found = tokens(live, ragged((5,)), edits=others, on_token=look, max_new_tokens=3)
    seen.append(live(x).logits.detach())
    assert len(seen) == 7 and all(torch.allclose(one, wanted, atol=1e-4) for one in seen)
    live.set([])
    assert torch.allclose(live(x).logits, plain, atol=1e-4)
    assert found == tokens(model, ragged((5,)), edits=[pushed, *others], max_new_tokens=3)
    live.set([pushed])
    assert tokens(live, ragged((5,)), edits=others, hermetic=True) == tokens(
        live_less(live), ragged((5,)), edits=others
    )


def live_less(live: iv.Compiled) -> iv.Model:
    """The network with no edits in its taps."""
    live.set([])
    return live.model


def test_two_runs_at_once_keep_to_themselves(model: iv.Model) -> None:
    live = made(model)
    many = [[iv.Add(direction(seed=i), 2.0)] for i in range(3)]
    wanted = [tokens(model, ragged((5,)), edits=edits, max_new_tokens=12) for edits in many]
    tokens(live, ragged((5,)), max_new_tokens=12)
    runs = [iv.generate(live, ragged((5,)), edits=edits, max_new_tokens=12) for edits in many]
    for run, found in zip(runs, wanted, strict=True):
        run.wait()
        assert run.tokens_so_far == found
    assert graphs() == 1


def test_what_compiled_code_cannot_write_is_written_without_it_and_says_so(model: iv.Model) -> None:
    live, edits = made(model), [iv.Add(direction(), 0.5)]
    beams = iv.generate(live, ragged((5,)), edits=edits, num_beams=2, max_new_tokens=5)
    wanted = iv.generate(model, ragged((5,)), edits=edits, num_beams=2, max_new_tokens=5)
    assert beams.texts == wanted.texts and beams.decoder == "transformers' generate: 2 beams, not compiled: 2 beams"
    live.set(edits)
    with pytest.raises(EditError, match=r"not written by compiled code \(2 beams\), and edits put in force by .set"):
        iv.generate(live, ragged((5,)), num_beams=2)

    torch.manual_seed(0)
    config = MistralConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=VOCAB,
        sliding_window=4, bos_token_id=1, eos_token_id=None, pad_token_id=0, initializer_range=0.4,
    )  # fmt: skip
    window = iv.open_model(MistralForCausalLM(config).eval())
    window.module.generation_config.eos_token_id = None  # type: ignore[union-attr]
    run = iv.generate(made(window), ragged((9,)), edits=edits, max_new_tokens=5)
    assert run.texts == iv.generate(window, ragged((9,)), edits=edits, max_new_tokens=5).texts
    assert run.decoder.startswith(
        "own loop, not compiled: a static cache of MistralForCausalLM has layers of the kinds"
    )


def test_what_the_taps_cannot_hold_is_refused(model: iv.Model) -> None:
    live = made(model)
    for edits, words in (
        ([iv.Add(direction(READ), 1.0)], "no tap was put in at 'blocks.0.resid'"),
        ([iv.Add(direction(), 1.0, where=iv.Where(condition=direction().reading() > 1.0))], "edits on no condition"),
        ([iv.Add(direction(seed=i), 1.0) for i in range(3)], "compile with slots=3 or more"),
    ):
        with pytest.raises(EditError, match=words):
            iv.generate(live, ragged((5,)), edits=edits)
    with pytest.raises(CaptureError, match=r"made for 3 rows of 32 tokens, and the inputs have \[4, 5\]"):
        iv.generate(live, ragged((5,) * 4))
    with iv.editing(model, [iv.Add(direction(), 1.0)]):
        run = iv.generate(live, ragged((5,)))
        with pytest.raises(EditError, match="hooks of attached edits, of open blocks or of another run"):
            run.wait()


def test_weights_that_are_part_of_the_code_must_not_change() -> None:
    model, rows, edits = opened("gpt2", layers=2), ragged((5,)), [iv.Add(direction(), 0.5)]
    live = made(model, freeze=True)
    assert tokens(live, rows, edits=edits) == tokens(model, rows, edits=edits)
    with torch.no_grad():
        next(model.module.parameters()).mul_(2.0)
    with pytest.raises(EditError, match=r"the weights of .* have changed since freeze=True made them part of the code"):
        tokens(live, rows, edits=edits)


def test_every_number_of_rows_and_bucket_gets_code_of_its_own_beyond_torchs_limit_of_recompiling(
    model: iv.Model,
) -> None:
    live = made(model, rows=12)
    limit = torch._dynamo.config.recompile_limit
    assert limit < 12
    for rows in range(1, 13):
        prompts = ids(rows, 5, seed=rows)
        assert tokens(live, prompts, max_new_tokens=3) == tokens(model, prompts, max_new_tokens=3)
        assert graphs() == rows
    # Written again, each finds its code.
    tokens(live, ids(1, 5, seed=40), max_new_tokens=3)
    tokens(live, ids(12, 5, seed=41), max_new_tokens=3)
    assert graphs() == 12 and torch._dynamo.config.recompile_limit == limit


@pytest.mark.slow
@pytest.mark.skipif(
    not torch.cuda.is_available() and not os.environ.get("INNERVIEW_INDUCTOR"),
    reason="inductor compiles for minutes on two cores: it did not run; set INNERVIEW_INDUCTOR=1",
)
@pytest.mark.parametrize("freeze", [False, True])
def test_inductor_writes_the_same_and_compiles_once(freeze: bool) -> None:
    model = opened("gpt2", layers=2)
    rows, edits = ragged((7, 3)), [iv.Add(direction(), 0.5)]
    wanted = [tokens(model, rows), tokens(model, rows, edits=edits), tokens(model, ragged((2, 9)), edits=edits)]
    live = made(model, "inductor", freeze=freeze)
    found = [tokens(live, rows), tokens(live, rows, edits=edits), tokens(live, ragged((2, 9)), edits=edits)]
    assert found == wanted and graphs() == 1
