"""The reference means what its docstring says, by loops in plain Python and float64."""

import math

import pytest
import torch
from torch import Tensor

from innerview.errors import DictionaryError
from innerview.kernels import Above, Encoder, Largest, Sparse, explain, using
from innerview.kernels.encode import encode
from tests.kernels import drawn


def by_hand(encoder: Encoder, x: Tensor) -> list[tuple[int, int, float]]:
    """Codes by Python's own floats, which are float64."""
    weight, bias, rule = encoder.weight.tolist(), encoder.bias.tolist(), encoder.rule
    by_feature = {name: one.tolist() for name, one in vars(rule).items() if isinstance(one, Tensor)}
    found = []
    for token, row in enumerate(x.tolist()):
        pre = [math.fsum(a * b for a, b in zip(row, w, strict=True)) + c for w, c in zip(weight, bias, strict=True)]
        order = sorted(range(len(pre)), key=lambda j: (-pre[j], j))
        for feature, value in enumerate(pre):
            if isinstance(rule, Largest):
                code = max(value, 0.0) if feature in order[: rule.k] else 0.0
            elif isinstance(rule, Above):
                passes = value > (by_feature["threshold"][feature] if by_feature else 0.0)
                code = max(value, 0.0) if passes else 0.0
            else:
                magnitude = value * by_feature["scale"][feature] + by_feature["shift"][feature]
                code = max(magnitude, 0.0) if value + by_feature["gate"][feature] > 0 else 0.0
            if code:
                found.append((token, feature, code))
    return found


def listed(codes: Sparse) -> list[tuple[int, int, float]]:
    return list(zip(codes.tokens.tolist(), codes.features.tolist(), codes.values.tolist(), strict=True))


@pytest.mark.parametrize("dtype", drawn.DTYPES, ids=str)
@pytest.mark.parametrize("rule", drawn.RULES)
def test_the_reference_is_the_rule_computed_by_hand(rule: str, dtype: torch.dtype) -> None:
    encoder, x = drawn.encoder(rule, 23, 5, dtype), drawn.inputs(9, 5, dtype)
    found = encode(encoder, x, "reference")
    assert listed(found) == by_hand(encoder, x) and found.values.dtype == dtype
    assert len(found) > 9


def test_of_equals_at_the_kth_place_the_lowest_feature_wins() -> None:
    encoder = Encoder(torch.ones(6, 1), torch.zeros(6), Largest(2))
    assert listed(encode(encoder, torch.tensor([[3.0], [-1.0]]), "reference")) == [(0, 0, 3.0), (0, 1, 3.0)]


def test_what_equals_its_threshold_does_not_pass() -> None:
    encoder = Encoder(torch.ones(3, 1), torch.zeros(3), Above(torch.tensor([2.0, 1.5, -4.0])))
    assert listed(encode(encoder, torch.tensor([[2.0], [-1.0]]), "reference")) == [(0, 1, 2.0), (0, 2, 2.0)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_refused_with_its_place(bad: float) -> None:
    encoder, x = drawn.encoder("largest", 7, 3), drawn.inputs(4, 3)
    x[2, 1] = bad
    with pytest.raises(DictionaryError, match=r"NaN or infinity in 1 of 12 numbers, first .* at token 2"):
        encode(encoder, x)


def test_inputs_of_another_format_or_width_are_refused() -> None:
    encoder = drawn.encoder("relu", 7, 3)
    for x in (drawn.inputs(4, 4), drawn.inputs(4, 3, torch.float64), drawn.inputs(4, 3)[0]):
        with pytest.raises(DictionaryError, match=r"do not fit an encoder of torch.float32 \[7, 3\]"):
            encode(encoder, x)


def test_a_path_that_there_is_not_is_refused_with_those_that_are() -> None:
    with pytest.raises(DictionaryError, match="no path 'fast' to codes; there are reference"), using("fast"):
        pass


def test_the_path_can_be_told_and_the_choice_says_so() -> None:
    encoder = drawn.encoder("relu", 7, 3)
    with using("reference"):
        assert explain(encoder, 5).why == "it was told to"
    assert "15" not in explain(encoder, 5).why and "105 products" in explain(encoder, torch.zeros(5, 3)).why
