"""What a call of a root module carries: rows of tokens, and a cache of earlier ones."""

import inspect
from typing import Any

from torch import Tensor, nn


def named(root: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """The first argument of a call of the root, and the others by name."""
    if len(args) < 2:
        return args, kwargs
    names = list(inspect.signature(root.forward).parameters)[1 : len(args)]
    return args[:1], dict(zip(names, args[1:], strict=False)) | kwargs


def ids_shape(args: tuple, kwargs: dict) -> tuple[tuple[int, int] | None, Any]:
    """Rows and tokens a row of a forward of the root, and their device; None when it takes no ids."""
    ids = kwargs.get("input_ids")
    if ids is None and args and isinstance(args[0], Tensor) and not args[0].is_floating_point():
        ids = args[0]
    if ids is None:
        ids = kwargs.get("inputs_embeds")
    if not isinstance(ids, Tensor) or ids.ndim < 2:
        return None, None
    return (int(ids.shape[0]), int(ids.shape[1])), ids.device


# What transformers calls the memory of earlier tokens: of attention, of state-space networks, of RWKV.
CACHES = ("past_key_values", "cache_params", "state")


def cache_of(kwargs: dict) -> Any:
    """The memory of earlier tokens that a forward of the root goes on from; None without one."""
    for name in CACHES:
        found = kwargs.get(name)
        if found is not None:
            return found
    return None


def cache_length(kwargs: dict) -> int | None:
    """Tokens in the cache before this forward: 0 without a cache, None when the cache does not say."""
    cache = cache_of(kwargs)
    if cache is None:
        return 0
    length = getattr(cache, "get_seq_length", None)
    try:
        return None if length is None else int(length())
    except ValueError:
        # A recurrent state holds all tokens in one, and transformers does not count them.
        return None


def token_ids(args: tuple, kwargs: dict) -> Tensor | None:
    """Ids of a forward of the root, shape [rows, tokens]; None when it is called with something else."""
    ids = kwargs.get("input_ids")
    if ids is None and args and isinstance(args[0], Tensor):
        ids = args[0]
    return ids if isinstance(ids, Tensor) and ids.ndim == 2 and not ids.is_floating_point() else None


def held(thing: Any, name: str) -> Any:
    """An attribute that an object holds itself, None without one. Configs of transformers compute theirs, as long as a small layer takes."""
    try:
        return object.__getattribute__(thing, "__dict__").get(name)
    except AttributeError:
        return None
