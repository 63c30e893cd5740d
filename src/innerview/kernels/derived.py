"""What is made of an encoder's weight once: rounded copies, lengths of rows. It goes when the weight goes, or is changed."""

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

_kept: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
# What is made of a weight may be made of something else of it.
_lock = threading.RLock()
T = TypeVar("T")


@dataclass(frozen=True)
class _Stamp:
    """Which tensors, and at which of their versions."""

    tensors: tuple[weakref.ref, ...]
    versions: tuple[int, ...]

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...]) -> "_Stamp":
        return cls(tuple(weakref.ref(one) for one in tensors), tuple(one._version for one in tensors))

    def is_of(self, tensors: tuple[Tensor, ...]) -> bool:
        return len(tensors) == len(self.tensors) and all(
            kept() is one and version == one._version
            for kept, version, one in zip(self.tensors, self.versions, tensors, strict=True)
        )


@dataclass
class _Derived:
    """What was made of one weight, by name, and at which of its versions."""

    version: int
    made: dict[str, Any] = field(default_factory=dict)


def is_fixed(weight: Tensor) -> bool:
    """Whether a change of the weight would be noticed: not where it trains (`.data` is changed in silence), nor in inference mode."""
    return not weight.requires_grad and not weight.is_inference() and not isinstance(weight, torch.nn.Parameter)


def derived(weight: Tensor, name: str, make: Callable[[Tensor], T], others: tuple[Tensor, ...] = ()) -> T:
    """What `make` gives of a weight, made once and kept beside it; made anew where the weight, or one of the others, was changed in place.

    Args:
        weight: A fixed one; of others nothing is kept.
        name: What it is called among what is kept of this weight.
        make: Must not keep the weight itself, which would then never go.
        others: Tensors that it is made of too; with others, it is made anew.
    """
    if not all(is_fixed(one) for one in (weight, *others)):
        return make(weight)
    with _lock:
        kept = _kept.get(weight)
        if kept is None or kept.version != weight._version:
            kept = _kept[weight] = _Derived(weight._version)
        if name not in kept.made or not kept.made[name][0].is_of(others):
            kept.made[name] = (_Stamp.of(others), make(weight))
        return kept.made[name][1]
