"""Losses of architectures, and their gradients, against the papers' formulas written densely in float64."""

from collections.abc import Callable
from math import log

import pytest
import torch
from torch import Tensor, nn

import innerview as iv
from innerview.dictionaries.architectures import Architecture, Losses, Step
from innerview.dictionaries.entries import DENSE_SHARE
from innerview.dictionaries.weights import Weights

ROWS, WIDTH, FEATURES = 12, 10, 23
Formula = Callable[[dict[str, Tensor], Tensor, Tensor], dict[str, Tensor]]


@pytest.fixture(params=[0.0, 1.0], ids=["dense products", "sums over entries"], autouse=True)
def _products(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DENSE_SHARE, "cpu", request.param)


def drawn(architecture: Architecture, *, skip: bool = False) -> tuple[Weights, Tensor, Tensor]:
    """Random weights that train, an input and a target, in float64."""
    of = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=of, dtype=torch.float64)

    extras = {name: tensor.double() for name, tensor in architecture.initial_extras(FEATURES, WIDTH).items()}
    extras = {name: t if name in architecture.measured else t + 0.1 * normal(FEATURES) for name, t in extras.items()}
    weights = Weights(
        nn.Parameter(normal(FEATURES, WIDTH)), nn.Parameter(0.1 * normal(FEATURES)), nn.Parameter(normal(FEATURES, WIDTH)),
        nn.Parameter(normal(WIDTH)), nn.Parameter(normal(WIDTH, WIDTH)) if skip else None,
        {name: t if name in architecture.measured else nn.Parameter(t) for name, t in extras.items()},
    )  # fmt: skip
    x = normal(ROWS, WIDTH)
    return weights, x, x + normal(ROWS, WIDTH)


def a_step(*, dead: int = 0, step: int = 50) -> Step:
    last = torch.zeros(FEATURES, dtype=torch.int64)
    last[:dead] = 1000
    return Step(step, 100, last, 5000, 1000)


def check(architecture: Architecture, formula: Formula, step: Step, *, skip: bool = False) -> Losses:
    """The losses and the gradients of all weights, against the formula's."""
    weights, x, target = drawn(architecture, skip=skip)
    x.requires_grad_()
    found = architecture.losses(weights, x, target, step)
    named = {name: t.detach().clone().requires_grad_() for name, t in weights.tensors().items()}
    again = x.detach().clone().requires_grad_()
    wanted = formula(named, again, target)
    assert set(found.parts) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(found.parts[name], value, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(found.total, sum(wanted.values()), rtol=1e-11, atol=1e-11)
    found.total.backward()
    sum(wanted.values()).backward()  # type: ignore[union-attr]
    for name, tensor in weights.tensors().items():
        if name in architecture.measured or named[name].grad is None:
            continue
        assert tensor.grad is not None, name
        torch.testing.assert_close(
            tensor.grad, named[name].grad, rtol=1e-10, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.testing.assert_close(x.grad, again.grad, rtol=1e-10, atol=1e-10)
    return found


def error_of(w: dict[str, Tensor], codes: Tensor, x: Tensor, target: Tensor) -> Tensor:
    made = codes @ w["decoder"] + w["decoder_bias"] + (x @ w["skip"].T if "skip" in w else 0)
    return ((made - target) ** 2).sum(1).mean()


def pre_of(w: dict[str, Tensor], x: Tensor) -> Tensor:
    return x @ w["encoder"].T + w["encoder_bias"]


@pytest.mark.parametrize("skip", [False, True])
def test_relu_pays_for_codes_times_the_lengths_of_their_rows(skip: bool) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        codes = torch.relu(pre_of(w, x))
        cost = (codes * (w["decoder"] ** 2).sum(1).sqrt()).sum(1).mean() * 0.7 / WIDTH**0.5
        return {"reconstruction": error_of(w, codes, x, target), "sparsity": cost}

    found = check(iv.ReLU(l1=0.7), formula, a_step(), skip=skip)
    assert (found.codes.dense() >= 0).all()


def test_relus_penalty_climbs_from_nothing() -> None:
    weights, x, target = drawn(iv.ReLU())
    costs = [
        iv.ReLU(l1=1.0, l1_warmup=0.2).losses(weights, x, target, a_step(step=s)).parts["sparsity"]
        for s in (0, 10, 20, 90)
    ]
    assert costs[0] == 0 and torch.isclose(costs[1] * 2, costs[2]) and torch.equal(costs[2], costs[3])


def test_relu_with_rows_of_length_one_pays_for_plain_codes() -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        codes = torch.relu(pre_of(w, x))
        return {
            "reconstruction": error_of(w, codes, x, target),
            "sparsity": codes.sum(1).mean() * 0.7 / WIDTH**0.5,
        }

    check(iv.ReLU(l1=0.7, has_unit_rows=True), formula, a_step())


def kept_of(pre: Tensor, k: int) -> Tensor:
    return torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1.0)


@pytest.mark.parametrize("dead", [0, 3, 9])
@pytest.mark.parametrize("skip", [False, True])
def test_top_k_keeps_k_and_lets_dead_features_reconstruct_the_error(dead: int, skip: bool) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        pre = pre_of(w, x)
        codes = torch.relu(pre * kept_of(pre, 4))
        parts = {"reconstruction": error_of(w, codes, x, target)}
        if dead:
            made = codes @ w["decoder"] + w["decoder_bias"] + (x @ w["skip"].T if "skip" in w else 0)
            error = (target - made).detach()
            chosen = kept_of(pre[:, :dead], min(dead, WIDTH // 2))
            by_dead = torch.relu(pre[:, :dead] * chosen) @ w["decoder"][:dead]
            parts["auxiliary"] = ((by_dead - error) ** 2).sum(1).mean() / 32
        return parts

    found = check(iv.TopK(4), formula, a_step(dead=dead), skip=skip)
    assert int((found.codes.dense() != 0).sum(1).max()) <= 4


def test_batch_top_k_keeps_k_a_row_of_the_whole_batch() -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        pre = pre_of(w, x)
        kept = torch.zeros(pre.numel(), dtype=pre.dtype).scatter(0, pre.flatten().topk(3 * ROWS).indices, 1.0)
        codes = torch.relu(pre * kept.view_as(pre))
        parts = {"reconstruction": error_of(w, codes, x, target)}
        error = (target - codes @ w["decoder"] - w["decoder_bias"]).detach()
        by_dead = torch.relu(pre[:, :2]) @ w["decoder"][:2]
        parts["auxiliary"] = ((by_dead - error) ** 2).sum(1).mean() / 32
        return parts

    found = check(iv.BatchTopK(3), formula, a_step(dead=2))
    assert int((found.codes.dense() != 0).sum()) == 3 * ROWS


def test_batch_top_ks_threshold_is_the_running_mean_of_the_smallest_kept() -> None:
    architecture = iv.BatchTopK(3, threshold_rate=0.25)
    weights, x, target = drawn(architecture)
    smallest = []
    for step in range(6):
        codes = architecture.losses(weights, x + step, target, a_step(step=step)).codes.dense()
        smallest.append(float(codes[codes > 0].min()))
    wanted = sum(smallest[:4]) / 4
    for one in smallest[4:]:
        wanted = 0.75 * wanted + 0.25 * one
    torch.testing.assert_close(weights.extras["threshold"], torch.full((FEATURES,), wanted, dtype=torch.float64))


def test_a_short_trainings_threshold_is_of_its_last_batches() -> None:
    architecture = iv.BatchTopK(3)
    weights, x, target = drawn(architecture)
    last = torch.zeros(FEATURES, dtype=torch.int64)
    for step in range(20):
        grown = x * (1 + step)
        codes = architecture.losses(weights, grown, target, Step(step, 20, last, 0, 1000)).codes.dense()
    smallest = float(codes[codes > 0].min())
    # Half of a new batch counts where twenty steps are all; the mean of all would stand at about half of the last.
    assert 0.85 * smallest < float(weights.extras["threshold"][0]) <= smallest


class Rectangle(torch.autograd.Function):
    """The papers' pseudo-derivatives, dense."""

    @staticmethod
    def forward(ctx, z, theta, width, is_step):
        ctx.save_for_backward(z, theta)
        ctx.width, ctx.is_step = width, is_step
        return (z > theta).double() if is_step else z * (z > theta)

    @staticmethod
    def backward(ctx, grad):
        z, theta = ctx.saved_tensors
        u = (z - theta) / ctx.width
        kernel = ((u > -0.5) & (u < 0.5)).double()
        scale = torch.ones_like(theta) if ctx.is_step else theta
        of_theta = (-(scale / ctx.width) * kernel * grad).sum(0)
        return (None if ctx.is_step else grad * (z > theta)), of_theta, None, None


@pytest.mark.parametrize("target_l0", [None, 5.0])
def test_jump_relu_pays_for_active_features_through_a_rectangle(target_l0: float | None) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        z, theta = torch.relu(pre_of(w, x)), w["log_threshold"].exp()
        codes = Rectangle.apply(z, theta, 0.9, False)
        l0 = Rectangle.apply(z, theta, 0.9, True).sum(1).mean()
        cost = 0.3 * (l0 if target_l0 is None else (l0 / target_l0 - 1) ** 2)
        return {"reconstruction": error_of(w, codes, x, target), "sparsity": cost}

    architecture = iv.JumpReLU(l0=0.3, l0_target=target_l0, bandwidth=0.9, first_threshold=0.8)
    found = check(architecture, formula, a_step())
    weights, x, _ = drawn(architecture)
    used, finished = architecture.finished(weights, 0)
    assert torch.equal(found.codes.dense(), used.encode(finished, x))
    assert torch.allclose(iv.JumpReLU().initial_extras(3, 4)["log_threshold"], torch.full((3,), log(1.1 / 2)))
    published = iv.JumpReLU(bandwidth=0.001, first_threshold=0.001)
    assert torch.allclose(published.initial_extras(3, 2)["log_threshold"], torch.full((3,), log(0.001)))


@pytest.mark.parametrize("skip", [False, True])
def test_gated_reconstructs_through_its_gate_with_a_frozen_decoder(skip: bool) -> None:
    def formula(w: dict[str, Tensor], x: Tensor, target: Tensor) -> dict[str, Tensor]:
        gate = x @ w["encoder"].T + w["gate_bias"]
        magnitude = x @ (w["encoder"] * w["log_magnitude"].exp()[:, None]).T + w["magnitude_bias"]
        codes = (gate > 0) * torch.relu(magnitude)
        frozen = {name: tensor.detach() for name, tensor in w.items()}
        return {
            "reconstruction": error_of(w, codes, x, target),
            "sparsity": 0.2 * torch.relu(gate).sum(1).mean(),
            "auxiliary": error_of(frozen, torch.relu(gate), x, target),
        }

    found = check(iv.Gated(l1=0.2), formula, a_step(), skip=skip)
    weights, x, _ = drawn(iv.Gated(), skip=skip)
    assert torch.allclose(found.codes.dense(), iv.Gated().encode(zeroed(weights), x), atol=1e-12)


def zeroed(weights: Weights) -> Weights:
    iv.Gated().constrain(weights)
    return weights


@pytest.mark.parametrize(
    "architecture", [iv.TopK(4), iv.BatchTopK(4), iv.JumpReLU(), iv.Gated(), iv.ReLU(has_unit_rows=True)]
)
def test_decoder_rows_keep_their_length_and_their_gradients_do_not_point_along_them(architecture: Architecture) -> None:
    weights, x, target = drawn(architecture)
    architecture.constrain(weights)
    torch.testing.assert_close(weights.decoder.norm(dim=1), torch.ones(FEATURES, dtype=torch.float64))
    architecture.losses(weights, x, target, a_step()).total.backward()
    before = weights.decoder.grad.clone()  # type: ignore[union-attr]
    architecture.constrain_gradients(weights)
    along = (weights.decoder.grad * weights.decoder).sum(1)  # type: ignore[operator]
    assert along.abs().max() < 1e-12 and not torch.allclose(before, weights.decoder.grad)  # type: ignore[arg-type]


def test_an_architecture_without_a_loss_says_which_have_one() -> None:
    weights, x, target = drawn(iv.TopK(4))
    with pytest.raises(iv.DictionaryError, match=r"SemiNMF is read here, but not trained; train iv.TopK"):
        iv.SemiNMF().losses(weights, x, target, a_step())
