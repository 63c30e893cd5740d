"""The one way out of a widget: what is pushed together leaves together, at most 20 messages a second."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

GAP_S = 0.05


class Writer:
    """Sends, in the order they came, the newest of each key; never two within `gap_s` seconds.

    A thread runs only while something waits.
    """

    def __init__(self, *, gap_s: float = GAP_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._gap_s = gap_s
        self._clock = clock
        self._waiting: dict[Any, Callable[[], None]] = {}
        self._lock = threading.Condition()
        self._last_s = -gap_s
        self._is_running = False

    def put(self, key: Any, send: Callable[[], None]) -> None:
        """Queue `send`; it replaces what waits under the same key."""
        with self._lock:
            self._waiting[key] = send
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name="innerview-writer", daemon=True).start()

    def wait(self, timeout_s: float = 5.0) -> bool:
        """Whether everything queued has left within `timeout_s`."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._is_running, timeout_s)

    def _run(self) -> None:
        while True:
            wait_s = self._last_s + self._gap_s - self._clock()
            if wait_s > 0:
                time.sleep(wait_s)
            with self._lock:
                if not self._waiting:
                    self._is_running = False
                    self._lock.notify_all()
                    return
                key = next(iter(self._waiting))
                send = self._waiting.pop(key)
            self._last_s = self._clock()
            try:
                send()
            except Exception as error:
                # The page may be gone; what else waits may still have somewhere to go.
                log.warning("a message did not leave", exc_info=error)
