"""Ours: `iv.capture` and `iv.generate`, as a user calls them."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

import innerview as iv
from benchmarks.pairing import DisagreementError


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
    return _written(iv.open_model(module), ids, [added(layer, delta)], tokens)


def decode_compiled(
    module: PreTrainedModel, ids: Tensor, layer: int, edit: iv.Edit, tokens: int
) -> Callable[[], list[list[int]]]:
    """`iv.generate` with one edit, through what `iv.compiled` made."""
    rows, tokens_each = ids.shape
    live = iv.compiled(iv.open_model(module), [f"blocks.{layer}.resid"], rows=rows, tokens=tokens_each, freeze=True)
    return _written(live, ids, [edit], tokens)


def unedited(module: PreTrainedModel, ids: Tensor, tokens: int) -> Callable[[], list[list[int]]]:
    """`iv.generate` alone."""
    return _written(iv.open_model(module), ids, [], tokens)


def decode_feature(module: PreTrainedModel, ids: Tensor, edit: iv.Edit, tokens: int) -> Callable[[], list[list[int]]]:
    """`iv.generate` with an edit of a dictionary's feature."""
    return _written(iv.open_model(module), ids, [edit], tokens)


def added(layer: int, delta: Tensor) -> iv.Edit:
    """An Add of `delta`."""
    direction = iv.Direction.from_vector(delta, f"blocks.{layer}.resid")
    return iv.Add(direction, float(delta.norm()), unit="raw")


def _written(
    network: iv.Model | iv.Compiled, ids: Tensor, edits: list[iv.Edit], tokens: int
) -> Callable[[], list[list[int]]]:
    wanted = "compiled" if isinstance(network, iv.Compiled) else "own loop"

    def call() -> list[list[int]]:
        run = iv.generate(network, ids, edits=edits, max_new_tokens=tokens)
        run.wait()
        if run.decoder != wanted:
            raise DisagreementError(f"the text was written by {run.decoder}, and {wanted} is timed")
        return run.tokens_so_far

    return call
