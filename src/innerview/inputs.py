"""What a root module is called with: arguments, the tokens among them, and parts of a batch."""

import inspect
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from innerview.calls import cache_of, held, ids_shape, named
from innerview.errors import CaptureError, TextError
from innerview.models import text
from innerview.models.model import Model
from innerview.rows import Rows
from innerview.sides import decoder_start, decoder_tokens, is_pair


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
        # Whether the call goes on from a cache of the caller's.
        self.has_cache = cache_of(kwargs) is not None

    @classmethod
    def of(cls, model: Model, inputs: Any) -> "Call":
        """The call for some inputs.

        Raises:
            TextError: They cannot be read.
        """
        if isinstance(inputs, Tensor):
            if inputs.is_floating_point() or "input_ids" not in _parameters(model):
                return cls(model, (inputs,), {}, None)
        elif isinstance(inputs, Mapping):
            return cls(model, (), dict(inputs), _tokens_of(inputs))
        elif isinstance(inputs, tuple) and inputs and all(isinstance(i, Tensor) for i in inputs):
            return cls(model, inputs, {}, None)
        if is_pair(model.module):
            return cls._of_pair(model, inputs)
        return cls._of_ready(model, inputs) or cls._of_texts(model, inputs)

    @classmethod
    def _of_ready(cls, model: Model, inputs: Any) -> "Call | None":
        """The call for ids that need no padding and no word about them; None for inputs that `encode` must look at."""
        if (
            not isinstance(inputs, Tensor)
            or inputs.dtype != torch.int64
            or inputs.ndim not in (1, 2)
            or not inputs.is_cpu
        ):
            return None
        count = inputs.numel()
        # Each operation on a tensor takes as long as a few lines of Python, and behind a network several times that.
        listed = _listed(inputs) if 0 < count <= FEW else None
        if not count or not _is_known(model, inputs, listed):
            return None
        ids = inputs.clone() if inputs.ndim == 2 else inputs.clone()[None]
        tokens = text.Tokens(ids, _all_true(*ids.shape), inputs.ndim == 1)
        return cls(model, (), _arguments(model, tokens, is_full=True, listed=listed), tokens, is_encoded=True)

    @classmethod
    def _of_texts(cls, model: Model, inputs: Any) -> "Call":
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
        start = decoder_start(model.module)
        if start is None:
            raise TextError(
                f"{model.name} is an encoder-decoder whose config has decoder_start_token_id=None, so what its decoder reads is "
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
    def count(self) -> int | None:
        """Rows of the batch; None when nothing in the call says."""
        if self.tokens is not None:
            return int(self.tokens.ids.shape[0])
        given = self.kwargs.get("inputs_embeds", next((v for v in self._values() if isinstance(v, Tensor)), None))
        return int(given.shape[0]) if isinstance(given, Tensor) and given.ndim else None

    @property
    def shape(self) -> tuple[int, int] | None:
        """Rows and tokens a row; None when the network reads no ids."""
        if self.is_encoded and self.tokens is not None:
            return tuple(self.tokens.ids.shape)  # type: ignore[return-value]
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


# Ids up to this many are looked at one by one.
FEW = 256


def _listed(ids: Tensor) -> list[int]:
    rows = ids.tolist()
    return rows if ids.ndim == 1 else rows[0] if len(rows) == 1 else [one for row in rows for one in row]


def _is_known(model: Model, ids: Tensor, listed: list[int] | None) -> bool:
    """Whether a network has all these ids, and room for as many."""
    low, high = (min(listed), max(listed)) if listed is not None else (int(end) for end in torch.aminmax(ids))
    is_short = model.context is None or ids.shape[-1] <= model.context
    return low >= 0 and (model.vocab is None or high < model.vocab) and is_short


@lru_cache(maxsize=16)
def _true(rows: int, width: int) -> Tensor:
    return torch.ones((rows, width), dtype=torch.bool, device="cpu")


def _all_true(rows: int, width: int) -> Tensor:
    """A mask of real tokens, shape [rows, width]."""
    # A copy behind the copy of the ids runs through code that is warm by then; filling a mask anew does not.
    return _true(rows, width).clone() if rows * width <= FEW else torch.ones((rows, width), dtype=torch.bool)


def _arguments(model: Model, tokens: text.Tokens, *, is_full: bool, listed: list[int] | None = None) -> dict[str, Any]:
    """The module's own arguments for rows of ids, padded right; `listed` are all the ids, where somebody has listed them."""
    takes = _parameters(model)
    if "input_ids" not in takes:
        names = ", ".join(name for name in takes if name != "self")
        raise TextError(f"{model.name} takes no token ids (its forward has {names}); give the tensors it takes")
    given: dict[str, Any] = {"input_ids": tokens.ids}
    needs_mask = takes.get("attention_mask")
    if needs_mask or (needs_mask is not None and not (is_full and _reads_all(model, tokens, listed))):
        given["attention_mask"] = tokens.mask.long()
    # Padding stands on the right, so the network's own count of positions is right for every real token.
    if takes.get("position_ids"):
        given["position_ids"] = (tokens.mask.long().cumsum(dim=1) - 1).clamp_(min=0)
    if not _is_on_cpu(model):
        device = model.device
        given = {name: value.to(device) for name, value in given.items()}
    if "use_cache" in takes:
        given["use_cache"] = False
    return given


def _reads_all(model: Model, tokens: text.Tokens, listed: list[int] | None) -> bool:
    """Whether a mask of ones would say nothing new: to a known decoder, where no token looks like a pad."""
    if model.family is None:
        return False
    pad = held(held(model.module, "config"), "pad_token_id")
    if not isinstance(pad, int):
        return True
    return pad not in listed if listed is not None else not bool((tokens.ids == pad).any())


def _is_on_cpu(model: Model) -> bool:
    """Whether inputs belong on the CPU, quickly: the name of a device is a text that must be built."""
    first = _first_parameter(model.module)
    return first is not None and first.is_cpu


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
