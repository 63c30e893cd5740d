"""The calls of a network that write a text token by token: those that transformers' `generate` makes, without what stands around them."""

import inspect
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin

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
    config: Any = getattr(root, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return "an encoder reads the prompt"
    own = _overridden(type(root)) or next((name for name in _CALLED if name in root.__dict__), None)
    if own is not None:
        return f"{type(root).__name__} has a {own} of its own"
    if "mamba" in type(root).__name__.lower() or not root._supports_default_dynamic_cache():
        return f"{type(root).__name__} keeps what it has read in no cache of keys and values"
    if not {"attention_mask", "input_ids", "past_key_values"} <= _takes(type(root)) or "forward" in root.__dict__:
        return f"the forward of {type(root).__name__} takes no cache and mask by name"
    kind = getattr(getattr(root, "generation_config", None), "cache_implementation", None)
    if kind not in (None, "dynamic"):
        return f"its generation_config asks for a cache of the kind {kind!r}"
    return "its code is not transformers' own" if root.is_remote_code() else None


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
