"""nnsight: a trace that saves one output and stops, and a traced `generate` that adds at every step."""

from collections.abc import Callable
from typing import Any

import nnsight
import torch
from nnsight import NNsight
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.networks import blocks, path_of
from benchmarks.ways.with_hooks import greedy

NAME = "nnsight"


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """`trace`, `.save()` and `tracer.stop()`."""
    model = NNsight(module)
    block = model.get(path_of(module, blocks(module)[layer]))

    def call() -> Tensor:
        with torch.no_grad(), model.trace(ids, use_cache=False) as tracer:
            kept = block.output.save()
            tracer.stop()
        return kept

    return call


def capture_all(module: PreTrainedModel, ids: Tensor) -> Callable[[], list[Tensor]]:
    """`trace` with one `.save()` a block and `tracer.stop()`."""
    model = NNsight(module)
    listed = [model.get(path_of(module, block)) for block in blocks(module)]

    def call() -> list[Tensor]:
        with torch.no_grad(), model.trace(ids, use_cache=False) as tracer:
            kept = nnsight.save([block.output.cpu() for block in listed])
            tracer.stop()
        return kept

    return call


def decode(
    module: PreTrainedModel, ids: Tensor, layer: int, delta: Tensor, tokens: int
) -> Callable[[], list[list[int]]]:
    """`generate` traced, with a write at each step."""
    model: Any = NNsight(module)
    block = model.get(path_of(module, blocks(module)[layer]))
    options = greedy(ids, tokens)

    def call() -> list[list[int]]:
        with torch.no_grad(), model.trace(ids, fn="generate", **options) as tracer:
            for _ in tracer.iter[:tokens]:
                block.output = block.output + delta
            written = tracer.result.save()
        return written[:, ids.shape[1] :].tolist()

    return call
