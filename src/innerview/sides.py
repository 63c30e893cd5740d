"""Encoder–decoders: which of the two texts a module sees, and where the decoder's tokens stand."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from innerview.calls import cache_length, held
from innerview.errors import EditError
from innerview.forwards import Forward
from innerview.models.site import Point
from innerview.rows import Memory, Rows

# Names of a decoder's attention to the encoder in transformers, whose keys and values are of the encoder's tokens.
CROSS = ("cross", "encoder_attn", "EncDecAttention", "encoder_decoder_attention")
KEYS = ("k", "v", "k_proj", "v_proj", "key", "value")


class Pair:
    """The texts of one forward of an encoder–decoder: each point goes with its own.

    Args:
        root: The root module.
        decoder: Where the decoder's tokens stand; None when the call does not say.
        known: Points whose side is known already, and whether it is the decoder's; what is found out is added.
    """

    def __init__(self, root: nn.Module, decoder: Forward | None, known: dict[Point, bool] | None = None) -> None:
        self.decoder = decoder
        self._root = root
        self._is_decoders = {} if known is None else known

    @classmethod
    def of(cls, root: nn.Module, kwargs: dict, told: Any = None) -> "Pair | None":
        """The texts of a call of the root; None for networks that read one.

        Args:
            root: The root module.
            kwargs: The call's arguments.
            told: Lengths of the decoder's prompts, where the user told them.
        """
        return cls(root, decoder_forward(kwargs, told)) if is_pair(root) else None

    @property
    def longest(self) -> int:
        """Tokens of the decoder's text so far."""
        return 0 if self.decoder is None else self.decoder.col0 + self.decoder.q

    def at(self, point: Point, forward: Forward | None) -> Forward | None:
        """Where the tokens of a point stand, `forward` being the encoder's.

        Raises:
            EditError: Encoder and decoder share the module.
        """
        if point not in self._is_decoders:
            self._is_decoders[point] = is_decoders(self._root, point)
        return self.decoder if self._is_decoders[point] else forward


def is_pair(root: nn.Module) -> bool:
    """Whether a network is an encoder–decoder of transformers, which reads two texts."""
    config = getattr(root, "config", None)
    told = held(config, "is_encoder_decoder")
    if not (getattr(config, "is_encoder_decoder", False) if told is None else told):
        return False
    # A decoder taken out of one may keep its config.
    return "decoder_input_ids" in inspect.signature(root.forward).parameters


def is_decoders(root: nn.Module, point: Point) -> bool:
    """Whether a point of an encoder–decoder sees the decoder's tokens, not the encoder's.

    Raises:
        EditError: Encoder and decoder share the module, which sees both.
    """
    path = point[0]
    steps = path.split(".")
    crosses = any(name.lower() in step.lower() for name in CROSS for step in steps[:-1])
    if crosses and steps[-1] in KEYS:
        return False
    part, encoder = root.get_submodule(path), _part(root, "encoder")
    if encoder is None or not any(module is part for module in encoder.modules()):
        return True
    decoder = _part(root, "decoder")
    if decoder is not None and any(module is part for module in decoder.modules()):
        raise EditError(
            f"module {path!r} is shared by encoder and decoder, so which text its tokens are of is unclear; name a module of one of them"
        )
    return False


def decoder_start(root: nn.Module) -> int | None:
    """The id that a decoder starts from where nothing else is said; None where transformers knows none."""
    places = (getattr(root, "generation_config", None), getattr(root, "config", None))
    found = next((i for i in (getattr(one, "decoder_start_token_id", None) for one in places) if i is not None), None)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def encoder_of(root: nn.Module) -> nn.Module | None:
    """The encoder of an encoder–decoder of transformers; None where it has none of its own."""
    return _part(root, "encoder")


def _part(root: nn.Module, name: str) -> nn.Module | None:
    found = getattr(root, f"get_{name}", None)
    part = found() if found is not None else None
    # What has no such part of its own may return itself.
    return part if isinstance(part, nn.Module) and part is not root else None


def decoder_tokens(kwargs: dict) -> tuple[Tensor | None, Tensor | None]:
    """Ids of the decoder's text, shape [rows, tokens], and True for its real tokens; None where the call does not give them."""
    ids, mask = kwargs.get("decoder_input_ids"), kwargs.get("decoder_attention_mask")
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return None, None
    is_mask = isinstance(mask, Tensor) and mask.shape == ids.shape
    return ids, mask.bool() if is_mask else torch.ones_like(ids, dtype=torch.bool)  # type: ignore[union-attr]


def decoder_forward(kwargs: dict, told: Any) -> Forward | None:
    """Where the decoder's tokens stand in a call of an encoder–decoder; None when the call does not give them.

    Args:
        kwargs: The call's arguments.
        told: Lengths of the decoder's prompts, where the user told them.
    """
    ids, mask = decoder_tokens(kwargs)
    if ids is None or mask is None:
        return None
    rows, width = ids.shape
    col0 = cache_length(kwargs) or 0
    whole = kwargs.get("decoder_attention_mask")
    if isinstance(whole, Tensor) and whole.shape == (rows, col0 + width):
        real = whole.bool().cpu()
    else:
        real = torch.cat([torch.ones(rows, col0, dtype=torch.bool), mask.cpu()], dim=1)
    length = real.sum(dim=1)
    # `generate` of transformers gives the encoder's output instead of its text, and the decoder's text as it grows.
    prompt = length if col0 == 0 and kwargs.get("encoder_outputs") is None else None
    if told is not None:
        prompt = torch.as_tensor(told).long().flatten().expand(rows)
    why = (
        "an encoder-decoder does not say where the prompt of its decoder ends; "
        "choose by positions, or pass editing(..., prompt_tokens=<length of the decoder's prompt>)"
    )
    placed = Rows(torch.zeros(rows, dtype=torch.long), length, prompt, why, True, bool(real.all()), real)
    return Forward(placed, (rows, width), col0, ids.device, ids=ids, memory=Memory())
