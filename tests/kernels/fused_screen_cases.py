"""What the screen on a GPU must give: what float64 says. Run in Triton's interpreter by test_fused.py, on a GPU by tests/gpu."""

from dataclasses import replace

import pytest
import torch

from innerview.kernels import fused, fused_screen, reference, trial
from innerview.kernels.fused_screen import Screened
from innerview.kernels.rules import Above, Encoder, Largest, Sparse
from tests.kernels.attacks import ATTACKS, Attack, hold
from tests.kernels.drawn import encoder, inputs, real_encoder, real_inputs
from tests.kernels.fused_cases import DEVICE, assert_same

# Triton's interpreter is numpy, which warns of the infinities that are asked of it here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
RULES = ("relu", "above", "behind", "largest")


def placed(one: Encoder) -> Encoder:
    """The encoder on the device of these tests."""
    rule = one.rule
    tensors = {name: tensor.to(DEVICE) for name, tensor in vars(rule).items() if isinstance(tensor, torch.Tensor)}
    return Encoder(one.weight.to(DEVICE), one.bias.to(DEVICE), replace(rule, **tensors) if tensors else rule)


def widened(one: Encoder) -> Encoder:
    """The same in float64: the oracle."""
    rule = one.rule
    tensors = {name: tensor.double() for name, tensor in vars(rule).items() if isinstance(tensor, torch.Tensor)}
    return Encoder(one.weight.double(), one.bias.double(), replace(rule, **tensors) if tensors else rule)


def assert_exact(got: Sparse, one: Encoder, x: torch.Tensor) -> None:
    """The active set of float64, and its values rounded to float32."""
    wanted = reference.encode(widened(one), x.double())
    assert torch.equal(got.tokens, wanted.tokens) and torch.equal(got.features, wanted.features)
    torch.testing.assert_close(got.values, wanted.values.float(), rtol=2e-7, atol=0.0)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 33, 17), (9, 70, 21)], ids=str)
def test_codes_are_the_references_to_the_last_bit_where_sums_are_exact(size: tuple[int, int, int], rule: str) -> None:
    n, m, d = size
    one, x = placed(encoder(rule, m, d)), inputs(n, d).to(DEVICE)
    assert_same(fused_screen.encode(one, x), reference.encode(one, x))


@pytest.mark.parametrize("rule", RULES)
def test_codes_of_any_numbers_are_those_of_float64(rule: str) -> None:
    one, x = placed(real_encoder(rule, 150, 40)), real_inputs(6, 40).to(DEVICE)
    counted = Screened()
    got = fused_screen.encode(one, x, counted)
    assert_exact(got, one, x)
    assert len(got) == counted.active <= counted.candidates < x.shape[0] * 150
    assert counted.tokens == 6


@pytest.mark.parametrize("rule", ["above", "largest"])
def test_no_tokens_have_no_codes(rule: str) -> None:
    got = fused_screen.encode(placed(encoder(rule, 33, 17)), torch.zeros(0, 17, device=DEVICE))
    assert len(got) == 0 and got.values.dtype == torch.float32


def strange() -> dict[str, torch.Tensor]:
    """Inputs that a bound could trip over, shape [rows, 32] each."""
    torch.manual_seed(5)
    base = torch.randn(4, 32)
    huge = base.clone()
    huge[:, 7] = 3000.0
    return {
        "between two bf16 numbers": torch.full((4, 32), 1 + 2.0**-8) * torch.tensor([[1.0], [-1.0], [3.0], [0.5]]),
        "one huge coordinate": huge,
        "denormals": base * 1e-40,
        "beyond the range of the bound": base * 1e30,
        "beyond bf16": torch.full((4, 32), 3.4e38) * base.sign() * (torch.arange(32) < 1),
        "zeros": torch.zeros(4, 32),
        "cancellation": torch.cat([base[:, :16], -base[:, :16] * (1 + 2.0**-20)], dim=1),
    }


@pytest.mark.parametrize("name", list(strange()))
@pytest.mark.parametrize("rule", ["above", "largest"])
def test_no_code_is_lost_of_inputs_that_a_bound_could_trip_over(name: str, rule: str) -> None:
    x = strange()[name].to(DEVICE)
    one = placed(real_encoder(rule, 80, 32, k=6))
    # Some features are the input itself, so that the whole of the bound is used; their thresholds lie on the value.
    weight = one.weight.clone()
    weight[5], weight[40] = x[0].clamp(-1e15, 1e15), 1 + 2.0**-8
    pre = (x.double() @ weight.double().T + one.bias.double())[0]
    if isinstance(one.rule, Above):
        assert one.rule.threshold is not None
        threshold = one.rule.threshold.clone()
        threshold[5] = torch.nextafter(pre[5].float(), torch.tensor(-torch.inf, device=DEVICE))
        one = Encoder(weight, one.bias, Above(threshold))
    else:
        one = Encoder(weight, one.bias, one.rule)
    assert_exact(fused_screen.encode(one, x), one, x)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_no_code_is_lost_under_attack(attack: Attack) -> None:
    weight, x, threshold = attack(torch.Generator().manual_seed(11))
    # Some of the rows, whose own thresholds are among the features': the interpreter is slow.
    x = x[:6]
    for rule in (Above(threshold), Largest(5)):
        one = Encoder(weight, torch.zeros(len(weight)), rule)
        found = fused_screen.encode(placed(one), x.to(DEVICE))
        hold(one, x, Sparse(found.tokens.cpu(), found.features.cpu(), found.values.cpu()))


def test_massive_coordinates_are_kept_in_float32_and_let_fewer_candidates_through() -> None:
    torch.manual_seed(6)
    x = torch.randn(8, 64)
    x[:, 3] += 500.0
    one = placed(real_encoder("above", 120, 64))
    kept = Screened()
    assert_exact(fused_screen.encode(one, x.to(DEVICE), kept), one, x.to(DEVICE))
    length, candidates = float(x.norm(dim=1).mean()), kept.candidates
    # A bound of 2⁻⁷ of the whole length would let nearly everything through.
    assert length > 400 and candidates < kept.active + 0.5 * (8 * 120 - kept.active)


def test_tokens_with_more_candidates_than_slots_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused_screen, "FIRST_ROOM", 16)
    one, x = placed(real_encoder("relu", 100, 12)), real_inputs(5, 12).to(DEVICE)
    x[2] = 0.0
    counted = Screened()
    assert_exact(fused_screen.encode(one, x, counted), one, x)
    assert counted.again >= 4


def test_the_k_largest_with_equals_at_the_kth_and_all_candidates_near() -> None:
    weight = torch.ones(90, 8) * (1 + 2.0**-9)
    weight[60] = 1.5
    one = placed(Encoder(weight, torch.zeros(90), Largest(7)))
    x = torch.stack([torch.ones(8), -torch.ones(8), torch.zeros(8)]).to(DEVICE)
    counted = Screened()
    got = fused_screen.encode(one, x, counted)
    assert got.tokens.tolist() == [0] * 7 and got.features.tolist() == [0, 1, 2, 3, 4, 5, 60]
    assert counted.again >= 1


def test_the_k_largest_of_features_that_bfloat16_cannot_tell_apart() -> None:
    torch.manual_seed(7)
    x = torch.randn(4, 24)
    # Steps of 2⁻¹³ where bfloat16 has steps of 2⁻⁸; the larger ones stand at any place.
    steps = 1 + torch.randperm(90)[:, None] * 2.0**-13
    one = placed(Encoder(x.sum(dim=0) * steps, torch.zeros(90), Largest(7)))
    assert_exact(fused_screen.encode(one, x.to(DEVICE)), one, x.to(DEVICE))


@pytest.mark.parametrize("rule", ["Above", "Behind", "Largest"])
def test_a_path_is_believed_after_trials_that_it_passes(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "TRIED", ((5, 70, 32),))
    assert trial.why_not.__wrapped__(fused.encode, rule, torch.bfloat16, DEVICE) is None
    assert trial.why_not.__wrapped__(fused_screen.encode, rule, torch.float32, DEVICE, is_exact=True) is None
