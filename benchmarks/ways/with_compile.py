"""What one writes by hand to decode by compiled code: a static cache, the prompt as it comes, single tokens through `torch.compile`."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._inductor import config
from transformers import StaticCache


def unedited(module: Any, ids: Tensor, tokens: int) -> Callable[[], list[list[int]]]:
    """Greedy text, row by row, with nothing edited and no tap put in: the limit of any edit in compiled code."""
    compiled = torch.compile(module, dynamic=False)
    width = ids.shape[1]
    cache: Any = StaticCache(config=module.config, max_cache_len=32 if width + tokens <= 32 else 64)

    def call() -> list[list[int]]:
        if cache.layers[0].is_initialized:
            cache.reset()
        pos = torch.arange(width).expand(len(ids), -1)
        seen = torch.zeros((len(ids), 1, 1, cache.get_max_length()), dtype=torch.bool)
        seen[..., :width] = True
        with torch.no_grad():
            given = module.prepare_inputs_for_generation(
                ids, past_key_values=cache, position_ids=pos, use_cache=True, logits_to_keep=1, is_first_iteration=True
            )
            fresh = module(**given).logits[:, -1].argmax(dim=-1)
            found = [fresh]
            for column in range(width, width + tokens - 1):
                seen[..., column] = True
                output = _frozen(
                    compiled, input_ids=fresh[:, None], past_key_values=cache, attention_mask=seen, position_ids=pos[:, -1:] * 0 + column,
                    use_cache=True, logits_to_keep=1,
                )  # fmt: skip
                fresh = output.logits[:, -1].argmax(dim=-1)
                found.append(fresh)
        return torch.stack(found, dim=1).tolist()

    return call


def _frozen(compiled: Any, **given: Any) -> Any:
    # As ours: the weights are part of the code.
    with config.patch(freezing=True):
        return compiled(**given)
