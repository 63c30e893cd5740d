"""The user's own forwards: edited inside a block, edited while something is attached, and bitwise as before afterwards."""

import threading
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import innerview as iv
from innerview.errors import EditError, SiteError
from tests.engine.oracle import CHOICES, added, hooked, write_together
from tests.networks import CONTAINERS, blocks, direction, hook_ids, ids, inside, padded, ragged, toy

LAYER = 1


def delta_of(d: iv.Direction, coefficient: float = 1.0) -> Tensor:
    return d.vector.double() * d.scale * coefficient


def strengths(mask: Tensor, choice: str) -> Tensor:
    """By hand: where an edit applies in padded rows that are all prompt."""
    _, chosen = CHOICES[choice]
    strength = torch.zeros(mask.shape)
    for r, row in enumerate(mask.tolist()):
        real = [c for c, m in enumerate(row) if m]
        for p, c in enumerate(real):
            strength[r, c] = chosen(p, len(real))
    return strength


def by_hand(root: nn.Module, given: dict, strength: Tensor, delta: Tensor, layer: int = LAYER) -> Tensor:
    with hooked(blocks(root)[layer], lambda x: added(x, delta, strength)), torch.no_grad():
        return root(**given).logits


def logits(root: nn.Module, **given: Any) -> Tensor:
    with torch.no_grad():
        return root(**given).logits


@pytest.mark.parametrize("left", [True, False], ids=["left pads", "right pads"])
@pytest.mark.parametrize("choice", CHOICES)
def test_a_masked_forward_is_edited_as_by_hand(typed: iv.Model, choice: str, left: bool) -> None:
    x, mask = padded(ragged((3, 7, 5)), left=left)
    d = direction()
    with iv.editing(typed, [iv.Add(d, where=iv.Where(**CHOICES[choice][0]))]):
        found = logits(typed.module, input_ids=x, attention_mask=mask)
    wanted = by_hand(typed.module, {"input_ids": x, "attention_mask": mask}, strengths(mask, choice), delta_of(d))
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("batch", [1, 3])
def test_an_unmasked_forward_is_edited_everywhere(typed: iv.Model, batch: int) -> None:
    x, d = ids(batch, 6), direction()
    plain = logits(typed.module, input_ids=x)
    with iv.editing(typed, [iv.Add(d, 1.5)]):
        found = logits(typed.module, input_ids=x)
    assert torch.equal(found, by_hand(typed.module, {"input_ids": x}, torch.ones(batch, 6), delta_of(d, 1.5)))
    assert torch.equal(logits(typed.module, input_ids=x), plain) and not torch.equal(found, plain)


@pytest.mark.parametrize("where", [{"positions": 1}, {"scope": "prompt"}, {"scope": "generated"}, {"steps": 0}])
def test_an_unmasked_forward_is_refused_positions_and_scopes(model: iv.Model, where: dict) -> None:
    with (
        pytest.raises(EditError, match=r"no 2-D attention mask.*prompt_tokens="),
        iv.editing(model, [iv.Add(direction(), where=iv.Where(**where))]),
    ):
        logits(model.module, input_ids=ids(1, 5))


@pytest.mark.parametrize("told", [4, torch.tensor([4]), [4, 4]])
@pytest.mark.parametrize("choice", CHOICES)
def test_prompt_tokens_stand_in_for_a_mask(model: iv.Model, choice: str, told: Any) -> None:
    x, d = ids(2, 7), direction()
    with iv.editing(model, [iv.Add(d, where=iv.Where(**CHOICES[choice][0]))], prompt_tokens=told):
        found = logits(model.module, input_ids=x)
    strength = torch.tensor([[CHOICES[choice][1](p, 4) for p in range(7)]] * 2)
    assert torch.equal(found, by_hand(model.module, {"input_ids": x}, strength, delta_of(d)))


def test_prompt_tokens_of_the_wrong_number_are_refused(model: iv.Model) -> None:
    with (
        pytest.raises(EditError, match=r"prompt_tokens has 2 numbers for 3 rows"),
        iv.editing(model, [iv.Add(direction(), where=iv.Where(scope="prompt"))], prompt_tokens=[3, 4]),
    ):
        logits(model.module, input_ids=ids(3, 5))


def test_arguments_given_by_position_mean_the_same(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 6)), left=True)
    edits = [iv.Add(direction(), where=iv.Where(positions=(0, 2)))]
    with iv.editing(model, edits), torch.no_grad():
        by_name = model.module(input_ids=x, attention_mask=mask).logits
        # GPT-2 and Llama differ behind the mask, so the mask is found by its name.
        by_place = model.module(*places(model.module, x, mask)).logits
    assert torch.equal(by_name, by_place)
    assert not torch.equal(by_name, logits(model.module, input_ids=x, attention_mask=mask))


def places(root: nn.Module, x: Tensor, mask: Tensor) -> list[Any]:
    """Ids and mask as positional arguments."""
    import inspect

    names = list(inspect.signature(root.forward).parameters)
    return [{"input_ids": x, "attention_mask": mask}.get(n) for n in names[: names.index("attention_mask") + 1]]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_cache_fed_by_hand_means_the_same_as_one_forward(model: iv.Model, choice: str) -> None:
    x, mask = padded(ragged((3, 6)), left=True)
    more = ids(2, 3, seed=9)
    edits = [iv.Add(direction(), where=iv.Where(**CHOICES[choice][0]))]
    steps = []
    with iv.editing(model, edits), torch.no_grad():
        cache, grown = DynamicCache(), mask
        out = model.module(input_ids=x, attention_mask=mask, past_key_values=cache, **placed(model, mask, 6))
        for i in range(3):
            grown = torch.cat([grown, torch.ones(2, 1, dtype=torch.long)], dim=1)
            out = model.module(
                input_ids=more[:, i : i + 1], attention_mask=grown, past_key_values=cache, **placed(model, grown, 1)
            )
            steps.append(out.logits[:, 0])
    strength = torch.zeros(2, 9)
    for r, n in enumerate((3, 6)):
        for c in range(6 - n, 9):
            strength[r, c] = CHOICES[choice][1](c - (6 - n), n)
    whole = {"input_ids": torch.cat([x, more], 1), "attention_mask": grown, **placed(model, grown, 9)}
    wanted = by_hand(model.module, whole, strength, delta_of(direction()))[:, 6:]
    assert torch.allclose(torch.stack(steps, 1), wanted, atol=2e-4)


def placed(model: iv.Model, mask: Tensor, last: int) -> dict[str, Tensor]:
    """Position ids of the last columns, counted by the mask."""
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)[:, -last:]}


def test_a_decoded_token_behind_right_pads_is_edited(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 6)), left=False)
    grown = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    d, seen = direction(), []
    with hooked(blocks(model.module)[LAYER + 1], lambda y: y), torch.no_grad():
        handle = blocks(model.module)[LAYER + 1].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
        for edits in ([], [iv.Add(d, where=iv.Where(scope="generated"))]):
            with iv.editing(model, edits):
                cache = DynamicCache()
                model.module(input_ids=x, attention_mask=mask, past_key_values=cache)
                model.module(input_ids=ids(2, 1), attention_mask=grown, past_key_values=cache)
        handle.remove()
    prompt, token, prompt_again, edited = seen
    assert torch.equal(prompt, prompt_again)
    # The third real token of the first row is its fourth column but one: the hole counts as no token.
    assert torch.allclose(edited - token, delta_of(d).float().expand_as(token), atol=1e-4)


def test_positions_behind_right_pads_count_real_tokens(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 6)), left=False)
    grown = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], dim=1)
    d, seen = direction(), []
    handle = blocks(model.module)[LAYER + 1].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    with torch.no_grad():
        for edits in ([], [iv.Add(d, where=iv.Where(positions=3))]):
            with iv.editing(model, edits):
                cache = DynamicCache()
                model.module(input_ids=x, attention_mask=mask, past_key_values=cache)
                model.module(input_ids=ids(2, 1), attention_mask=grown, past_key_values=cache)
    handle.remove()
    gaps = [(seen[2] - seen[0]).abs().sum(-1) > 1, (seen[3] - seen[1]).abs().sum(-1) > 1]
    assert gaps[0].tolist() == [[False] * 6, [False, False, False, True, False, False]]
    # Row 0 has three prompt tokens, so that its first new one is position 3; row 1's is position 6.
    assert gaps[1].tolist() == [[True], [False]]


def test_what_continues_a_cache_that_began_outside_is_refused_a_scope(model: iv.Model) -> None:
    cache = DynamicCache()
    with torch.no_grad():
        model.module(input_ids=ids(1, 4), attention_mask=torch.ones(1, 4), past_key_values=cache)
    with (
        pytest.raises(EditError, match=r"a cache whose beginning was not seen.*prompt_tokens="),
        iv.editing(model, [iv.Add(direction(), where=iv.Where(scope="generated"))]),
    ):
        model.module(input_ids=ids(1, 1), attention_mask=torch.ones(1, 5), past_key_values=cache)


def test_several_tokens_on_top_of_a_cache_are_refused_a_scope(model: iv.Model) -> None:
    cache = DynamicCache()
    with iv.editing(model, [iv.Add(direction(), where=iv.Where(scope="generated"))]):
        model.module(input_ids=ids(1, 4), attention_mask=torch.ones(1, 4), past_key_values=cache)
        with pytest.raises(EditError, match=r"adds 2 tokens to a cache at once.*prompt_tokens="):
            model.module(input_ids=ids(1, 2), attention_mask=torch.ones(1, 6), past_key_values=cache)


def test_a_first_chunk_of_pads_is_left_alone(model: iv.Model) -> None:
    x, mask = padded(ragged((2, 6)), left=True)
    d, edits = direction(), [iv.Add(direction(), where=iv.Where(positions=0))]
    seen: list[Tensor] = []
    handle = blocks(model.module)[LAYER + 1].register_forward_pre_hook(lambda m, args: seen.append(args[0].clone()))
    with torch.no_grad():
        for block in ([], edits):
            cache = DynamicCache()
            with iv.editing(model, block, prompt_tokens=[2, 6]):
                for start in (0, 3):
                    model.module(
                        input_ids=x[:, start : start + 3], attention_mask=mask[:, : start + 3], past_key_values=cache,
                        position_ids=(mask.cumsum(1) - 1).clamp(min=0)[:, start : start + 3],
                    )  # fmt: skip
    handle.remove()
    first, second = seen[2] - seen[0], seen[3] - seen[1]
    assert torch.equal(first[0], torch.zeros_like(first[0]))
    assert torch.allclose(first[1, 0], delta_of(d).float(), atol=1e-4)
    assert torch.allclose(second[0, 1], delta_of(d).float(), atol=1e-4)


@pytest.mark.parametrize("choice", CHOICES)
def test_the_users_own_generate_is_edited_as_by_hand(typed: iv.Model, choice: str) -> None:
    x, mask = padded(ragged((3, 6, 4)), left=True)
    d = direction()
    with iv.editing(typed, [iv.Add(d, where=iv.Where(**CHOICES[choice][0]))]):
        found = typed.module.generate(
            input_ids=x, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0
        )
    wanted = write_together(typed.module, x, mask, LAYER, delta_of(d), CHOICES[choice][1], 4, "dynamic")
    assert found[:, 6:].tolist() == wanted.tolist()


def test_the_users_own_beams_are_edited_as_by_hand(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 6)), left=True)
    d, choice = direction(), "generated"
    options = {"max_new_tokens": 4, "num_beams": 3, "do_sample": False, "pad_token_id": 0}
    with iv.editing(model, [iv.Add(d, where=iv.Where(scope="generated"))]):
        found = model.module.generate(input_ids=x, attention_mask=mask, **options)
    wanted = write_together(model.module, x, mask, LAYER, delta_of(d), CHOICES[choice][1], 4, "dynamic", num_beams=3)
    assert found[:, 6:].tolist() == wanted.tolist()


@pytest.mark.parametrize("told", [None, 5])
@pytest.mark.parametrize("cache", ["static", "none"])
@pytest.mark.parametrize("choice", ["everywhere", "first", "generated", "prompt end"])
def test_the_users_own_generate_without_a_plain_cache_is_edited_as_by_hand(
    model: iv.Model, choice: str, cache: str, told: int | None
) -> None:
    x = ids(2, 5)
    mask, d = torch.ones_like(x), direction()
    options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0, "use_cache": cache != "none"}
    if cache == "static":
        options |= {"cache_implementation": "static", "disable_compile": True}
    with iv.editing(model, [iv.Add(d, where=iv.Where(**CHOICES[choice][0]))], prompt_tokens=told):
        found = model.module.generate(input_ids=x, attention_mask=mask, **options)
    wanted = write_together(model.module, x, mask, LAYER, delta_of(d), CHOICES[choice][1], 4, cache)
    assert found[:, 5:].tolist() == wanted.tolist()


# Composition.


def test_edits_compose_in_list_order(model: iv.Model) -> None:
    x, d, e = ids(2, 5), direction(seed=1), direction(seed=2)
    add, out = iv.Add(d), iv.ProjectOut(e)

    def hand(order: str) -> Tensor:
        def change(y: Tensor) -> Tensor:
            for step in order:
                y = y + delta_of(d).float() if step == "a" else y - (y @ e.vector)[..., None] * e.vector
            return y

        with hooked(blocks(model.module)[LAYER], change):
            return logits(model.module, input_ids=x)

    with iv.editing(model, [add, out]):
        first = logits(model.module, input_ids=x)
    with iv.editing(model, [out, add]):
        second = logits(model.module, input_ids=x)
    assert torch.allclose(first, hand("ao"), atol=1e-4) and torch.allclose(second, hand("oa"), atol=1e-4)
    assert not torch.allclose(first, second, atol=1e-2)


def test_blocks_nest_the_outer_first_behind_what_is_attached(model: iv.Model) -> None:
    x = ids(1, 5)
    a, b, c = (
        iv.Add(direction(seed=1)),
        iv.ProjectOut(direction(seed=2)),
        iv.Replace(torch.ones(32), site="blocks.1.resid"),
    )
    with iv.editing(model, [c, b, a]):
        listed = logits(model.module, input_ids=x)
    iv.attach(model, [c], name="first")
    with iv.editing(model, [b]), iv.editing(model, [a]):
        nested = logits(model.module, input_ids=x)
    with iv.editing(model, [a]), iv.editing(model, [b]):
        swapped = logits(model.module, input_ids=x)
    iv.detach(model)
    assert torch.equal(nested, listed) and not torch.equal(swapped, listed)


def test_leaving_an_inner_block_leaves_the_outer_in_force(model: iv.Model) -> None:
    x, a, b = ids(1, 5), [iv.Add(direction(seed=1))], [iv.Add(direction(seed=2))]
    with iv.editing(model, a):
        before = logits(model.module, input_ids=x)
        with iv.editing(model, b):
            inner = logits(model.module, input_ids=x)
        assert torch.equal(logits(model.module, input_ids=x), before)
    assert not torch.equal(inner, before)


def test_one_block_may_edit_every_layer(model: iv.Model) -> None:
    x, d = ids(1, 5), direction()
    with iv.editing(model, [iv.ProjectOut(d, site="blocks.*.resid")]):
        acts = iv.capture(model, x, "blocks.*.resid")
        found = logits(model.module, input_ids=x)
    assert (acts.stack("blocks.*.resid") @ d.vector).abs().max() < 1e-3
    assert not torch.equal(found, logits(model.module, input_ids=x))


# Attaching.


def test_what_is_detached_leaves_logits_and_hooks_as_they_were(typed: iv.Model) -> None:
    x, before = ids(2, 5), hook_ids(typed.module)
    plain = logits(typed.module, input_ids=x)
    handle = iv.attach(typed, [iv.Add(direction())], name="mood")
    edited = logits(typed.module, input_ids=x)
    handle.enabled = False
    assert torch.equal(logits(typed.module, input_ids=x), plain)
    handle.enabled = True
    assert torch.equal(logits(typed.module, input_ids=x), edited)
    handle.detach()
    handle.detach()
    assert torch.equal(logits(typed.module, input_ids=x), plain) and not torch.equal(edited, plain)
    assert hook_ids(typed.module) == before


def test_attaching_twice_under_a_name_replaces(model: iv.Model) -> None:
    x, before = ids(1, 5), hook_ids(model.module)
    for coefficient in (1.0, 2.0, 3.0, 3.0):
        iv.attach(model, [iv.Add(direction(), coefficient)], name="mood")
    found = logits(model.module, input_ids=x)
    assert [a.name for a in iv.attached(model)] == ["mood"]
    assert torch.equal(found, by_hand(model.module, {"input_ids": x}, torch.zeros(1, 5), delta_of(direction())))
    iv.detach(model, "mood")
    with iv.editing(model, [iv.Add(direction(), 3.0)]):
        assert torch.equal(logits(model.module, input_ids=x), found)
    assert hook_ids(model.module) == before


def test_an_old_handle_does_not_detach_what_replaced_it(model: iv.Model) -> None:
    old = iv.attach(model, [iv.Add(direction())], name="mood")
    new = iv.attach(model, [iv.Add(direction(), 2.0)], name="mood")
    old.detach()
    assert iv.attached(model) == [new]
    new.detach()
    assert iv.attached(model) == []


def test_the_same_cell_again_never_doubles_without_a_name(model: iv.Model) -> None:
    x = ids(1, 5)
    iv.attach(model, [iv.Add(direction())])
    once = logits(model.module, input_ids=x)
    for _ in range(3):
        iv.attach(model, [iv.Add(direction())])
    assert torch.equal(logits(model.module, input_ids=x), once) and len(iv.attached(model)) == 1
    iv.detach(model)


@pytest.mark.parametrize(
    "other",
    [
        lambda: iv.Add(direction(), where=iv.Where(positions=-1)),
        lambda: iv.Add(direction(seed=9)),
        lambda: iv.Replace(torch.zeros(32), site="blocks.1.resid"),
    ],
)
def test_different_edits_without_names_do_not_replace_one_another(model: iv.Model, other: Any) -> None:
    iv.attach(model, [iv.Add(direction())])
    iv.attach(model, [iv.Replace(torch.ones(32), site="blocks.1.resid")])
    iv.attach(model, [other()])
    assert len(iv.attached(model)) == 3
    iv.detach(model)


def test_a_disabled_attachment_is_left_out_of_runs(model: iv.Model) -> None:
    plain = iv.generate(model, [[5, 6, 7]], max_new_tokens=4).text
    handle = iv.attach(model, [iv.Add(direction())], name="mood")
    edited = iv.generate(model, [[5, 6, 7]], max_new_tokens=4).text
    hermetic = iv.generate(model, [[5, 6, 7]], max_new_tokens=4, hermetic=True).text
    handle.enabled = False
    assert iv.generate(model, [[5, 6, 7]], max_new_tokens=4).text == plain == hermetic != edited
    handle.detach()


def test_a_run_freezes_what_was_attached_and_open_when_it_began(model: iv.Model) -> None:
    a, b, c = (iv.Add(direction(seed=s)) for s in (1, 2, 3))
    wanted = iv.generate(model, [[5, 6, 7]], edits=[a, b, c], max_new_tokens=5, hermetic=True).text
    handle = iv.attach(model, [a], name="a")
    gate = threading.Event()
    with iv.editing(model, [b]):
        run = iv.generate(model, [[5, 6, 7]], edits=[c], max_new_tokens=5, on_token=lambda r: gate.wait(20))
    handle.detach()
    iv.attach(model, [iv.Replace(torch.zeros(32), site="blocks.0.resid")], name="late")
    gate.set()
    assert run.text == wanted
    iv.detach(model)


def test_detaching_what_is_not_there_names_what_is(model: iv.Model) -> None:
    with pytest.raises(EditError, match=r"nothing named 'mood' is attached to .*; attached are none"):
        iv.detach(model, "mood")
    iv.attach(model, [iv.Add(direction())], name="calm")
    with pytest.raises(EditError, match=r"attached are 'calm'"):
        iv.detach(model, "mood")
    iv.detach(model)


def test_nothing_to_attach_is_refused(model: iv.Model) -> None:
    with pytest.raises(EditError, match=r"nothing to attach: the list of edits is empty"):
        iv.attach(model, [])


# Threads.


def in_thread(work: Any) -> Any:
    """What `work` returns or raises in a thread of its own."""
    kept: list[Any] = []

    def body() -> None:
        try:
            kept.append((True, work()))
        except Exception as error:
            kept.append((False, error))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    is_fine, value = kept[0]
    if not is_fine:
        raise value
    return value


def test_a_thread_without_blocks_takes_the_only_other_threads(model: iv.Model) -> None:
    x = ids(1, 5)
    with iv.editing(model, [iv.Add(direction())]):
        here = logits(model.module, input_ids=x)
        there = in_thread(lambda: logits(model.module, input_ids=x))
    assert torch.equal(here, there) and not torch.equal(here, in_thread(lambda: logits(model.module, input_ids=x)))


def test_a_thread_with_blocks_takes_its_own_alone(model: iv.Model) -> None:
    x, mine, its = ids(1, 5), [iv.Add(direction(seed=1))], [iv.Add(direction(seed=2))]
    with iv.editing(model, its):
        wanted = logits(model.module, input_ids=x)

    def work() -> Tensor:
        with iv.editing(model, its):
            return logits(model.module, input_ids=x)

    with iv.editing(model, mine):
        assert torch.equal(in_thread(work), wanted)


def test_two_candidate_threads_are_refused(model: iv.Model) -> None:
    opened_blocks, done = threading.Barrier(3), threading.Event()

    def hold(seed: int) -> None:
        with iv.editing(model, [iv.Add(direction(seed=seed))]):
            opened_blocks.wait(20)
            done.wait(20)

    threads = [threading.Thread(target=hold, args=(s,)) for s in (1, 2)]
    [t.start() for t in threads]
    opened_blocks.wait(20)
    try:
        with pytest.raises(EditError, match=r"2 other threads have editing blocks open.*open a block in this thread"):
            logits(model.module, input_ids=ids(1, 4))
        # A run takes its caller's blocks, and this thread has none.
        assert iv.generate(model, [[5, 6]], max_new_tokens=1).edits == ()
        with iv.editing(model, []):
            logits(model.module, input_ids=ids(1, 4))
    finally:
        done.set()
        [t.join() for t in threads]


def test_streamer_threads_of_transformers_are_edited(model: iv.Model) -> None:
    x, d = ids(1, 4), direction()
    kept: list[Tensor] = []
    options = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    with iv.editing(model, [iv.Add(d)]):
        thread = threading.Thread(
            target=lambda: kept.append(model.module.generate(input_ids=x, attention_mask=torch.ones_like(x), **options))
        )
        thread.start()
        thread.join()
    wanted = write_together(
        model.module, x, torch.ones_like(x), LAYER, delta_of(d), CHOICES["everywhere"][1], 4, "dynamic"
    )
    assert kept[0][:, 4:].tolist() == wanted.tolist()


# Containers, gradients, and what is refused.


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("kind", CONTAINERS)
def test_every_row_is_edited_alike_and_the_container_keeps_its_type(kind: str, batch: int) -> None:
    root = toy(kind)
    model, x = iv.open_model(root), torch.randn(batch, 4, 8)
    d = direction("module:first", width=8, size=1.0)
    plain = root(x)
    plain_type = root.last_type
    with iv.editing(model, [iv.Add(d)]):
        found = root(x)
    assert root.last_type is plain_type
    with torch.no_grad():
        wanted = inside(root.second(inside(root.first(x)) + delta_of(d).float()))
    assert torch.equal(found, wanted) and torch.equal(root(x), plain)
    assert (found - plain).abs().flatten(1).sum(1).min() > 0.1


@pytest.mark.parametrize("edit", ["add", "project out", "replace"])
def test_gradients_flow_through_edits(edit: str) -> None:
    root = toy("tuple")
    model, d = iv.open_model(root), direction("module:first", width=8, size=1.0)
    value = torch.randn(8)
    made: Any = {"add": iv.Add(d), "project out": iv.ProjectOut(d), "replace": iv.Replace(value, site="module:first")}[
        edit
    ]
    x = torch.randn(2, 3, 8, requires_grad=True)
    with iv.editing(model, [made]):
        root(x).sum().backward()
    y = x.detach().clone().requires_grad_()
    middle = inside(root.first(y))
    if edit == "add":
        middle = middle + delta_of(d).float()
    elif edit == "project out":
        middle = middle - (middle @ d.vector)[..., None] * d.vector
    else:
        middle = value.expand_as(middle)
    found = {n: p.grad.clone() for n, p in root.named_parameters() if p.grad is not None}
    root.zero_grad()
    inside(root.second(middle)).sum().backward()
    wanted = {n: p.grad for n, p in root.named_parameters() if p.grad is not None}
    assert all(torch.allclose(found[n], wanted[n], atol=1e-6) for n in wanted)
    if edit != "replace":
        assert torch.allclose(x.grad, y.grad, atol=1e-6) and x.grad.abs().sum() > 0


def test_gradients_reach_the_weights_of_a_language_model(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 5)), left=True)
    d = direction()

    def grad(body: Any) -> Tensor:
        model.module.zero_grad()
        body()
        return next(blocks(model.module)[0].parameters()).grad.clone()

    def ours() -> None:
        with iv.editing(model, [iv.Add(d, where=iv.Where(positions=1))]):
            model.module(input_ids=x, attention_mask=mask).logits[:, -1].logsumexp(-1).sum().backward()

    def hand() -> None:
        with hooked(
            blocks(model.module)[LAYER], lambda y: added(y, delta_of(d), strengths(mask, "second and third") * at_1)
        ):
            model.module(input_ids=x, attention_mask=mask).logits[:, -1].logsumexp(-1).sum().backward()

    at_1 = ((mask.cumsum(1) - 1) == 1).float()
    assert torch.allclose(grad(ours), grad(hand), atol=1e-5)


def test_an_edit_never_writes_into_the_activation(model: iv.Model) -> None:
    kept: list[Tensor] = []
    handle = blocks(model.module)[LAYER].register_forward_hook(
        lambda m, a, out: kept.extend([y := out[0] if isinstance(out, tuple) else out, y.clone()])
    )
    with iv.editing(
        model,
        [iv.Add(direction()), iv.ProjectOut(direction(seed=1)), iv.Replace(torch.ones(32), site="blocks.1.resid")],
    ):
        logits(model.module, input_ids=ids(1, 4))
    handle.remove()
    assert torch.equal(kept[0], kept[1]) and len(kept) == 2


def test_a_site_that_never_fires_is_refused_when_the_block_ends() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    root = Idle()
    model, d = iv.open_model(root), direction("module:idle", width=4)
    with (
        pytest.raises(
            EditError, match=r"this block edits 'module:idle', which never fired in 2 forward\(s\).*model.sites\(\)"
        ),
        iv.editing(model, [iv.Add(d)]),
    ):
        root(root(torch.randn(1, 2, 4)))
    handle = iv.attach(model, [iv.Add(d)], name="idle")
    with pytest.raises(EditError, match=r"attached 'idle' edits 'module:idle', which never fired"):
        root(torch.randn(1, 2, 4))
    handle.detach()
    root(torch.randn(1, 2, 4))


def test_a_position_past_the_end_is_refused_when_the_block_ends(model: iv.Model) -> None:
    x, mask = padded(ragged((3, 5)), left=True)
    with (
        pytest.raises(EditError, match=r"position 9 is past the end: the longest row of this block had 5 tokens"),
        iv.editing(model, [iv.Add(direction(), where=iv.Where(positions=9))]),
    ):
        logits(model.module, input_ids=x, attention_mask=mask)
    with (
        pytest.raises(EditError, match=r"position -4 is before the start of a prompt of 3 tokens; use -3 to -1"),
        iv.editing(model, [iv.Add(direction(), where=iv.Where(positions=-4))]),
    ):
        logits(model.module, input_ids=x, attention_mask=mask)


def test_edits_that_do_not_fit_are_refused_before_anything_runs(model: iv.Model) -> None:
    before = hook_ids(model.module)
    cases: list[tuple[Any, type, str]] = [
        ([iv.Add(direction(width=7))], EditError, "a direction 7 wide does not fit 'blocks.1.resid'"),
        (
            [iv.Add(direction("blocks.1.attn.result"))],
            EditError,
            "'blocks.1.attn.result'.*edit 'blocks.1.attn.heads' instead",
        ),
        ([iv.Add(direction("blocks.1.atn.out"))], SiteError, "nearest is 'blocks.1.attn.out'"),
        ([iv.Add(direction("blocks.9.resid"))], SiteError, "no layer 9 .* has 3, blocks.0 to blocks.2"),
        (["mood"], EditError, "no edit: 'mood' of type str; use Add, ProjectOut or Replace"),
    ]
    for edits, kind, message in cases:
        for enter in (lambda e=edits: iv.editing(model, e).__enter__(), lambda e=edits: iv.attach(model, e)):
            with pytest.raises(kind, match=message):
                enter()
    assert hook_ids(model.module) == before and iv.attached(model) == []


def test_a_part_called_by_itself_is_edited_and_refused_positions(model: iv.Model) -> None:
    head = model.module.lm_head
    x, d = torch.randn(1, 3, 32), iv.Direction.from_vector(torch.ones(model.vocab), "logits", scale=1.0)
    plain = head(x)
    with iv.editing(model, [iv.Add(d, unit="raw")]):
        assert torch.allclose(head(x), plain + d.vector)
    with (
        pytest.raises(EditError, match=r"not called with ids through its root module; drop where="),
        iv.editing(model, [iv.Add(d, where=iv.Where(positions=0))]),
    ):
        head(x)
    assert torch.equal(head(x), plain)
