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


def decode(module: PreTrainedModel, ids: Tensor, layer: int, delta: Tensor, tokens: int) -> Callable[[], list[int]]:
    """`generate_stream` inside `steer`, with its own loop around the forward."""
    model = _opened(module, None)
    spec = [SteerSpec(delta, layer, 1.0)]

    def call() -> list[int]:
        with steer(model, spec):
            return [
                s.token_id for s in generate_stream(model, ids, max_tokens=tokens, temperature=0.0, stop_at_eos=False)
            ]

    return call
