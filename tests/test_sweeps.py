"""Sweeps: the numbers against hand-written hooks, rows that do not touch one another, and stops that keep what was measured."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from tests import networks
from tests.networks import blocks, direction, opened, ragged

STRENGTHS = [-1.5, 0.0, 0.5, 2.0]
ROWS = ragged((5, 3, 7, 2))


def by_hand(model: iv.Model, row: list[int], layer: int, delta: Tensor) -> Tensor:
    """Logits of one row alone with a vector added behind a block, by a plain hook; float64 log-probabilities."""

    def hook(_: nn.Module, args: tuple, out: Any) -> Any:
        return (out[0] + delta, *out[1:]) if isinstance(out, tuple) else out + delta

    handle = blocks(model.module)[layer].register_forward_hook(hook)
    try:
        with torch.no_grad():
            return model.module(input_ids=torch.tensor([row])).logits[0].double()
    finally:
        handle.remove()


@pytest.mark.parametrize("family", networks.FAMILIES)
def test_effect_cost_and_perplexity_are_those_of_hooks_by_hand(family: str) -> None:
    model, d = opened(family), direction(size=4.0)
    found = iv.sweep(model, ROWS, iv.Add(d), STRENGTHS, metric=iv.logit_difference(5, [6, 7, 8, 9]), batch_size=3)
    assert found.is_whole and found.values.shape == (4, 4)
    for i, strength in enumerate(STRENGTHS):
        for j, row in enumerate(ROWS):
            plain = by_hand(model, row, 1, torch.zeros(networks.WIDTH))
            edited = by_hand(model, row, 1, strength * 4.0 * d.vector)
            assert found.values[i, j] == pytest.approx(float(edited[-1, 5] - edited[-1, 6 + j]), abs=1e-4)
            p, q = edited.log_softmax(-1), plain.log_softmax(-1)
            assert found.cost is not None and found.perplexity is not None
            assert found.cost[i, j] == pytest.approx(float((p.exp() * (p - q)).sum(-1).mean()), abs=1e-4)
            told = p[:-1].gather(1, torch.tensor(row[1:])[:, None]).mean()
            assert found.perplexity[i, j] == pytest.approx(math.exp(-float(told)), rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_the_size_of_the_batches_changes_nothing(batch_size: int) -> None:
    model, d = opened("llama"), direction(size=4.0)
    # The order of the prompts is known to a function of the logits, however they are batched.
    answers = torch.tensor([11, 12, 13, 14])

    def metric(logits: Tensor) -> Tensor:
        return logits[:, -1].gather(1, answers[:, None])[:, 0]

    found = iv.sweep(model, ROWS, iv.Add(d), STRENGTHS, metric=metric, batch_size=batch_size)
    for j, row in enumerate(ROWS):
        for i, strength in enumerate(STRENGTHS):
            assert found.values[i, j] == pytest.approx(
                float(by_hand(model, row, 1, strength * 4.0 * d.vector)[-1, 11 + j]), abs=1e-4
            )


def test_positions_and_schedules_of_the_edit_hold_in_every_row() -> None:
    model, d = opened("gpt2"), direction(size=4.0)
    edit = iv.Add(d, where=iv.Where(positions=-1))
    found = iv.sweep(model, ROWS, edit, [1.0, 3.0], metric=iv.token_probability([5, 6]))
    for i, strength in enumerate((1.0, 3.0)):
        alone = [iv.capture(model, [row], "logits", edits=[edit.with_coefficient(strength)]) for row in ROWS]
        chances = [acts["logits"][0, -1].softmax(-1)[[5, 6]].sum() for acts in alone]
        torch.testing.assert_close(found.values[i].float(), torch.stack(chances), atol=1e-5, rtol=1e-4)
    # A change at the last token alone moves one of its row's distributions.
    assert found.cost is not None
    longer = iv.sweep(model, ROWS, iv.Add(d), [1.0], metric=iv.token_probability(5)).cost
    assert longer is not None and (longer[0] > found.cost[0]).all()


def _score(x: Tensor) -> Tensor:
    return x.sum(dim=-1).tanh()


@pytest.mark.parametrize(
    "edit",
    [
        iv.Cap(direction(size=4.0), at_most=0.0),
        iv.Scale(2.0, site="blocks.1.attn.heads", heads=[1, 3]),
        iv.Scale(2.0, direction()),
        iv.Rotate(direction(), 30.0),
        iv.Transport(torch.linspace(0.5, 1.5, networks.WIDTH), torch.zeros(networks.WIDTH), site="blocks.*.resid"),
        iv.GradientSteer(_score, site="blocks.0.mlp.out", is_unit=True),
        iv.Add(direction(size=4.0), where=iv.Where(condition=direction(seed=2).reading() > 0)),
        iv.Add(direction(size=4.0), where=iv.Where(tokens=["w3", "w20", "w40"], schedule=0.5)),
    ],
    ids=lambda edit: edit.label,
)
def test_every_edit_with_a_strength_is_swept_as_if_each_strength_were_alone(edit: Any) -> None:
    model, strengths = opened("llama"), [-1.0, 0.5, 3.0]
    found = iv.sweep(model, ROWS, edit, strengths, metric=iv.logit_difference(5, 6), batch_size=100)
    for i, strength in enumerate(strengths):
        for j, row in enumerate(ROWS):
            logits = iv.capture(model, [row], "logits", edits=[edit.with_coefficient(strength)])["logits"][0, -1]
            assert found.values[i, j] == pytest.approx(float(logits[5] - logits[6]), abs=1e-4)
    assert found.effect.abs().max() > 1e-3


def test_a_strength_of_nothing_has_no_effect_and_no_cost() -> None:
    found = iv.sweep(opened("llama"), ROWS, iv.Add(direction()), [0.0], metric=direction("blocks.2.resid", seed=3))
    assert found.cost is not None
    assert found.effect.abs().max() < 1e-5 and found.cost.max() < 1e-6


def test_a_direction_as_metric_is_its_projection_at_the_last_token() -> None:
    model, d, reading = opened("llama"), direction(), direction("blocks.2.resid", seed=3)
    found = iv.sweep(model, ROWS, iv.Add(d), [0.5], metric=reading)
    for j, row in enumerate(ROWS):
        acts = iv.capture(model, [row], "blocks.2.resid", edits=[iv.Add(d, 0.5)])
        assert found.values[0, j] == pytest.approx(float(reading.project(acts["blocks.2.resid"][0, -1])), abs=1e-4)
    same = iv.sweep(model, ROWS, iv.Add(d), [0.5], metric=reading.reading())
    assert same.values.tolist() == found.values.tolist()


def test_words_are_read_as_tokens_with_or_without_their_space() -> None:
    model = opened("gpt2")
    by_word = iv.sweep(model, "w1 w2", iv.Add(direction()), [1], metric=iv.logit_difference(" w5", "w6"))
    by_id = iv.sweep(model, "w1 w2", iv.Add(direction()), [1], metric=iv.logit_difference(8, 9))
    assert by_word.values.tolist() == by_id.values.tolist()
    assert by_word.metric == "logit 'w5' − 'w6'"


def test_sets_of_tokens_may_differ_from_prompt_to_prompt() -> None:
    model, d = opened("gpt2"), direction()
    each = iv.sweep(model, ROWS[:2], iv.Add(d), [1], metric=iv.token_probability([{5, 6}, [7, 7]]))
    first = iv.sweep(model, ROWS[:2], iv.Add(d), [1], metric=iv.token_probability({5, 6}))
    second = iv.sweep(model, ROWS[:2], iv.Add(d), [1], metric=iv.token_probability(7))
    assert each.values[0].tolist() == [first.values[0, 0], second.values[0, 1]]


def test_a_network_without_tokens_is_swept_along_its_rows() -> None:
    toy = networks.toy("tuple")
    model = iv.open_model(toy)
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    d = direction("module:first", width=8, size=1.0)
    found = iv.sweep(model, x, iv.Add(d), [0, 2], metric=lambda out: out.mean(dim=(1, 2)), batch_size=2, cost=None)
    with torch.no_grad():
        middle = toy.first(x)[0]
        expected = torch.stack([toy.second(middle + c * d.vector)[0].mean(dim=(1, 2)) for c in (0, 2)])
    torch.testing.assert_close(found.values.float(), expected, atol=1e-6, rtol=1e-5)
    assert found.cost is None and "cost" not in found.frame()
    pooled = iv.open_model(Pooled(toy))
    costed = iv.sweep(pooled, x, iv.Add(direction("module:inner.first", width=8)), [0, 2], metric=lambda out: out[:, 1])
    assert costed.frame().columns.tolist()[-1] == "cost" and costed.cost is not None
    with torch.no_grad():
        plain, moved = (
            toy.second(middle + c * direction(width=8).scale * direction(width=8).vector)[0].mean(dim=1).log_softmax(-1)
            for c in (0, 2)
        )
    expected = (moved.exp() * (moved - plain)).sum(-1)
    torch.testing.assert_close(costed.cost[1].float(), expected, atol=1e-5, rtol=1e-4)


class Two(nn.Module):
    """A network of two arguments."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, left: Tensor, right: Tensor, sign: float = 1.0) -> Tensor:
        return (self.inner(left) + sign * self.inner.first.linear(right)).mean(dim=1)


def test_arguments_of_any_network_are_swept_and_patched_row_by_row() -> None:
    model = iv.open_model(Two(networks.toy("tensor")).eval())
    made = torch.Generator().manual_seed(2)
    left, right, other = (torch.randn(5, 4, 8, generator=made) for _ in range(3))
    d = direction("module:inner.second", width=8, size=1.0)
    found = [
        iv.sweep(model, given, iv.Add(d), [0, 1], metric=lambda out: out[:, 0], batch_size=2).values
        for given in ({"left": left, "right": right, "sign": 1.0}, (left, right))
    ]
    assert found[0].tolist() == found[1].tolist()
    with torch.no_grad():
        torch.testing.assert_close(found[0][0].float(), model.module(left, right)[:, 0], atol=1e-5, rtol=0)
    whole = iv.patch(model, (left, right), (other, right), "module:inner.second", metric=lambda out: out[:, 0])
    assert whole.effects.tolist() == pytest.approx([1.0] * 5, abs=1e-4)


def test_what_a_tokenizer_returns_is_read_as_texts() -> None:
    model, texts = opened("gpt2"), ["w1 w2 w3", "w4"]
    given = model.tokenizer(texts, return_tensors="pt", padding=True)
    by_ids = iv.sweep(model, given, iv.Add(direction()), [1], metric=iv.logit_difference(5, 6))
    by_text = iv.sweep(model, texts, iv.Add(direction()), [1], metric=iv.logit_difference(5, 6))
    assert by_ids.values.tolist() == by_text.values.tolist() and by_ids.prompts == by_text.prompts


def test_a_tensor_that_has_no_rows_is_refused() -> None:
    model = iv.open_model(networks.toy("tensor"))
    with pytest.raises(iv.TextError, match=r"at least one axis more, not \[8\]; give x\[None\]"):
        iv.sweep(model, torch.randn(8), iv.Add(direction("module:first", width=8)), [1], metric=lambda out: out[:, 0])


class Pooled(nn.Module):
    """A network of classes: the mean over positions of another's output."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).mean(dim=1)


class _Stops:
    """A metric that is interrupted the n-th time it is asked."""

    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, logits: Tensor) -> Tensor:
        self.n -= 1
        if self.n < 0:
            raise KeyboardInterrupt
        return logits[:, -1, 5]


def test_an_interrupt_leaves_what_was_measured_and_says_so() -> None:
    model, d = opened("llama"), direction()
    found = iv.sweep(model, ROWS, iv.Add(d), STRENGTHS, metric=_Stops(3), batch_size=4)
    whole = iv.sweep(model, ROWS, iv.Add(d), STRENGTHS, metric=lambda logits: logits[:, -1, 5], batch_size=4)
    assert not found.is_whole
    assert found.values[:2].tolist() == whole.values[:2].tolist()
    assert found.values[2:].isnan().all()
    assert "stopped: 8 of 16" in repr(found) and "stopped" in str(found.figure().layout.title.text)


def test_an_interrupt_before_anything_was_measured_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        iv.sweep(opened("llama"), ROWS, iv.Add(direction()), STRENGTHS, metric=_Stops(1), batch_size=4)


def test_sweeping_leaves_the_network_as_it_was() -> None:
    model = opened("llama")
    ids = torch.tensor([ROWS[2]])
    before, hooks = model.module(ids).logits, copy.deepcopy(networks.hook_ids(model.module))
    iv.sweep(model, ROWS, iv.Add(direction()), STRENGTHS, metric=iv.token_probability(5))
    assert torch.equal(model.module(ids).logits, before) and networks.hook_ids(model.module) == hooks


def test_a_sweep_shows_itself_as_figure_table_and_text(tmp_path: Path) -> None:
    found = iv.sweep(
        opened("llama"), ["w1 w2", "w3"], iv.Add(direction(name="<b>d")), [2, -2], metric=iv.token_probability("w5")
    )
    shown = found._repr_mimebundle_()
    figure = shown["application/vnd.plotly.v1+json"]
    assert figure["data"][-1]["text"] == ["-2", "+2"]
    assert "<b>" not in str(figure["layout"]["title"]) and "&lt;b&gt;" in str(figure["layout"]["title"])
    assert "<table" in shown["text/html"] and "2 strengths × 2 prompts" in shown["text/plain"]
    frame = found.frame()
    assert list(frame.columns) == ["strength", "prompt", "text", "metric", "effect", "cost", "perplexity_change"]
    assert len(frame) == 4 and frame["strength"].tolist() == [2, 2, -2, -2]
    # A prompt of one token has no perplexity.
    assert frame["perplexity_change"].isna().tolist() == [False, True, False, True]
    summary = found.summary()
    assert summary.index.tolist() == [2, -2] and summary["n"].tolist() == [2, 2]
    grouped = frame.groupby("strength", sort=False)
    assert summary["effect_se"].tolist() == pytest.approx(grouped["effect"].sem().tolist())
    assert summary["cost"].tolist() == pytest.approx(grouped["cost"].mean().tolist())
    assert summary["perplexity_change"].tolist() == pytest.approx(grouped["perplexity_change"].mean().tolist())
    page = found.to_html(tmp_path / "sweep.html").read_text(encoding="utf-8")
    assert "<details>" in page and 'src="http' not in page


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"strengths": []}, "no strength to sweep over: the list is empty"),
        ({"strengths": [1, math.nan]}, "a strength is a finite number, not nan"),
        ({"strengths": "12"}, "strengths are numbers such as"),
        ({"edit": iv.ProjectOut(direction())}, "has no strength to sweep over; sweep an edit that has one"),
        ({"edit": [iv.Add(direction())]}, "a sweep takes one edit such as iv.Add"),
        ({"batch_size": 0}, "batch_size is a number of rows from 1, not 0"),
        ({"cost": "mse"}, "no cost 'mse'; it is 'kl' or None"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    given = {"prompts": ROWS, "edit": iv.Add(direction()), "strengths": [1], "metric": iv.token_probability(5)} | asked
    with pytest.raises(iv.EditError, match=message):
        iv.sweep(opened("llama"), **given)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("w5", "no metric: 'w5' of type str"),
        (iv.logit_difference([5, 6], 7), "2 tokens for 4 prompts; give one for all, or one for each"),
        (iv.logit_difference({5, 6}, 7), "a set has no order"),
        (iv.logit_difference(5, 67), "no token 67: .* knows ids 0 to 66"),
        (iv.logit_difference("w5 w6", "w7"), "'w5 w6' is 2 tokens of .*: 'w5', 'w6'; .* give one of them"),
        (iv.logit_difference("never", "w7"), "'never' is no token that .* knows"),
        (iv.token_probability([]), "a set of tokens is empty"),
        (iv.token_probability([[5], [6]]), "2 sets of tokens for 4 prompts"),
        (lambda logits: logits.mean(), r"returned shape \[\] for 4 prompts; return one number a prompt, \[4\]"),
        (lambda logits: logits[:, -1], r"returned shape \[4, 67\] for 4 prompts"),
        (lambda logits: "much", "the metric returned 'much', no numbers"),
        (lambda logits: logits[:, -1, 0].log() * torch.nan, "is NaN or infinite for prompt 0"),
    ],
)
def test_a_metric_that_cannot_be_read_is_refused(metric: Any, message: str) -> None:
    with pytest.raises(iv.MetricError, match=message):
        iv.sweep(opened("llama"), ROWS, iv.Add(direction()), [1], metric=metric)
