"""What Triton's programs must give: what the reference gives. Run in Triton's interpreter by test_fused.py, on a GPU by tests/gpu.

This file is no test file by its name: Triton's interpreter is chosen before Triton is imported, so it has a process of its own.
"""

import os

import pytest
import torch

from innerview.kernels import fused, largest, reference, sums, tiling
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Rule, Sparse
from innerview.kernels.slots import Slots
from innerview.kernels.sums import summed

DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 1, 1), (1, 33, 17), (17, 65, 21))


def whole(*shape: int, most: int = 3) -> torch.Tensor:
    """Small whole numbers: their sums are exact in every format, so that everybody must agree to the last bit."""
    return torch.randint(-most, most + 1, shape).float()


def encoder(m: int, d: int, dtype: torch.dtype, rule: str) -> Encoder:
    """An encoder of whole numbers, so that many pre-activations lie exactly at their threshold."""
    torch.manual_seed(m * 1000 + d)
    rules: dict[str, Rule] = {
        "relu": Above(),
        "jump": Above(whole(m, most=4).to(DEVICE, dtype)),
        "largest": Largest(5),
        "gated": Behind(*(one.to(DEVICE, dtype) for one in (whole(m), whole(m).abs() + 1, whole(m)))),
    }
    return Encoder(whole(m, d).to(DEVICE, dtype), whole(m).to(DEVICE, dtype), rules[rule])


def assert_same(got: Sparse, wanted: Sparse) -> None:
    """To the last bit."""
    assert torch.equal(got.tokens, wanted.tokens)
    assert torch.equal(got.features, wanted.features)
    assert got.values.dtype == wanted.values.dtype
    assert torch.equal(got.values, wanted.values)


@pytest.mark.parametrize("rule", ["relu", "jump", "gated", "largest"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_codes_are_the_references_to_the_last_bit_where_sums_are_exact(
    size: tuple[int, int, int], dtype: torch.dtype, rule: str
) -> None:
    n, m, d = size
    one = encoder(m, d, dtype, rule)
    x = whole(n, d).to(DEVICE, dtype)
    assert_same(fused.encode(one, x), reference.encode(one, x))


def test_no_tokens_have_no_codes() -> None:
    one = encoder(33, 17, torch.bfloat16, "jump")
    got = fused.encode(one, torch.zeros(0, 17, dtype=torch.bfloat16, device=DEVICE))
    assert len(got) == 0 and got.values.dtype == torch.bfloat16 and got.tokens.device.type == DEVICE


def test_a_pre_activation_at_its_threshold_is_no_code() -> None:
    rule = Above(torch.tensor([5.0, 4.0, -1.0, 0.0], device=DEVICE))
    one = Encoder(torch.tensor([[5.0], [5.0], [-1.0], [0.0]], device=DEVICE), torch.zeros(4, device=DEVICE), rule)
    got = fused.encode(one, torch.ones(1, 1, device=DEVICE))
    assert got.features.tolist() == [1] and got.values.tolist() == [5.0]


def test_tokens_with_more_codes_than_slots_are_computed_again() -> None:
    torch.manual_seed(0)
    rule = Above(torch.zeros(90, device=DEVICE))
    one = Encoder(whole(90, 8).to(DEVICE), torch.zeros(90, device=DEVICE), rule)
    x = torch.cat([whole(9, 8) * 0, whole(9, 8)]).to(DEVICE)
    x[3] = x[12]
    wanted = reference.encode(one, x)
    # 16 slots a token: the others have more.
    slots = Slots.empty(len(x), 16, x.device)
    fused.fill(one, x, slots)
    assert int(slots.counts.max()) > 16 and int(slots.counts.min()) == 0
    assert_same(fused.completed(one, x, slots), wanted)


def test_codes_of_numbers_are_the_references_within_rounding() -> None:
    torch.manual_seed(1)
    w, x, b = torch.randn(70, 45).to(DEVICE), torch.randn(7, 45).to(DEVICE), torch.randn(70).to(DEVICE)
    one = Encoder(w, b, Above(torch.rand(70).to(DEVICE)))
    got, wanted = fused.encode(one, x), reference.encode(one, x)
    assert torch.equal(got.tokens, wanted.tokens) and torch.equal(got.features, wanted.features)
    torch.testing.assert_close(got.values, wanted.values)


def test_values_that_round_to_zero_in_the_weights_format_are_no_codes() -> None:
    one = Encoder(
        torch.tensor([[2.0**-13], [2.0**-12], [2.0**-11]], dtype=torch.float16, device=DEVICE),
        torch.zeros(3, dtype=torch.float16, device=DEVICE),
        Above(),
    )
    x = torch.full((1, 1), 2.0**-13, dtype=torch.float16, device=DEVICE)
    assert_same(fused.encode(one, x), reference.encode(one, x))
    assert fused.encode(one, x).features.tolist() == [2]


def test_rows_far_into_a_large_batch_are_counted_from_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "BLOCK", 4)
    one = encoder(20, 6, torch.float32, "jump")
    x = whole(11, 6).to(DEVICE)
    assert_same(fused.encode(one, x), reference.encode(one, x))


def test_a_view_that_is_not_contiguous_gives_the_same() -> None:
    one = encoder(20, 6, torch.float32, "jump")
    wide = whole(5, 12).to(DEVICE)
    assert_same(fused.encode(one, wide[:, ::2]), reference.encode(one, wide[:, ::2].contiguous()))


@pytest.mark.parametrize("k", [1, 2, 31, 32, 33, 100, 200])
def test_the_k_largest_are_the_references_with_ties_at_the_kth(k: int) -> None:
    one = encoder(100, 3, torch.float32, "relu")
    one = Encoder(one.weight, one.bias, Largest(k))
    x = whole(5, 3).to(DEVICE)
    assert_same(fused.encode(one, x), reference.encode(one, x))


def crowded(k: int) -> tuple[Encoder, torch.Tensor]:
    """The largest all lie in one tile, and equal ones behind them in others."""
    weight = torch.ones(100, 1)
    weight[33:60] = 2.0
    weight[40:50] = 3.0
    x = torch.tensor([[1.0], [-1.0], [0.0]])
    return Encoder(weight.to(DEVICE), torch.zeros(100, device=DEVICE), Largest(k)), x.to(DEVICE)


@pytest.mark.parametrize("k", [3, 10, 12, 30])
def test_a_tile_that_holds_back_more_than_it_gave_is_computed_again(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    again: list[int] = []
    own = largest._again
    monkeypatch.setattr(largest, "kept_of_a_tile", lambda k, n_tiles, most: 2)
    monkeypatch.setattr(largest, "_again", lambda *args: again.append(len(args[1])) or own(*args))
    one, x = crowded(k)
    assert_same(fused.encode(one, x), reference.encode(one, x))
    assert again == [1]


def test_where_every_tile_gave_what_counts_nothing_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(largest, "_again", lambda *args: pytest.fail("it was computed again"))
    torch.manual_seed(3)
    one = Encoder(torch.randn(300, 20).to(DEVICE), torch.zeros(300, device=DEVICE), Largest(10))
    x = torch.randn(4, 20).to(DEVICE)
    got, wanted = fused.encode(one, x), reference.encode(one, x)
    assert torch.equal(got.features, wanted.features)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("d", [1, 17, 70])
def test_sums_of_the_decoders_rows_are_the_dense_product(d: int, dtype: torch.dtype) -> None:
    torch.manual_seed(d)
    dense = whole(6, 30) * (torch.rand(6, 30) < 0.4)
    dense[2] = 0.0
    dense[5] = whole(30)
    decoder = whole(30, d).to(DEVICE, dtype)
    codes = reference.gathered(dense.to(DEVICE, dtype))
    got = summed(codes, 6, decoder)
    assert got.dtype == dtype
    assert torch.equal(got, (dense.to(DEVICE) @ decoder.float()).to(dtype))


def test_sums_are_believed_after_a_trial_and_not_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    assert all(sums.is_right.__wrapped__(dtype, DEVICE) for dtype in DTYPES)
    monkeypatch.setattr(sums, "summed", lambda codes, n, decoder: torch.zeros(n, decoder.shape[1], device=DEVICE))
    assert not sums.is_right.__wrapped__(torch.float32, DEVICE)


def test_no_codes_sum_to_zero_and_no_tokens_to_nothing() -> None:
    none = reference.gathered(torch.zeros(3, 5, device=DEVICE))
    decoder = torch.ones(5, 4, device=DEVICE)
    assert torch.equal(summed(none, 3, decoder), torch.zeros(3, 4, device=DEVICE))
    assert summed(none, 0, decoder).shape == (0, 4)


@pytest.mark.parametrize(("n", "dtype", "shared", "wanted"), [
    (4096, torch.bfloat16, 1 << 18, (128, 256)),
    (4096, torch.bfloat16, 99 << 10, (128, 128)),
    (4096, torch.float32, 1 << 18, (128, 128)),
    (64, torch.float16, 99 << 10, (64, 128)),
    (1, torch.bfloat16, 99 << 10, (16, 64)),
])  # fmt: skip
def test_tiles_fit_into_what_a_card_shares(
    n: int, dtype: torch.dtype, shared: int, wanted: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiling, "is_interpreted", lambda: False)
    monkeypatch.setattr(tiling, "shared_bytes", lambda: shared)
    found = tiling.Tiling.of(n, dtype)
    assert (found.rows, found.features) == wanted
    assert found.stages * (found.rows + found.features) * found.depth * dtype.itemsize <= shared
