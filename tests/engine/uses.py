"""Every way to put hooks on and take them off, and breaking them off with a real SIGINT."""

import random
import signal
import threading
from collections.abc import Callable
from typing import Any

import torch

import innerview as iv
from innerview.hooks import board_of
from innerview.runs import current
from tests.networks import direction, hook_ids, ids

USES = ("capture", "patterns", "block", "attachment")


def is_free(model: iv.Model) -> bool:
    """Whether another thread can take the network's lock."""
    got: list[bool] = []

    def take() -> None:
        got.append(model.lock.acquire(timeout=2))
        if got[0]:
            model.lock.release()

    thread = threading.Thread(target=take)
    thread.start()
    thread.join()
    return got[0]


def uses(model: iv.Model) -> dict[str, Callable[[], Any]]:
    """What puts hooks on and takes them off, by name."""
    d, x = direction(), ids(1, 4)

    def forward() -> None:
        with torch.no_grad():
            model.module(x)

    def block() -> None:
        with iv.editing(model, [iv.Add(d)]), iv.editing(model, [iv.ProjectOut(d, site="blocks.*.resid")]):
            forward()

    def attachment() -> None:
        handle = iv.attach(model, [iv.Add(d)], name="a")
        try:
            forward()
        finally:
            handle.detach()

    return {
        "capture": lambda: iv.capture(model, x, ["blocks.*.resid", "blocks.0.attn.heads"]),
        "patterns": lambda: iv.capture(model, x, "blocks.1.attn.pattern"),
        "block": block,
        "attachment": attachment,
    }


def interrupts(model: iv.Model, work: Callable[[], Any], count: int, seed: int = 0) -> int:
    """Break `work` off `count` times at random times, and check each time that nothing is left; how often that was."""
    drawn = random.Random(seed)
    x, before = ids(1, 4), hook_ids(model.module)
    kernel = getattr(model.module.config, "_attn_implementation", None)
    with torch.no_grad():
        plain = model.module(x).logits
    for nth in range(count):
        broken_off(work, drawn.uniform(0.0, 0.006))
        iv.detach(model)
        assert hook_ids(model.module) == before, f"hooks are left behind interrupt {nth}"
        assert current.get() is None and board_of(model).own_blocks() == [], (
            f"a run or block is left behind interrupt {nth}"
        )
        assert model.module.config._attn_implementation == kernel, f"the kernel is another behind interrupt {nth}"
        with torch.no_grad():
            assert torch.equal(model.module(x).logits, plain), f"outputs differ behind interrupt {nth}"
        assert is_free(model), f"the lock is held behind interrupt {nth}"
    return count


def broken_off(work: Callable[[], Any], after_s: float) -> None:
    """Run `work` again and again until a SIGINT that comes after a while breaks it off."""
    main, sent = threading.main_thread().ident, threading.Event()

    def send() -> None:
        sent.set()
        signal.pthread_kill(main, signal.SIGINT)

    timer = threading.Timer(after_s, send)
    try:
        timer.start()
        behind = 0
        # Python swallows what is raised inside a finaliser; then the work goes on.
        while behind < 3:
            work()
            behind += sent.is_set()
    except KeyboardInterrupt:
        pass
    finally:
        timer.join()
