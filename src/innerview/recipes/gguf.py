"""The file of a control vector of llama.cpp: GGUF, version 3, with one tensor `direction.N` for each block N from 1.

Layout: magic, version, counts; metadata (key, type, value); tensors' names, shapes, types and offsets; then the numbers, each tensor at
a multiple of 32 bytes. Integers are little-endian, texts a length of 8 bytes and UTF-8.
"""

import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from innerview.errors import RecipeError

MAGIC, VERSION, ALIGNMENT = b"GGUF", 3, 32
ARCHITECTURE = "controlvector"
UINT32, TEXT, ARRAY = 4, 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
FLOATS = {0: np.dtype("<f4"), 1: np.dtype("<f2")}
NAMED = re.compile(r"direction\.([1-9]\d{0,5})")


def written_gguf(vectors: dict[int, Tensor], model_hint: str) -> bytes:
    """The bytes of a control vector.

    Args:
        vectors: What is added behind each block from 1, shape [d_model].
        model_hint: Architecture that it is meant for.
    """
    metadata = [
        ("general.architecture", TEXT, _text(ARCHITECTURE)),
        (f"{ARCHITECTURE}.model_hint", TEXT, _text(model_hint)),
        (f"{ARCHITECTURE}.layer_count", UINT32, struct.pack("<I", len(vectors))),
    ]
    head = MAGIC + struct.pack("<IQQ", VERSION, len(vectors), len(metadata))
    head += b"".join(_text(key) + struct.pack("<I", kind) + value for key, kind, value in metadata)
    body = b""
    for layer, vector in sorted(vectors.items()):
        head += _text(f"direction.{layer}") + struct.pack("<IQIQ", 1, vector.numel(), 0, len(body))
        body += _padded(vector.detach().cpu().float().numpy().astype("<f4").tobytes())
    return _padded(head) + body


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return struct.pack("<Q", len(raw)) + raw


def _padded(raw: bytes) -> bytes:
    return raw + bytes(-len(raw) % ALIGNMENT)


def read_gguf(path: Path) -> tuple[dict[int, Tensor], str]:
    """The vectors of a control vector by block, and the architecture that it is meant for.

    Raises:
        RecipeError: The file is missing or damaged, or holds something else.
    """
    try:
        raw = path.read_bytes()
        return _read(_Bytes(raw))
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"no control vector in {str(path)!r}: {error}; give a GGUF file that llama.cpp takes"
        ) from error


class _Bytes:
    """Bytes read from the front; a length that the file does not have is refused before anything is made."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at = raw, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.raw) - self.at:
            raise ValueError(f"it ends at byte {len(self.raw)}, where {count} more are announced at {self.at}")
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self, layout: str) -> Any:
        """The next number."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def text(self) -> str:
        """The next text."""
        return self.take(self.number("<Q")).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Any:
        """The next value of a type."""
        if kind == TEXT:
            return self.text()
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind != ARRAY or depth > 4:
            raise ValueError(f"its metadata has a type {kind} that GGUF has not")
        inner, count = self.number("<I"), self.number("<Q")
        if count > len(self.raw) - self.at:
            raise ValueError(f"a list of {count} values is announced at byte {self.at}, which the file does not have")
        return [self.value(inner, depth + 1) for _ in range(count)]


def _read(file: _Bytes) -> tuple[dict[int, Tensor], str]:
    if file.take(4) != MAGIC:
        raise ValueError("it does not begin with GGUF")
    version = file.number("<I")
    if version not in (2, 3):
        raise ValueError(f"it has version {version}, and 2 and 3 are known")
    n_tensors, n_metadata = file.number("<Q"), file.number("<Q")
    metadata = {}
    for _ in range(n_metadata):
        key = file.text()
        metadata[key] = file.value(file.number("<I"))
    kind = metadata.get("general.architecture")
    if kind != ARCHITECTURE:
        raise ValueError(f"its general.architecture is {kind!r}, not {ARCHITECTURE!r}")
    infos = [_info(file) for _ in range(n_tensors)]
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"its general.alignment is {alignment!r}")
    start = file.at + -file.at % alignment
    vectors = {layer: _vector(file.raw, start + offset, count, dtype) for layer, count, dtype, offset in infos}
    if not vectors or len(vectors) != len(infos) or len({v.numel() for v in vectors.values()}) != 1:
        raise ValueError("its tensors are not one direction a block, all of one width")
    hint = metadata.get(f"{ARCHITECTURE}.model_hint", "")
    return vectors, hint if isinstance(hint, str) else ""


def _info(file: _Bytes) -> tuple[int, int, np.dtype, int]:
    """Block, numbers, type and offset of the next tensor."""
    name = file.text()
    n_axes = file.number("<I")
    sizes = [file.number("<Q") for _ in range(min(n_axes, 5))]
    kind, offset = file.number("<I"), file.number("<Q")
    named = NAMED.fullmatch(name)
    if named is None:
        raise ValueError(f"its tensor {name[:40]!r} is no direction.N with N from 1")
    if n_axes != 1 or kind not in FLOATS:
        raise ValueError(f"{name} has the shape {sizes} and type {kind}; it takes [d_model] of float32 or float16")
    return int(named[1]), sizes[0], FLOATS[kind], offset


def _vector(raw: bytes, start: int, count: int, dtype: np.dtype) -> Tensor:
    if count < 1 or start + count * dtype.itemsize > len(raw):
        raise ValueError(f"it ends at byte {len(raw)}, before {count} numbers at {start}")
    return torch.from_numpy(np.frombuffer(raw, dtype, count, start).astype(np.float32))
