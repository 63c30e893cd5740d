"""The screens lose no code: against the reference where sums are exact, against float64 where they are not, and under attack."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from innerview.kernels import Above, Encoder, Largest, Sparse, bounds, loops, reference, screened
from innerview.kernels.bounds import Kind
from tests.kernels import attacks, drawn

KINDS: tuple[Kind, ...] = ("int8", "bfloat16", "float32")
SIZES = ((0, 7, 5), (1, 7, 5), (5, 1, 3), (37, 301, 29), (40, 33, 1), (17, 130, 131))


def same(found: Sparse, wanted: Sparse) -> bool:
    return all(torch.equal(getattr(found, name), getattr(wanted, name)) for name in ("tokens", "features", "values"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("rule", drawn.RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_screen_equals_the_reference_to_the_last_bit_where_sums_are_exact(
    kind: Kind, rule: str, dtype: torch.dtype
) -> None:
    for n_tokens, n_features, d in SIZES:
        for k in (1, 3, n_features - 1, n_features, 2 * n_features):
            encoder = drawn.encoder(rule, n_features, d, dtype, k=max(1, k))
            x = drawn.inputs(n_tokens, d, dtype)
            assert same(screened.encode(encoder, x, kind), reference.encode(encoder, x)), (n_tokens, n_features, d, k)


@pytest.mark.parametrize("rule", drawn.RULES)
@pytest.mark.parametrize("kind", KINDS)
def test_codes_of_normal_numbers_are_those_of_float64(kind: Kind, rule: str) -> None:
    encoder, x = drawn.real_encoder(rule, 513, 200), drawn.real_inputs(70, 200)
    counted = screened.Counted()
    attacks.hold(encoder, x, screened.encode(encoder, x, kind, counted))
    assert counted.rows == 70 and counted.whole_rows == 0 and counted.candidates >= counted.active > 70


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda one: one.__name__)
@pytest.mark.parametrize("rule", ["relu", "above", "largest"])
@pytest.mark.parametrize("kind", KINDS)
def test_no_code_is_lost_under_attack(kind: Kind, rule: str, attack: attacks.Attack) -> None:
    weight, x, threshold = attack(torch.Generator().manual_seed(3))
    rules = {"relu": Above(), "above": Above(threshold), "largest": Largest(5)}
    encoder = Encoder(weight, torch.zeros(len(weight)), rules[rule])
    attacks.hold(encoder, x, screened.encode(encoder, x, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_bound_is_kept_by_every_product_under_attack(kind: Kind) -> None:
    for attack in attacks.ATTACKS:
        weight, x, _ = attack(torch.Generator().manual_seed(4))
        rows, columns = bounds.rounded(x, kind), bounds.rounded(weight, kind)
        fits = rows.is_in_range()[:, None] & columns.is_in_range()
        near = (rows.numbers.double() * rows.scale.double()[:, None]) @ (
            columns.numbers.double() * columns.scale.double()[:, None]
        ).T
        wrong = (near - x.double() @ weight.double().T).abs()
        bound = rows.residual[:, None] * columns.length + rows.length[:, None] * columns.residual
        room = 1e-15 * rows.length[:, None] * columns.length
        assert bool((wrong <= bound + room)[fits].all()), attack.__name__


def test_the_bound_of_the_second_numbers_is_kept_under_attack_and_is_half_as_wide() -> None:
    for attack in attacks.ATTACKS:
        weight, x, _ = attack(torch.Generator().manual_seed(5))
        rows, columns = bounds.rounded(x, "int8"), bounds.rounded(weight, "int8")
        again, left = bounds.sharper(x, rows)
        assert int(again.abs().max()) <= loops.WHOLE
        fits = rows.is_in_range()[:, None] & columns.is_in_range()
        numbers = rows.numbers.double() + again.double() / loops.STEPS
        near = (numbers * rows.scale.double()[:, None]) @ (columns.numbers.double() * columns.scale.double()[:, None]).T
        wrong = (near - x.double() @ weight.double().T).abs()
        bound = left[:, None] * columns.length + rows.length[:, None] * columns.residual
        room = 2.0**-30 * rows.length[:, None] * columns.length
        assert bool((wrong <= bound + room)[fits].all()), attack.__name__
    x = drawn.real_inputs(40, 300)
    rows = bounds.rounded(x, "int8")
    assert bool((bounds.sharper(x, rows)[1] < rows.residual / 200).all())


def test_a_second_look_keeps_candidates_from_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = (Above(torch.full((2048,), 2.8)), Largest(10))
    normal = torch.Generator().manual_seed(1)
    weight, x = torch.randn(2048, 3000, generator=normal), torch.randn(32, 3000, generator=normal)
    weight /= weight.norm(dim=1, keepdim=True)
    nothing = (torch.empty(32, 0, dtype=torch.int16), bounds.rounded(x, "int8").residual)
    for rule in rules:
        encoder, once, twice = Encoder(weight, torch.zeros(2048), rule), screened.Counted(), screened.Counted()
        found = screened.encode(encoder, x, "int8", twice)
        attacks.hold(encoder, x, found)
        with monkeypatch.context() as patched:
            patched.setattr(bounds, "sharper", lambda rows, first: nothing)
            without = screened.encode(encoder, x, "int8", once)
        attacks.hold(encoder, x, without)
        assert torch.equal(without.features, found.features)
        assert twice.candidates < 0.75 * once.candidates


def test_half_of_the_bound_would_lose_a_code() -> None:
    # x = w = (1 + 2⁻⁸)·1 lies halfway between two bfloat16 numbers: both rows lose all they can, in the same direction.
    value, d = 1 + 2.0**-8, 64
    x = torch.full((1, d), value)
    rows = bounds.rounded(x, "bfloat16")
    wrong = float(d * value**2 - (rows.numbers.double() ** 2).sum())
    bound = 2 * float(rows.residual * rows.length)
    assert bound / 2 < wrong <= bound
    encoder = Encoder(x.clone(), torch.zeros(1), Above(torch.tensor([d * value**2 * (1 - 1e-6)])))
    assert screened.encode(encoder, x, "bfloat16").features.tolist() == [0]


def test_a_code_at_its_threshold_is_settled_in_float64() -> None:
    # 1 + 2⁻³⁰ is 1 in float32; float64 knows better.
    encoder = Encoder(torch.tensor([[1.0, 2.0**-15], [1.0, -(2.0**-15)]]), torch.zeros(2), Above(torch.ones(2)))
    x = torch.tensor([[1.0, 2.0**-15]])
    for kind in KINDS:
        assert screened.encode(encoder, x, kind).features.tolist() == [0]


def test_one_huge_coordinate_stays_in_float32_and_does_not_widen_the_screen() -> None:
    encoder, x = drawn.real_encoder("above", 600, 200), drawn.real_inputs(64, 200)
    narrow, wide = screened.Counted(), screened.Counted()
    plain = screened.encode(encoder, x, "int8", narrow)
    weight = encoder.weight.clone()
    weight[:, 17] = 0.0
    far = x.clone()
    far[:, 17] = 3000.0
    apart = Encoder(weight, encoder.bias, encoder.rule)
    attacks.hold(apart, far, screened.encode(apart, far, "int8", wide))
    assert len(plain) > 64 and wide.candidates < 1.3 * narrow.candidates


def test_rows_that_a_screen_cannot_hold_are_computed_whole() -> None:
    encoder, x = drawn.real_encoder("above", 60, 40), drawn.real_inputs(9, 40)
    x[2] *= 1e30
    x[5] *= 1e-30
    counted = screened.Counted()
    found = screened.encode(encoder, x, "int8", counted)
    assert counted.whole_rows == 2 and (found.tokens == 2).any()
    attacks.hold(encoder, x, found)


def test_a_row_in_which_all_lie_too_near_to_the_kth_is_computed_whole() -> None:
    weight = torch.ones(5000, 6)
    x = torch.cat([torch.ones(1, 6), drawn.real_inputs(2, 6)])
    encoder, counted = Encoder(weight, torch.zeros(5000), Largest(2)), screened.Counted()
    found = screened.encode(encoder, x, "int8", counted)
    assert found.features[found.tokens == 0].tolist() == [0, 1] and counted.whole_rows > 0
    assert same(found, reference.encode(encoder, x))


def test_memory_does_not_grow_with_tokens_times_features(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    whole = screened.trust.product

    def spied(rows: Tensor, columns: Tensor, kind: Kind) -> Tensor:
        made = whole(rows, columns, kind)
        sizes.append(made.numel())
        return made

    monkeypatch.setattr(screened.trust, "product", spied)
    encoder = drawn.encoder("above", 9000, 4)
    screened.encode(encoder, drawn.inputs(1100, 4), "int8")
    assert sum(sizes) == 1100 * 9000 and max(sizes) <= screened.TILE


@pytest.mark.parametrize("kind", KINDS)
def test_a_guess_at_the_kth_that_is_too_high_loses_no_code(kind: Kind) -> None:
    # Every fourth feature is in the sample; thirty of those are far above all others, and the fortieth of all is not.
    drawn_weight = torch.Generator().manual_seed(2)
    weight = torch.randn(2048, 24, generator=drawn_weight) * 0.01
    weight[0:120:4, 0] = 1.0
    x = torch.rand(19, 24, generator=drawn_weight) + 0.5
    encoder, counted = Encoder(weight, torch.zeros(2048), Largest(40)), screened.Counted()
    attacks.hold(encoder, x, screened.encode(encoder, x, kind, counted))
    assert counted.whole_rows == 19
    other = drawn.real_encoder("largest", 2048, 24, k=40)
    counted = screened.Counted()
    attacks.hold(other, x, screened.encode(other, x, kind, counted))
    assert counted.whole_rows == 0 and counted.candidates < 12 * counted.active


def test_rows_are_shared_by_threads_and_callers_do_not_disturb_one_another() -> None:
    above, largest = drawn.encoder("above", 700, 33), drawn.encoder("largest", 1500, 33, k=7)

    def agrees(seed: int) -> bool:
        x = drawn.inputs(200, 33, seed=seed)
        return all(same(screened.encode(one, x, "int8"), reference.encode(one, x)) for one in (above, largest))

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(3) as callers:
            assert all(callers.map(agrees, range(6)))
    finally:
        torch.set_num_threads(threads)
