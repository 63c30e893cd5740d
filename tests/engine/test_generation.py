"""Generation against transformers' own generate, with hooks made by hand."""

import threading
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.errors import EditError, GenerationError, TextError
from tests.engine.oracle import CHOICES, write_alone, write_together
from tests.networks import blocks, direction, hook_ids, opened, padded, ragged

CACHES = ("dynamic", "static", "none")
BATCHES = {"one row": (5,), "three rows": (3, 7, 5)}
LAYER, STEPS = 1, 5


def delta_of(d: iv.Direction, coefficient: float = 1.0) -> torch.Tensor:
    return d.vector.double() * d.scale * coefficient


def where_of(choice: str) -> tuple[iv.Where, Any]:
    given, chosen = CHOICES[choice]
    return iv.Where(**given), chosen


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("choice", [c for c in CHOICES if c != "behind"])
def test_edited_rows_of_a_batch_are_written_as_each_alone_by_hand(model: iv.Model, choice: str, cache: str) -> None:
    where, chosen = where_of(choice)
    rows, d = ragged((3, 7, 5), seed=11), direction()
    run = iv.generate(model, rows, edits=[iv.Add(d, where=where)], max_new_tokens=STEPS, cache=cache)
    run.wait()
    alone = [write_alone(model.module, row, LAYER, delta_of(d), chosen, STEPS) for row in rows]
    plain = [write_alone(model.module, row, LAYER, delta_of(d), lambda p, n: 0.0, STEPS) for row in rows]
    assert run.tokens_so_far == alone
    assert alone != plain


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("choice", CHOICES)
def test_an_edited_run_equals_hand_hooks_in_transformers_own_generate(
    typed: iv.Model, choice: str, cache: str, batch: str
) -> None:
    where, chosen = where_of(choice)
    rows, d = ragged(BATCHES[batch], seed=3), direction(seed=1)
    run = iv.generate(typed, rows, edits=[iv.Add(d, where=where)], max_new_tokens=STEPS, cache=cache)
    run.wait()
    ids, mask = padded(rows, left=True)
    by_hand = write_together(typed.module, ids, mask, LAYER, delta_of(d), chosen, STEPS, cache)
    assert run.tokens_so_far == by_hand.tolist()


@pytest.mark.parametrize("cache", CACHES)
def test_an_unedited_run_is_transformers_own_greedy_text(typed: iv.Model, cache: str) -> None:
    rows = ragged((3, 7, 5), seed=5)
    ids, mask = padded(rows, left=True)
    options = {"cache_implementation": "static", "disable_compile": True} if cache == "static" else {}
    own = typed.module.generate(
        input_ids=ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, pad_token_id=0,
        use_cache=cache != "none", **options,
    )  # fmt: skip
    run = iv.generate(typed, rows, max_new_tokens=STEPS, cache=cache)
    run.wait()
    assert run.tokens_so_far == own[:, ids.shape[1] :].tolist()


@pytest.mark.parametrize("sequences", [1, 2])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("choice", ["everywhere", "prompt end", "generated", "steps"])
def test_beams_are_edited_row_by_row_of_their_prompt(model: iv.Model, choice: str, cache: str, sequences: int) -> None:
    where, chosen = where_of(choice)
    rows, d = ragged((3, 6)), direction(seed=2)
    run = iv.generate(
        model,
        rows,
        edits=[iv.Add(d, where=where)],
        max_new_tokens=4,
        cache=cache,
        num_beams=3,
        num_return_sequences=sequences,
    )
    run.wait()
    ids, mask = padded(rows, left=True)
    by_hand = write_together(
        model.module, ids, mask, LAYER, delta_of(d), chosen, 4, cache, num_beams=3, num_return_sequences=sequences
    )
    assert run.tokens_so_far == by_hand.tolist()
    assert len(run.texts) == 2 * sequences


@pytest.mark.parametrize("cache", CACHES)
def test_several_drawn_sequences_are_edited_alike(model: iv.Model, cache: str) -> None:
    d, rows = direction(), ragged((3, 6))
    # Gumbel noise against a near-zero temperature draws the likeliest token.
    run = iv.generate(
        model, rows, edits=[iv.Add(d, where=iv.Where(scope="generated"))], max_new_tokens=4, cache=cache,
        temperature=1e-5, num_return_sequences=3,
    )  # fmt: skip
    run.wait()
    chosen = CHOICES["generated"][1]
    alone = [write_alone(model.module, row, LAYER, delta_of(d), chosen, 4) for row in rows]
    assert run.tokens_so_far == [alone[0]] * 3 + [alone[1]] * 3


@pytest.mark.parametrize("cache", ["dynamic", "none"])
def test_a_drawn_run_reproduces_and_its_seed_matters(model: iv.Model, cache: str) -> None:
    def drawn(seed: int) -> list[list[int]]:
        run = iv.generate(model, ragged((4,)), max_new_tokens=8, temperature=1.5, seed=seed, cache=cache)
        run.wait()
        return run.tokens_so_far

    assert drawn(1) == drawn(1)
    assert len({str(drawn(seed)) for seed in range(4)}) > 1


def test_draws_follow_the_softmax_of_the_warped_scores(model: iv.Model) -> None:
    row = ragged((4,))
    run = iv.generate(model, row, max_new_tokens=1, temperature=2.0, top_k=5, num_return_sequences=4000)
    run.wait()
    drawn = torch.bincount(torch.tensor(run.tokens_so_far)[:, 0], minlength=model.vocab) / 4000
    with torch.no_grad():
        logits = model.module(torch.tensor(row)).logits[0, -1].double() / 2.0
    kept = logits.topk(5)
    wanted = torch.zeros_like(logits).index_copy(0, kept.indices, kept.values.softmax(0))
    # Four standard errors of a share from 4000 draws.
    assert (drawn - wanted).abs().max() < 4 * 0.5 / 4000**0.5
    assert drawn[wanted == 0].sum() == 0


def test_drawing_leaves_torchs_own_generator_alone(model: iv.Model) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    iv.generate(model, ragged((4,)), max_new_tokens=3, temperature=1.0).wait()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("cache", CACHES)
def test_what_follows_the_end_of_text_is_padding(family: str, cache: str) -> None:
    model = opened(family)
    rows = ragged((4, 6))
    free = iv.generate(model, rows, max_new_tokens=8, cache=cache)
    free.wait()
    stop = next(t for t in free.tokens_so_far[0][1:4] if t not in free.tokens_so_far[1])
    short = free.tokens_so_far[0].index(stop) + 1
    model.module.generation_config.eos_token_id = stop
    seen: list[tuple[int, ...]] = []
    d = direction()
    with_stop = iv.generate(model, rows, max_new_tokens=8, cache=cache, readings=[d], on_token=lambda run: seen.append(
        tuple(len(row) for row in run.tokens_so_far)
    ))  # fmt: skip
    with_stop.wait()
    assert with_stop.tokens_so_far == [free.tokens_so_far[0][:short], free.tokens_so_far[1]]
    assert seen == [(min(i, short), i) for i in range(1, 9)]
    # Each token but the newest is fed; the end of text is fed while its neighbours go on.
    assert [len(row) for row in with_stop.projections["d"]] == [4 + short, 6 + 7]


@pytest.mark.parametrize("cache", CACHES)
def test_no_edit_touches_padding(typed: iv.Model, cache: str) -> None:
    rows, d = ragged((3, 6)), direction("blocks.1.resid")
    seen: list[torch.Tensor] = []
    # A hook of our own at the same module, registered during the run, sees what the edit left.
    handle = blocks(typed.module)[2].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    try:
        iv.generate(typed, rows, max_new_tokens=3, cache=cache, edits=[iv.Add(d, 50.0)]).wait()
        edited, seen[:] = list(seen), []
        iv.generate(typed, rows, max_new_tokens=1, cache=cache).wait()
    finally:
        handle.remove()
    assert torch.equal(edited[0][0, :3], seen[0][0, :3])
    assert not torch.equal(edited[0][0, 3:], seen[0][0, 3:])
    assert not torch.equal(edited[0][1], seen[0][1])


@pytest.mark.parametrize("cache", CACHES)
def test_projections_of_each_fed_token_equal_a_plain_forward(model: iv.Model, cache: str) -> None:
    rows, d = ragged((3, 6)), direction("blocks.2.resid")
    run = iv.generate(model, rows, max_new_tokens=5, cache=cache, readings=[d])
    run.wait()
    for row, written, found in zip(rows, run.tokens_so_far, run.projections["d"], strict=True):
        fed = torch.tensor([[*row, *written[:-1]]])
        kept = []
        handle = blocks(model.module)[2].register_forward_hook(lambda m, a, out, kept=kept: kept.append(out))
        with torch.no_grad():
            model.module(fed, use_cache=False)
        handle.remove()
        out = kept[0][0] if isinstance(kept[0], tuple) else kept[0]
        assert len(found) == fed.shape[1]
        assert torch.allclose(torch.tensor(found), (out[0].double() @ d.vector.double() / d.scale).float(), atol=2e-5)


def test_readings_see_the_edited_activation(model: iv.Model) -> None:
    d = direction("blocks.1.resid")
    plain = iv.generate(model, [[5, 6, 7]], max_new_tokens=1, readings=[d])
    edited = iv.generate(model, [[5, 6, 7]], max_new_tokens=1, readings=[d], edits=[iv.Add(d, 2.0)])
    plain.wait(), edited.wait()
    gap = torch.tensor(edited.projections["d"]) - torch.tensor(plain.projections["d"])
    assert torch.allclose(gap, torch.full_like(gap, 2.0), atol=1e-5)


def test_two_readings_of_one_name_are_refused(model: iv.Model) -> None:
    with pytest.raises(GenerationError, match=r"'d'.*named\("):
        iv.generate(model, [[5, 6, 7]], readings=[direction(seed=0), direction(seed=1)])


@pytest.mark.parametrize("update_at", [1, 2, 4])
@pytest.mark.parametrize("choice", ["everywhere", "prompt", "generated", "steps"])
def test_an_update_in_the_middle_means_the_same_with_and_without_a_cache(
    model: iv.Model, choice: str, update_at: int
) -> None:
    where, _ = where_of(choice)
    rows = ragged((3, 6))
    before, after = [iv.Add(direction(seed=1), where=where)], [iv.Add(direction(seed=2), -1.0, where=where)]
    texts = {}
    for cache in CACHES:

        def turn(run: Any) -> None:
            if len(run.tokens_so_far[0]) == update_at:
                run.update(after)

        run = iv.generate(model, rows, edits=before, max_new_tokens=7, cache=cache, on_token=turn)
        run.wait()
        texts[cache] = run.tokens_so_far
    assert texts["dynamic"] == texts["static"] == texts["none"]


def test_an_update_equals_hand_hooks_that_change_at_the_same_token(model: iv.Model) -> None:
    row, first, second = ragged((4,))[0], direction(seed=1), direction(seed=2)
    run = iv.generate(
        model, [row], edits=[iv.Add(first)], max_new_tokens=6,
        on_token=lambda r: r.update([iv.Add(second)]) if len(r.tokens_so_far[0]) == 2 else None,
    )  # fmt: skip
    run.wait()
    # Tokens 0 to len+1 - 1 - 1 are fed under the first edit; the second one's forward feeds generated token 1.
    written = list(row)
    for _ in range(6):
        ids = torch.tensor([written])

        def change(module: Any, args: Any, out: Any) -> Any:
            x = out[0] if isinstance(out, tuple) else out
            fed = torch.arange(x.shape[1])[None, :, None]
            new = torch.where(fed >= len(row) + 1, x + delta_of(second).to(x.dtype), x + delta_of(first).to(x.dtype))
            return (new, *out[1:]) if isinstance(out, tuple) else new

        handle = blocks(model.module)[LAYER].register_forward_hook(change)
        with torch.no_grad():
            written.append(int(model.module(ids, use_cache=False).logits[0, -1].argmax()))
        handle.remove()
    assert run.tokens_so_far == [written[len(row) :]]


@pytest.mark.parametrize("cache", CACHES)
def test_an_update_before_the_first_forward_holds_for_the_prompt_too(model: iv.Model, cache: str) -> None:
    row, d = ragged((5,)), direction()
    with model.lock:
        # The worker waits for the lock, so that the update comes first.
        run = iv.generate(model, row, max_new_tokens=4, cache=cache)
        run.update([iv.Add(d)])
    run.wait()
    wanted = iv.generate(model, row, max_new_tokens=4, cache=cache, edits=[iv.Add(d)])
    wanted.wait()
    assert run.tokens_so_far == wanted.tokens_so_far
    assert wanted.text != iv.generate(model, row, max_new_tokens=4).text


def test_the_last_of_many_updates_is_the_one_in_force(model: iv.Model) -> None:
    d = direction("blocks.1.resid")
    run = iv.generate(
        model, [[5, 6, 7]], max_new_tokens=4, readings=[d],
        on_token=lambda r: [r.update([iv.Add(d, float(c))]) for c in (5, -3, 2)],
    )  # fmt: skip
    run.wait()
    twin = iv.generate(model, [[5, 6, 7]], max_new_tokens=4, on_token=lambda r: r.update([iv.Add(d, 2.0)]))
    twin.wait()
    assert run.tokens_so_far == twin.tokens_so_far
    assert [e.label for e in run.edits] == [iv.Add(d, 2.0).label]


def test_an_update_moves_hooks_to_new_sites_and_leaves_none(model: iv.Model) -> None:
    before = hook_ids(model.module)
    run = iv.generate(
        model, [[5, 6, 7]], max_new_tokens=5, edits=[iv.Add(direction("blocks.0.resid"))],
        on_token=lambda r: r.update([iv.Add(direction(f"blocks.{len(r.tokens_so_far[0]) % 3}.mlp.out"))]),
    )  # fmt: skip
    run.wait()
    assert hook_ids(model.module) == before


def test_an_update_keeps_what_was_attached_when_the_run_began(model: iv.Model) -> None:
    kept, d = direction("blocks.2.resid", seed=4), direction()
    wanted = iv.generate(model, [[5, 6, 7]], max_new_tokens=4, edits=[iv.Add(kept), iv.Add(d)])
    wanted.wait()
    iv.attach(model, [iv.Add(kept)], name="kept")
    with model.lock:
        run = iv.generate(model, [[5, 6, 7]], max_new_tokens=4)
        run.update([iv.Add(d)])
    run.wait()
    iv.detach(model)
    assert run.tokens_so_far == wanted.tokens_so_far


def test_a_refused_update_leaves_the_run_as_it_was(model: iv.Model) -> None:
    refused = []

    def turn(run: Any) -> None:
        try:
            run.update([iv.Add(direction("blocks.1.mlp.hidden", width=WRONG))])
        except EditError as error:
            refused.append(str(error))

    wrong = iv.generate(model, [[5, 6, 7]], max_new_tokens=3, on_token=turn)
    plain = iv.generate(model, [[5, 6, 7]], max_new_tokens=3)
    assert wrong.text == plain.text
    assert len(refused) == 3 and "does not fit" in refused[0]


WRONG = 7


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"temperature": 1.0, "num_return_sequences": 2}])
@pytest.mark.parametrize("cache", CACHES)
def test_cancelling_in_the_middle_keeps_the_text(model: iv.Model, cache: str, options: dict) -> None:
    before = hook_ids(model.module)
    run = iv.generate(
        model, [[5, 6, 7]], max_new_tokens=30, cache=cache, edits=[iv.Add(direction())],
        on_token=lambda r: r.cancel() if len(r.tokens_so_far[0]) == 4 else None, **options,
    )  # fmt: skip
    assert run.wait() and run.done and run.cancelled and run.error is None
    assert all(len(row) == 4 for row in run.tokens_so_far)
    assert run.texts == run.texts_so_far and all(run.texts)
    assert hook_ids(model.module) == before


def test_a_cancelled_text_is_the_beginning_of_the_whole_one(model: iv.Model) -> None:
    whole = iv.generate(model, [[5, 6, 7]], max_new_tokens=12)
    part = iv.generate(
        model, [[5, 6, 7]], max_new_tokens=12, on_token=lambda r: r.cancel() if len(r.tokens_so_far[0]) == 5 else None
    )
    assert part.texts != whole.texts and whole.texts[0].startswith(part.texts[0])


def test_generate_returns_at_once_and_shows_the_text_so_far(model: iv.Model) -> None:
    gate, seen = threading.Event(), []
    run = iv.generate(
        model, "w5 w6 w7", max_new_tokens=3, on_token=lambda r: (seen.append(r.text_so_far), gate.wait(20))
    )
    assert not run.done and run.text_so_far in ("", *seen)
    assert run.wait(timeout_s=0.01) is False
    gate.set()
    assert run.text == run.text_so_far and run.done
    assert all(run.text.startswith(part) for part in seen) and len(seen) == 3


def test_one_prompt_gives_a_string_and_a_list_gives_a_list(model: iv.Model) -> None:
    one = iv.generate(model, "w5 w6", max_new_tokens=2)
    listed = iv.generate(model, ["w5 w6"], max_new_tokens=2)
    chat = iv.generate(model, [{"role": "user", "content": "w5 w6"}], max_new_tokens=2)
    assert isinstance(one.text, str) and listed.text == [one.text] and isinstance(chat.text, str)
    assert one.prompt_tokens == [[8, 9]] and chat.prompt_tokens == [[3, 8, 9, 4]]


def test_an_error_in_the_listener_reaches_whoever_waits_and_leaves_nothing(model: iv.Model) -> None:
    before = hook_ids(model.module)

    def fail(run: Any) -> None:
        raise ZeroDivisionError("the listener's own")

    run = iv.generate(model, [[5, 6, 7]], max_new_tokens=5, edits=[iv.Add(direction())], on_token=fail)
    with pytest.raises(ZeroDivisionError, match=r"the listener's own"):
        run.text
    assert isinstance(run.error, ZeroDivisionError) and run.done
    assert len(run.tokens_so_far[0]) == 1
    assert hook_ids(model.module) == before
    assert model.lock.acquire(timeout=1)
    model.lock.release()


def test_an_error_in_the_networks_forward_reaches_whoever_waits_and_leaves_nothing(model: iv.Model) -> None:
    before = hook_ids(model.module)
    calls = []

    def fail(module: Any, args: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise ZeroDivisionError("in the forward")

    handle = blocks(model.module)[2].register_forward_pre_hook(fail)
    run = iv.generate(model, [[5, 6, 7]], max_new_tokens=5, edits=[iv.Add(direction())])
    with pytest.raises(ZeroDivisionError, match=r"in the forward"):
        run.wait()
    handle.remove()
    assert len(run.tokens_so_far[0]) == 2
    assert hook_ids(model.module) == before
    assert model.lock.acquire(timeout=1)
    model.lock.release()


def test_a_listener_that_waits_for_its_own_run_is_refused(model: iv.Model) -> None:
    run = iv.generate(model, [[5, 6, 7]], max_new_tokens=2, on_token=lambda r: r.text)
    with pytest.raises(GenerationError, match=r"waits for itself.*text_so_far"):
        run.wait(timeout_s=20)


def test_a_listener_may_run_the_network_itself(model: iv.Model) -> None:
    x = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        plain = model.module(x).logits
    seen = []

    def look(run: Any) -> None:
        with torch.no_grad():
            seen.append(model.module(x).logits)
        iv.capture(model, x, "blocks.1.resid", hermetic=True)

    edited = iv.generate(model, [[5, 6, 7]], max_new_tokens=3, edits=[iv.Add(direction())], on_token=look)
    alone = iv.generate(model, [[5, 6, 7]], max_new_tokens=3, edits=[iv.Add(direction())])
    assert edited.text == alone.text
    assert len(seen) == 3 and all(torch.equal(one, plain) for one in seen)


def test_the_text_continues_the_prompt_and_holds_none_of_it(model: iv.Model) -> None:
    run = iv.generate(model, "w5 w6", max_new_tokens=3)
    assert run.text.split() == [f"w{t - 3}" for t in run.tokens_so_far[0] if t > 2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is a whole number from 1, not 0"),
        ({"max_new_tokens": 2.5}, "not 2.5"),
        ({"temperature": -1.0}, "temperature is a finite number from 0, not -1.0"),
        ({"temperature": float("nan")}, "not nan"),
        ({"num_beams": 0}, "num_beams is a whole number from 1, not 0"),
        ({"num_beams": 2, "temperature": 0.5}, "choose one of the two"),
        ({"num_return_sequences": 2}, "2 sequences need temperature above 0, or as many beams"),
        ({"cache": "paged"}, "cache is one of dynamic, static, none, not 'paged'"),
        ({"readings": ["mood"]}, "a reading is a Direction or a Reading, not 'mood' of type str"),
        ({"num_beams": 2, "readings": [direction()]}, "use num_beams=1"),
        ({"temperature": 1.0, "top_k": 0}, "top_k is a whole number from 1, not 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is above 0 and at most 1, not 1.5"),
        ({"edits": "mood"}, r"edits are a list such as \[iv.Add\(direction, 2.0\)\], not 'mood'"),
    ],
)
def test_impossible_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises((GenerationError, EditError), match=message):
        iv.generate(opened("gpt2"), [[5, 6, 7]], **options)


def test_positions_past_the_end_are_refused_with_the_range(model: iv.Model) -> None:
    d = direction()
    with pytest.raises(
        EditError, match=r"position 8 is past the end: the shortest row has 3 tokens and 4 to come; use 0 to 6"
    ):
        iv.generate(model, ragged((3, 7)), max_new_tokens=5, edits=[iv.Add(d, where=iv.Where(positions=8))])
    with pytest.raises(EditError, match=r"position -4 is before the start of a prompt of 3 tokens; use -3 to -1"):
        iv.generate(model, ragged((3, 7)), max_new_tokens=5, edits=[iv.Add(d, where=iv.Where(positions=-4))])


def test_a_text_longer_than_the_context_is_refused_with_a_way_out(model: iv.Model) -> None:
    with pytest.raises(
        TextError, match=r"68 tokens and 10 to come, where .* takes 72; shorten it, or ask for at most 4 new"
    ):
        iv.generate(model, ragged((68,)), max_new_tokens=10)
    with pytest.raises(TextError, match=r"72 tokens and 1 to come.*shorten it"):
        iv.generate(model, ragged((72,)), max_new_tokens=1)


def test_a_network_that_does_not_write_is_refused() -> None:
    plain = iv.open_model(torch.nn.Linear(3, 3))
    with pytest.raises(GenerationError, match=r"Linear.*does not generate text; open a causal language model"):
        iv.generate(plain, [[1]])


def test_the_networks_own_sampling_defaults_do_not_leak_into_a_greedy_run(model: iv.Model) -> None:
    plain = iv.generate(model, ragged((4,)), max_new_tokens=5)
    plain.wait()
    own = model.module.generation_config
    own.do_sample, own.temperature, own.top_k, own.num_beams = True, 3.0, 50, 2
    again = iv.generate(model, ragged((4,)), max_new_tokens=5)
    again.wait()
    assert again.tokens_so_far == plain.tokens_so_far
