"""Interrupts held back while hooks are put on or taken off, so that none is left half done."""

import signal
import threading
from types import FrameType
from typing import Any


class Uninterrupted:
    """A block that an interrupt does not break: KeyboardInterrupt is raised when it ends."""

    def __init__(self) -> None:
        self._before: Any = None
        self._heard: tuple[int, FrameType | None] | None = None

    def __enter__(self) -> None:
        # Only the main thread hears interrupts, and only a handler in Python raises.
        if threading.current_thread() is not threading.main_thread():
            return
        before = signal.getsignal(signal.SIGINT)
        if callable(before) and not isinstance(before, signal.Handlers):
            self._before = before
            signal.signal(signal.SIGINT, self._hear)

    def _hear(self, signum: int, frame: FrameType | None) -> None:
        self._heard = (signum, frame)

    def __exit__(self, *_: object) -> None:
        if self._before is None:
            return
        signal.signal(signal.SIGINT, self._before)
        if self._heard is not None:
            self._before(*self._heard)
