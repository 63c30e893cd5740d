"""Tensors of safetensors files and of numpy's archives, neither of which can carry code."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from innerview.dictionaries.loaders.tensors import Entry, Tensors, _first_line
from innerview.errors import DictionaryError

DTYPES = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I64": "int64", "I32": "int32", "BOOL": "bool",
}  # fmt: skip
MEMBERS = 1000
HEADER_BYTES = 10_000


def of_safetensors(path: Path, said: str) -> Tensors:
    """The tensors of a safetensors file; each is read from the disk when it is taken.

    Raises:
        DictionaryError: It is damaged.
    """
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            handle: Any = file
            slices = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
            told = {name: (tuple(one.get_shape()), str(one.get_dtype())) for name, one in slices.items()}
    except Exception as error:
        # The library raises its own error, and others for what it did not foresee.
        raise DictionaryError(f"{said} is no sound safetensors file: {_first_line(error)}") from error
    entries = {
        name: Entry(shape, DTYPES.get(dtype, dtype), _reader(path, name)) for name, (shape, dtype) in told.items()
    }
    return Tensors(said, entries)


def _reader(path: Path, name: str) -> Callable[[], Tensor]:
    def read() -> Tensor:
        # Opened anew for each: what is mapped of the file is given back as soon as the tensor was copied.
        with safe_open(path, framework="pt", device="cpu") as file:
            handle: Any = file
            return handle.get_tensor(name)

    return read


def of_npz(path: Path, said: str) -> Tensors:
    """The arrays of a numpy archive, numbers only: no pickles.

    Raises:
        DictionaryError: It is damaged, or would unpack to more than twice its size.
    """
    size = path.stat().st_size
    try:
        archive = zipfile.ZipFile(path)
        members = archive.infolist()
        check_members(members, size, said)
        entries = {}
        for member in members:
            name = member.filename.removesuffix(".npy")
            shape, dtype, start, is_swapped = _npy_header(archive, member)
            entries[name] = Entry(shape, dtype, _npy_reader(path, member, shape, dtype, start, is_swapped))
    except DictionaryError:
        raise
    except Exception as error:
        # A zip's directory and a header from elsewhere can break in any place.
        raise DictionaryError(f"{said} is no sound npz file: {_first_line(error)}") from error
    return Tensors(said, entries)


def check_members(members: list[zipfile.ZipInfo], size: int, said: str) -> None:
    """Refuse an archive whose members are too many, share names or places, or unpack to more than twice its size.

    Raises:
        DictionaryError: It is one.
    """
    names = [member.filename for member in members]
    if len(names) > MEMBERS or len(set(names)) != len(names):
        raise DictionaryError(
            f"{said} has {len(names)} members, some of one name or too many; at most {MEMBERS} are read"
        )
    if sum(m.file_size for m in members) > 2 * size or sum(m.compress_size for m in members) > size:
        raise DictionaryError(
            f"{said} has {size} bytes and would unpack to {sum(m.file_size for m in members)}; more than twice is refused"
        )


def _npy_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> tuple[tuple[int, ...], str, int, bool]:
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        reads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in reads:
            raise DictionaryError(f"{member.filename} has the layout {version}, and (1, 0) and (2, 0) are read")
        shape, is_swapped, dtype = reads[version](stream, max_header_size=HEADER_BYTES)
        start = stream.tell()
    if dtype.hasobject or dtype.kind not in "fiub" or dtype.byteorder == ">":
        raise DictionaryError(f"{member.filename} holds {dtype}, and plain numbers are read")
    count = 1
    for axis in shape:
        count *= int(axis)
    if min(shape, default=1) < 0 or count * dtype.itemsize != member.file_size - start:
        raise DictionaryError(f"{member.filename} announces the shape {list(shape)} and has {member.file_size} bytes")
    return tuple(int(axis) for axis in shape), dtype.name, start, bool(is_swapped)


def _npy_reader(
    path: Path, member: zipfile.ZipInfo, shape: tuple[int, ...], dtype: str, start: int, is_swapped: bool
) -> Callable[[], Tensor]:
    def read() -> Tensor:
        made = np.empty(shape[::-1] if is_swapped else shape, dtype=dtype)
        room: Any = memoryview(made.reshape(-1).view(np.uint8).data) if made.size else memoryview(b"")
        with zipfile.ZipFile(path) as archive, archive.open(member) as opened:
            stream: Any = opened
            stream.read(start)
            at = 0
            while at < len(room):
                got = stream.readinto(room[at : at + (1 << 22)])
                if not got:
                    raise DictionaryError(f"{member.filename} ends at byte {at} of {len(room)}")
                at += got
            # The end of the member is where its checksum is compared.
            stream.read(1)
        return torch.from_numpy(made.T if is_swapped else made)

    return read
