"""Hooks come and go: what was there before is there afterwards, in its order, whatever broke in between."""

import contextlib
import ctypes
import gc
import threading
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.errors import CaptureError, EditError
from innerview.runs import current
from tests.engine.oracle import hooked
from tests.engine.uses import USES, interrupts, is_free, uses
from tests.networks import blocks, direction, hook_ids, ids, opened, toy


def logits(root: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return root(x).logits


@pytest.mark.parametrize("use", USES)
def test_hooks_and_outputs_are_as_before(typed: iv.Model, use: str) -> None:
    x, before = ids(2, 5), hook_ids(typed.module)
    plain = logits(typed.module, x)
    uses(typed)[use]()
    assert hook_ids(typed.module) == before and torch.equal(logits(typed.module, x), plain) and is_free(typed)


@pytest.mark.parametrize("use", USES)
def test_the_users_own_hooks_stay_in_their_order_and_run_every_time(model: iv.Model, use: str) -> None:
    heard: list[str] = []
    layer = blocks(model.module)[1]
    handles = [
        layer.register_forward_hook(lambda *_: heard.append("first")),
        layer.register_forward_pre_hook(lambda *_: heard.append("before")),
        layer.register_forward_hook(lambda *_: heard.append("second")),
        layer.register_forward_hook(lambda *_: heard.append("front"), prepend=True),
        model.module.register_forward_hook(lambda *_: heard.append("root")),
    ]
    before = hook_ids(model.module)
    logits(model.module, ids(1, 4))
    order = list(heard)
    assert order == ["before", "front", "first", "second", "root"]
    uses(model)[use]()
    assert hook_ids(model.module) == before
    heard.clear()
    logits(model.module, ids(1, 4))
    assert heard == order
    [h.remove() for h in handles]


def test_the_users_hooks_see_the_edit_if_they_came_later(model: iv.Model) -> None:
    layer, seen = blocks(model.module)[1], {}
    early = layer.register_forward_hook(lambda m, a, out: seen.update(early=out[0] if isinstance(out, tuple) else out))
    with iv.editing(model, [iv.Replace(torch.ones(32), site="blocks.1.resid")]):
        late = layer.register_forward_hook(
            lambda m, a, out: seen.update(late=out[0] if isinstance(out, tuple) else out)
        )
        logits(model.module, ids(1, 4))
    early.remove(), late.remove()
    assert (seen["late"] == 1).all() and not (seen["early"] == 1).all()


def test_a_users_hook_removed_inside_a_block_stays_removed(model: iv.Model) -> None:
    layer, before = blocks(model.module)[1], hook_ids(model.module)
    handle = layer.register_forward_hook(lambda *_: None)
    with iv.editing(model, [iv.Add(direction())]):
        handle.remove()
        logits(model.module, ids(1, 4))
    assert hook_ids(model.module) == before


def test_one_hook_serves_all_who_need_a_site(model: iv.Model) -> None:
    layer, d = blocks(model.module)[1], direction()
    with iv.editing(model, [iv.Add(d), iv.ProjectOut(d)]), iv.editing(model, [iv.Add(d)]):
        iv.attach(model, [iv.Add(d)], name="a")
        assert len(layer._forward_hooks) == 1
        iv.detach(model)
        assert len(layer._forward_hooks) == 1
    assert len(layer._forward_hooks) == 0


def test_blocks_closed_out_of_order_leave_nothing(model: iv.Model) -> None:
    before, x = hook_ids(model.module), ids(1, 4)
    plain = logits(model.module, x)
    first, second = iv.editing(model, [iv.Add(direction())]), iv.editing(model, [iv.ProjectOut(direction(seed=1))])
    first.__enter__(), second.__enter__()
    first.__exit__(None, None, None)
    with iv.editing(model, [iv.ProjectOut(direction(seed=1))]):
        wanted = None
    with hooked(
        blocks(model.module)[1], lambda y: y - (y @ direction(seed=1).vector)[..., None] * direction(seed=1).vector
    ):
        wanted = logits(model.module, x)
    assert torch.allclose(logits(model.module, x), wanted, atol=1e-4)
    second.__exit__(None, None, None)
    assert hook_ids(model.module) == before and torch.equal(logits(model.module, x), plain)


# What breaks inside.


class Broken(Exception):
    """Raised by the tests inside a forward."""


def broken_by(model: iv.Model, error: BaseException, where: str) -> Any:
    """A handle of a hook that raises in the middle of a forward."""

    def fail(*_: Any) -> None:
        raise error

    layer = blocks(model.module)[2]
    if where == "before the root":
        return model.module.register_forward_pre_hook(fail)
    if where == "behind the root":
        return model.module.register_forward_hook(fail)
    return layer.register_forward_pre_hook(fail) if where == "before a layer" else layer.register_forward_hook(fail)


PLACES = ("before the root", "before a layer", "behind a layer", "behind the root")


@pytest.mark.parametrize("kind", [Broken, KeyboardInterrupt])
@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("use", USES)
def test_what_breaks_in_a_forward_leaves_nothing_behind(use: str, where: str, kind: type) -> None:
    model = opened("llama")
    if use == "patterns" and where == "behind the root":
        pytest.skip("a capture stops behind its last site, so that nothing breaks behind the root")
    x, before = ids(1, 4), hook_ids(model.module)
    plain, kernel = logits(model.module, x), model.module.config._attn_implementation
    handle = broken_by(model, kind("on purpose"), where)
    try:
        if (use == "capture" and where == "behind the root") or (
            use == "patterns" and where in ("before a layer", "behind a layer")
        ):
            uses(model)[use]()
        else:
            with pytest.raises(kind, match="on purpose"):
                uses(model)[use]()
    finally:
        handle.remove()
    assert hook_ids(model.module) == before and torch.equal(logits(model.module, x), plain) and is_free(model)
    assert current.get() is None and model.module.config._attn_implementation == kernel
    assert iv.attached(model) == []


def test_an_interrupted_forward_leaves_no_edits_to_parts_called_alone(model: iv.Model) -> None:
    head, x = model.module.lm_head, torch.randn(1, 4, 32)
    plain = head(x)
    logit = iv.Direction.from_vector(torch.ones(model.vocab), "logits", scale=1.0)
    old = iv.attach(model, [iv.Add(logit, 7.0, unit="raw", where=iv.Where(positions=0))], name="old")
    handle = broken_by(model, KeyboardInterrupt("on purpose"), "before a layer")
    with pytest.raises(KeyboardInterrupt), torch.no_grad():
        model.module(input_ids=ids(1, 4), attention_mask=torch.ones(1, 4))
    handle.remove()
    # The forward that was broken off knew where its tokens were; this call does not.
    with pytest.raises(EditError, match=r"not called with ids through its root module"):
        head(x)
    iv.attach(model, [iv.Add(logit, 2.0, unit="raw")], name="new")
    old.detach()
    assert torch.allclose(head(x), plain + 2.0 * logit.vector)
    iv.detach(model)
    assert torch.equal(head(x), plain)


def test_a_forward_inside_a_forward_keeps_the_outer_ones_tokens(model: iv.Model) -> None:
    x, mask, edits = ids(1, 6), torch.ones(1, 6), [iv.Add(direction("blocks.2.resid"), where=iv.Where(positions=1))]
    with iv.editing(model, edits), torch.no_grad():
        wanted = model.module(input_ids=x, attention_mask=mask).logits
        inside: list[Tensor] = []

        def look(*_: Any) -> None:
            if not inside:
                inside.append(torch.zeros(0))
                inside[0] = model.module(input_ids=x[:, :3], attention_mask=mask[:, :3]).logits
                iv.capture(model, x, "blocks.0.resid")

        handle = blocks(model.module)[1].register_forward_hook(look)
        found = model.module(input_ids=x, attention_mask=mask).logits
        handle.remove()
        assert torch.equal(found, wanted)
        assert torch.equal(inside[0], model.module(input_ids=x[:, :3], attention_mask=mask[:, :3]).logits)


@pytest.mark.parametrize("use", USES)
def test_an_interrupt_at_any_time_leaves_nothing_behind(use: str) -> None:
    model = opened("gpt2", layers=2)
    assert interrupts(model, uses(model)[use], 40) == 40


# Compiled modules.


@pytest.mark.parametrize(
    "how", ["wrapped root", "compiled root", "wrapped layer", "compiled layer", "compiled forward"]
)
def test_a_hook_on_a_compiled_module_is_refused(model: iv.Model, how: str) -> None:
    root, layers = model.module, blocks(model.module)
    if how == "wrapped root":
        model = iv.open_model(torch.compile(root))
    elif how == "compiled root":
        root.compile()
    elif how == "wrapped layer":
        layers[1] = torch.compile(layers[1])
    elif how == "compiled layer":
        layers[1].compile()
    else:
        layers[1].forward = torch.compile(layers[1].forward)
    before = hook_ids(root)
    message = r"was compiled before this hook came, and compiled code ignores it; open the network before torch.compile"
    with pytest.raises(EditError, match=message):
        iv.editing(model, [iv.Add(direction())]).__enter__()
    with pytest.raises(EditError, match=message):
        iv.attach(model, [iv.Add(direction("blocks.1.mlp.out"))])
    with pytest.raises(EditError, match=message):
        iv.capture(model, ids(1, 3), "blocks.1.resid")
    with pytest.raises(EditError, match=message):
        iv.generate(model, [[5, 6]], edits=[iv.Add(direction())]).wait()
    assert hook_ids(root) == before and is_free(model)


def test_a_compiled_layer_elsewhere_does_no_harm(model: iv.Model) -> None:
    blocks(model.module)[2].compile(backend="eager")
    assert iv.capture(model, ids(1, 3), "blocks.1.resid")["blocks.1.resid"].shape == (1, 3, 32)


# Memory and threads.


def test_a_network_that_was_used_is_freed() -> None:
    model = opened("gpt2")
    for use in uses(model).values():
        use()
    iv.generate(model, [[5, 6]], max_new_tokens=2).wait()
    gone = weakref.ref(model.module)
    del model, use
    gc.collect()
    assert gone() is None


def test_an_attachment_outlives_its_network_and_says_so() -> None:
    model = iv.open_model(toy("tensor"))
    handle = iv.attach(model, [iv.Add(direction("module:first", width=8))])
    handle.detach()
    assert "on: +1 steps" in repr(handle)


def test_a_thread_stopped_from_outside_in_a_forward_frees_the_lock(model: iv.Model) -> None:
    inside, go = threading.Event(), threading.Event()

    class Stopped(BaseException):
        pass

    def linger(*_: Any) -> None:
        inside.set()
        while not go.wait(0.01):
            pass

    handle = blocks(model.module)[1].register_forward_hook(linger)

    def work() -> None:
        with contextlib.suppress(Stopped):
            iv.capture(model, ids(1, 3), "blocks.2.resid")

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(20)
    assert not model.lock.acquire(timeout=0.05)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(Stopped))
    go.set()
    thread.join(20)
    handle.remove()
    assert is_free(model) and hook_ids(model.module)[""] == ([], [])


def test_registering_waits_for_the_forward_of_a_run(model: iv.Model) -> None:
    inside, go, order = threading.Event(), threading.Event(), []

    def linger(*_: Any) -> None:
        inside.set()
        go.wait(20)
        order.append("forward")

    handle = blocks(model.module)[0].register_forward_hook(linger)
    run = iv.generate(model, [[5, 6, 7]], max_new_tokens=1)

    def register() -> None:
        iv.attach(model, [iv.Add(direction())], name="late")
        order.append("attached")

    assert inside.wait(20)
    thread = threading.Thread(target=register)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    go.set()
    thread.join(20)
    run.wait()
    handle.remove()
    iv.detach(model)
    assert order == ["forward", "attached"]


def test_a_capture_error_leaves_no_hooks(model: iv.Model) -> None:
    before = hook_ids(model.module)
    with pytest.raises(CaptureError):
        iv.capture(
            model,
            ids(1, 3),
            "module:" + next(n for n, m in model.module.named_modules() if isinstance(m, nn.ModuleList)),
        )
    assert hook_ids(model.module) == before and is_free(model)
