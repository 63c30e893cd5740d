"""Rows of the reliability scoreboard, each a function of a count: small in the tests, whole here.

`python -m tests.soak` runs every row at its full count; `--row 1 --count 10000` runs one.
"""

import argparse
import gc
import itertools
import random
import signal
import threading
import tracemalloc
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import innerview as iv
from innerview.errors import EditError
from innerview.hooks import board_of
from innerview.runs import current
from tests.browser.hostile_rows import row_20
from tests.dictionaries import hostile
from tests.engine.store_rows import row_23, row_24, row_25
from tests.engine.uses import broken_off, interrupts, is_free, uses
from tests.kernels import soaking
from tests.networks import (
    CONTAINERS,
    DTYPES,
    FAMILIES,
    blocks,
    direction,
    hook_ids,
    ids,
    inside,
    opened,
    padded,
    ragged,
    toy,
)
from tests.widgets.message_rows import row_21, row_22


def logits(model: iv.Model, x: Tensor, **given: Any) -> Tensor:
    with torch.no_grad():
        return model.module(input_ids=x, **given).logits


class Witness:
    """What a network was before something was done to it, to be compared with what it is afterwards."""

    def __init__(self, model: iv.Model) -> None:
        self.model, self.x = model, ids(2, 5)
        self.hooks, self.plain = hook_ids(model.module), logits(model, self.x)

    def agrees(self) -> None:
        """Hooks as before, outputs to the last bit, nothing attached, no run, the lock free."""
        assert hook_ids(self.model.module) == self.hooks
        assert torch.equal(logits(self.model, self.x), self.plain)
        assert iv.attached(self.model) == [] and current.get() is None and board_of(self.model).own_blocks() == []
        assert is_free(self.model)


def wheres(drawn: random.Random) -> iv.Where:
    """A Where of any kind, drawn; every kind holds for any row of ids."""
    reading = direction("blocks.0.resid", seed=drawn.randrange(4), size=1.0).reading()
    condition: Any = drawn.choice(
        [reading > 0.0, ~(reading.over_prompt("mean") > 0.0), (reading < 1.0) | (reading > 2.0)]
    )
    return drawn.choice(
        [
            iv.Where(),
            iv.Where(condition=condition),
            iv.Where(tokens=drawn.sample(range(67), 20)),
            iv.Where(special=drawn.random() < 0.5),
            iv.Where(tokens=range(40), condition=condition),
        ]
    )


def row_1(count: int) -> None:
    """Attach, detach and nest at random, edits of every kind of place."""
    for family in FAMILIES:
        model, drawn = opened(family, layers=2), random.Random(1)
        witness = Witness(model)
        sites = ["blocks.0.resid", "blocks.1.attn.out", "blocks.*.mlp.out", "blocks.1.resid"]
        open_blocks: list[Any] = []
        for _ in range(count // len(FAMILIES)):
            site = drawn.choice(sites)
            # A condition on block 0 can be read from there on only.
            where = wheres(drawn) if site != "blocks.*.mlp.out" else iv.Where()
            edits = [iv.Add(direction(site, seed=drawn.randrange(4)), where=where)]
            act = drawn.randrange(6)
            if act == 0:
                iv.attach(model, edits, name=drawn.choice("abc"))
            elif act == 1 and iv.attached(model):
                iv.detach(model, drawn.choice(iv.attached(model)).name)
            elif act == 2 and len(open_blocks) < 4:
                open_blocks.append(iv.editing(model, edits))
                open_blocks[-1].__enter__()
            elif act == 3 and open_blocks:
                # Cells of a notebook close their blocks in any order.
                open_blocks.pop(drawn.randrange(len(open_blocks))).__exit__(None, None, None)
            elif act == 4:
                iv.capture(model, witness.x, drawn.choice(sites), edits=edits)
            else:
                x = witness.x
                assert not torch.isnan(logits(model, x, attention_mask=torch.ones_like(x))).any()
        iv.detach(model)
        for block in open_blocks:
            block.__exit__(None, None, None)
        witness.agrees()


def row_2(count: int) -> None:
    """An exception in a hook, in a forward, in a callback."""
    model = opened("llama", layers=2)
    reading = direction("blocks.0.resid", size=1.0).reading()
    d = [iv.Add(direction("blocks.0.resid")), iv.Add(direction(), where=iv.Where(condition=reading > 0.0))]
    witness = Witness(model)
    places: list[Callable[[Any], Any]] = [
        lambda f: blocks(model.module)[1].register_forward_hook(f),
        lambda f: blocks(model.module)[0].register_forward_pre_hook(f),
        lambda f: model.module.register_forward_hook(f),
        lambda f: model.module.register_forward_pre_hook(f),
    ]

    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    for nth in range(count):
        handle = places[nth % 4](fail) if nth % 5 else None
        try:
            if handle is None:
                iv.generate(model, [[5, 6]], edits=d, max_new_tokens=2, on_token=fail).wait()
            elif nth % 3 == 0:
                iv.generate(model, [[5, 6]], edits=d, max_new_tokens=2).wait()
            else:
                with iv.editing(model, d):
                    logits(model, witness.x)
        except ZeroDivisionError:
            pass
        else:
            raise AssertionError(f"nothing was raised in round {nth}")
        finally:
            if handle is not None:
                handle.remove()
        witness.agrees()


def row_3(count: int) -> None:
    """SIGINT while generating keeps the text; SIGINT at any other time leaves nothing behind."""
    model = opened("gpt2")
    witness, drawn = Witness(model), random.Random(3)
    whole = iv.generate(model, [[5, 6, 7]], edits=[iv.Add(direction())], max_new_tokens=50)
    whole.wait()
    for _ in range(count):
        run = iv.generate(model, [[5, 6, 7]], edits=[iv.Add(direction())], max_new_tokens=50)
        timer = threading.Timer(
            drawn.uniform(0.01, 0.05), signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)
        )
        try:
            timer.start()
            run.wait()
            timer.join()
        except KeyboardInterrupt:
            assert run.done
        written = run.tokens_so_far[0]
        assert written == whole.tokens_so_far[0][: len(written)] and run.text_so_far
        witness.agrees()
    for use in uses(model).values():
        interrupts(model, use, max(1, count // 4), seed=count)
    broken_off(lambda: iv.generate(model, [[5, 6]], max_new_tokens=3).wait(), 0.01)


def row_4(count: int) -> None:
    """Hooks of the user's own stay untouched, in order."""
    model, drawn = opened("gpt2", layers=2), random.Random(4)
    modules = list(model.module.modules())
    handles: list[Any] = []
    for _ in range(count):
        if handles and drawn.random() < 0.4:
            handles.pop(drawn.randrange(len(handles))).remove()
        else:
            module = drawn.choice(modules)
            register = drawn.choice([module.register_forward_hook, module.register_forward_pre_hook])
            handles.append(register(lambda *_: None, prepend=drawn.random() < 0.5))
        before = hook_ids(model.module)
        drawn.choice(list(uses(model).values()))()
        assert hook_ids(model.module) == before


def row_5(count: int) -> None:
    """The same cell again: the change is made exactly once."""
    model, d, x = opened("llama"), direction(), ids(1, 4)
    plain = iv.capture(model, x, "blocks.1.resid")["blocks.1.resid"]
    wanted = plain + (d.vector.double() * d.scale).float()

    def cell() -> list[iv.Edit]:
        # Whatever a cell makes anew each time it runs: a condition that always holds, and a function of the step.
        always = d.reading() > -1e9
        return [iv.Add(d, where=iv.Where(condition=always, schedule=lambda step: 1.0))]

    for nth in range(count):
        edits = cell() if nth % 3 == 0 else [iv.Add(d)]
        iv.attach(model, edits, **({"name": "mood"} if nth % 2 else {}))
        if nth % 2 == 0:
            iv.attach(model, cell() if nth % 3 == 0 else [iv.Add(d)])
        assert len(iv.attached(model)) == 1
        assert torch.equal(iv.capture(model, x, "blocks.1.resid")["blocks.1.resid"], wanted)
        iv.detach(model)


def row_6(count: int) -> None:
    """Capture only: outputs to the last bit as uncaptured."""
    for nth in range(count):
        model = opened(FAMILIES[nth % 2], DTYPES[nth // 2 % 2], seed=nth, layers=2)
        x = ids(1 + nth % 3, 2 + nth % 7, seed=nth)
        plain = logits(model, x, attention_mask=torch.ones_like(x))
        acts = iv.capture(model, {"input_ids": x, "attention_mask": torch.ones_like(x)}, ["blocks.*.*", "logits"])
        assert torch.equal(acts["logits"], plain)
        assert torch.equal(logits(model, x, attention_mask=torch.ones_like(x)), plain)


def row_7(count: int) -> None:
    """Layers that return their tensor in any container: every row of the batch is edited alike, by every edit."""
    for nth in range(count):
        root = toy(CONTAINERS[nth % len(CONTAINERS)], seed=nth)
        model, d = iv.open_model(root), direction("module:first", width=8, size=1.0, seed=nth)
        edit = every_edit(d, nth)[nth % 9]
        x = torch.randn(1, 3, 8).repeat(1 + nth % 4, 1, 1)
        with iv.editing(model, [edit]):
            found = root(x)
        with torch.no_grad():
            wanted = inside(root.second(edit.apply(inside(root.first(x)))))
        assert torch.allclose(found, wanted, atol=1e-6) and torch.allclose(found, found[:1].expand_as(found), atol=1e-6)
        assert not torch.allclose(found, root(x), atol=1e-4)


def every_edit(d: iv.Direction, seed: int) -> list[Any]:
    """One edit of each kind at the direction's site, each changing what it meets."""
    drawn = torch.Generator().manual_seed(seed)
    width = d.vector.numel()
    matrix, bias = torch.randn(width, width, generator=drawn), torch.randn(width, generator=drawn)
    return [
        iv.Add(d), iv.ProjectOut([d, direction(d.site, width=width, seed=seed + 1)]), iv.Cap(d, at_least=2.0, unit="raw"),
        iv.Scale(-0.5, site=d.site), iv.Replace(bias, site=d.site), iv.Transport(matrix, bias, site=d.site), iv.Rotate(d, 50),
        iv.GradientSteer(lambda x: -((x - 1) ** 2).sum(-1), 0.2, site=d.site),
        iv.Custom(lambda x, context: x.flip(-1), site=d.site),
    ]  # fmt: skip


def row_8(count: int) -> None:
    """Padding from 0 to 64, left and right: a batch equals its singles."""
    drawn = random.Random(8)
    models = [opened(family) for family in FAMILIES]
    for nth in range(count):
        model = models[nth % 2]
        rows = ragged(tuple(drawn.randrange(2, 67) for _ in range(3)), seed=nth)
        reading = direction("embed", size=0.1).reading()
        place = [
            iv.Where(positions=(1, -1)),
            iv.Where(tokens=range(0, 67, 2)),
            iv.Where(condition=reading > 0.0),
            iv.Where(condition=reading.over_prompt("last") > 0.0),
        ][nth // 4 % 4]
        edits = [iv.Add(direction("blocks.0.resid"), 0.2, where=place)]
        x, mask = padded(rows, left=bool(nth % 4 < 2))
        given = {"input_ids": x, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        batch = iv.capture(model, given, "blocks.2.resid", edits=edits)
        for i, row in enumerate(rows):
            single = iv.capture(model, [row], "blocks.2.resid", edits=edits)["blocks.2.resid"][0]
            found = batch["blocks.2.resid"][i][mask[i].bool()]
            assert (found - single).abs().max() <= 1e-4 * single.abs().max()


def row_9(count: int) -> None:
    """With and without a cache, each scope: the same text, and projections within 1e-6 of their size."""
    drawn = random.Random(9)
    models = [opened(family) for family in FAMILIES]
    reading = direction("blocks.0.resid", seed=8, size=1.0).reading()
    places: list[dict[str, Any]] = [
        {}, {"scope": "prompt"}, {"scope": "generated"}, {"positions": (0, -1)}, {"steps": (1, 2)}, {"steps": slice(1, None)},
        {"tokens": range(0, 67, 2)}, {"condition": reading > 0.0}, {"condition": reading.over_prompt("max") > 4.0},
        {"schedule": iv.Pulse(1, 2)}, {"schedule": lambda step: 1.0 / (1 + step)},
        {"scope": "generated", "condition": ~(reading.over_prompt("mean") > 0.0) & (reading < 2.0)},
    ]  # fmt: skip
    for nth in range(count):
        model, d = models[nth % 2], direction(seed=nth)
        rows = ragged(tuple(drawn.randrange(2, 9) for _ in range(1 + nth % 3)), seed=nth)
        edits = [iv.Add(d, drawn.uniform(-1, 1), where=iv.Where(**places[nth % len(places)]))]
        runs = [
            iv.generate(model, rows, edits=edits, max_new_tokens=5, cache=cache, readings=[direction("blocks.2.resid")])
            for cache in ("dynamic", "static", "none")
        ]
        [run.wait() for run in runs]
        assert runs[0].tokens_so_far == runs[1].tokens_so_far == runs[2].tokens_so_far
        for other in runs[1:]:
            for a, b in zip(runs[0].projections["d"], other.projections["d"], strict=True):
                found, wanted = torch.tensor(a).double(), torch.tensor(b).double()
                assert (found - wanted).abs().max() <= 1e-6 * max(1.0, float(wanted.abs().max())) * 40


def row_10(count: int) -> None:
    """The lens of the last layer equals the network's logits."""
    for nth in range(count):
        model = opened(FAMILIES[nth % 2], DTYPES[nth // 2 % 2], seed=nth)
        row = ragged((2 + nth % 9,), seed=nth)
        lens = iv.logit_lens(model, row)
        wanted = iv.capture(model, row, "logits")["logits"][0]
        assert torch.equal(lens.logits(len(lens.layers) - 1), wanted)


def row_11(count: int) -> None:
    """A hook behind `torch.compile` is an error, never silence."""
    for nth in range(count):
        model = opened(FAMILIES[nth % 2], layers=2)
        layers = blocks(model.module)
        if nth % 3 == 0:
            layers[0].compile(backend="eager")
        elif nth % 3 == 1:
            layers[0] = torch.compile(layers[0], backend="eager")
        else:
            model.module.compile(backend="eager")
        if nth % 3 == 2:
            for use in uses(model).values():
                refused(use)
        refused(lambda model=model: iv.capture(model, ids(1, 3), "blocks.0.mlp.out"))


def refused(use: Callable[[], Any]) -> None:
    """Check that a hook on a compiled module is refused with the reason."""
    message = ""
    try:
        use()
    except EditError as error:
        message = str(error)
    assert "was compiled before this hook came" in message


def row_12(count: int) -> None:
    """Attention patterns come from a second, eager forward; the kernel is as it was."""
    for nth in range(count):
        model = opened(FAMILIES[nth % 2], seed=nth)
        witness = Witness(model)
        pattern = iv.capture(model, ids(2, 6, seed=nth), "blocks.*.attn.pattern").stack("blocks.*.attn.pattern")
        assert pattern.shape == (3, 2, 4, 6, 6) and torch.allclose(pattern.sum(-1), torch.ones(3, 2, 4, 6), atol=1e-5)
        assert model.module.config._attn_implementation == "sdpa"
        witness.agrees()


def row_13(count: int) -> None:
    """Eight threads and moving sliders: as if one after another."""
    model, failures = opened("gpt2"), []
    witness, row = Witness(model), ragged((4,))
    wanted = {s: _written(model, row, s) for s in range(8)}

    def work(seed: int) -> None:
        drawn = random.Random(seed)
        for _ in range(count // 8):
            # A slider that moves and comes back before the first token changes nothing.
            if _written(model, row, seed) != wanted[seed]:
                failures.append(seed)
            where = iv.Where(condition=direction("blocks.0.resid", size=1.0).reading().over_prompt("max") > 0.0)
            run = iv.generate(model, row, edits=[iv.Add(direction(seed=seed), where=where)], max_new_tokens=4)
            for _ in range(drawn.randrange(5)):
                run.update([iv.Add(direction(seed=seed), drawn.uniform(-2, 2), where=where)])
            run.wait()
            x = ids(1, 4, seed=seed)
            one = iv.capture(model, x, "blocks.2.resid", edits=[iv.Add(direction(seed=seed))])["blocks.2.resid"]
            two = iv.capture(model, x, "blocks.2.resid", edits=[iv.Add(direction(seed=seed))])["blocks.2.resid"]
            if not torch.equal(one, two):
                failures.append(seed)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert failures == []
    witness.agrees()


def _written(model: iv.Model, row: list[list[int]], seed: int) -> list[list[int]]:
    run = iv.generate(model, row, edits=[iv.Add(direction(seed=seed))], max_new_tokens=4, temperature=0.9, seed=seed)
    run.wait()
    return run.tokens_so_far


def live_tensors() -> int:
    """Tensors that Python keeps alive."""
    gc.collect()
    return sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())


def row_14(count: int) -> None:
    """Captures and runs again and again: memory stays flat."""
    model, x = opened("llama", layers=2), ids(4, 16)

    reading = direction("blocks.0.resid", size=1.0).reading()
    where = iv.Where(special=False, condition=(reading > 0.0) & (reading.over_prompt("mean") > -1e9))
    given = {"attention_mask": torch.ones_like(x)}

    def once(nth: int) -> None:
        with iv.editing(model, [iv.Add(direction("blocks.1.resid"), where=where)]):
            logits(model, x, **given)
        iv.capture(model, x, "blocks.*.resid", edits=[iv.Add(direction("blocks.0.resid"))])
        with iv.editing(model, [iv.Add(direction("blocks.0.resid"))]):
            logits(model, x)
        iv.attach(model, [iv.Add(direction("blocks.0.resid"))], name="a").detach()
        if nth % 5 == 0:
            iv.generate(model, [[5, 6]], max_new_tokens=1).wait()

    def kept(rounds: int) -> int:
        for nth in range(rounds):
            once(nth)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        # Python's own caches of names, bytecode and threads fill in the first half, and a table now and then grows later.
        sizes, tensors = [kept(count // 2)], live_tensors()
        sizes += [kept(window := max(1, count // 12)) for _ in range(6)]
    finally:
        tracemalloc.stop()
    assert live_tensors() == tensors, f"{live_tensors() - tensors} tensors more in {6 * window} rounds"
    # What is kept of every round grows in every window; one window may give back what Python's own caches had. One hook kept a round is above that.
    grown = sorted(later - earlier for earlier, later in itertools.pairwise(sizes))
    assert grown[1] < 300 * window, f"{grown} bytes grown in windows of {window} rounds"


ROWS: dict[int, tuple[Callable[[int], None], int, int]] = {
    1: (row_1, 60, 10_000),
    2: (row_2, 15, 1_000),
    3: (row_3, 8, 300),
    4: (row_4, 20, 500),
    5: (row_5, 6, 1_000),
    6: (row_6, 4, 90),
    7: (row_7, 18, 600),
    8: (row_8, 16, 500),
    9: (row_9, 12, 200),
    10: (row_10, 4, 40),
    11: (row_11, 3, 20),
    12: (row_12, 2, 10),
    13: (row_13, 16, 2_000),
    14: (row_14, 160, 1_000),
    15: (hostile.row_15, 200, 3_000),
    17: (hostile.row_17, 60, 1_000),
    18: (hostile.row_18, 60, 100),
    19: (hostile.row_19, 60, 100),
    20: (row_20, 4, 500),
    21: (row_21, 8, 50),
    22: (row_22, 150, 5_000),
    23: (row_23, 4, 200),
    24: (row_24, 40, 1_000),
    25: (row_25, 2, 600),
    26: (soaking.row_26, 1_500, 1_000_000),
}


def main() -> None:
    """Run rows at their full counts, or one at a count that is told."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--row", type=int, choices=sorted(ROWS), action="append", help="rows to run; all when left out")
    parser.add_argument("--count", type=int, help="rounds; the scoreboard's count when left out")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for number in given.row or sorted(ROWS):
        run, _, full = ROWS[number]
        run(given.count or full)
        print(f"row {number:2d} held {given.count or full} times: {(run.__doc__ or '').strip()}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
