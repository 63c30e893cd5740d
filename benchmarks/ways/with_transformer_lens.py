"""TransformerLens 3: the bridge over the same weights, caching one hook and stopping behind its block."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from benchmarks import networks

NAME = "TransformerLens"


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """`run_with_cache` of one `hook_resid_post`, with `stop_at_layer`."""
    # It does not boot without a tokenizer; ids are given, so any will do.
    tokenizer = networks.tokenizer()
    bridge = TransformerBridge.boot_transformers("random-weights", hf_model=module, tokenizer=tokenizer, device="cpu")
    name = f"blocks.{layer}.hook_resid_post"

    def call() -> Tensor:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=name, stop_at_layer=layer + 1)
        return cache[name]

    return call
