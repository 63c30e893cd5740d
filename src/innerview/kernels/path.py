"""One way to compute codes: what it is called, when it can, and the call."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from innerview.kernels.derived import is_fixed
from innerview.kernels.rules import Encoder, Sparse


@dataclass(frozen=True)
class Task:
    """What a path is chosen for: sizes, format and device, without the numbers.

    Attributes:
        n_tokens: Rows of the input.
        n_features: Rows of the weight.
        d: Columns of both.
        dtype: Format of the weight.
        device: Kind of device: `cpu`, `cuda`.
        rule: Name of the rule's class.
        k: Of the rule `Largest`, else 0.
        is_fixed: Whether the weight is one of which something can be kept (`derived.py`).
    """

    n_tokens: int
    n_features: int
    d: int
    dtype: torch.dtype
    device: str
    rule: str
    k: int = 0
    is_fixed: bool = True

    @classmethod
    def of(cls, encoder: Encoder, n_tokens: int) -> "Task":
        """The task of encoding some tokens."""
        weight, k = encoder.weight, getattr(encoder.rule, "k", 0)
        rule = type(encoder.rule).__name__
        return cls(n_tokens, encoder.n_features, encoder.d, weight.dtype, weight.device.type, rule, k, is_fixed(weight))

    @property
    def products(self) -> int:
        """Products of two numbers in the matrix product."""
        return self.n_tokens * self.n_features * self.d


@dataclass(frozen=True)
class Path:
    """One way to compute codes.

    Attributes:
        name: What it is called.
        encode: The codes of an encoder and finite inputs [tokens, d] in the weight's format and on its device.
        refusal: Why it cannot do a task, in words; None where it can. It measures and compiles nothing.
        seconds: How long a task will take, by what was measured once in this process; asked only where nothing is refused.
        why: What makes it fast, in words.
    """

    name: str
    encode: Callable[[Encoder, Tensor], Sparse] = field(repr=False)
    refusal: Callable[[Task], str | None] = field(repr=False)
    seconds: Callable[[Task], float] = field(repr=False)
    why: str = field(default="", repr=False)
