"""What a shard holds and where: sites with their shapes and number formats, as a safetensors file."""

import json
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerview.errors import StoreError

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
# What is known of each token beside its activations; no site begins with a dot.
IDS, ROWS, PLACES = ".ids", ".rows", ".positions"


@dataclass(frozen=True)
class Kept:
    """One tensor of a shard: a name, what one token has of it, and the number format."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def token_bytes(self) -> int:
        """Bytes of one token."""
        return prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Layout:
    """The tensors of a shard, in the order of their names."""

    kept: tuple[Kept, ...]

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> "Layout":
        """The layout of some tensors [tokens, ...].

        Raises:
            StoreError: A number format cannot be stored.
        """
        for name, tensor in tensors.items():
            if tensor.dtype not in NAMES:
                raise StoreError(f"{name!r} is {tensor.dtype}, which cannot be stored; capture it as another dtype")
        return cls(tuple(Kept(name, tuple(t.shape[1:]), t.dtype) for name, t in sorted(tensors.items())))

    @classmethod
    def from_dict(cls, given: Any) -> "Layout":
        """What `to_dict` gave.

        Raises:
            StoreError: It is nothing that `to_dict` gives.
        """
        try:
            listed = [
                Kept(str(name), tuple(map(int, one["shape"])), DTYPES[one["dtype"]]) for name, one in given.items()
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreError(f"a line of the manifest says no layout: {given!r}") from error
        if any(size < 0 for one in listed for size in one.shape):
            raise StoreError(f"a line of the manifest says a negative size: {given!r}")
        return cls(tuple(sorted(listed, key=lambda one: one.name)))

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {one.name: {"dtype": NAMES[one.dtype], "shape": list(one.shape)} for one in self.kept}

    def named(self, name: str) -> Kept | None:
        """One tensor; None where there is none of this name."""
        return next((one for one in self.kept if one.name == name), None)

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return [one.name for one in self.kept if not one.name.startswith(".")]

    def header(self, n_tokens: int) -> bytes:
        """The first bytes of a shard, as safetensors has them, filled up to a multiple of 64."""
        listed, place = {}, 0
        for one in self.kept:
            size = one.token_bytes * n_tokens
            listed[one.name] = {
                "dtype": NAMES[one.dtype], "shape": [n_tokens, *one.shape], "data_offsets": [place, place + size],
            }  # fmt: skip
            place += size
        body = json.dumps(listed, separators=(",", ":"), sort_keys=True).encode()
        body += b" " * (-(len(body) + 8) % 64)
        return len(body).to_bytes(8, "little") + body

    def place(self, name: str, n_tokens: int) -> int:
        """First byte of a tensor in a shard of so many tokens."""
        before = 0
        for one in self.kept:
            if one.name == name:
                break
            before += one.token_bytes * n_tokens
        return len(self.header(n_tokens)) + before

    def size(self, n_tokens: int) -> int:
        """Bytes of a shard."""
        return len(self.header(n_tokens)) + n_tokens * sum(one.token_bytes for one in self.kept)


def bytes_of(tensor: Tensor) -> memoryview:
    """The bytes of a tensor on the CPU."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def blank(kept: Kept, n_tokens: int) -> tuple[Tensor, np.ndarray]:
    """A tensor to read into [n_tokens, *shape], and its bytes."""
    raw = torch.empty(n_tokens * kept.token_bytes, dtype=torch.uint8)
    # An empty tensor has no bytes that could be seen as another format's.
    whole = raw.view(kept.dtype) if raw.numel() else torch.empty(0, dtype=kept.dtype)
    return whole.view(n_tokens, *kept.shape), raw.numpy()
