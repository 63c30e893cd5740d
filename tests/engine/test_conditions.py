"""Conditions on readings, against hooks made by hand that compute everything again at each token."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.errors import EditError
from tests.engine.oracle import hooked
from tests.networks import blocks, direction, opened, padded, ragged

CACHES = ("dynamic", "static", "none")
STEPS = 5
READ, EDIT = 0, 1
Rule = Callable[[Tensor, Tensor], Tensor]
"""Readings [rows, columns], and True for the prompt's tokens, to True where the edit applies."""

ROWS = ragged((3, 7, 5), seed=11)
FOUND = direction(f"blocks.{READ}.resid", seed=5, size=1.0, name="found")
HERE = direction(f"blocks.{EDIT}.resid", seed=5, size=1.0, name="found")
PUSHED = direction(f"blocks.{EDIT}.resid")


def over(readings: Tensor, prompt: Tensor, how: str) -> Tensor:
    """A number for each row, by a loop in float64."""
    numbers = []
    for row, mask in zip(readings.double(), prompt, strict=True):
        kept = row[mask]
        numbers.append({"max": kept.max(), "mean": kept.mean(), "last": kept[-1]}[how])
    return torch.stack(numbers)[:, None]


# By name: the condition of a reading, given limits that let some tokens or rows pass and others not; and the same by hand.
CONDITIONS: dict[str, tuple[Callable[[Any, Any], Any], Callable[[Any], Rule]]] = {
    "above": (lambda r, n: r > n["half"], lambda n: lambda x, p: x > n["half"]),
    "at most": (lambda r, n: r <= n["low"], lambda n: lambda x, p: x <= n["low"]),
    "range": (
        lambda r, n: (r > n["low"]) & (r < n["high"]),
        lambda n: lambda x, p: (x > n["low"]) & (x < n["high"]),
    ),
    "outside": (
        lambda r, n: (r < n["low"]) | (r >= n["high"]),
        lambda n: lambda x, p: (x < n["low"]) | (x >= n["high"]),
    ),
    "not": (lambda r, n: ~(r > n["half"]), lambda n: lambda x, p: ~(x > n["half"])),
    "max": (lambda r, n: r.over_prompt("max") > n["max"], lambda n: lambda x, p: over(x, p, "max") > n["max"]),
    "mean": (lambda r, n: r.over_prompt("mean") > n["mean"], lambda n: lambda x, p: over(x, p, "mean") > n["mean"]),
    "last": (lambda r, n: r.over_prompt("last") > n["last"], lambda n: lambda x, p: over(x, p, "last") > n["last"]),
    "both": (
        lambda r, n: (r.over_prompt("mean") < n["mean"]) & (r > n["low"]),
        lambda n: lambda x, p: (over(x, p, "mean") < n["mean"]) & (x > n["low"]),
    ),
}


def limits(model: iv.Model, read: iv.Direction) -> dict[str, float]:
    """Limits halfway between readings of the prompts, so that no rounding crosses them."""
    acts = iv.capture(model, ROWS, read.site, hermetic=True)
    assert acts.mask is not None
    readings = acts[read.site].float() @ read.vector
    tokens = readings[acts.mask].sort().values

    def between(values: Tensor, nth: int) -> float:
        return float((values[nth] + values[nth + 1]) / 2)

    found = {name: between(tokens, len(tokens) * n // 4) for name, n in (("low", 1), ("half", 2), ("high", 3))}
    return found | {
        how: between(over(readings, acts.mask, how).flatten().sort().values, 1) for how in ("max", "mean", "last")
    }


def made(model: iv.Model, name: str, read: iv.Direction = FOUND) -> tuple[Any, Rule]:
    """A condition on this network, and the same by hand."""
    make, rule = CONDITIONS[name]
    found = limits(model, read)
    return make(read.reading(), found), rule(found)


@contextlib.contextmanager
def by_hand(
    root: nn.Module,
    read: iv.Direction,
    rule: Rule,
    pads: list[int],
    prompts: list[int],
    *,
    scope: str = "all",
    share: float = 1.0,
) -> Iterator[list[Tensor]]:
    """Hooks for forwards without a cache, rows padded on the left; yields what they chose, forward by forward."""
    layer = int(read.site.split(".")[1])
    kept: dict[str, Tensor] = {}
    chosen: list[Tensor] = []

    def look(x: Tensor) -> Tensor:
        kept["readings"] = x.float() @ read.vector
        return x

    def change(x: Tensor) -> Tensor:
        readings = x.float() @ read.vector if layer == EDIT else kept["readings"]
        rows, columns = x.shape[:2]
        each = rows // len(pads)
        pos = torch.stack([torch.arange(columns) - pads[r // each] for r in range(rows)])
        prompt_len = torch.tensor([prompts[r // each] for r in range(rows)])[:, None]
        real, prompt = pos >= 0, (pos >= 0) & (pos < prompt_len)
        mask = (rule(readings, prompt) & real).expand(rows, columns)
        mask = mask & {"all": real, "prompt": prompt, "generated": pos >= prompt_len}[scope]
        chosen.append(mask)
        delta = (PUSHED.vector.double() * PUSHED.scale * share).to(x.dtype)
        return torch.where(mask[..., None], x + delta, x)

    with contextlib.ExitStack() as stack:
        if layer != EDIT:
            stack.enter_context(hooked(blocks(root)[layer], look))
        stack.enter_context(hooked(blocks(root)[EDIT], change))
        yield chosen


def written_by_hand(
    model: iv.Model, read: iv.Direction, rule: Rule, *, scope: str = "all", **options: Any
) -> tuple[list[list[int]], Tensor]:
    """What transformers' own generate writes without a cache, and what the hooks chose last."""
    ids, mask = padded(ROWS, left=True)
    pads, prompts = (mask == 0).sum(1).tolist(), mask.sum(1).tolist()
    with by_hand(model.module, read, rule, pads, prompts, scope=scope) as chosen:
        out = model.module.generate(
            ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, pad_token_id=0, use_cache=False, **options
        )
    return out[:, ids.shape[1] :].tolist(), chosen[-1]


@pytest.mark.parametrize("read", [FOUND, HERE], ids=["earlier site", "same site"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_a_run_under_a_condition_is_written_as_by_hand(
    model: iv.Model, name: str, cache: str, read: iv.Direction
) -> None:
    condition, rule = made(model, name, read)
    where = iv.Where(condition=condition)
    run = iv.generate(model, ROWS, edits=[iv.Add(PUSHED, where=where)], max_new_tokens=STEPS, cache=cache)
    run.wait()
    wanted, chosen = written_by_hand(model, read, rule)
    assert run.tokens_so_far == wanted
    real = padded(ROWS, left=True)[1].bool()
    assert chosen[:, : real.shape[1]][real].any() and not chosen[:, : real.shape[1]][real].all()


@pytest.mark.parametrize("scope", ["prompt", "generated"])
@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ["above", "mean", "both"])
def test_a_condition_and_a_scope_must_both_hold(model: iv.Model, name: str, cache: str, scope: str) -> None:
    condition, rule = made(model, name)
    where = iv.Where(scope=scope, condition=condition)  # type: ignore[arg-type]
    run = iv.generate(model, ROWS, edits=[iv.Add(PUSHED, where=where)], max_new_tokens=STEPS, cache=cache)
    run.wait()
    assert run.tokens_so_far == written_by_hand(model, FOUND, rule, scope=scope)[0]


@pytest.mark.parametrize("cache", CACHES)
@pytest.mark.parametrize("name", ["above", "mean", "max", "both"])
def test_beams_are_judged_by_their_own_rows(model: iv.Model, name: str, cache: str) -> None:
    condition, rule = made(model, name)
    where = iv.Where(condition=condition)
    run = iv.generate(
        model, ROWS, edits=[iv.Add(PUSHED, where=where)], max_new_tokens=STEPS, cache=cache,
        num_beams=3, num_return_sequences=2,
    )  # fmt: skip
    run.wait()
    assert run.tokens_so_far == written_by_hand(model, FOUND, rule, num_beams=3, num_return_sequences=2)[0]


WAYS: dict[str, dict[str, Any]] = {
    "dynamic": {},
    "static": {"cache_implementation": "static", "disable_compile": True},
    "none": {"use_cache": False},
    "beams": {"num_beams": 2},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["above", "mean", "max", "last", "both"])
@pytest.mark.parametrize("is_attached", [False, True], ids=["block", "attached"])
def test_the_users_own_generate_follows_conditions(model: iv.Model, name: str, way: str, is_attached: bool) -> None:
    condition, rule = made(model, name)
    edits = [iv.Add(PUSHED, where=iv.Where(condition=condition))]
    ids, mask = padded(ROWS, left=True)
    own = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, **WAYS[way]}
    with contextlib.ExitStack() as stack:
        if is_attached:
            stack.callback(iv.attach(model, edits).detach)
        else:
            stack.enter_context(iv.editing(model, edits))
        written = model.module.generate(ids, attention_mask=mask, **own)
    wanted = written_by_hand(model, FOUND, rule, **({"num_beams": 2} if way == "beams" else {}))[0]
    assert written[:, ids.shape[1] :].tolist() == wanted


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("left", [True, False], ids=["left pads", "right pads"])
def test_a_forward_of_a_batch_is_edited_token_by_token(model: iv.Model, name: str, left: bool) -> None:
    condition, rule = made(model, name)
    ids, mask = padded(ROWS, left=left)
    given = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    edits = [iv.Add(PUSHED, where=iv.Where(condition=condition))]
    plain = iv.capture(model, given, ["blocks.0.resid", "blocks.1.resid"])
    readings, real = plain["blocks.0.resid"].float() @ FOUND.vector, mask.bool()
    chosen = (rule(readings, real) & real).expand_as(real)
    delta = (PUSHED.vector.double() * PUSHED.scale).float()
    wanted = torch.where(chosen[..., None], plain["blocks.1.resid"] + delta, plain["blocks.1.resid"])
    assert torch.equal(iv.capture(model, given, "blocks.1.resid", edits=edits)["blocks.1.resid"], wanted)
    kept: list[Tensor] = []
    handle = blocks(model.module)[2].register_forward_pre_hook(lambda m, args: kept.append(args[0]))
    with iv.editing(model, edits), torch.no_grad():
        model.module(**given)
    handle.remove()
    assert torch.equal(kept[0], wanted)


def test_a_cache_of_the_users_own_remembers_what_the_prompt_was_like(model: iv.Model) -> None:
    ids = torch.tensor([ROWS[1]])
    where = iv.Where(condition=made(model, "max")[0])
    edits = [iv.Add(PUSHED, where=where)]
    run = iv.generate(model, ids, edits=edits, max_new_tokens=STEPS)
    run.wait()
    written: list[int] = []
    with iv.editing(model, edits), torch.no_grad():
        given = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        out = model.module(**given, use_cache=True)
        for _ in range(STEPS):
            written.append(int(out.logits[0, -1].argmax()))
            mask = torch.ones(1, ids.shape[1] + len(written), dtype=torch.long)
            step = {"input_ids": torch.tensor([[written[-1]]]), "attention_mask": mask}
            out = model.module(**step, past_key_values=out.past_key_values, use_cache=True)
    assert run.tokens_so_far == [written]


def test_a_condition_reads_what_earlier_edits_left(model: iv.Model) -> None:
    reading = FOUND.reading()
    first = iv.Add(iv.Direction.from_vector(FOUND.vector, FOUND.site, scale=1.0), 1000.0)
    second = iv.Add(PUSHED, where=iv.Where(condition=reading > 500.0))
    ids = torch.tensor([ROWS[1]])
    alone = iv.capture(model, ids, "blocks.1.resid", edits=[first])["blocks.1.resid"]
    both = iv.capture(model, ids, "blocks.1.resid", edits=[second, first])["blocks.1.resid"]
    delta = (PUSHED.vector.double() * PUSHED.scale).float()
    assert torch.equal(both, alone + delta)
    # At its own site an edit reads what it receives: the order decides.
    there = iv.Add(iv.Direction.from_vector(HERE.vector, HERE.site, scale=1.0), 1000.0)
    here = iv.Add(PUSHED, where=iv.Where(condition=HERE.reading() > 500.0))
    plain, late, early = (
        iv.capture(model, ids, "blocks.1.resid", edits=edits)["blocks.1.resid"]
        for edits in ([there], [there, here], [here, there])
    )
    assert torch.equal(late, plain + delta) and torch.equal(early, plain)


def test_a_site_of_the_whole_block_is_read_before_a_later_block_of_wildcards(model: iv.Model) -> None:
    reading = FOUND.reading()
    with pytest.raises(EditError, match=r"reads 'blocks.0.resid', which comes behind 'blocks.0.attn.out'"):
        iv.capture(
            model, [[5, 6]], "blocks.2.resid", edits=[
                iv.Add(PUSHED, site="blocks.*.attn.out", where=iv.Where(condition=reading > 0))
            ],
        )  # fmt: skip


@pytest.mark.parametrize(
    ("read", "edited", "is_known"),
    [
        ("blocks.2.resid", "blocks.1.resid", True),
        ("final_norm", "blocks.1.resid", True),
        ("blocks.1.resid", "embed", True),
        ("blocks.1.mlp.out", "blocks.1.mlp.in", True),
        ("blocks.1.attn.out", "blocks.1.attn.heads", True),
        ("module:tail", "blocks.1.resid", False),
    ],
)
def test_a_reading_that_comes_too_late_is_refused(family: str, read: str, edited: str, is_known: bool) -> None:
    model = opened(family)
    if read == "module:tail":
        read = "module:" + ("transformer.h.2" if family == "gpt2" else "model.layers.2")
    reading = iv.Reading(read, FOUND.vector)
    edit = iv.Add(PUSHED, site=edited, where=iv.Where(condition=reading > -1e9))
    if is_known:
        with pytest.raises(
            EditError, match=r"comes behind .*, where the edit is; read at the edited site or before it"
        ):
            iv.attach(model, [edit])
        return
    ids = torch.tensor([[5, 6, 7]])
    with (
        pytest.raises(EditError, match=r"had not fired when .* was to apply; read at the edited site or before it"),
        iv.editing(model, [edit]),
    ):
        model.module(ids, attention_mask=torch.ones_like(ids))


@pytest.mark.parametrize("cache", CACHES)
def test_a_late_reading_over_the_prompt_may_decide_what_is_generated(model: iv.Model, cache: str) -> None:
    late = direction("blocks.2.resid", seed=5, size=1.0)
    rows = ROWS
    plain = iv.capture(model, rows, "blocks.2.resid")
    assert plain.mask is not None
    numbers = over(plain["blocks.2.resid"] @ late.vector, plain.mask, "mean")
    limit = limits(model, late)["mean"]
    where = iv.Where(scope="generated", condition=late.reading().over_prompt("mean") > limit)
    run = iv.generate(model, rows, edits=[iv.Add(PUSHED, where=where)], max_new_tokens=STEPS, cache=cache)
    run.wait()
    passes = (numbers > limit).flatten().tolist()
    assert any(passes) and not all(passes)
    for row, written, is_edited in zip(rows, run.tokens_so_far, passes, strict=True):
        edits = [iv.Add(PUSHED, where=iv.Where(scope="generated"))] if is_edited else []
        alone = iv.generate(model, [row], edits=edits, max_new_tokens=STEPS, cache=cache)
        alone.wait()
        assert alone.tokens_so_far == [written]
    ids, mask = padded(rows, left=True)
    with iv.editing(model, [iv.Add(PUSHED, where=where)]):
        own = model.module.generate(
            ids, attention_mask=mask, max_new_tokens=STEPS, do_sample=False, pad_token_id=0, use_cache=cache != "none"
        )
    assert own[:, ids.shape[1] :].tolist() == run.tokens_so_far


def test_chunks_of_a_prompt_are_refused_unless_only_generated_tokens_are_edited(model: iv.Model) -> None:
    ids, mask = padded(ROWS, left=True)
    own = {"max_new_tokens": STEPS, "do_sample": False, "pad_token_id": 0, "prefill_chunk_size": 2}
    condition, rule = made(model, "mean")
    with (
        iv.editing(model, [iv.Add(PUSHED, where=iv.Where(condition=condition))]),
        pytest.raises(EditError, match=r"wanted over the whole prompt.*give the prompt in one piece"),
    ):
        model.module.generate(ids, attention_mask=mask, **own)
    where = iv.Where(scope="generated", condition=condition)
    with iv.editing(model, [iv.Add(PUSHED, where=where)]):
        written = model.module.generate(ids, attention_mask=mask, **own)
    wanted = written_by_hand(model, FOUND, rule, scope="generated")[0]
    assert written[:, ids.shape[1] :].tolist() == wanted
    condition, rule = made(model, "above")
    with iv.editing(model, [iv.Add(PUSHED, where=iv.Where(condition=condition))]):
        written = model.module.generate(ids, attention_mask=mask, **own)
    assert written[:, ids.shape[1] :].tolist() == written_by_hand(model, FOUND, rule)[0]


def test_gradients_flow_through_an_edit_under_a_condition(model: iv.Model) -> None:
    ids, mask = padded(ROWS, left=True)
    where = iv.Where(condition=made(model, "above")[0])
    model.module.requires_grad_(True)

    def loss() -> Tensor:
        return model.module(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100)).loss

    with iv.editing(model, [iv.Add(PUSHED, 0.05, where=where)]):
        loss().backward()
    found = {name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None}
    model.module.zero_grad()
    pads, prompts = (mask == 0).sum(1).tolist(), mask.sum(1).tolist()
    with by_hand(model.module, FOUND, made(model, "above")[1], pads, prompts, share=0.05):
        loss().backward()
    assert len(found) > 10
    for name, parameter in model.module.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda r: bool(r > 0.5), r"join conditions with &, \| and ~"),
        (lambda r: 0.2 < r < 0.8, r"\(reading > 0.2\) & \(reading < 0.8\) for a range"),
        (lambda r: r > "much", r"compared with a number, not 'much' of type str"),
        (lambda r: r > float("nan"), r"compared with a number, not nan"),
        (lambda r: (r > 1) & True, r"& joins two conditions, and True of type bool is none"),
        (lambda r: r.over_prompt("sum"), r"over the prompt is its max, mean, last, not 'sum'"),
        (lambda r: iv.Where(condition=r), r"a condition compares readings, .*; compare it, as in reading > 1.0"),
        (lambda r: iv.Where(condition=True), r"use one such as direction.reading\(\) > 1.0"),
    ],
)
def test_what_is_no_condition_is_refused(make: Callable[[Any], Any], message: str) -> None:
    with pytest.raises(EditError, match=message):
        make(FOUND.reading())


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_written_down_is_the_same_condition(name: str) -> None:
    reading = iv.Reading(
        "blocks.0.resid", FOUND.vector, 0.25, iv.Gate(PUSHED.vector, -0.1), threshold=0.5, scale=2.0, name="a feature"
    )
    where = iv.Where(
        scope="generated",
        condition=CONDITIONS[name][0](reading, dict.fromkeys(("low", "half", "high", "max", "mean", "last"), 1.5)),
    )
    again = iv.Where.from_dict(where.to_dict())
    rebuilt = eval(where.to_code(), {"iv": iv})
    assert again == where == rebuilt
    assert again.to_dict() == where.to_dict() and rebuilt.to_code() == where.to_code()


def test_a_reading_is_what_its_parts_say() -> None:
    x = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(1))
    vector, gate = FOUND.vector, PUSHED.vector
    wide = x.double()
    plain = (wide @ vector.double() + 0.5) / 2.0
    torch.testing.assert_close(iv.Reading("embed", vector, 0.5, scale=2.0).of(x).double(), plain, atol=1e-6, rtol=1e-5)
    summed = wide @ vector.double() + 0.5
    jump = torch.where(summed > 0.7, summed, 0.0)
    torch.testing.assert_close(
        iv.Reading("embed", vector, 0.5, threshold=0.7).of(x).double(), jump, atol=1e-6, rtol=1e-5
    )
    gated = torch.where((wide @ gate.double() - 0.2 > 0) & (summed > 0), summed, 0.0)
    found = iv.Reading("embed", vector, 0.5, iv.Gate(gate, -0.2), threshold=0.0).of(x)
    torch.testing.assert_close(found.double(), gated, atol=1e-6, rtol=1e-5)
    assert (gated > 0).any() and (gated == 0).any()
    d = direction(seed=3)
    assert torch.equal(d.reading().of(x), d.project(x))


@pytest.mark.parametrize("cache", CACHES)
def test_readings_that_a_run_records_may_be_any(model: iv.Model, cache: str) -> None:
    reading = iv.Reading("blocks.2.resid", FOUND.vector, 0.1, threshold=0.0, name="feature")
    run = iv.generate(model, ROWS, max_new_tokens=3, readings=[reading, FOUND], cache=cache)
    run.wait()
    for row, written, found in zip(ROWS, run.tokens_so_far, run.projections["feature"], strict=True):
        x = iv.capture(model, [[*row, *written[:-1]]], "blocks.2.resid")["blocks.2.resid"][0]
        torch.testing.assert_close(torch.tensor(found), (x @ FOUND.vector + 0.1).clamp(min=0), atol=2e-5, rtol=1e-4)


def test_a_slider_may_move_under_a_condition_but_no_new_prompt_is_read(model: iv.Model) -> None:
    where = iv.Where(condition=made(model, "max")[0])
    texts = {}
    for cache in CACHES:
        run = iv.generate(
            model, ROWS, edits=[iv.Add(PUSHED, 0.5, where=where)], max_new_tokens=STEPS, cache=cache,
            on_token=lambda r: r.update([iv.Add(PUSHED, -0.5, where=where)]) if len(r.tokens_so_far[0]) == 2 else None,
        )  # fmt: skip
        run.wait()
        texts[cache] = run.tokens_so_far
    assert texts["dynamic"] == texts["static"] == texts["none"]
    refused = []

    def turn(run: Any) -> None:
        try:
            run.update([iv.Add(PUSHED, where=where)])
        except EditError as error:
            refused.append(str(error))

    run = iv.generate(model, ROWS, max_new_tokens=3, on_token=turn)
    plain = iv.generate(model, ROWS, max_new_tokens=3)
    assert run.texts == plain.texts
    assert len(refused) == 3 and "which is over" in refused[0]
