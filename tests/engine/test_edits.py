"""What an edit computes, against the formula in float64, and what it refuses."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import DirectionError, EditError
from tests.networks import direction, ids, opened

DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def sample(dtype: torch.dtype, shape: tuple[int, ...] = (2, 3, 32)) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("unit", "size"), [("step", 40.0), ("raw", 1.0), ("residual", 80.0)])
def test_adding_goes_a_known_length_along_the_vector(dtype: torch.dtype, unit: Any, size: float) -> None:
    x, d = sample(dtype), direction()
    found = iv.Add(d, -1.5, unit=unit).apply(x, None)
    assert found.dtype == dtype
    assert torch.equal(found, x + (d.vector.double() * -1.5 * size).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_projecting_out_leaves_nothing_along_the_direction(dtype: torch.dtype) -> None:
    x, d = sample(dtype) * 50, direction()
    found = iv.ProjectOut(d).apply(x, None)
    exact = x.double() - (x.double() @ d.vector.double())[..., None] * d.vector.double()
    bound = {torch.float32: 1e-4, torch.float16: 0.1, torch.bfloat16: 0.6}[dtype]
    assert found.dtype == dtype and (found.double() - exact).abs().max() < bound
    assert (exact - x.double()).abs().max() > 1


@pytest.mark.parametrize("shape", [(32,), (1, 1, 32), (2, 1, 32), (2, 3, 32), ()])
def test_replacing_puts_the_value_in(shape: tuple[int, ...]) -> None:
    x, value = sample(torch.bfloat16), torch.randn(shape)
    found = iv.Replace(value, site="blocks.1.resid").apply(x, None)
    assert torch.equal(found, value.to(torch.bfloat16).expand(2, 3, 32)) and found.dtype == torch.bfloat16


def test_rows_of_a_replaced_value_repeat_for_beams() -> None:
    x, value = torch.zeros(6, 2, 4), torch.tensor([1.0, 2.0]).view(2, 1, 1)
    assert iv.Replace(value, site="s").apply(x, None)[:, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("kind", ["add", "project out", "replace"])
def test_a_share_scales_the_change_token_by_token(kind: str) -> None:
    x, d = sample(torch.float32), direction()
    edit: Any = {"add": iv.Add(d), "project out": iv.ProjectOut(d), "replace": iv.Replace(torch.ones(32), site="s")}[
        kind
    ]
    share = torch.tensor([[0.0, 0.5, 1.0]]).expand(2, 3)
    wanted = x + share[..., None] * (edit.apply(x, None) - x)
    assert torch.allclose(edit.apply(x, share), wanted, atol=1e-4)


def test_heads_are_edited_flat_or_head_by_head() -> None:
    x = sample(torch.float32, (2, 3, 4, 8))
    flat, one = direction(width=32), direction(width=8)
    assert torch.allclose(iv.Add(flat).apply(x, None).flatten(2), x.flatten(2) + flat.vector * 40, atol=1e-5)
    assert torch.allclose(iv.Add(one).apply(x, None), x + one.vector * 40, atol=1e-5)
    out = iv.ProjectOut(one).apply(x, None)
    assert (out @ one.vector).abs().max() < 1e-5


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize(
    "site", ["attn.q", "attn.k", "attn.v", "attn.heads", "mlp.hidden", "mlp.pre", "attn.in", "mlp.out", "resid_in"]
)
def test_every_kind_of_site_takes_an_edit_that_reaches_the_logits(family: str, site: str) -> None:
    model, x = opened(family), ids(2, 4)
    name = f"blocks.1.{site}"
    sizes = model.site(name).sizes
    width = math.prod(sizes)
    d = iv.Direction.from_vector(torch.randn(width, generator=torch.Generator().manual_seed(1)), name, scale=30.0)
    with iv.editing(model, [iv.Add(d)]), torch.no_grad():
        edited = model.module(x).logits
        at = iv.capture(model, x, name)[name]
    plain = iv.capture(model, x, name)[name]
    assert torch.allclose(at, plain + (d.vector * 30.0).view(sizes), atol=1e-4)
    with torch.no_grad():
        # Softmax does not see a shift of all keys alike; in Llama the rotation turns it into different ones.
        is_seen = (family, site) != ("gpt2", "attn.k")
        assert torch.allclose(edited, model.module(x).logits, atol=1e-2) is not is_seen


def test_one_part_of_a_fused_projection_is_edited_alone() -> None:
    model, x = opened("gpt2"), ids(1, 4)
    sites = [f"blocks.0.attn.{p}" for p in "qkv"]
    d = iv.Direction.from_vector(torch.ones(32), sites[1], scale=5.0)
    plain, edited = iv.capture(model, x, sites), iv.capture(model, x, sites, edits=[iv.Add(d)])
    assert torch.equal(plain[sites[0]], edited[sites[0]]) and torch.equal(plain[sites[2]], edited[sites[2]])
    assert not torch.equal(plain[sites[1]], edited[sites[1]])


def test_edits_keep_their_numbers_when_what_they_came_from_changes() -> None:
    vector, value = torch.ones(32), torch.ones(32)
    add = iv.Add(iv.Direction.from_vector(vector, "s"))
    put = iv.Replace(value, site="s")
    x = torch.zeros(1, 1, 32)
    before = add.apply(x, None).clone(), put.apply(x, None).clone()
    vector.mul_(-9), value.mul_(-9)
    assert torch.equal(add.apply(x, None), before[0]) and torch.equal(put.apply(x, None), before[1])


@pytest.mark.parametrize(
    "edit",
    [
        iv.Add(direction(), 2.5, unit="raw", where=iv.Where(positions=(1, -2), scope="prompt")),
        iv.ProjectOut(direction(), site="blocks.*.resid"),
        iv.Replace(
            torch.tensor([1.0, 2.0]), site="blocks.0.resid", where=iv.Where(steps=range(3), schedule=iv.Ramp(4))
        ),
        iv.Add(direction(), where=iv.Where(scope="generated", schedule=iv.Decay(2.5))),
    ],
)
def test_the_code_of_an_edit_builds_it_again(edit: Any) -> None:
    again = eval(edit.to_code(), {"iv": iv})
    assert (again.label, again.site, again.where) == (edit.label, edit.site, edit.where)
    x = sample(torch.float32, (1, 2, 2 if isinstance(edit, iv.Replace) else 32))
    assert torch.equal(again.apply(x, None), edit.apply(x, None))


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: iv.Add("mood"), EditError, r"Add takes a Direction, not str; make one with iv.contrast"),
        (lambda: iv.Add(direction(), math.nan), EditError, r"a coefficient is a finite number, not nan"),
        (lambda: iv.Add(direction(), math.inf), EditError, r"a coefficient is a finite number, not inf"),
        (lambda: iv.Add(direction(), "2"), EditError, r"a coefficient is a finite number, not '2'"),
        (lambda: iv.Add(direction(), unit="steps"), EditError, r"no unit 'steps'; it is one of step, raw, residual"),
        (lambda: iv.Add(direction(), where=3), EditError, r"where= takes a Where such as .*, not 3"),
        (
            lambda: iv.Replace(torch.tensor([math.nan]), site="s"),
            EditError,
            r"the value to put at 's' holds NaN or infinity",
        ),
        (
            lambda: iv.Add(iv.Direction(torch.eye(3)[0], "s", name="x")),
            DirectionError,
            r"'x' has no natural step; use unit='raw'",
        ),
        (lambda: iv.Where(scope="later"), EditError, r"no scope 'later'; it is one of all, prompt, generated"),
        (lambda: iv.Where(positions=1.5), EditError, r"positions are whole numbers, not 1.5 of type float"),
        (lambda: iv.Where(positions=[]), EditError, r"positions are whole numbers, at least one, not \[\]"),
        (lambda: iv.Where(positions="1"), EditError, r"positions are whole numbers, not '1'"),
        (lambda: iv.Where(steps=-1), EditError, r"generated steps count from 0, not -1"),
        (lambda: iv.Where(steps=1, scope="prompt"), EditError, r"scope='prompt' leaves none; drop one of the two"),
        (
            lambda: iv.Where(schedule="2"),
            EditError,
            r"a schedule is Constant, Ramp\(steps\), Decay\(half_life\).*not '2'",
        ),
        (lambda: iv.Ramp(0), EditError, r"a ramp takes .*at least 1.*, not 0"),
        (lambda: iv.Decay(0), EditError, r"a half-life is .*above 0.*, not 0"),
        (
            lambda: iv.Direction.from_vector(torch.zeros(4), "s", name="x"),
            DirectionError,
            r"'x' is zero .*so it points nowhere",
        ),
        (lambda: iv.Direction.from_vector([1.0, math.nan], "s"), DirectionError, r"holds NaN or infinity"),
        (lambda: iv.Direction(torch.ones(4), "s"), DirectionError, r"has length 2, not 1; use Direction.from_vector"),
        (lambda: iv.Direction.from_vector([1.0], "s", scale=0.0), DirectionError, r"must be above 0 and finite"),
        (lambda: iv.Direction.from_code("nonsense"), DirectionError, r"the text is damaged"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_value_and_a_way_out(make: Any, kind: type, message: str) -> None:
    with pytest.raises(kind, match=message):
        make()


def test_a_replaced_value_of_the_wrong_shape_is_refused_when_it_meets_the_activation() -> None:
    model = opened("gpt2")
    with pytest.raises(
        EditError, match=r"a value of shape \[7\] does not fit 'blocks.1.resid' of shape \[1, 3, 32\]; give one"
    ):
        iv.capture(model, ids(1, 3), "logits", edits=[iv.Replace(torch.zeros(7), site="blocks.1.resid")])


@pytest.mark.parametrize("cache", ["dynamic", "static", "none"])
@pytest.mark.parametrize("schedule", [iv.Ramp(3), iv.Decay(1.0)])
def test_a_schedule_counts_generated_steps_with_and_without_a_cache(cache: Any, schedule: Any) -> None:
    model, d = opened("llama"), direction("blocks.1.resid")
    edits = [iv.Add(d, 2.0, where=iv.Where(scope="generated", schedule=schedule))]
    run = iv.generate(model, [[5, 6, 7]], max_new_tokens=5, edits=edits, cache=cache)
    run.wait()
    fed = [5, 6, 7, *run.tokens_so_far[0][:-1]]
    shares = [0.0] * 3 + [(min(1, (s + 1) / 3) if isinstance(schedule, iv.Ramp) else 0.5**s) for s in range(4)]
    # The same strengths, token by token, each by an edit of its own position.
    whole = [iv.Add(d, 2.0 * share, where=iv.Where(positions=p)) for p, share in enumerate(shares) if share]
    last = iv.capture(model, [fed], "logits", edits=whole)["logits"][0]
    assert last[2:].argmax(-1).tolist() == run.tokens_so_far[0]


def test_directions_travel_as_code_to_the_last_bit() -> None:
    d = direction(name="good ␣ mood")
    again = eval(d.to_code(), {"iv": iv})
    assert torch.equal(again.vector, d.vector) and again.to_dict() == d.to_dict()
    assert (-d).vector.equal(-d.vector) and d.named("other").name == "other" and d.name == "good ␣ mood"
    assert d.length(2.0) == 80.0 and d.length(2.0, "raw") == 2.0 and d.length(2.0, "residual") == 160.0
