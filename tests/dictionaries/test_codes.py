"""Codes are sparse, keep their places, and come back dense only when asked."""

import pytest
import torch

import innerview as iv
from innerview.dictionaries.codes import coded
from innerview.errors import DictionaryError

DENSE = torch.tensor([[[0.0, 2.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, -3.0], [0.0, 4.0, 5.0]]])


def test_codes_hold_what_is_not_zero_ordered_by_token_and_feature() -> None:
    codes = iv.Codes.from_dense(DENSE)
    assert codes.tokens.tolist() == [0, 2, 2, 3, 3] and codes.features.tolist() == [1, 0, 2, 1, 2]
    assert codes.values.tolist() == [2, 1, -3, 4, 5] and codes.shape == (2, 2) and len(codes) == 5
    assert torch.equal(codes.dense(), DENSE) and codes.l0().tolist() == [[1, 0], [2, 2]] and codes.n_tokens == 4
    assert torch.equal(codes.of_feature(2), DENSE[..., 2])
    frame = codes.frame()
    assert frame.columns.tolist() == ["batch", "pos", "feature", "value"]
    assert frame.iloc[2].tolist() == [1, 0, 2, -3]


def test_pads_have_no_codes_whatever_stands_there() -> None:
    dense = DENSE.clone()
    dense[1, 1] = torch.nan
    mask = torch.tensor([[True, True], [True, False]])
    codes = iv.Codes.from_dense(dense, mask)
    assert len(codes) == 3 and codes.n_tokens == 3 and not codes.dense()[1, 1].any()
    torch.testing.assert_close(iv.Codes.from_dense(DENSE).within(mask).dense(), codes.dense())


def test_medians_are_of_active_tokens_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.randn(40, 9, generator=generator).relu()
    dense[:, 3] = 0
    median, count = iv.Codes.from_dense(dense).medians()
    assert count.tolist() == (dense > 0).sum(dim=0).tolist() and median[3] == 0
    for feature in (0, 1, 2, 4, 8):
        assert median[feature] == dense[:, feature][dense[:, feature] > 0].median()


def test_gradients_flow_to_values() -> None:
    values = torch.ones(2, requires_grad=True)
    codes = iv.Codes(torch.tensor([0, 1]), torch.tensor([2, 0]), values, (2,), 3)
    codes.dense().pow(2).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [2.0, 2.0]


def test_parts_that_do_not_belong_together_are_refused() -> None:
    one = torch.tensor([0])
    with pytest.raises(DictionaryError, match="1 tokens, 1 features and 2 values are no codes"):
        iv.Codes(one, one, torch.ones(2), (2,), 3)
    with pytest.raises(DictionaryError, match=r"mask of shape \[3\] does not fit tokens of shape \[2\]"):
        iv.Codes(one, one, torch.ones(1), (2,), 3, torch.ones(3, dtype=torch.bool))
    with pytest.raises(DictionaryError, match=r"tokens \[3\] and the activations are of tokens \[2\]"):
        coded(torch.ones(2, 4), torch.relu, 4, torch.ones(3, dtype=torch.bool))
    with pytest.raises(DictionaryError, match="no feature 3"):
        iv.Codes.from_dense(DENSE).of_feature(3)
