"""What is asked of a generation, checked before anything is written; and what a decoder starts from."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from innerview.compiling import Compiled
from innerview.direction import Direction
from innerview.errors import CaptureError, EditError, GenerationError
from innerview.models import text
from innerview.models.model import Model
from innerview.models.options import Options
from innerview.readings import Reading
from innerview.runs import check_width
from innerview.sides import decoder_start, encoder_of, is_pair
from innerview.writers import why_not_compiled


def check_live(live: Compiled, tokens: text.Tokens, options: Options, readings: Any, capture: Any) -> None:
    """Refuse what compiled code, or the way around it, cannot do.

    Raises:
        CaptureError: There are more rows or tokens than its taps were made for, or a site is not copied by them.
        EditError: Edits are in force in it, and it cannot write.
    """
    why = why_not_compiled(live.model, options)
    if why is not None:
        if live.edits:
            raise EditError(
                f"this text is not written by compiled code ({why}), and edits put in force by .set are known to no other; give them as edits="
            )
        return
    each = options.num_return_sequences if options.is_drawn else 1
    live.taps.check_size((tokens.ids.shape[0] * each, tokens.ids.shape[1]))
    wanted = [one.site for one in readings] + ([capture] if isinstance(capture, str) else list(capture))
    for site in (site for name in wanted for site in live.model.expand(name)):
        if site.name not in live.captured:
            raise CaptureError(
                f"this compiled network copies {', '.join(live.captured) or 'no site'}, and not {site.name!r}; "
                f"compile it with capture=[{site.name!r}]"
            )


def start_tokens(model: Model, read: text.Tokens) -> text.Tokens:
    """What the decoder of an encoder–decoder starts from, a row for each that its encoder reads."""
    start = decoder_start(model.module)
    assert start is not None
    ids = torch.full((read.ids.shape[0], 1), start)
    return text.Tokens(ids, torch.ones_like(ids, dtype=torch.bool), read.is_single)


def filler(model: Model) -> int:
    """The id that fills a decoder's rows behind their end."""
    found = getattr(model.module.config, "pad_token_id", None)
    return found if isinstance(found, int) else text.pad_id(model)


def _check_pair_writes(model: Model, options: Options) -> None:
    root: Any = model.module
    if "input_ids" not in inspect.signature(root.forward).parameters or encoder_of(root) is None:
        raise GenerationError(
            f"the encoder of {model.name} reads no token ids; call model.module.generate(...) inside iv.editing(model, edits)"
        )
    if decoder_start(root) is None:
        raise GenerationError(
            f"{model.name} does not say what its decoder starts from: its config has decoder_start_token_id=None; "
            "set model.module.generation_config.decoder_start_token_id first"
        )
    if model.context is not None and options.max_new_tokens >= model.context:
        raise GenerationError(
            f"max_new_tokens={options.max_new_tokens} and the start do not fit into the decoder's context of {model.context}; "
            f"ask for at most {model.context - 1}"
        )


def check_request(model: Model, options: Options, readings: Any, on_token: Any) -> None:
    """Refuse what this network, or this choice of options, cannot do."""
    if not hasattr(model.module, "generate"):
        raise GenerationError(
            f"{model.name} ({type(model.module).__name__}) does not generate text; open a causal language model"
        )
    if is_pair(model.module):
        _check_pair_writes(model, options)
    if on_token is not None and not callable(on_token):
        raise GenerationError(f"on_token is called with the run behind each token, and {on_token!r} cannot be called")
    if isinstance(readings, (Direction, Reading)) or not isinstance(readings, Sequence):
        raise GenerationError(f"readings are a list of directions, not {readings!r}")
    if options.num_beams > 1 and readings:
        raise GenerationError(
            f"readings follow one text a prompt, and {options.num_beams} beams reorder theirs; use num_beams=1"
        )
    for direction in readings:
        if not isinstance(direction, (Direction, Reading)):
            raise EditError(
                f"a reading is a Direction or a Reading, not {direction!r} of type {type(direction).__name__}"
            )
        check_width(direction.vector.numel(), model.site(direction.site))
    names = [direction.name for direction in readings]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise GenerationError(
            f"{names.count(twice)} readings are called {twice!r}; name them apart with direction.named(...)"
        )
