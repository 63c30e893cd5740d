"""How a network is told to write: transformers' generation options for a run."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, GenerationMixin

from innerview.errors import GenerationError
from innerview.models.model import Model
from innerview.models.options import Options

# Settings of the network's own that would change which token is taken, with the values that leave the choice alone.
NEUTRAL = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "guidance_scale": 1.0,
    "diversity_penalty": 0.0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "token_healing": False,
    "return_dict_in_generate": False,
    "output_scores": False,
    "output_logits": False,
    "output_attentions": False,
    "output_hidden_states": False,
}
# Those without such a value: left unset they would come into force, so the network must let go of them first.
BINDING = (
    "bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "stop_strings", "max_time", "constraints",
    "force_words_ids", "forced_bos_token_id", "forced_eos_token_id", "exponential_decay_length_penalty", "min_new_tokens",
    "prompt_lookup_num_tokens", "prefill_chunk_size", "watermarking_config", "penalty_alpha", "dola_layers",
)  # fmt: skip

# Of these, what encoder–decoders are trained with: the language to write in, the end, a pad that is no word. It stays in force.
OF_PAIRS = ("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "forced_bos_token_id", "forced_eos_token_id")


def own_stops(model: Model) -> list[int]:
    """Ids that end a text of a network, its own settings having been looked at.

    Raises:
        GenerationError: The network's own generation config sets what would change the choice and cannot be overridden.
    """
    own = getattr(model.module, "generation_config", None)
    is_pair = bool(getattr(getattr(model.module, "config", None), "is_encoder_decoder", False))
    binding = [name for name in BINDING if not (is_pair and name in OF_PAIRS)]
    set_by_own = [name for name in binding if getattr(own, name, None) not in (None, [], {})]
    if set_by_own:
        name = set_by_own[0]
        raise GenerationError(
            f"the generation_config of {model.name} sets {name}={getattr(own, name)!r}, which would change the text behind your back; "
            f"set model.module.generation_config.{name} = None first"
        )
    stops = getattr(own, "eos_token_id", None)
    if stops is None:
        stops = getattr(model.tokenizer, "eos_token_id", None)
    return [] if stops is None else [stops] if isinstance(stops, int) else list(stops)


def generation_config(options: Options, *, stops: list[int], pad_id: int) -> Any:
    """Options of a run for transformers' `generate`: the likeliest token at each step (draws are made by the run's own sampler)."""
    config = GenerationConfig(
        max_new_tokens=options.max_new_tokens,
        do_sample=False,
        num_beams=options.num_beams,
        num_return_sequences=1 if options.is_drawn else options.num_return_sequences,
        use_cache=options.cache != "none",
        eos_token_id=stops or None,
        pad_token_id=pad_id,
        **NEUTRAL,
    )
    if options.cache == "static":
        config.cache_implementation = "static"
        # Compiled decoding would ignore hooks that come later.
        config.disable_compile = True
    return config


_GENERATE = inspect.unwrap(vars(GenerationMixin)["generate"]).__code__


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of a call of transformers' `generate`.

    Attributes:
        mask: True where a prompt's token is real, shape [prompts, width].
        ids: Their ids, shape [prompts, width]; None where embeddings were given.
        call: An object that lives as long as the call and is no other call's.
    """

    mask: Tensor
    ids: Tensor | None
    call: Any


def prompts_being_continued(root: nn.Module, frame: Any) -> Prompts | None:
    """The prompts of the `generate` of transformers that a forward of `root` belongs to.

    A forward does not tell where its prompt ends: masks of ones are dropped, static caches have 4-D ones, a prompt may come in chunks.
    The call of `generate` knows, and stands further up the stack.

    Args:
        root: The root module.
        frame: Frame of the forward; None is no frame.
    """
    while frame is not None:
        if frame.f_code is _GENERATE and frame.f_locals.get("self") is root:
            return _prompts_of(frame.f_locals)
        frame = frame.f_back
    return None


def _prompts_of(told: dict[str, Any]) -> Prompts | None:
    inputs, config = told.get("inputs_tensor"), told.get("generation_config")
    mask = _mask_of(told, inputs, config)
    if mask is None:
        return None
    has_ids = isinstance(inputs, Tensor) and inputs.ndim == 2 and not inputs.is_floating_point()
    return Prompts(mask, inputs if has_ids else None, config)


def _mask_of(told: dict[str, Any], inputs: Any, config: Any) -> Tensor | None:
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
