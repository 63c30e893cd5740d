"""The exact screen on a GPU: the cases that Triton's interpreter runs elsewhere."""

import pytest
import torch

from tests.kernels.fused_screen_cases import *  # noqa: F403

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
