"""A kind of product that misses its bound in a trial is not used, and says so."""

import pytest
import torch
from torch import Tensor

from innerview.errors import DictionaryError
from innerview.kernels import encode, trust
from innerview.kernels.bounds import Kind
from tests.kernels import drawn


@pytest.mark.parametrize("kind", ["int8", "float32"])
def test_products_that_miss_their_bound_are_not_used(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    right = trust.product

    def wrong(rows: Tensor, columns: Tensor, asked: Kind) -> Tensor:
        made = right(rows, columns, asked)
        # What sums of 16 bits do to int8, and a shorter mantissa to float32.
        return made.to(torch.int16).to(made.dtype) if asked == "int8" else made.to(torch.bfloat16).to(made.dtype)

    trust._broken.cache_clear()
    monkeypatch.setattr(trust, "product", wrong)
    try:
        assert "its products miss their bound in" in str(trust.why_not(kind))
        with pytest.raises(DictionaryError, match=f"'screened_{kind}' cannot encode this: its products miss"):
            encode.encode(drawn.encoder("relu", 9, 4), drawn.inputs(3, 4), f"screened_{kind}")
    finally:
        trust._broken.cache_clear()


def test_float32_products_that_may_be_rounded_are_no_screen() -> None:
    torch.set_float32_matmul_precision("medium")
    try:
        assert "may be rounded to bfloat16" in str(trust.why_not("float32"))
    finally:
        torch.set_float32_matmul_precision("highest")
    assert trust.why_not("float32") is None
