"""What is made of an encoder's weight once: rounded copies, lengths of rows. It goes when the weight goes, or is changed."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
_lock = threading.Lock()
T = TypeVar("T")


@dataclass
class _Derived:
    """What was made of one weight, by name, and at which of its versions."""

    version: int
    made: dict[str, Any] = field(default_factory=dict)


def is_fixed(weight: Tensor) -> bool:
    """Whether a change of the weight would be noticed: not where it trains (`.data` is changed in silence), nor in inference mode."""
    return not weight.requires_grad and not weight.is_inference() and not isinstance(weight, torch.nn.Parameter)


def derived(weight: Tensor, name: str, make: Callable[[Tensor], T]) -> T:
    """What `make` gives of a weight, made once and kept beside it; made anew where the weight was changed in place.

    Args:
        weight: A fixed one; of others nothing is kept.
        name: What it is called among what is kept of this weight.
        make: Must not keep the weight itself, which would then never go.
    """
    if not is_fixed(weight):
        return make(weight)
    with _lock:
        kept = _kept.get(weight)
        if kept is None or kept.version != weight._version:
            kept = _kept[weight] = _Derived(weight._version)
        if name not in kept.made:
            kept.made[name] = make(weight)
        return kept.made[name]
