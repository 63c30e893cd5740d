"""What a root module is called with: arguments, the tokens among them, and parts of a batch."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from innerview.calls import cache_of, ids_shape, named
from innerview.errors import CaptureError, TextError
from innerview.models import text
from innerview.models.model import Model
from innerview.rows import Rows
from innerview.sides import decoder_tokens, is_pair


class Call:
    """How the root module is called: its arguments, and the tokens among them."""

    def __init__(
        self, model: Model, args: tuple, kwargs: dict[str, Any], tokens: text.Tokens | None, *, is_encoded: bool = False
    ) -> None:
        self.model = model
        self.args = args
        self.kwargs = kwargs
        self.tokens = tokens
        # Rows that were padded here may be trimmed to the longest of a part; the caller's own padding stays.
        self.is_encoded = is_encoded
        # Of an encoder–decoder `tokens` are the encoder's; a capture of the decoder alone speaks of the decoder's.
        self.read = tokens
        self.is_decoders = False

    @classmethod
    def of(cls, model: Model, inputs: Any) -> "Call":
        """The call for some inputs.

        Raises:
            TextError: They cannot be read.
        """
        if isinstance(inputs, Mapping):
            return cls(model, (), dict(inputs), _tokens_of(inputs))
        is_tensor = isinstance(inputs, Tensor)
        if is_tensor and (inputs.is_floating_point() or "input_ids" not in _parameters(model)):
            return cls(model, (inputs,), {}, None)
        if isinstance(inputs, tuple) and inputs and all(isinstance(i, Tensor) for i in inputs):
            return cls(model, inputs, {}, None)
        if is_pair(model.module):
            return cls._of_pair(model, inputs)
        tokens = _ready_ids(model, inputs) if is_tensor else None
        if tokens is not None:
            return cls(model, (), _arguments(model, tokens, is_full=True), tokens, is_encoded=True)
        tokens = text.encode(model, inputs)
        is_full = bool(tokens.mask.all())
        return cls(model, (), _arguments(model, tokens, is_full=is_full), tokens, is_encoded=True)

    @classmethod
    def _of_pair(cls, model: Model, inputs: Any) -> "Call":
        """The call of an encoder–decoder that reads some texts and is about to write: its decoder gets the token it starts from.

        Raises:
            TextError: The decoder's start is unknown.
        """
        tokens = text.encode(model, inputs)
        given = _arguments(model, tokens, is_full=bool(tokens.mask.all()))
        config: Any = model.module.config
        start = getattr(config, "decoder_start_token_id", None)
        if not isinstance(start, int):
            raise TextError(
                f"{model.name} is an encoder-decoder whose config has decoder_start_token_id={start!r}, so what its decoder reads is "
                "unknown; give {'input_ids': ..., 'decoder_input_ids': ...}"
            )
        given["decoder_input_ids"] = given["input_ids"].new_full((tokens.ids.shape[0], 1), start)
        return cls(model, (), given, tokens)

    def rows(self) -> Rows | None:
        """The rows of this call, all prompt."""
        if self.read is None:
            return None
        lengths = self.read.lengths
        is_full = bool(self.read.mask.all())
        return Rows(self.read.left_pad, lengths, lengths, is_full=is_full, real=self.read.mask)

    def for_decoder(self) -> "Call":
        """The same call of an encoder–decoder, whose `tokens` are the decoder's.

        Raises:
            CaptureError: The call does not say which they are.
        """
        ids, mask = decoder_tokens(self.kwargs)
        if ids is None or mask is None:
            raise CaptureError(
                f"this call of {self.model.name} gives no decoder_input_ids, so the decoder's tokens are unknown and none can be chosen; give them"
            )
        made = Call(self.model, self.args, self.kwargs, text.Tokens(ids, mask, False))
        made.read, made.is_decoders = self.read, True
        return made

    @property
    def has_cache(self) -> bool:
        """Whether the call goes on from a cache of the caller's."""
        return cache_of(self.kwargs) is not None

    @property
    def count(self) -> int | None:
        """Rows of the batch; None when nothing in the call says."""
        if self.tokens is not None:
            return int(self.tokens.ids.shape[0])
        given = self.kwargs.get("inputs_embeds", next((v for v in self._values() if isinstance(v, Tensor)), None))
        return int(given.shape[0]) if isinstance(given, Tensor) and given.ndim else None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and tokens a row; None when the network reads no ids."""
        return ids_shape(*named(self.model.module, self.args, self.kwargs))[0]

    def _values(self) -> list[Any]:
        return [*self.args, *self.kwargs.values()]

    def part(self, chosen: list[int]) -> "Call":
        """The call for some of its rows.

        Raises:
            CaptureError: It goes on from a cache, which cannot be taken apart.
        """
        if self.has_cache:
            raise CaptureError(
                f"a capture that goes on from a cache of {self.count} rows cannot be taken apart; drop batch_size="
            )
        index = torch.tensor(chosen)
        if self.is_encoded and self.tokens is not None:
            mask = self.tokens.mask[index]
            width = int(mask.sum(dim=1).max())
            tokens = text.Tokens(self.tokens.ids[index, :width], mask[:, :width], self.tokens.is_single)
            is_full = bool(tokens.mask.all())
            return Call(self.model, (), _arguments(self.model, tokens, is_full=is_full), tokens, is_encoded=True)
        args = tuple(self._rows_of(None, value, index) for value in self.args)
        kwargs = {name: self._rows_of(name, value, index) for name, value in self.kwargs.items()}
        made = Call(self.model, args, kwargs, _tokens_of(kwargs))
        return made.for_decoder() if self.is_decoders else made

    def _rows_of(self, name: str | None, value: Any, index: Tensor) -> Any:
        """Some rows of one argument; what has no rows stays whole."""
        if not isinstance(value, Tensor) or not value.ndim:
            return value
        # Positions of several kinds (time, height, width) stand before the rows.
        axis = 1 if name == "position_ids" and value.ndim == 3 else 0
        return value.index_select(axis, index.to(value.device)) if value.shape[axis] == self.count else value


@lru_cache(maxsize=64)
def _parameters_of(function: Callable[..., Any]) -> dict[str, bool]:
    # Reading a signature costs as much as a small network's block. By function: a bound method would keep its network alive.
    return {name: p.default is p.empty for name, p in inspect.signature(function).parameters.items()}


def _parameters(model: Model) -> dict[str, bool]:
    """Names of what the root module's forward takes, and whether each must be given."""
    forward = model.module.forward
    bound = getattr(forward, "__func__", None)
    # `self` stays among the names of a method, where it does no harm.
    return _parameters_of.__wrapped__(forward) if bound is None else _parameters_of(bound)


def _tokens_of(inputs: Mapping[str, Any]) -> text.Tokens | None:
    ids = inputs.get("input_ids")
    if not isinstance(ids, Tensor) or ids.ndim != 2:
        return None
    mask = inputs.get("attention_mask")
    is_mask = isinstance(mask, Tensor) and mask.shape == ids.shape
    return text.Tokens(ids, mask.bool() if is_mask else torch.ones_like(ids, dtype=torch.bool), False)  # type: ignore[union-attr]


def _ready_ids(model: Model, ids: Tensor) -> text.Tokens | None:
    """Ids that need no padding and no word about them; None for those that `encode` must look at."""
    if ids.dtype != torch.int64 or ids.ndim != 2 or ids.device.type != "cpu" or not ids.numel():
        return None
    low, high = _ends(ids)
    if low < 0 or high >= (model.vocab or high + 1) or ids.shape[1] > (model.context or ids.shape[1]):
        return None
    return text.Tokens(ids.detach().clone(), torch.ones(ids.shape, dtype=torch.bool), False)


def _ends(ids: Tensor) -> tuple[int, int]:
    """The least and the largest id."""
    if ids.numel() > 256:
        low, high = torch.aminmax(ids)
        return int(low), int(high)
    listed = ids.flatten().tolist()
    return min(listed), max(listed)


def _arguments(model: Model, tokens: text.Tokens, *, is_full: bool) -> dict[str, Any]:
    """The module's own arguments for rows of ids, padded right."""
    takes = _parameters(model)
    if "input_ids" not in takes:
        names = ", ".join(name for name in takes if name != "self")
        raise TextError(f"{model.name} takes no token ids (its forward has {names}); give the tensors it takes")
    device = _device_of(model)
    given: dict[str, Any] = {"input_ids": tokens.ids.to(device)}
    needs_mask = takes.get("attention_mask")
    if needs_mask or (needs_mask is not None and not (is_full and _reads_all(model, tokens))):
        given["attention_mask"] = tokens.mask.long().to(device)
    # Padding stands on the right, so the network's own count of positions is right for every real token.
    if takes.get("position_ids"):
        given["position_ids"] = (tokens.mask.long().cumsum(dim=1) - 1).clamp_(min=0).to(device)
    if "use_cache" in takes:
        given["use_cache"] = False
    return given


def _reads_all(model: Model, tokens: text.Tokens) -> bool:
    """Whether a mask of ones would say nothing new: to a known decoder, where no token looks like a pad."""
    if model.family is None:
        return False
    pad = _own(_own(model.module, "config"), "pad_token_id")
    return not isinstance(pad, int) or not bool((tokens.ids == pad).any())


def _own(thing: Any, name: str) -> Any:
    """An attribute of an object itself. Configs of transformers compute theirs, which takes as long as a small layer."""
    try:
        return object.__getattribute__(thing, "__dict__").get(name)
    except AttributeError:
        return None


def _device_of(model: Model) -> torch.device:
    """The network's device, quickly."""
    first = _first_parameter(model.module)
    return model.device if first is None or first.device.type == "meta" else first.device


def _first_parameter(module: nn.Module) -> Tensor | None:
    """The first of `module.parameters()`, without the walk through all of them that its generator prepares."""
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    for part in module._modules.values():
        found = None if part is None else _first_parameter(part)
        if found is not None:
            return found
    return None
