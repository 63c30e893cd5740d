"""A small endpoint on this machine that answers chats as a test says."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

# A tuple of bytes comes piece by piece, with a pause behind each.
Reply = tuple[int, Any, dict[str, str]]
PAUSE_S = 0.05


@dataclass
class Server:
    """What was asked, and where.

    Attributes:
        url: Its address, with `/v1`.
        asked: Bodies of the questions, in their order.
        headers: Their headers.
    """

    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


def said(text: str) -> Reply:
    """An answer in words."""
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


@contextmanager
def serving(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Server]:
    """An endpoint that answers with `reply(body, how many came before)`; it is gone behind the block."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                nth = len(made.asked)
                made.asked.append({"path": self.path, **body})
                made.headers.append(dict(self.headers.items()))
            status, content, headers = reply(body, nth)
            pieces = content if isinstance(content, tuple) else (content,)
            raw = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in pieces]
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(sum(map(len, raw))))
                self.end_headers()
                for piece in raw:
                    self.wfile.write(piece)
                    time.sleep(PAUSE_S if len(raw) > 1 else 0)
            except OSError:
                # Whoever asked has gone.
                self.close_connection = True

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made = Server(f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
