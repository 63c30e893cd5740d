"""Kernels on a GPU at the sizes of published dictionaries, with offsets beyond int32, and inside of CUDA graphs."""

import pytest
import torch

import innerview as iv
from innerview.kernels import fused, fused_screen, reference
from innerview.kernels.fused_screen import Screened
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Rule
from innerview.kernels.slots import Part, Slots, read_out
from innerview.kernels.sums import can_sum, summed
from tests.kernels.fused_screen_cases import widened

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
RULES = ("above", "behind", "largest")


def encoder(rule: str, m: int, d: int, dtype: torch.dtype) -> Encoder:
    """Rows of length 1 of normal numbers, with thresholds that let some in a thousand through."""
    drawn = torch.Generator("cuda").manual_seed(0)
    weight = torch.nn.functional.normalize(torch.randn(m, d, generator=drawn, device="cuda")).to(dtype)
    bias = 0.1 * torch.randn(m, generator=drawn, device="cuda")
    rules: dict[str, Rule] = {
        "above": Above(torch.full((m,), 2.8, device="cuda").to(dtype)),
        "behind": Behind(bias.to(dtype) - 2.8, torch.ones_like(bias).to(dtype), bias.to(dtype)),
        "largest": Largest(64),
    }
    return Encoder(weight, bias.to(dtype), rules[rule])


def inputs(n: int, d: int, dtype: torch.dtype) -> torch.Tensor:
    drawn = torch.Generator("cuda").manual_seed(1)
    return torch.randn(n, d, generator=drawn, device="cuda").to(dtype)


def places(sparse, n_features: int) -> torch.Tensor:
    """Each code's token and feature as one number."""
    return sparse.tokens * n_features + sparse.features


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("n", [1, 16, 333, 2049])
def test_codes_are_the_references_but_for_what_lies_within_rounding_of_the_cut(
    n: int, dtype: torch.dtype, rule: str
) -> None:
    one, x = encoder(rule, 16_411, 2304, dtype), inputs(n, 2304, dtype)
    got, wanted = fused.encode(one, x), reference.encode(one, x)
    ours, theirs = places(got, one.n_features), places(wanted, one.n_features)
    common = torch.isin(ours, theirs)
    assert int((~common).sum()) + len(theirs) - int(common.sum()) <= 2 + len(theirs) * 1e-4
    torch.testing.assert_close(
        got.values[common].float(), wanted.values[torch.isin(theirs, ours)].float(), rtol=1e-2, atol=1e-3
    )


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("size", [(512, 768, 24_576), (300, 2304, 16_411), (64, 4096, 131_072)], ids=str)
def test_screened_codes_are_those_of_float64(size: tuple[int, int, int], rule: str) -> None:
    n, d, m = size
    one, x = encoder(rule, m, d, torch.float32), inputs(n, d, torch.float32)
    counted = Screened()
    got = fused_screen.encode(one, x, counted)
    oracle = widened(one)
    wanted = reference.encode(oracle, x.double())
    assert torch.equal(got.tokens, wanted.tokens) and torch.equal(got.features, wanted.features)
    torch.testing.assert_close(got.values, wanted.values.float(), rtol=2e-7, atol=0.0)
    assert counted.candidates < 20 * max(1, counted.active)


def test_a_weight_of_more_numbers_than_int32_counts() -> None:
    m, d = 600_000, 4096
    weight = torch.zeros(m, d, dtype=torch.bfloat16, device="cuda")
    weight[599_999, 4095] = 1.0
    one = Encoder(weight, torch.zeros(m, dtype=torch.bfloat16, device="cuda"), Above())
    x = torch.ones(3, d, dtype=torch.bfloat16, device="cuda")
    got = fused.encode(one, x)
    assert got.features.tolist() == [599_999] * 3 and got.tokens.tolist() == [0, 1, 2]


def test_slots_are_filled_inside_of_a_cuda_graph() -> None:
    one = encoder("above", 4096, 512, torch.bfloat16)
    x, slots = inputs(8, 512, torch.bfloat16), Slots.empty(8, 64, torch.device("cuda"))
    fused.fill(one, x, slots)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        slots.counts.zero_()
        fused.fill(one, x, slots)
    for scale in (1.0, 1.5):
        x.copy_(inputs(8, 512, torch.bfloat16) * scale)
        graph.replay()
        counts = slots.counts.long()
        got = read_out([Part(slots)], counts, int(counts.sum()), torch.bfloat16)
        wanted = reference.encode(one, x)
        assert torch.equal(got.tokens, wanted.tokens) and torch.equal(got.features, wanted.features)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_sums_of_the_decoders_rows_are_the_dense_product(dtype: torch.dtype) -> None:
    one, x = encoder("largest", 65_536, 768, dtype), inputs(257, 768, dtype)
    codes = fused.encode(one, x)
    dense = torch.zeros(257, 65_536, device="cuda").index_put((codes.tokens, codes.features), codes.values.float())
    wanted = dense.double() @ one.weight.double()
    torch.testing.assert_close(
        summed(codes, 257, one.weight).double(), wanted, rtol=1e-2, atol=1e-2 if dtype == torch.bfloat16 else 1e-4
    )


def test_a_dictionary_decodes_on_a_gpu_as_on_a_cpu_and_with_gradients() -> None:
    drawn = torch.Generator().manual_seed(0)
    weights = iv.Weights(
        torch.randn(500, 40, generator=drawn), torch.zeros(500), torch.randn(500, 40, generator=drawn), torch.zeros(40)
    )
    plain = iv.Manifest(False, iv.Normalisation(), site="x")
    one, x = iv.Dictionary(weights, iv.TopK(9), plain), torch.randn(3, 7, 40, generator=drawn)
    wanted = one.decode(one.encode(x))
    there = one.to("cuda")
    codes = there.encode(x.cuda())
    assert can_sum(there.weights.decoder, codes.values)
    torch.testing.assert_close(there.decode(codes).cpu(), wanted)
    values = codes.values.clone().requires_grad_()
    there.decode(codes.with_values(values)).sum().backward()
    assert values.grad is not None and bool((values.grad != 0).any())


def test_memory_does_not_grow_with_tokens_times_features() -> None:
    one, x = encoder("above", 131_072, 256, torch.bfloat16), inputs(4096, 256, torch.bfloat16)
    fused.encode(one, x)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    fused.encode(one, x)
    # The matrix of tokens and features in bfloat16 is 1 GiB.
    assert torch.cuda.max_memory_allocated() - before < 1 << 26
