"""Both families in both number formats."""

from collections.abc import Iterator

import pytest
import torch

import innerview as iv
from tests.networks import DTYPES, FAMILIES, opened


@pytest.fixture(autouse=True)
def gradients_stay_on() -> Iterator[None]:
    """An interrupt inside `torch.no_grad()` leaves gradients off, in torch's own code too; the next test finds them on."""
    yield
    torch.set_grad_enabled(True)


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=DTYPES, ids=["float32", "bfloat16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    return request.param


@pytest.fixture
def model(family: str) -> iv.Model:
    """A small network in float32."""
    return opened(family)


@pytest.fixture
def typed(family: str, dtype: torch.dtype) -> iv.Model:
    """A small network in either number format."""
    return opened(family, dtype)
