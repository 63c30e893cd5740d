"""Where captured values go: a device, a number format, or whatever takes pieces."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from innerview.errors import CaptureError
from innerview.models.model import Model


@runtime_checkable
class Appendable(Protocol):
    """What takes pieces of a capture, chunk by chunk: a list, or a store."""

    def append(self, piece: Any, /) -> Any:
        """Take one piece."""


@runtime_checkable
class Resumable(Protocol):
    """What keeps pieces beyond the capture, such as a store: it is told what begins, and knows which rows it has."""

    def append(self, piece: Any, /) -> Any:
        """Take one piece."""

    def begin(self, model: Model, asked: str | None, rows: Sequence[bytes], /) -> int:
        """How many of a capture's rows, from the first on, it has already."""
        ...

    def flush(self) -> Any:
        """Put away whatever waits."""


@dataclass(frozen=True, eq=False)
class Sink:
    """Where values go.

    Attributes:
        device: Device to copy to; None leaves them where they are.
        dtype: Number format to copy to; None leaves it.
        taker: What takes pieces; None collects them into one result.
    """

    device: torch.device | None = None
    dtype: torch.dtype | None = None
    taker: Appendable | None = None

    @classmethod
    def of(cls, to: Any) -> "Sink | None":
        """What `to=` says; None leaves everything as it is.

        Raises:
            CaptureError: It is no device, no number format and takes no pieces.
        """
        if to is None:
            return None
        if isinstance(to, torch.dtype):
            return cls(dtype=to)
        if isinstance(to, torch.device):
            return cls(device=to)
        if isinstance(to, str):
            try:
                return cls(device=torch.device(to))
            except RuntimeError as error:
                raise CaptureError(
                    f"to={to!r} names no device; give 'cpu', 'cuda', a dtype, or a list to append to"
                ) from error
        if isinstance(to, Appendable) and not isinstance(to, type):
            return cls(taker=to)
        raise CaptureError(f"to= is a device, a dtype, or anything with append, not {to!r} of type {type(to).__name__}")


@dataclass(eq=False)
class Copies:
    """Copies of one forward to their sink. From CUDA they go through pinned memory on a stream of their own, while the network runs on."""

    sink: Sink
    _streams: dict[torch.device, Any] = field(default_factory=dict)
    _sources: list[Tensor] = field(default_factory=list)

    def start(self, value: Tensor) -> Tensor:
        """The copy of a value, complete behind `wait`; the value itself where nothing is to be done."""
        device = self.sink.device or value.device
        dtype = self.sink.dtype or value.dtype
        if not value.dtype.is_floating_point and not value.dtype.is_complex:
            dtype = value.dtype
        is_down = value.device.type == "cuda" and device.type == "cpu"
        if not is_down or value.requires_grad:
            return value.to(device, dtype)
        # The format changes on the device, so that fewer bytes travel where it becomes narrower.
        source = value.to(dtype) if dtype.itemsize <= value.dtype.itemsize else value
        side = self._streams.get(source.device)
        if side is None:
            side = self._streams[source.device] = torch.cuda.Stream(source.device)
        target = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        side.wait_stream(torch.cuda.current_stream(source.device))
        with torch.cuda.stream(side):
            target.copy_(source, non_blocking=True)
        # The allocator must not hand the memory out again before the copy has read it.
        source.record_stream(side)
        self._sources.append(source)
        return target

    def wait(self) -> None:
        """Wait until every copy has arrived."""
        for side in self._streams.values():
            done = torch.cuda.Event()
            done.record(side)
            done.synchronize()
        self._sources.clear()
