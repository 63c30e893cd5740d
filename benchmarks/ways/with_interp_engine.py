"""interp-engine, eager backend: `capture` (it runs the whole forward) and `generate_stream` inside `steer`."""

from collections.abc import Callable
from typing import Any

import interp_engine
from interp_engine import EagerModel
from interp_engine.steer import SteerSpec, generate_stream, steer
from torch import Tensor
from transformers import PreTrainedModel

NAME = "interp-engine"


class _NoWords:
    """What interp-engine asks of a tokenizer while it decodes, for networks opened without one."""

    eos_token_id = None
    bos_token_id = None
    all_special_ids: tuple[int, ...] = ()

    def decode(self, ids: list[int], **_: Any) -> str:
        return str(ids)


def _opened(module: PreTrainedModel, tokenizer: Any) -> EagerModel:
    return EagerModel("random-weights", hf_model=module, tokenizer=tokenizer or _NoWords(), device="cpu")


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """`capture` of the point `resid_post`."""
    model, point = _opened(module, None), f"resid_post.{layer}"
    return lambda: interp_engine.capture(model, ids, [point])[point]


def capture_all(module: PreTrainedModel, ids: Tensor) -> Callable[[], list[Tensor]]:
    """`capture` of the point `resid_post` at every layer; it keeps copies."""
    model = _opened(module, None)
    points = [f"resid_post.{layer}" for layer in range(module.config.num_hidden_layers)]

    def call() -> list[Tensor]:
        cache = interp_engine.capture(model, ids, points)
        return [cache[point] for point in points]

    return call


def decode(
    module: PreTrainedModel, ids: Tensor, layer: int, delta: Tensor, tokens: int
) -> Callable[[], list[list[int]]]:
    """`generate_stream` inside `steer`, with its own loop around the forward, which writes one row: rows come one after another."""
    model = _opened(module, None)
    spec = [SteerSpec(delta, layer, 1.0)]

    def write(row: Tensor) -> list[int]:
        with steer(model, spec):
            steps = generate_stream(model, row[None], max_tokens=tokens, temperature=0.0, stop_at_eos=False)
            return [step.token_id for step in steps]

    return lambda: [write(row) for row in ids]
