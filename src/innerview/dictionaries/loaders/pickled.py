"""Tensors of a `.pt`: the pickle inside is read with nothing in it that acts, checked, and only then loaded, weights only."""

import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from innerview.dictionaries.loaders.safe import check_members
from innerview.dictionaries.loaders.tensors import Entry, Tensors, _first_line
from innerview.errors import DictionaryError

PICKLE_BYTES = 1 << 22
STORAGES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16, "DoubleStorage": torch.float64,
    "LongStorage": torch.int64, "IntStorage": torch.int32, "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}  # fmt: skip
CODES = {
    "PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET",
    "GLOBAL", "STACK_GLOBAL", "BINUNICODE", "SHORT_BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NEWTRUE", "NEWFALSE",
    "NONE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "REDUCE", "BUILD", "BINPERSID",
}  # fmt: skip


class Stored(NamedTuple):
    """Where a storage lies."""

    dtype: torch.dtype
    length: int


class Described(NamedTuple):
    """What a tensor would be."""

    dtype: torch.dtype
    shape: tuple[int, ...]


def of_pt(path: Path, said: str) -> Tensors:
    """The tensors and plain values of a file that torch saved; nothing in it is executed.

    Raises:
        DictionaryError: It is damaged, holds more than tensors and plain values, or is in torch's format of before 1.6.
    """
    try:
        found = _described(path, said)
    except DictionaryError:
        raise
    except Exception as error:
        # A pickle from elsewhere can break in any place; nothing of it was run.
        raise DictionaryError(f"{said} is no sound file of torch: {_first_line(error)}") from error
    flat = _flat(found, said)
    tensors = {name: one for name, one in flat.items() if isinstance(one, Described)}
    values = {name: one for name, one in flat.items() if isinstance(one, (str, int, float))}

    def reader(name: str) -> Callable[[], Tensor]:
        def read() -> Tensor:
            # Mapped anew for each: what is mapped of the file is given back as soon as the tensor was copied.
            return _flat(torch.load(path, map_location="cpu", weights_only=True, mmap=True), said)[name]

        return read

    entries = {
        name: Entry(one.shape, str(one.dtype).removeprefix("torch."), reader(name)) for name, one in tensors.items()
    }
    return Tensors(said, entries, values)


def _flat(found: Any, said: str) -> dict[str, Any]:
    """Names of what a dict holds; what lies in a dict inside is named with a dot."""
    if not isinstance(found, dict):
        raise DictionaryError(f"{said} holds a {type(found).__name__}, and tensors by name are read")
    flat: dict[str, Any] = {}
    for key, value in found.items():
        if not isinstance(key, str):
            raise DictionaryError(f"{said} holds something named {key!r:.80}, and names are texts")
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": one for inner, one in value.items() if isinstance(inner, str)}
        else:
            flat[key] = value
    return flat


def _described(path: Path, said: str) -> Any:
    """What the pickle says that the file holds, tensors by their shapes."""
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        raise DictionaryError(
            f"{said} is no zip archive, as torch saves since 1.6; load it where you trust it, and save it anew"
        )
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        check_members(members, size, said)
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise DictionaryError(f"{said} has compressed members, and torch saves without")
        plans = [member for member in members if member.filename.endswith("/data.pkl")]
        if len(plans) != 1 or plans[0].file_size > PICKLE_BYTES:
            raise DictionaryError(
                f"{said} has {len(plans)} plans (data.pkl), or a larger one than {PICKLE_BYTES} bytes"
            )
        prefix = plans[0].filename.removesuffix("data.pkl")
        sizes = {member.filename: member.file_size for member in members}
        orders = [member for member in members if member.filename == f"{prefix}byteorder"]
        if orders and (orders[0].file_size > 16 or archive.read(orders[0]) != b"little"):
            raise DictionaryError(f"{said} was saved on a machine of another byte order")
        raw = archive.read(plans[0])
    _check_codes(raw, said)
    return _Reader(raw, said, prefix, sizes).load()


def _check_codes(raw: bytes, said: str) -> None:
    for code, argument, _ in pickletools.genops(raw):
        if code.name not in CODES:
            raise DictionaryError(f"{said} has a pickle that does more than tell tensors ({code.name}); it is not read")
        if code.name in ("LONG_BINPUT", "LONG_BINGET") and not 0 <= (argument or 0) <= len(raw):
            raise DictionaryError(f"{said} has a pickle that counts wrongly; it is damaged")


class _Reader(pickle.Unpickler):
    """Reads a pickle of tensors: every name in it stands for something that only describes."""

    def __init__(self, raw: bytes, said: str, prefix: str, sizes: dict[str, int]) -> None:
        super().__init__(io.BytesIO(raw))
        self.said, self.prefix, self.sizes = said, prefix, sizes

    def find_class(self, module: str, name: str) -> Any:
        plain = {
            ("collections", "OrderedDict"): _Named,
            ("torch._utils", "_rebuild_tensor_v2"): self._tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
            ("torch", "Size"): tuple,
        }
        if (module, name) in plain:
            return plain[module, name]
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
            return str(getattr(torch, name))
        raise DictionaryError(
            f"{self.said} holds {module}.{name}, which is code and no tensor; it is not run. Save the tensors alone, in safetensors"
        )

    def persistent_load(self, pid: Any) -> Any:
        kind, dtype, key, _, count = pid
        held = self.sizes.get(f"{self.prefix}data/{key}", -1)
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(count, int) or count < 0:
            raise DictionaryError(f"{self.said} has a storage that is none; it is damaged")
        if held != count * dtype.itemsize:
            raise DictionaryError(
                f"{self.said} announces {count} numbers of {dtype} for a storage of {max(held, 0)} bytes"
            )
        return Stored(dtype, count)

    def _tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Described:
        sizes = tuple(int(axis) for axis in shape)
        count = 1
        for axis in sizes:
            count *= axis
        reach = int(offset) + sum((axis - 1) * int(stride) for axis, stride in zip(sizes, strides, strict=True)) + 1
        if (
            min((*sizes, *strides, int(offset)), default=0) < 0
            or (count and reach > storage.length)
            or count > storage.length
        ):
            raise DictionaryError(
                f"{self.said} announces a tensor of shape {list(sizes)} in a storage of {storage.length} numbers"
            )
        return Described(storage.dtype, sizes)


class _Named(dict):
    """A dict in order, to which a pickle may add what torch keeps beside a state dict."""


def _parameter(data: Any, *_: Any) -> Any:
    return data
