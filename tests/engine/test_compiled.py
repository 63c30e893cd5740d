"""Networks compiled with taps: as the live edits and captures to the last bit, changed without compiling anew."""

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch._dynamo.utils import counters

import innerview as iv
from innerview.errors import CaptureError, EditError
from tests.dictionaries.made import dictionary
from tests.networks import blocks, direction, hook_ids, ids, opened, ragged

SITES = ["blocks.1.resid", "logits"]


@pytest.fixture(autouse=True)
def nothing_is_compiled_yet() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def made(model: iv.Model, backend: str | Callable[..., Any] = "eager", **options: Any) -> iv.Compiled:
    """The network compiled with taps at two sites, two more copied."""
    places = ["blocks.0.resid", "blocks.1.attn.heads"]
    return iv.compiled(model, places, capture=SITES, rows=3, tokens=16, backend=backend, **options)


def same(one: iv.Activations, other: iv.Activations, limit: float = 0.0) -> bool:
    """Whether two captures agree on their real tokens."""
    assert one.mask is not None and other.mask is not None and torch.equal(one.mask, other.mask)
    for site in SITES:
        x, y = one[site][one.mask], other[site][one.mask]
        assert torch.equal(x, y) if limit == 0.0 else ((x - y).abs().max() / y.abs().max() < limit), site
    return True


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_compiled_network_is_edited_and_captured_as_the_plain_one(model: iv.Model, backend: str) -> None:
    x, steps = ids(2, 5), [0.5, -2.0, 7.0]
    plain = iv.capture(model, x, SITES)
    edits = [[iv.Add(direction("blocks.0.resid", seed=s), step)] for s, step in enumerate(steps)]
    wanted = [iv.capture(model, x, SITES, edits=e) for e in edits]
    live = made(model, backend)
    assert same(live.capture(x), plain)
    graphs = dict(counters["stats"])
    assert graphs["unique_graphs"] == 1 and not counters["graph_break"]
    for e, acts in zip(edits, wanted, strict=True):
        live.set(e)
        assert live.edits == tuple(e) and same(live.capture(x), acts)
    live.set([])
    assert same(live.capture(x), plain)
    # Three other vectors and strengths, and none: the code of the first call did it all.
    assert dict(counters["stats"]) == graphs


def test_tokens_and_schedules_are_data_too(model: iv.Model) -> None:
    rows = ragged((5, 3, 4))
    wheres = [
        iv.Where(), iv.Where(positions=-1), iv.Where(positions=(0, 2)), iv.Where(scope="prompt"), iv.Where(tokens=[rows[1][1]]),
        iv.Where(schedule=iv.Ramp(4)),
    ]  # fmt: skip
    edits = [[iv.Add(direction("blocks.0.resid"), 0.5, where=where)] for where in wheres]
    wanted = [iv.capture(model, rows, SITES, edits=e) for e in edits]
    live = made(model)
    live.capture(rows)
    graphs = dict(counters["stats"])
    for e, acts in zip(edits, wanted, strict=True):
        live.set(e)
        assert same(live.capture(rows), acts)
    assert dict(counters["stats"]) == graphs


def test_heads_and_several_edits_at_a_site(model: iv.Model) -> None:
    x = ids(2, 5)
    edits = [
        iv.Add(direction("blocks.1.attn.heads"), 0.3), iv.Add(direction("blocks.0.resid"), 0.2),
        iv.Add(direction("blocks.0.resid", seed=1), -0.4, where=iv.Where(positions=(0, 1))),
    ]  # fmt: skip
    wanted = iv.capture(model, x, SITES, edits=edits)
    live = made(model, slots=2)
    live.set(edits)
    assert same(live.capture(x), wanted, 1e-5)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_other_edits_are_data_too(model: iv.Model, backend: str) -> None:
    x = ids(2, 5)
    d, other = direction("blocks.0.resid"), direction("blocks.0.resid", seed=1)
    last = iv.Where(positions=-1)
    edits: list[list[iv.Edit]] = [
        [iv.ProjectOut(d)], [iv.Scale(3.0, d)], [iv.Scale(0.25, d, where=last)], [iv.Scale(0.3, site="blocks.0.resid")],
        [iv.Cap(d, at_most=-2.0)], [iv.Cap(d, at_least=2.5, at_most=2.6, where=last)], [iv.Cap(d, at_least=2.0, unit="raw")],
        [iv.Scale(0.5, site="blocks.0.resid", where=iv.Where(schedule=iv.Ramp(4)))], [iv.ProjectOut([d, other])],
        [iv.Add(d, 0.5), iv.ProjectOut(other), iv.Cap(d, at_most=0.3)], [iv.Cap(d, at_most=0.3), iv.Add(d, 0.5), iv.Scale(2.0, other)],
    ]  # fmt: skip
    plain = iv.capture(model, x, SITES)
    wanted = [iv.capture(model, x, SITES, edits=e) for e in edits]
    live = made(model, backend, slots=3)
    assert same(live.capture(x), plain)
    graphs = dict(counters["stats"])
    for e, acts in zip(edits, wanted, strict=True):
        live.set(e)
        assert same(live.capture(x), acts, 1e-5), e[0].label
        assert not torch.allclose(acts["logits"], plain["logits"], atol=1e-3), e[0].label
    # Every kind, strength, order and number of them: the code of the first call did it all.
    assert dict(counters["stats"]) == graphs and graphs["unique_graphs"] == 1


def feature(architecture: str, n: int = 1) -> tuple[list[iv.Edit], iv.Dictionary]:
    """Edits of features that are active at some of the tokens, and their dictionary."""
    sae = dictionary(architecture, site="blocks.0.resid", seed=2)
    told: list[int] = list(range(3, 3 + n))
    return [sae.clamp(told, 40.0), sae.clamp(told, 0.0), sae.scale(told, 9.0), sae.ablate(told)], sae


@pytest.mark.parametrize("architecture", ["relu", "jump_relu", "batch_top_k"])
def test_a_feature_that_is_set_is_data_too(architecture: str) -> None:
    model, x = opened("llama"), ids(3, 12)
    edits, _ = feature(architecture)
    plain = iv.capture(model, x, SITES)
    wanted = [iv.capture(model, x, SITES, edits=[one]) for one in edits]
    live = made(model, slots=2)
    live.capture(x)
    graphs = dict(counters["stats"])
    for one, acts in zip(edits, wanted, strict=True):
        live.set([one])
        assert same(live.capture(x), acts, 1e-5), one.label
        assert not torch.allclose(acts["logits"], plain["logits"], atol=1e-4), one.label
    live.set([])
    two = [edits[0], iv.Add(direction("blocks.0.resid"), 0.2)]
    both = iv.capture(model, x, SITES, edits=two)
    live.set(two)
    assert same(live.capture(x), both, 1e-5) and dict(counters["stats"]) == graphs


@pytest.mark.parametrize(("architecture", "n"), [("gated", 1), ("top_k", 1), ("relu", 2)])
def test_features_that_take_more_than_one_reading_are_refused(architecture: str, n: int) -> None:
    edits, _ = feature(architecture, n)
    live = made(opened("gpt2"))
    with pytest.raises(EditError, match="one feature that is set where it is read and competes with none"):
        live.set(edits[:1])


def test_one_edit_alone_is_the_live_one_to_the_last_bit(typed: iv.Model) -> None:
    x, d = ids(2, 5), direction("blocks.0.resid")
    edits = [
        iv.Add(d, 0.5), iv.ProjectOut(d), iv.Scale(3.0, d), iv.Scale(0.3, site="blocks.0.resid"), iv.Cap(d, at_most=-2.0),
    ]  # fmt: skip
    wanted = [iv.capture(typed, x, SITES, edits=[e]) for e in edits]
    live = made(typed)
    for e, acts in zip(edits, wanted, strict=True):
        live.set([e])
        assert same(live.capture(x), acts)


def test_an_infinite_activation_keeps_its_other_numbers_under_an_addition(model: iv.Model) -> None:
    d = direction("blocks.0.resid")
    live = made(model)
    live.set([iv.Add(d, 0.5)])
    x = torch.zeros(1, 1, d.vector.numel())
    x[..., 0] = torch.inf
    found = live.taps.taps["blocks.0.resid"].passed(x)
    assert torch.equal(found, iv.Add(d, 0.5).apply(x)) and bool(torch.isfinite(found[..., 1:]).all())


def test_a_direction_of_one_head_is_added_to_each_and_not_read_in_each(model: iv.Model) -> None:
    x = ids(2, 5)
    d = iv.Direction.from_vector(
        torch.randn(8, generator=torch.Generator().manual_seed(2)), "blocks.1.attn.heads", name="d"
    )
    wanted = iv.capture(model, x, SITES, edits=[iv.Add(d, 0.3, unit="raw")])
    live = made(model)
    live.set([iv.Add(d, 0.3, unit="raw")])
    assert same(live.capture(x), wanted, 1e-5)
    with pytest.raises(EditError, match=r"d taken out at blocks.1.attn.heads reads each head by itself"):
        live.set([iv.ProjectOut(d)])


@pytest.mark.skipif(
    "INNERVIEW_INDUCTOR" not in os.environ,
    reason="inductor compiles for minutes on two cores: it did not run; set INNERVIEW_INDUCTOR=1",
)
def test_inductor_agrees() -> None:
    model, x = opened("llama", layers=2), ids(1, 5)
    edits = [iv.Add(direction("blocks.0.resid"), 0.5)]
    plain, wanted = iv.capture(model, x, SITES), iv.capture(model, x, SITES, edits=edits)
    live = made(model, "inductor")
    assert same(live.capture(x), plain, 1e-5)
    graphs = counters["stats"]["unique_graphs"]
    live.set(edits)
    assert same(live.capture(x), wanted, 1e-5)
    assert counters["stats"]["unique_graphs"] == graphs


def test_a_stream_that_a_block_holds_is_edited_too(model: iv.Model) -> None:
    x, edits = ids(2, 5), [iv.Add(direction("blocks.1.resid_mid"), 0.3)]
    wanted = iv.capture(model, x, SITES, edits=edits)
    live = iv.compiled(model, "blocks.1.resid_mid", capture=SITES, rows=2, tokens=8, backend="aot_eager")
    live.set(edits)
    assert same(live.capture(x), wanted, 1e-6)


def test_the_compiled_module_is_called_as_the_networks_own(model: iv.Model) -> None:
    x, edits = ids(2, 4), [iv.Add(direction("blocks.0.resid"), 0.5)]
    live = made(model)
    live.set(edits)
    with torch.no_grad():
        ours, own = live(x).logits, live.module(input_ids=x, use_cache=False).logits
        eager = model.module(input_ids=x, use_cache=False).logits
    assert torch.equal(ours, own) and torch.equal(eager, ours)


def test_taps_come_out_again_and_are_not_shared_with_copies(model: iv.Model) -> None:
    before, x = hook_ids(model.module), ids(1, 4)
    with torch.no_grad():
        plain = model.module(x).logits
    live = made(model)
    twin = copy.deepcopy(model.module)
    live.set([iv.Add(direction("blocks.0.resid"))])
    with torch.no_grad():
        assert torch.equal(twin(x).logits, plain) and not torch.equal(model.module(x).logits, plain)
    live.remove()
    live.remove()
    assert hook_ids(model.module) == before
    with torch.no_grad():
        assert torch.equal(model.module(x).logits, plain)


def test_what_compiled_taps_cannot_do_is_refused(model: iv.Model) -> None:
    live = made(model)
    d = direction("blocks.0.resid")
    for edits, message in (
        (
            [iv.Replace(d.vector, site="blocks.0.resid")],
            r"takes Add at one strength, ProjectOut, Scale, Cap, and one feature that is set where it is read and competes with none, not",
        ),
        ([iv.Add(d, [1.0, 2.0])], r"a compiled network takes Add at one strength"),
        ([iv.Add(d, neurons=(1,))], r"on whole activations"),
        ([iv.Add(d, where=iv.Where(condition=d.reading() > 0.0))], r"on no condition"),
        (
            [iv.Add(direction())],
            r"no tap was put in at 'blocks.1.resid' before compiling; edits may stand at blocks.0.resid, blocks.1.attn.heads",
        ),
        (
            [iv.Add(d), iv.Add(d)],
            r"1 edits fit at 'blocks.0.resid', and these take 2 slots; compile with slots=2 or more",
        ),
    ):
        with pytest.raises(EditError, match=message):
            live.set(edits)
    assert live.edits == ()
    for given in (ids(4, 5), ids(1, 17)):
        with pytest.raises(CaptureError, match=r"these taps were made for 3 rows of 16 tokens, and the inputs have"):
            live(given)
    with pytest.raises(CaptureError, match=r"no site to put taps at; name at least one"):
        iv.compiled(model)
    with pytest.raises(EditError, match=r"would not reach all that reads it; edit 'blocks.0.attn.in' instead"):
        iv.compiled(model, "blocks.0.norm1.scale")
    with pytest.raises(CaptureError, match=r"a tap at 'blocks.0.attn.pattern' needs to know its size"):
        iv.compiled(model, capture="blocks.0.attn.pattern")
    alone = iv.compiled(model, "blocks.0.resid", backend="eager")
    with pytest.raises(CaptureError, match=r"no site is copied in this compiled network; compile it with capture="):
        alone.capture(ids(1, 3))
    blocks(model.module)[2].compile(backend="eager")
    with pytest.raises(EditError, match=r"was compiled before this hook came"):
        iv.compiled(model, "blocks.2.resid")


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("when", ["called before", "wrapped before", "wrapped inside"])
@pytest.mark.parametrize("how", ["block", "attachment"])
def test_a_forward_through_a_compiled_wrapper_is_refused_under_edits(when: str, how: str) -> None:
    model, x = opened("gpt2", layers=2), ids(1, 4)
    before = hook_ids(model.module)
    with torch.no_grad():
        plain = model.module(x).logits
    wrapper: Any = None if when == "wrapped inside" else torch.compile(model.module, backend="eager")
    if when == "called before":
        with torch.no_grad():
            wrapper(x)
    message = r"comes through torch.compile, and compiled code ignores hooks that came later; call the original module"

    def call() -> Tensor:
        made_now = torch.compile(model.module, backend="eager") if wrapper is None else wrapper
        with torch.no_grad():
            return made_now(x).logits

    if how == "block":
        with pytest.raises(EditError, match=message), iv.editing(model, [iv.Add(direction("blocks.1.mlp.out"))]):
            call()
    else:
        handle = iv.attach(model, [iv.Add(direction("blocks.1.mlp.out"))])
        with pytest.raises(EditError, match=message):
            call()
        handle.detach()
    assert hook_ids(model.module) == before
    assert torch.allclose(call(), plain, atol=1e-5)
    with iv.editing(model, [iv.Add(direction("blocks.1.mlp.out"))]), torch.no_grad():
        assert not torch.allclose(model.module(x).logits, plain, atol=1e-2)


@pytest.mark.parametrize("how", ["wrapped", "compiled in place", "forward compiled", "class's forward compiled"])
@pytest.mark.parametrize("place", ["root", "block"])
def test_each_way_to_compile_is_told_apart_from_the_root(how: str, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = opened("gpt2", layers=2)
    root = model.module
    part = root if place == "root" else blocks(root)[1]
    if how == "wrapped":
        wrapped = torch.compile(part, backend="eager")
        if place == "root":
            model = iv.open_model(wrapped)
        else:
            blocks(root)[1] = wrapped
    elif how == "compiled in place":
        part.compile(backend="eager")
    elif how == "forward compiled":
        part.forward = torch.compile(part.forward, backend="eager")
    else:
        monkeypatch.setattr(type(part), "forward", torch.compile(type(part).forward, backend="eager"))
    for use in (
        lambda: iv.capture(model, ids(1, 3), "blocks.1.mlp.out"),
        lambda: iv.capture(model, ids(1, 3), "blocks.1.attn.pattern"),
        lambda: iv.attach(model, [iv.Add(direction("blocks.1.mlp.out"))]),
        lambda: iv.generate(model, [[5, 6]], edits=[iv.Add(direction("blocks.1.mlp.out"))]).wait(),
        lambda: iv.generate(model, [[5, 6]], capture="blocks.1.mlp.out").wait(),
    ):
        with pytest.raises(EditError, match=r"was compiled before this hook came, and compiled code ignores it"):
            use()


def test_edits_of_several_networks_stay_apart() -> None:
    one, two, x = opened("gpt2"), opened("gpt2", seed=1), ids(1, 4)
    wanted: list[Tensor] = [iv.capture(m, x, "logits")["logits"] for m in (one, two)]
    lives = [made(m) for m in (one, two)]
    lives[0].set([iv.Add(direction("blocks.0.resid"))])
    assert not torch.equal(lives[0].capture(x)["logits"], wanted[0])
    assert torch.equal(lives[1].capture(x)["logits"], wanted[1])
