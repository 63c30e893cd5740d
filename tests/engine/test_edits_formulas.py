"""Each edit against its formula in float64, in three number formats, with shares, gradients, code and refusals."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import innerview as iv
from innerview.errors import EditError, SiteError
from tests.networks import direction, opened, ragged

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BOUND = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
SITE = "blocks.1.resid"
D, E = direction(), direction(seed=1, name="e")
V, W = (d.vector.double().numpy() for d in (D, E))
CENTERED = iv.Direction(D.vector, SITE, scale=2.0, center=0.5, residual_norm=3.0, name="c")
MATRIX = torch.randn(32, 32, generator=torch.Generator().manual_seed(3)) / 8
BIAS = torch.randn(32, generator=torch.Generator().manual_seed(4))


def sample(dtype: torch.dtype, shape: tuple[int, ...] = (2, 3, 32), size: float = 3.0) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * size).to(dtype)


def bowl(x: Tensor) -> Tensor:
    """A score whose gradient is known: `−‖x − 1‖² / 2` has the gradient `1 − x`."""
    return -((x - 1) ** 2).flatten(2).sum(-1) / 2


def halved(x: Tensor, context: Any) -> Tensor:
    return x / 2


def clamped(x: np.ndarray, low: float, high: float) -> np.ndarray:
    p = x @ V
    return x + (np.clip(p, low, high) - p)[..., None] * V


def across() -> np.ndarray:
    """The unit part of E's vector across D's."""
    f = W - (W @ V) * V
    return f / np.linalg.norm(f)


def in_plane(x: np.ndarray, degrees: float) -> np.ndarray:
    """The rotation as a matrix of the whole space, from D toward E."""
    basis = np.linalg.qr(np.stack([V, across(), *np.eye(32)[:30]]).T)[0]
    basis *= np.sign(np.sum(basis[:, :2] * np.stack([V, across()]).T, axis=0)).tolist() + [1] * 30
    turn, angle = np.eye(32), math.radians(degrees)
    turn[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    return x @ (basis @ turn @ basis.T).T


def toward(x: np.ndarray, degrees: float) -> np.ndarray:
    """Slerp from each unit vector to D's, by arc."""
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    unit = x / length
    omega = np.arccos(np.clip(unit @ V, -1, 1))[..., None]
    t = np.minimum(math.radians(degrees) / omega, 1.0)
    return length * (np.sin((1 - t) * omega) * unit + np.sin(t * omega) * V) / np.sin(omega)


def without(x: np.ndarray) -> np.ndarray:
    """Least squares takes the span of both out."""
    span = np.stack([V, W]).T
    return x - (span @ np.linalg.lstsq(span, x.reshape(-1, 32).T, rcond=None)[0]).T.reshape(x.shape)


def climbed(x: np.ndarray, steps: int = 3, size: float = 0.2) -> np.ndarray:
    for _ in range(steps):
        x = x + size * (1 - x)
    return x


CASES: dict[str, tuple[Any, Callable[[np.ndarray], np.ndarray]]] = {
    "add": (iv.Add(D, 0.1), lambda x: x + 4.0 * V),
    "add by row": (iv.Add(D, [0.1, -1.0], unit="raw"), lambda x: x + np.array([0.1, -1.0])[:, None, None] * V),
    "project out": (iv.ProjectOut(D), lambda x: x - (x @ V)[..., None] * V),
    "project several out": (iv.ProjectOut([D, E, D, -E]), without),
    "cap above": (iv.Cap(D, at_most=0.5, unit="raw"), lambda x: clamped(x, -np.inf, 0.5)),
    "cap below, in steps": (iv.Cap(CENTERED, at_least=1.0), lambda x: clamped(x, 0.5 + 2.0, np.inf)),
    "cap both, in norms": (iv.Cap(CENTERED, at_least=-0.1, at_most=0.2, unit="residual"), lambda x: clamped(x, -0.3, 0.6)),
    "scale": (iv.Scale(-1.5, site=SITE), lambda x: -1.5 * x),
    "scale along": (iv.Scale(3.0, D), lambda x: x + 2.0 * (x @ V)[..., None] * V),
    "replace": (iv.Replace(BIAS, site=SITE), lambda x: np.broadcast_to(BIAS.double().numpy(), x.shape)),
    "transport per neuron": (
        iv.Transport(MATRIX[0], BIAS, site=SITE), lambda x: MATRIX[0].double().numpy() * x + BIAS.double().numpy(),
    ),
    "transport in full": (
        iv.Transport(MATRIX, BIAS, 0.5, site=SITE),
        lambda x: 0.5 * x + 0.5 * (x @ MATRIX.double().numpy().T + BIAS.double().numpy()),
    ),
    "rotate in a plane": (iv.Rotate(E, 70, start=D), lambda x: in_plane(x, 70)),
    "rotate toward": (iv.Rotate(D, 30), lambda x: toward(x, 30)),
    "rotate all the way": (iv.Rotate(D, 400), lambda x: toward(x, 400)),
    "gradient": (iv.GradientSteer(bowl, 0.2, n_steps=3, site=SITE), climbed),
    "gradient of unit length": (
        iv.GradientSteer(bowl, 0.5, is_unit=True, site=SITE),
        lambda x: x + 0.5 * (1 - x) / np.linalg.norm(1 - x, axis=-1, keepdims=True),
    ),
    "custom": (iv.Custom(halved, site=SITE), lambda x: x / 2),
}  # fmt: skip
EDITS = pytest.mark.parametrize("name", CASES)


@EDITS
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edit_computes_its_formula(name: str, dtype: torch.dtype) -> None:
    edit, formula = CASES[name]
    x = sample(dtype)
    kept = x.clone()
    found, wanted = edit.apply(x), formula(x.double().numpy())
    assert found.dtype == dtype and found.shape == x.shape and torch.equal(x, kept)
    error = np.abs(found.double().numpy() - wanted).max()
    assert error <= BOUND[dtype] * np.abs(wanted).max()
    assert np.abs(wanted - x.double().numpy()).max() > 0.1, "the case must change something"


@pytest.mark.parametrize("name", [name for name in CASES if "gradient" not in name])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_edit_goes_to_the_activations_device(name: str, dtype: torch.dtype) -> None:
    edit, _ = CASES[name]
    # A device that every machine has besides the CPU; it holds no numbers, so a gradient cannot be looked at.
    found = edit.apply(sample(dtype).to("meta"), torch.ones(2, 3, device="meta"))
    assert found.device.type == "meta" and found.dtype == dtype and found.shape == (2, 3, 32)
    # What was cast for one device is not taken for another.
    assert edit.apply(sample(dtype)).device.type == "cpu"


@EDITS
def test_a_share_goes_part_of_the_way_and_none_is_nothing(name: str) -> None:
    edit, _ = CASES[name]
    x = sample(torch.float32)
    share = torch.tensor([[0.0, 0.5, 1.0], [1.0, 0.0, 0.25]])
    found, whole = edit.apply(x, share), edit.apply(x)
    assert torch.allclose(found[share == 1], whole[share == 1], atol=1e-5)
    assert torch.allclose(found[share == 0], x[share == 0], atol=1e-6)
    if isinstance(edit, iv.Rotate):
        half = iv.Rotate(edit.direction, edit.degrees / 2, start=edit.start)
        assert torch.allclose(found[0, 1], half.apply(x)[0, 1], atol=1e-5)
    elif not isinstance(edit, iv.GradientSteer) or edit.n_steps == 1:
        assert torch.allclose(found, x + share[..., None] * (whole - x), atol=1e-5)


@EDITS
def test_gradients_flow_through_an_edit(name: str) -> None:
    edit, _ = CASES[name]
    x = sample(torch.float64).requires_grad_()
    found = edit.apply(x)
    if isinstance(edit, iv.Replace):
        assert not found.requires_grad, "nothing of the activation is left"
        return
    found.sum().backward()
    assert x.grad is not None and torch.isfinite(x.grad).all()
    if isinstance(edit, iv.GradientSteer):
        # The change counts as a constant.
        assert torch.equal(x.grad, torch.ones_like(x))
    else:
        assert torch.autograd.gradcheck(edit.apply, (sample(torch.float64).requires_grad_(),), atol=1e-4)


@EDITS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_an_edit_works_where_gradients_are_off_and_then_where_they_are_on(name: str, mode: Any) -> None:
    edit, _ = CASES[name]
    wanted = edit.apply(sample(torch.float32))
    with mode():
        found = edit.apply(sample(torch.float32))
    assert torch.equal(found, wanted) and not found.requires_grad
    trained = edit.apply(sample(torch.float32).requires_grad_())
    if trained.requires_grad:
        trained.sum().backward()
    assert torch.equal(trained, wanted)


@EDITS
def test_the_code_of_every_edit_builds_it_again(name: str) -> None:
    edit, _ = CASES[name]
    for one in (edit, _restricted(edit)):
        again = eval(one.to_code(), {"iv": iv, "bowl": bowl, "halved": halved})
        x = sample(torch.float32)
        assert torch.equal(again.apply(x), one.apply(x)) and again.is_same(one)
        assert (again.label, again.site, again.where) == (one.label, one.site, one.where)
        assert (again.neurons, again.to_code()) == (one.neurons, one.to_code())


def _restricted(edit: Any) -> Any:
    namespace = {"iv": iv, "bowl": bowl, "halved": halved}
    return eval(f"{edit.to_code()[:-1]}, neurons=(0, 31))", namespace)


@EDITS
def test_only_the_neurons_that_are_named_change(name: str) -> None:
    edit, _ = CASES[name]
    x = sample(torch.bfloat16)
    whole, found = edit.apply(x), _restricted(edit).apply(x)
    assert torch.equal(found[..., [0, 31]], whole[..., [0, 31]]) and torch.equal(found[..., 1:31], x[..., 1:31])
    assert not torch.equal(found, x)


@EDITS
def test_heads_are_edited_flat_or_each_alone(name: str) -> None:
    edit, formula = CASES[name]
    x = sample(torch.float32, (2, 3, 4, 8))
    flat = torch.tensor(formula(x.flatten(2).double().numpy())).float().view(x.shape)
    assert torch.allclose(edit.apply(x), flat, atol=1e-4)
    kept = [h for h in range(4) if h not in (1, 3)]
    only = eval(f"{edit.to_code()[:-1]}, heads=(1, 3))", {"iv": iv, "bowl": bowl, "halved": halved})
    found = only.apply(x)
    assert torch.equal(found[:, :, kept], x[:, :, kept]) and torch.allclose(
        found[:, :, [1, 3]], flat[:, :, [1, 3]], atol=1e-4
    )


STRENGTHS: list[tuple[Any, float, Any]] = [
    (iv.Add(D, 0.1), -0.5, iv.Add(D, -0.5)),
    (iv.Cap(D, at_most=0.5, unit="raw"), 0.1, iv.Cap(D, at_most=0.1, unit="raw")),
    (iv.Cap(D, at_least=0.5, unit="raw"), 0.1, iv.Cap(D, at_least=0.1, unit="raw")),
    (iv.Scale(2.0, D), 0.5, iv.Scale(0.5, D)),
    (iv.Transport(MATRIX, BIAS, site=SITE), 0.5, iv.Transport(MATRIX, BIAS, 0.5, site=SITE)),
    (iv.Rotate(D, 30), 10, iv.Rotate(D, 10)),
    (iv.GradientSteer(bowl, 0.2, site=SITE), 0.1, iv.GradientSteer(bowl, 0.1, site=SITE)),
]


@pytest.mark.parametrize(("edit", "coefficient", "wanted"), STRENGTHS)
def test_another_strength_is_the_same_edit_otherwise(edit: Any, coefficient: float, wanted: Any) -> None:
    found = edit.with_coefficient(coefficient)
    assert found.to_code() == wanted.to_code() and torch.equal(
        found.apply(sample(torch.float32)), wanted.apply(sample(torch.float32))
    )
    assert found.to_code() != edit.to_code()


def test_capping_leaves_what_is_within_limits_to_the_last_bit() -> None:
    x = sample(torch.bfloat16)
    inside = (x.float() @ D.vector) < 0.5
    found = iv.Cap(D, at_most=0.5, unit="raw").apply(x)
    assert inside.any() and (~inside).any()
    assert torch.equal(found[inside], x[inside]) and not torch.equal(found[~inside], x[~inside])


def test_rotating_keeps_lengths_and_leaves_what_lies_along_the_direction() -> None:
    x = sample(torch.float64)
    for edit in (iv.Rotate(D, 35), iv.Rotate(D, -35), iv.Rotate(E, 130, start=D)):
        assert torch.allclose(edit.apply(x).norm(dim=-1), x.norm(dim=-1))
    along = torch.stack([D.vector, -D.vector, torch.zeros(32)]).double().view(1, 3, 32).requires_grad_()
    found = iv.Rotate(D, 35).apply(along)
    assert torch.equal(found, along)
    found.sum().backward()
    assert along.grad is not None and torch.isfinite(along.grad).all()


def test_a_rotation_away_ends_at_the_opposite() -> None:
    x = sample(torch.float64)
    found = iv.Rotate(D, -720).apply(x)
    assert torch.allclose(found, -x.norm(dim=-1, keepdim=True) * D.vector.double(), atol=1e-5)


def gaussians(n: int = 400, width: int = 6) -> tuple[Tensor, Tensor]:
    drawn = torch.Generator().manual_seed(5)
    mix = torch.randn(2, width, width, generator=drawn, dtype=torch.float64)
    noise = torch.randn(2, n, width, generator=drawn, dtype=torch.float64)
    return noise[0] @ mix[0] + 1.0, noise[1] @ mix[1] - 2.0


def test_full_transport_carries_mean_and_covariance_by_the_optimal_map() -> None:
    source, target = gaussians()
    edit = iv.Transport.between(source, target, SITE, full=True, ridge=0.0)
    moved = edit.apply(source[None])[0]
    assert torch.allclose(moved.mean(0), target.mean(0), atol=1e-4)
    assert torch.allclose(torch.cov(moved.T), torch.cov(target.T), atol=1e-3)
    # A linear map between Gaussians is the optimal one exactly if it is symmetric and has no negative eigenvalue.
    matrix = edit.matrix.double()
    assert torch.allclose(matrix, matrix.T, atol=1e-5) and torch.linalg.eigvalsh(matrix).min() > 0


def test_transport_per_neuron_matches_each_mean_and_deviation() -> None:
    source, target = gaussians()
    edit = iv.Transport.between(source, target.view(4, 100, 6), SITE)
    moved = edit.apply(source[None])[0]
    assert torch.allclose(moved.mean(0), target.mean(0), atol=1e-5)
    assert torch.allclose(moved.std(0), target.std(0), atol=1e-5)
    # Sorted values of one neuron keep their order: that is the optimal map in one dimension.
    assert torch.equal(moved[:, 2].argsort(), source[:, 2].argsort())


def test_transport_takes_the_real_tokens_of_what_was_captured() -> None:
    model, site = opened("gpt2", layers=2), "blocks.0.resid"
    source, target = (iv.capture(model, ragged((4, 9, 6), seed=s), site) for s in (0, 1))
    edit = iv.Transport.between(source, target, site, where=iv.Where(scope="prompt"), neurons=range(32))
    rows = [torch.cat([acts[site][i, :n] for i, n in enumerate((4, 9, 6))]) for acts in (source, target)]
    moved = edit.apply(rows[0][None])[0]
    assert torch.allclose(moved.mean(0), rows[1].mean(0), atol=1e-3)
    assert torch.allclose(moved.std(0), rows[1].std(0), atol=1e-3)
    assert "transport of 19 tokens to 19" in edit.label and edit.where == iv.Where(scope="prompt")


def test_a_neuron_that_is_constant_in_the_source_is_only_moved() -> None:
    source, target = gaussians()
    source[:, 1] = 7.0
    edit = iv.Transport.between(source, target, SITE)
    assert float(edit.matrix[1]) == 1.0 and float(edit.apply(source[None])[0, 0, 1]) == pytest.approx(
        float(target[:, 1].mean()), abs=1e-5
    )


def test_a_full_map_of_too_few_tokens_is_refused_without_a_ridge_and_finite_with_one() -> None:
    source, target = gaussians(4)
    with pytest.raises(EditError, match=r"4 source tokens do not span their 6 neurons; give more, or a ridge above 0"):
        iv.Transport.between(source, target, SITE, full=True, ridge=0.0)
    found = iv.Transport.between(source, target, SITE, full=True).apply(source[None])
    assert torch.isfinite(found).all()


def test_coefficients_of_rows_repeat_for_beams_and_refuse_other_counts() -> None:
    edit = iv.Add(D, torch.tensor([1.0, -2.0]), unit="raw")
    found = edit.apply(torch.zeros(6, 1, 32))[:, 0] @ D.vector
    assert torch.allclose(found, torch.tensor([1.0, 1, 1, -2, -2, -2]), atol=1e-6)
    assert edit.coefficient == (1.0, -2.0) and "-2 to +1 (one a row)" in edit.label
    with pytest.raises(
        EditError, match=r"coefficients are 2 numbers, and the activation has 5 rows; give one number, or one a row"
    ):
        edit.apply(torch.zeros(5, 1, 32))


def test_numbers_of_other_libraries_are_numbers() -> None:
    for one in (np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5])):
        assert iv.Scale(one, site=SITE).to_code() == iv.Scale(0.5, site=SITE).to_code()
    for several in (np.float32([0.5, 1.0]), torch.tensor([0.5, 1.0]), (0.5, 1), [np.float32(0.5), np.int64(1)]):
        assert iv.Add(D, several).coefficient == (0.5, 1.0)  # type: ignore[arg-type]
    assert iv.Add(D, np.float32(0.5)).coefficient == iv.Add(D, torch.tensor(0.5)).coefficient == 0.5  # type: ignore[arg-type]
    assert torch.equal(iv.Replace(np.ones(32), site=SITE).value, torch.ones(32, dtype=torch.float64))


def test_several_directions_span_what_their_vectors_span() -> None:
    edit = iv.ProjectOut([D, E, D])
    assert edit.basis().shape == (2, 32) and torch.allclose(edit.basis() @ edit.basis().T, torch.eye(2).double())
    assert edit.label == "d, e, d taken out at blocks.1.resid" and len(edit.directions) == 3


def test_large_tensors_travel_in_code_to_the_last_bit_and_damaged_ones_are_refused() -> None:
    value = torch.randn(3, 40, dtype=torch.float64)
    edit = iv.Replace(value, site=SITE, name="many")
    again = eval(edit.to_code(), {"iv": iv})
    assert torch.equal(again.value, value) and again.value.dtype == torch.float64
    damaged = edit.to_code().replace("A", "B", 3)
    with pytest.raises(EditError, match=r"the text is damaged .*; copy it whole"):
        eval(damaged, {"iv": iv})


def test_functions_are_the_same_when_their_lines_are_run_again_and_others_are_not() -> None:
    def made(factor: float) -> Any:
        return lambda x, context: x * factor

    two = 2.0
    again = [iv.Custom(made(two), site=SITE) for _ in range(2)]
    assert again[0].is_same(again[1]) and not again[0].is_same(iv.Custom(made(3.0), site=SITE))
    assert not iv.Custom(lambda x, c: x, site=SITE).is_same(iv.Custom(lambda x, c: x * 2, site=SITE))
    assert not iv.Custom(halved, site=SITE).is_same(iv.Scale(0.5, site=SITE))


def test_a_function_that_writes_in_place_does_not_write_over_the_network() -> None:
    x = sample(torch.float32)
    kept = x.clone()
    found = iv.Custom(lambda y, context: y.mul_(2), site=SITE).apply(x)
    assert torch.equal(x, kept) and torch.equal(found, kept * 2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: iv.Scale(2.0), r"Scale needs a site such as site='blocks.3.resid', not ''"),
        (lambda: iv.Scale("2", site=SITE), r"a factor is a finite number, not '2'"),
        (lambda: iv.Cap(D), r"Cap takes a limit, at_most= or at_least=, and got neither"),
        (lambda: iv.Cap(D, at_most=1, at_least=2), r"at_least=2 is above at_most=1; exchange them"),
        (lambda: iv.Cap(D, at_most=1, at_least=0).with_coefficient(2), r"has two limits, so 2 could be either"),
        (lambda: iv.ProjectOut([]), r"ProjectOut takes at least one direction, not none"),
        (lambda: iv.ProjectOut([D, "e"]), r"ProjectOut takes a Direction, not str"),
        (lambda: iv.ProjectOut([D, direction("blocks.0.resid")]), r"come from several sites, .*; give site="),
        (lambda: iv.ProjectOut([D, direction(width=8)]), r"directions of \[8, 32\] numbers have no span"),
        (lambda: iv.ProjectOut(D).with_coefficient(0.5), r"ProjectOut has no strength to change to 0.5; make another"),
        (lambda: iv.Add(D, []), r"coefficients are one number, or one for each row, not none"),
        (lambda: iv.Add(D, [1.0, "x"]), r"a coefficient is a finite number, not 'x'"),
        (
            lambda: iv.Replace("mean", site=SITE),
            r"the value to put at 'blocks.1.resid' is a tensor of numbers, not 'mean'",
        ),
        (lambda: iv.Replace({"a": 1}, site=SITE), r"the value to put at 'blocks.1.resid' is a tensor of numbers"),
        (lambda: iv.Replace(None, site=SITE), r"the value to put at 'blocks.1.resid' is a tensor of numbers"),
        (lambda: iv.Replace(torch.ones(2).bool(), site=SITE), r"a tensor of real numbers, not of torch.bool"),
        (
            lambda: iv.Transport(MATRIX, BIAS[:5], site=SITE),
            r"of shape \[32, 32\] and a bias of shape \[5\] are no map",
        ),
        (lambda: iv.Transport.between(torch.ones(1, 3), torch.ones(5, 3), SITE), r"of shapes \[1, 3\] and \[5, 3\]"),
        (lambda: iv.Transport.between("a", torch.ones(5, 3), SITE), r"source activations is a tensor of numbers"),
        (lambda: iv.Rotate(D, math.nan), r"degrees is a finite number, not nan"),
        (lambda: iv.Rotate(D, 10, start=-D), r"'minus d' and 'd' lie along one line, so they span no plane"),
        (lambda: iv.Rotate(D, 10, start=direction(width=8)), r"directions of 8 and 32 numbers have no plane"),
        (lambda: iv.GradientSteer(3, site=SITE), r"GradientSteer takes a function, not 3 of type int"),
        (lambda: iv.GradientSteer(bowl, n_steps=0, site=SITE), r"n_steps counts steps, from 1; it is 0"),
        (lambda: iv.Custom("shout", site=SITE), r"Custom takes a function, not 'shout' of type str"),
        (lambda: iv.Scale(2.0, site=SITE, heads=-1), r"heads are whole numbers from 0, .*not -1"),
        (lambda: iv.Scale(2.0, site=SITE, neurons="3"), r"neurons are whole numbers from 0"),
        (lambda: iv.Scale(2.0, site=SITE, neurons=[]), r"neurons are whole numbers from 0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(make: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        make()


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (iv.Custom(lambda x, c: None, site=SITE, name="f"), r"f returned a NoneType at 'blocks.1.resid'; return the edited tensor"),
        (iv.Custom(lambda x, c: x[:1], site=SITE, name="f"), r"f returned shape \[1, 3, 32\] .* has \[2, 3, 32\]"),
        (iv.Custom(lambda x, c: x.double(), site=SITE, name="f"), r"f returned dtype torch.float64 .* has torch.float32"),
        (iv.GradientSteer(lambda x: x.sum(), site=SITE, name="s"), r"s gives \[\] .* one score a token, shape \[2, 3\]"),
        (iv.GradientSteer(lambda x: 3, site=SITE, name="s"), r"s gives int for an activation"),
        (iv.GradientSteer(lambda x: torch.ones(2, 3), site=SITE, name="s"), r"s does not depend on the activation"),
        (iv.GradientSteer(lambda x: (x.sum(-1) * 0) ** -0.5, site=SITE, name="s"), r"the gradient of s at .* NaN or infinity"),
        (iv.Scale(2.0, site=SITE, heads=1), r"'blocks.1.resid' has no heads: its shape is \[2, 3, 32\]; drop heads="),
        (iv.Scale(2.0, site=SITE, neurons=32), r"no neuron 32 at 'blocks.1.resid', which has 32; use 0 to 31"),
        (iv.Cap(direction(width=5), at_most=1.0), r"a direction 5 wide does not fit an activation of shape \[2, 3, 32\]"),
        (iv.Transport(torch.ones(5), torch.ones(5), site=SITE), r"5 wide does not fit"),
    ],
)  # fmt: skip
def test_what_does_not_fit_an_activation_is_refused_in_words(edit: Any, message: str) -> None:
    with pytest.raises(EditError, match=message):
        edit.apply(sample(torch.float32))


def test_the_mean_is_over_real_tokens_and_a_lacking_site_is_refused() -> None:
    model = opened("llama", layers=2)
    acts = iv.capture(model, ragged((3, 6)), "blocks.0.resid")
    value = acts["blocks.0.resid"]
    wanted = torch.cat([value[0, :3], value[1]]).double().mean(0)
    found = iv.Replace.from_mean(acts, "blocks.0.resid")
    assert torch.allclose(found.value.double(), wanted, atol=1e-6) and found.label.startswith("the mean of 9 tokens")
    with pytest.raises(SiteError, match=r"was not captured"):
        iv.Replace.from_mean(acts, "blocks.1.resid")
