"""TransformerLens 3: the bridge over the same weights, caching one hook and stopping behind its block."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import PreTrainedModel

from benchmarks import networks

NAME = "TransformerLens"


def _opened(module: PreTrainedModel) -> TransformerBridge:
    # It does not boot without a tokenizer; ids are given, so any will do.
    tokenizer = networks.tokenizer()
    return TransformerBridge.boot_transformers("random-weights", hf_model=module, tokenizer=tokenizer, device="cpu")


def capture(module: PreTrainedModel, ids: Tensor, layer: int) -> Callable[[], Tensor]:
    """`run_with_cache` of one `hook_resid_post`, with `stop_at_layer`."""
    bridge = _opened(module)
    name = f"blocks.{layer}.hook_resid_post"

    def call() -> Tensor:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=name, stop_at_layer=layer + 1)
        return cache[name]

    return call


def capture_all(module: PreTrainedModel, ids: Tensor) -> Callable[[], list[Tensor]]:
    """`run_with_cache` of every `hook_resid_post`, with `stop_at_layer` behind the last and the cache in host memory."""
    bridge, layers = _opened(module), module.config.num_hidden_layers
    names = [f"blocks.{layer}.hook_resid_post" for layer in range(layers)]

    def call() -> list[Tensor]:
        with torch.no_grad():
            _, cache = bridge.run_with_cache(ids, names_filter=names, stop_at_layer=layers, device="cpu")
        return [cache[name] for name in names]

    return call
