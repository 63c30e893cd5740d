"""Switching a network's attention kernel for a forward that must compute its weights."""

import contextlib
from collections.abc import Iterator
from typing import Any

from innerview.errors import CaptureError
from innerview.models.model import Model


@contextlib.contextmanager
def eager_attention(model: Model) -> Iterator[None]:
    """The eager kernel, which computes attention weights, for the length of the block; hold the model's lock around it.

    Raises:
        CaptureError: The network cannot switch kernels.
    """
    module: Any = model.module
    before = getattr(getattr(module, "config", None), "_attn_implementation", None)
    if before is None or not hasattr(module, "set_attn_implementation"):
        raise CaptureError(f"{model.name} has no attention kernels to switch, so its attention weights cannot be had")
    if before == "eager":
        yield
        return
    try:
        module.set_attn_implementation("eager")
        yield
    finally:
        module.set_attn_implementation(before)
