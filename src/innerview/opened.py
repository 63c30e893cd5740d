"""What this kernel has open: weak lists with a signal, read by the panel and by monitors."""

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator

KINDS = ("model", "dictionary", "direction", "dashboard", "run", "training")


class Opened:
    """Objects of a few kinds, held weakly and in the order they were opened."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._kept: dict[int, tuple[str, weakref.ref]] = {}
        self._gone: deque[int] = deque()
        # Replaced, never changed: a collector that tells of a thing that is gone takes no lock.
        self._listeners: tuple[Callable[[str, object], None], ...] = ()
        self._watchers: tuple[Callable[[str], None], ...] = ()

    def add(self, kind: str, thing: object) -> None:
        """Register `thing` under `kind` and tell the listeners."""
        if kind not in KINDS:
            raise ValueError(f"no kind {kind!r} of opened thing; the kinds are {', '.join(KINDS)}")
        number = next(self._numbers)

        def gone(_: weakref.ref) -> None:
            self._gone.append(number)
            self.changed(kind)

        with self._lock:
            while self._gone:
                self._kept.pop(self._gone.popleft(), None)
            self._kept[number] = (kind, weakref.ref(thing, gone))
        for listener in self._listeners:
            listener(kind, thing)
        self.changed(kind)

    def changed(self, kind: str) -> None:
        """Tell the watchers that something of this kind is not as it was."""
        for watcher in self._watchers:
            watcher(kind)

    def each(self, kind: str) -> Iterator[object]:
        """Living objects of one kind, oldest first."""
        with self._lock:
            kept = list(self._kept.values())
        for k, ref in kept:
            thing = ref()
            if k == kind and thing is not None:
                yield thing

    def listen(self, listener: Callable[[str, object], None]) -> Callable[[], None]:
        """Call `listener(kind, thing)` for whatever is opened from now on; returns the way to stop."""
        with self._lock:
            self._listeners = (*self._listeners, listener)

        def stop() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not listener)

        return stop

    def watch(self, watcher: Callable[[str], None]) -> Callable[[], None]:
        """Call `watcher(kind)` whenever something is opened, changes or is gone; returns the way to stop.

        It may be called from any thread, while locks are held and while the collector runs: it takes no lock and only makes a note.
        """
        with self._lock:
            self._watchers = (*self._watchers, watcher)

        def stop() -> None:
            with self._lock:
                self._watchers = tuple(one for one in self._watchers if one is not watcher)

        return stop


opened = Opened()
