"""How a network is told to write: transformers' generation options for a run."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin

from innerview.models.model import Model


def generation_config(
    model: Model, *, max_new_tokens: int, num_beams: int, num_return_sequences: int, cache: str, pad_id: int
) -> Any:  # fmt: skip
    """Options of a run: the likeliest token at each step (draws are made by the run's own sampler), the network's own stops."""
    own = getattr(model.module, "generation_config", None)
    stops = getattr(own, "eos_token_id", None)
    if stops is None:
        stops = getattr(model.tokenizer, "eos_token_id", None)
    config = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=num_beams,
        num_return_sequences=num_return_sequences,
        return_dict_in_generate=False,
        use_cache=cache != "none",
        eos_token_id=stops,
        pad_token_id=pad_id,
    )
    if cache == "static":
        config.cache_implementation = "static"
        # Compiled decoding would ignore hooks that come later.
        config.disable_compile = True
    return config


_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__


def prompts_being_continued(root: nn.Module, frame: Any) -> Tensor | None:
    """Mask of the prompts of the `generate` of transformers that a forward of `root` belongs to, shape [prompts, width].

    A forward does not tell where its prompt ends: masks of ones are dropped, static caches have 4-D ones, a prompt may come in chunks.
    The call of `generate` knows, and stands further up the stack.

    Args:
        root: The root module.
        frame: Frame of the forward; None is no frame.
    """
    while frame is not None:
        if frame.f_code is _GENERATE and frame.f_locals.get("self") is root:
            return _mask_of(frame.f_locals)
        frame = frame.f_back
    return None


def _mask_of(told: dict[str, Any]) -> Tensor | None:
    inputs, config = told.get("inputs_tensor"), told.get("generation_config")
    if not isinstance(inputs, Tensor) or getattr(told["self"].config, "is_encoder_decoder", False):
        return None
    mask = told.get("kwargs", {}).get("attention_mask")
    if isinstance(mask, Tensor):
        return mask.bool() if mask.ndim == 2 and mask.shape == inputs.shape[:2] else None
    whole = torch.ones(inputs.shape[:2], dtype=torch.bool, device=inputs.device)
    pad, stops = getattr(config, "pad_token_id", None), getattr(config, "eos_token_id", None)
    listed = stops if isinstance(stops, (list, tuple)) else [stops]
    # As generate itself does: without a mask, the pad is a pad unless it also ends the text.
    return inputs != pad if inputs.ndim == 2 and pad is not None and pad not in listed else whole
