"""What one writes by hand: a forward hook that stops, a hook that adds, and the network cut short."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.networks import blocks, truncated


class _Stop(Exception):
    pass


def _hidden(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """A hook behind block `layer` that keeps its output and stops the forward."""
    block = blocks(module)[layer]

    def call() -> Tensor:
        kept: list[Tensor] = []

        def keep(_: nn.Module, args: tuple, output: Any) -> None:
            kept.append(_hidden(output))
            raise _Stop

        handle = block.register_forward_hook(keep)
        try:
            with torch.no_grad():
                module(ids, use_cache=False)
        except _Stop:
            return kept[0]
        finally:
            handle.remove()
        raise RuntimeError("the block did not run")

    return call


def capture_all(module: PreTrainedModel, ids: Tensor) -> Callable[[], list[Tensor]]:
    """A hook behind each block that keeps a copy of its output in host memory; the last one stops the forward."""
    listed = list(blocks(module))

    def call() -> list[Tensor]:
        kept: list[Tensor] = []

        def keep(_: nn.Module, args: tuple, output: Any) -> None:
            kept.append(_hidden(output).to("cpu", copy=True))
            if len(kept) == len(listed):
                raise _Stop

        handles = [block.register_forward_hook(keep) for block in listed]
        try:
            with torch.no_grad():
                module(ids, use_cache=False)
        except _Stop:
            return kept
        finally:
            for handle in handles:
                handle.remove()
        raise RuntimeError("the last block did not run")

    return call


def whole(module: PreTrainedModel, ids: Tensor) -> Callable[[], Tensor]:
    """The plain forward, final norm and head included; its logits."""

    def call() -> Tensor:
        with torch.no_grad():
            return module(ids, use_cache=False).logits

    return call


def cut(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """The forward of the network cut behind block `layer`: the limit of any capture."""
    short = truncated(module, layer)

    def call() -> Tensor:
        with torch.no_grad():
            return short(ids, use_cache=False).last_hidden_state

    return call


def decode(module: Any, ids: Tensor, layer: int, delta: Tensor, tokens: int) -> Callable[[], list[list[int]]]:
    """Greedy text, row by row, with `delta` added behind block `layer` at every token, by one hook and transformers' `generate`."""
    block = blocks(module)[layer]
    options = greedy(ids, tokens)

    def add(_: nn.Module, args: tuple, output: Any) -> Any:
        return output + delta if isinstance(output, Tensor) else (output[0] + delta, *output[1:])

    def call() -> list[list[int]]:
        handle = block.register_forward_hook(add)
        try:
            return module.generate(ids, **options)[:, ids.shape[1] :].tolist()
        finally:
            handle.remove()

    return call


def unedited(module: Any, ids: Tensor, tokens: int) -> Callable[[], list[list[int]]]:
    """Greedy text, row by row, by transformers' `generate` alone: the limit of any edit that decodes by it."""
    options = greedy(ids, tokens)
    return lambda: module.generate(ids, **options)[:, ids.shape[1] :].tolist()


def greedy(ids: Tensor, tokens: int) -> dict[str, Any]:
    """Options of `generate` for exactly `tokens` greedy tokens."""
    mask = torch.ones_like(ids)
    return dict(attention_mask=mask, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
