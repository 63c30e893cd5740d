"""Ours: `iv.capture` and `iv.generate`, as a user calls them."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

import innerview as iv


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """`iv.capture` of what leaves block `layer`."""
    model, site = iv.open_model(module), f"blocks.{layer}.resid"
    return lambda: iv.capture(model, ids, [site])[site]


def capture_all(module: PreTrainedModel, ids: Tensor) -> Callable[[], list[Tensor]]:
    """`iv.capture` of what leaves every block, to host memory."""
    model = iv.open_model(module)
    return lambda: list(iv.capture(model, ids, "blocks.*.resid", to="cpu").tensors.values())


def decode(
    module: PreTrainedModel, ids: Tensor, layer: int, delta: Tensor, tokens: int
) -> Callable[[], list[list[int]]]:
    """`iv.generate` with one Add."""
    model = iv.open_model(module)
    direction = iv.Direction.from_vector(delta, f"blocks.{layer}.resid")
    edits = [iv.Add(direction, float(delta.norm()), unit="raw")]

    def call() -> list[list[int]]:
        run = iv.generate(model, ids, edits=edits, max_new_tokens=tokens)
        run.wait()
        return run.tokens_so_far

    return call
