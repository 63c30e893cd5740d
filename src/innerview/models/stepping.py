"""The calls of a network that write a text token by token: those that transformers' `generate` makes, without what stands around them."""

import inspect
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, StaticCache
from transformers.cache_utils import StaticLayer

# What `generate` calls on its way to one forward a token: a network that has its own is left to it.
_CALLED = (
    "generate", "_sample", "_prefill", "prepare_inputs_for_generation", "_update_model_kwargs_for_generation", "_prepare_model_inputs",
    "_prepare_position_ids_for_generation", "_prepare_cache_for_generation", "_prepare_generation_config", "_prepare_generated_length",
    "_expand_inputs_for_generation", "_get_logits_processor", "_get_stopping_criteria", "_optimize_model_for_decode",
    "_supports_default_dynamic_cache", "_supports_logits_to_keep", "_prepare_special_tokens",
)  # fmt: skip


class Steps(Protocol):
    """One forward a token."""

    def first(self) -> Tensor:
        """Logits behind the prompts, shape [rows, vocab], float32."""
        ...

    def next(self, fresh: Tensor) -> Tensor:
        """Logits behind one more token of each row, shape [rows, vocab], float32.

        Args:
            fresh: Ids of the tokens, shape [rows].
        """
        ...

    def decoding(self) -> AbstractContextManager[Any]:
        """What holds while single tokens are fed."""
        ...


@lru_cache(maxsize=64)
def _overridden(kind: type) -> str | None:
    """The first function of `generate` that a class has its own of."""
    static = inspect.getattr_static
    return next((name for name in _CALLED if static(kind, name) is not static(GenerationMixin, name)), None)


@lru_cache(maxsize=64)
def _takes(kind: type) -> frozenset[str]:
    return frozenset(inspect.signature(kind.forward).parameters)  # type: ignore[attr-defined]


def why_not(root: nn.Module) -> str | None:
    """Why a network's tokens are left to its own `generate`; None where they can be fed one by one."""
    if not isinstance(root, GenerationMixin):
        return f"{type(root).__name__} is no network of transformers"
    network: Any = root
    config = getattr(root, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder reads the prompt"
    own = _overridden(type(root)) or next((name for name in _CALLED if name in root.__dict__), None)
    if own is not None:
        return f"{type(root).__name__} has a {own} of its own"
    if "mamba" in type(root).__name__.lower() or not network._supports_default_dynamic_cache():
        return f"{type(root).__name__} keeps what it has read in no cache of keys and values"
    if not {"attention_mask", "input_ids", "past_key_values"} <= _takes(type(root)) or "forward" in root.__dict__:
        return f"the forward of {type(root).__name__} takes no cache and mask by name"
    kind = getattr(getattr(root, "generation_config", None), "cache_implementation", None)
    if kind not in (None, "dynamic"):
        return f"its generation_config asks for a cache of the kind {kind!r}"
    return "its code is not transformers' own" if network.is_remote_code() else None


def why_not_static(root: nn.Module) -> str | None:
    """Why a network's single tokens cannot be fed to compiled code; None where they can."""
    why = why_not(root)
    if why is not None:
        return why
    if not getattr(root, "_can_compile_fullgraph", False):
        return f"transformers does not compile {type(root).__name__} in one piece"
    kinds = {type(layer).__name__ for layer in _static_cache(root, 8).layers}
    if kinds != {StaticLayer.__name__}:
        return f"a static cache of {type(root).__name__} has layers of the kinds {', '.join(sorted(kinds))}, not of full attention alone"
    return None


def _static_cache(root: Any, columns: int) -> StaticCache:
    return StaticCache(config=root.config.get_text_config(decoder=True), max_cache_len=columns)


# Columns of the smallest static cache.
FEWEST = 32


def columns_for(needed: int, context: int | None) -> int:
    """Columns of a static cache for as many tokens: the next power of two, so that texts of about one length share their code."""
    found = max(FEWEST, 1 << (needed - 1).bit_length())
    return needed if context is not None and needed <= context < found else found


class Caches:
    """Static caches of a network that nobody uses now. Used again, they bring their compiled code along."""

    def __init__(self, root: nn.Module) -> None:
        self._root = root
        self._free: dict[tuple[int, int], list[StaticCache]] = {}

    def take(self, rows: int, columns: int) -> StaticCache:
        """An empty cache."""
        listed = self._free.get((rows, columns), [])
        cache = listed.pop() if listed else _static_cache(self._root, columns)
        first: Any = cache.layers[0]
        if first.is_initialized:
            # Zeros, not only a length of 0: a hidden infinity times a weight of 0 is no number.
            cache.reset()
        return cache

    def give(self, rows: int, cache: StaticCache) -> None:
        """Give one back."""
        self._free.setdefault((rows, cache.layers[0].get_max_length()), []).append(cache)


class GrowingSteps:
    """Forwards with a cache that grows by a token at a time.

    Args:
        root: The network.
        ids: The prompts, padded left, shape [rows, width].
        mask: True where a token is real, shape [rows, width].
    """

    def __init__(self, root: Any, ids: Tensor, mask: Tensor) -> None:
        takes = _takes(type(root))
        whole = mask.long()
        self._root = root
        self._ids = ids
        # A mask of ones says nothing, and costs time.
        self._mask = None if bool(mask.all()) else whole
        self._pos = (whole.cumsum(-1) - 1).masked_fill(whole == 0, 0) if "position_ids" in takes else None
        self._given: dict[str, Any] = {
            "past_key_values": DynamicCache(config=root.config.get_text_config(decoder=True)),
            "use_cache": True,
            "return_dict": True,
        }
        if "logits_to_keep" in takes:
            self._given["logits_to_keep"] = 1

    def first(self) -> Tensor:
        """Logits behind the prompts, shape [rows, vocab], float32."""
        return self._logits(self._ids)

    def next(self, fresh: Tensor) -> Tensor:
        """Logits behind one more token of each row, shape [rows, vocab], float32."""
        if self._mask is not None:
            self._mask = torch.cat([self._mask, self._mask.new_ones((len(fresh), 1))], dim=-1)
        if self._pos is not None:
            self._pos = self._pos[:, -1:] + 1
        return self._logits(fresh[:, None])

    def _logits(self, ids: Tensor) -> Tensor:
        given = self._given
        if self._mask is not None:
            given["attention_mask"] = self._mask
        if self._pos is not None:
            given["position_ids"] = self._pos
        output = self._root(input_ids=ids, **given)
        return output.logits[:, -1].to(dtype=torch.float32, device=ids.device)

    def decoding(self) -> AbstractContextManager[Any]:
        """What holds while single tokens are fed: transformers computes experts another way then."""
        return self._root._optimize_model_for_decode()


class StaticSteps:
    """Forwards with a cache of fixed size: the prompts as they come, single tokens through compiled code in one shape.

    Args:
        root: The network, of full attention.
        step: The network compiled.
        cache: An empty static cache with room for all tokens.
        ids: The prompts, padded left, shape [rows, width].
        mask: True where a token is real, shape [rows, width].
    """

    def __init__(self, root: Any, step: Any, cache: StaticCache, ids: Tensor, mask: Tensor) -> None:
        whole = mask.long()
        self._root = root
        self._step = step
        self._cache = cache
        self._ids = ids
        self._padded = None if bool(mask.all()) else whole
        self._pos = (whole.cumsum(-1) - 1).masked_fill(whole == 0, 0) if "position_ids" in _takes(type(root)) else None
        self._column = ids.shape[1]
        self._kept = {"logits_to_keep": 1} if "logits_to_keep" in _takes(type(root)) else {}
        # What a token attends to, for each kind of layer; it grows by a column at a time.
        self._seen: Any = None

    def first(self) -> Tensor:
        """Logits behind the prompts, shape [rows, vocab], float32."""
        given = self._prepared(self._ids, None, is_first_iteration=True)
        return self._logits(self._root, self._ids, given)

    def next(self, fresh: Tensor) -> Tensor:
        """Logits behind one more token of each row, shape [rows, vocab], float32."""
        ids = fresh[:, None]
        if self._padded is not None:
            self._padded = torch.cat([self._padded, self._padded.new_ones((len(fresh), 1))], dim=-1)
        if self._pos is not None:
            self._pos = self._pos[:, -1:] + 1
        if self._seen is None:
            self._seen = self._prepared(ids, 1).get("attention_mask")
        else:
            self._open_column()
        self._column += 1
        given: dict[str, Any] = {"past_key_values": self._cache, "use_cache": True, **self._kept}
        if self._seen is not None:
            given["attention_mask"] = self._seen
        if self._pos is not None:
            given["position_ids"] = self._pos
        torch.compiler.cudagraph_mark_step_begin()
        return self._logits(self._step, ids, given)

    def _prepared(self, ids: Tensor, width: int | None, **more: Any) -> dict[str, Any]:
        pos = {} if self._pos is None else {"position_ids": self._pos}
        found = self._root.prepare_inputs_for_generation(
            ids, next_sequence_length=width, past_key_values=self._cache, attention_mask=self._padded, use_cache=True, **pos,
            **self._kept, **more,
        )  # fmt: skip
        return {name: value for name, value in found.items() if name != "input_ids"}

    def _open_column(self) -> None:
        masks = self._seen.values() if isinstance(self._seen, dict) else (self._seen,)
        for mask in masks:
            # Hidden columns are False, or the most negative number.
            mask[..., self._column] = True if mask.dtype == torch.bool else 0.0

    def _logits(self, network: Any, ids: Tensor, given: dict[str, Any]) -> Tensor:
        output = network(input_ids=ids, return_dict=True, **given)
        return output.logits[:, -1].to(dtype=torch.float32, device=ids.device)

    def decoding(self) -> AbstractContextManager[Any]:
        """What holds while single tokens are fed: nothing that would change what is compiled."""
        return nullcontext()
