"""Work of which only the newest counts: one job runs, one waits, and what is overtaken never starts."""

import threading
from collections.abc import Callable


class Newest:
    """Runs jobs in a thread of its own, one at a time; a job that waits is dropped when a newer one comes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Condition()
        self._next: Callable[[], None] | None = None
        self._is_running = False

    def put(self, job: Callable[[], None]) -> None:
        """Run `job` soon, instead of whatever waits; it reports its own errors. Returns at once."""
        with self._lock:
            self._next = job
            if self._is_running:
                return
            self._is_running = True
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    @property
    def is_overtaken(self) -> bool:
        """Whether a newer job waits for the one that runs."""
        return self._next is not None

    def wait(self, timeout_s: float = 60.0) -> bool:
        """Whether everything has been run within `timeout_s`."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._is_running, timeout_s)

    def _run(self) -> None:
        while True:
            with self._lock:
                job, self._next = self._next, None
                if job is None:
                    self._is_running = False
                    self._lock.notify_all()
                    return
            try:
                job()
            except BaseException:
                with self._lock:
                    self._is_running = False
                    self._lock.notify_all()
                raise
