"""What this kernel has open: weak lists with a signal, read by the panel and by monitors."""

import threading
import weakref
from collections.abc import Callable, Iterator

KINDS = ("model", "dictionary", "direction", "run", "training")


class Opened:
    """Objects of a few kinds, held weakly and in the order they were opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: list[tuple[str, weakref.ref]] = []
        self._listeners: list[Callable[[str, object], None]] = []

    def add(self, kind: str, thing: object) -> None:
        """Register `thing` under `kind` and tell the listeners."""
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r} of opened thing; the kinds are {', '.join(KINDS)}")
        with self._lock:
            self._kept = [(k, ref) for k, ref in self._kept if ref() is not None]
            self._kept.append((kind, weakref.ref(thing)))
            listeners = list(self._listeners)
        for listener in listeners:
            listener(kind, thing)

    def each(self, kind: str) -> Iterator[object]:
        """Living objects of one kind, oldest first."""
        with self._lock:
            kept = list(self._kept)
        for k, ref in kept:
            thing = ref()
            if k == kind and thing is not None:
                yield thing

    def listen(self, listener: Callable[[str, object], None]) -> Callable[[], None]:
        """Call `listener(kind, thing)` for whatever is opened from now on; returns the way to stop."""
        with self._lock:
            self._listeners.append(listener)

        def stop() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return stop


opened = Opened()
