"""How a network is told to write: transformers' generation options for a run."""

from typing import Any

from transformers import GenerationConfig

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
        use_cache=cache != "none",
        eos_token_id=stops,
        pad_token_id=pad_id,
    )
    if cache == "static":
        config.cache_implementation = "static"
        # Compiled decoding would ignore hooks that come later.
        config.disable_compile = True
    return config
