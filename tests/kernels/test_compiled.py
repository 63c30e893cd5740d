"""What torch.compile makes of the reference is the reference."""

import pytest
import torch

from innerview.errors import DictionaryError
from innerview.kernels.encode import PATHS, choose, encode
from innerview.kernels.path import Task
from tests.kernels import drawn


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("rule", ["relu", "above", "behind"])
def test_compiled_codes_equal_the_reference_to_the_last_bit_where_sums_are_exact(rule: str, dtype: torch.dtype) -> None:
    encoder = drawn.encoder(rule, 37, 11, dtype)
    for n_tokens in (0, 1, 13):
        x = drawn.inputs(n_tokens, 11, dtype)
        found, wanted = encode(encoder, x, "compiled"), encode(encoder, x, "reference")
        for name in ("tokens", "features", "values"):
            assert torch.equal(getattr(found, name), getattr(wanted, name)), name


def test_compiling_is_never_chosen_by_itself_and_refuses_the_k_largest() -> None:
    large = Task(4096, 1 << 16, 4096, torch.float32, "cpu", "Above")
    choice = choose(large)
    assert choice.path != "compiled" and "compiled" in {path.name for path in PATHS}
    with pytest.raises(DictionaryError, match="'compiled' cannot encode this: a compiler has nothing to melt"):
        choose(Task(4, 8, 8, torch.float32, "cpu", "Largest", 3), "compiled")
