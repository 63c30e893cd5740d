"""Python expressions for what edits are made of."""

import base64
import json
import zlib
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from innerview.direction import Direction
from innerview.errors import EditError
from innerview.where import Where

SHORT = 64


def code_of(value: Any) -> str:
    """The expression that builds a value of an edit's field."""
    if isinstance(value, (Direction, Where)):
        return value.to_code()
    if isinstance(value, Tensor):
        is_short = value.numel() <= SHORT and value.dtype in (torch.float32, torch.int64)
        return repr(value.tolist()) if is_short else f"iv.tensor_from_code({tensor_to_code(value)!r})"
    if isinstance(value, tuple):
        return f"({', '.join(map(code_of, value))}{',' if len(value) == 1 else ''})"
    return repr(value)


def tensor_to_code(tensor: Tensor) -> str:
    """A text that holds a tensor to the last bit."""
    body = save({"t": tensor.detach().cpu().contiguous().clone()})
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "little") + body).decode()


def tensor_from_code(packed: str) -> Tensor:
    """The tensor that an edit's `to_code` packed into a text.

    Raises:
        EditError: A character of the text is damaged or lost.
    """
    try:
        raw = base64.b64decode(packed, validate=True)
        if zlib.crc32(raw[4:]).to_bytes(4, "little") != raw[:4]:
            raise ValueError("its checksum does not agree")
        return load(raw[4:])["t"]
    except (ValueError, TypeError, KeyError, json.JSONDecodeError) as error:
        raise EditError(f"no tensor in {str(packed)[:24]!r}…: the text is damaged ({error}); copy it whole") from error
