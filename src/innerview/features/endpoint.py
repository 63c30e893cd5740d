"""An OpenAI-compatible endpoint: where it is, what may be spent on it, and one question asked with patience."""

import http.client
import json
import math
import os
import random
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from innerview.errors import FeatureError

MOST_BYTES = 1 << 20
LONGEST_WAIT_S = 60.0
PASSING = (408, 409, 425, 429, 500, 502, 503, 504, 529)
LOCAL = ("localhost", "127.0.0.1", "::1")


class Unanswered(FeatureError):
    """No answer after all tries."""


class Passing(Exception):
    """What may be gone at the next try."""

    def __init__(self, said: str, wait_s: float | None = None) -> None:
        super().__init__(said)
        self.wait_s = wait_s


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would take the key to another host."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        return None


@dataclass(frozen=True)
class Endpoint:
    """A chat endpoint as OpenAI, vLLM, llama.cpp and others offer it.

    The key is read from the environment when a question is asked: it is no part of this object, and stands in no file and no message.

    Attributes:
        url: Where the endpoint is, up to and with `/v1`, such as `http://localhost:8000/v1`.
        model: Name of the model that answers.
        key_env: Name of the environment variable that holds the key; None sends none.
        parallel: Questions that are under way at once.
        timeout_s: How long one answer may take, in seconds.
        tries: How often a question is asked before it is given up.
        most_tokens: A job that is estimated to take more tokens is refused before it starts.
        answer_tokens: Tokens of one answer at most.
        dollars_in: Price of a million tokens that are asked, for the estimate; None where it is not known.
        dollars_out: Price of a million tokens that are answered.
    Raises:
        FeatureError: The address is none, or a number makes no sense.
    """

    url: str
    model: str
    key_env: str | None = "OPENAI_API_KEY"
    parallel: int = 4
    timeout_s: float = 60.0
    tries: int = 6
    most_tokens: int = 2_000_000
    answer_tokens: int = 200
    dollars_in: float | None = None
    dollars_out: float | None = None

    def __post_init__(self) -> None:
        parts = urllib.parse.urlsplit(self.url if isinstance(self.url, str) else "")
        if parts.scheme not in ("http", "https") or not parts.hostname or not _has_port(parts):
            raise FeatureError(f"an endpoint's address begins with http:// or https://, not {self.url!r}")
        if parts.username or parts.password or parts.query:
            raise FeatureError(
                "an endpoint's address holds no name, password or query; keys come from the environment (key_env=)"
            )
        if not isinstance(self.model, str) or not self.model:
            raise FeatureError(f"an endpoint needs the name of the model that answers, not {self.model!r}")
        for name in ("parallel", "tries", "most_tokens", "answer_tokens"):
            given = getattr(self, name)
            if isinstance(given, bool) or not isinstance(given, int) or given < 1:
                raise FeatureError(f"{name} is a whole number from 1, not {given!r}")
        if not _is_number(self.timeout_s) or not 0 < self.timeout_s < threading.TIMEOUT_MAX:
            raise FeatureError(f"timeout_s is a number of seconds above 0, not {self.timeout_s!r}")
        for name in ("dollars_in", "dollars_out"):
            given = getattr(self, name)
            if given is not None and (not _is_number(given) or not 0 <= given < math.inf):
                raise FeatureError(f"{name} is the price of a million tokens, a number from 0, not {given!r}")

    @property
    def is_safe(self) -> bool:
        """Whether a key may travel there: encrypted, or to this machine."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.scheme == "https" or parts.hostname in LOCAL

    def ask(self, messages: list[dict[str, str]], stop: threading.Event | None = None) -> str:
        """The answer to a chat; what is passing is tried again, waiting longer each time.

        Args:
            messages: Each with a role and its content.
            stop: Set when nobody waits for the answer any more.
        Raises:
            FeatureError: The endpoint refused, or did not answer after all tries.
        """
        held, last = threading.Event() if stop is None else stop, Passing("never asked")
        for attempt in range(self.tries):
            try:
                return self._ask_once(messages)
            except Passing as passing:
                last = passing
            wait = min(LONGEST_WAIT_S, 0.5 * 2**attempt) * (0.5 + random.random())
            if attempt + 1 < self.tries and held.wait(max(wait, min(last.wait_s or 0.0, LONGEST_WAIT_S))):
                raise FeatureError("stopped")
        raise Unanswered(f"{self._named} did not answer in {self.tries} tries; the last time: {last}")

    def _ask_once(self, messages: list[dict[str, str]]) -> str:
        key = self._key()
        asked = {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": self.answer_tokens}
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(
            f"{self.url.rstrip('/')}/chat/completions", json.dumps(asked).encode(), headers, method="POST"
        )
        try:
            with self._opener.open(request, timeout=self.timeout_s) as answer:
                raw = _read(answer, time.monotonic() + self.timeout_s)
        except urllib.error.HTTPError as error:
            said = _hidden(_said(error), key)
            if error.code in PASSING:
                raise Passing(f"{error.code}, {said}", _wait_of(error)) from None
            hint = "" if key or error.code not in (401, 403) else f"; no key was sent: set {self.key_env or 'key_env='}"
            told = (
                "redirects elsewhere; give the address it redirects to" if 300 <= error.code < 400 else f"says {said}"
            )
            raise FeatureError(f"{self._named} answered {error.code} and {told}{hint}") from None
        except (urllib.error.URLError, TimeoutError, ConnectionError, http.client.HTTPException) as error:
            told = _line(str(getattr(error, "reason", "") or error)) or type(error).__name__
            raise Passing(_hidden(told, key)) from None
        return _content(raw)

    @property
    def _opener(self) -> urllib.request.OpenerDirector:
        # What goes to this machine in the open goes through no proxy, which would read the key.
        near = [urllib.request.ProxyHandler({})] if urllib.parse.urlsplit(self.url).hostname in LOCAL else []
        return urllib.request.build_opener(_NoRedirects, *near)

    def _key(self) -> str:
        key = "" if self.key_env is None else os.environ.get(self.key_env, "").strip()
        if key and not self.is_safe:
            raise FeatureError(
                f"{self._named} is neither encrypted nor this machine, and the key of {self.key_env} would go there in the open; "
                "use https, or key_env=None to send none"
            )
        if key and not (key.isascii() and key.isprintable()):
            raise FeatureError(f"what {self.key_env} holds is no key: it has characters that no header takes")
        return key

    @property
    def _named(self) -> str:
        return f"the endpoint at {urllib.parse.urlsplit(self.url).netloc}"


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


def _has_port(parts: urllib.parse.SplitResult) -> bool:
    """Whether the port is one, or none is named."""
    try:
        return parts.port is None or parts.port > 0
    except ValueError:
        return False


def _read(answer: Any, until: float) -> bytes:
    """An answer's bytes, a few more than are taken at the most.

    Raises:
        TimeoutError: They did not all come in time, though some came again and again.
    """
    parts: list[bytes] = []
    while sum(map(len, parts)) <= MOST_BYTES and (part := answer.read1(1 << 16)):
        parts.append(part)
        if time.monotonic() > until:
            raise TimeoutError("the answer comes too slowly")
    return b"".join(parts)


def _content(raw: bytes) -> str:
    """The text of an answer.

    Raises:
        Passing: It is none.
    """
    if len(raw) > MOST_BYTES:
        raise Passing(f"the answer is longer than {MOST_BYTES} bytes")
    try:
        content = json.loads(raw)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        raise Passing("the answer is no chat completion") from None
    if not isinstance(content, str):
        raise Passing("the answer holds no text")
    return content


def _said(error: urllib.error.HTTPError) -> str:
    """What a server says of its refusal, in a line."""
    try:
        raw = error.read(4096).decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        raw = ""
    # What is not in OpenAI's shape is said as it came.
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        told = json.loads(raw)["error"]
        raw = told["message"] if isinstance(told, dict) else str(told)
    line = _line(str(raw))
    return f"{line[:200]!r}" if line else "nothing more"


def _line(said: str) -> str:
    """What somebody else says, in a line without control characters."""
    return " ".join("".join(one if one.isprintable() else " " for one in said).split())


def _hidden(said: str, key: str) -> str:
    """The same without the key, which servers like to repeat."""
    if not key:
        return said
    # Parts of it are shown as well: its beginning, or what is around stars.
    parts = [re.escape(key), r"\S*\*{3,}\S*", *([re.escape(key[:6]) + r"\S*"] if len(key) >= 12 else [])]
    return re.sub("|".join(parts), "[key]", said)


def _wait_of(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks to wait."""
    try:
        found = float(error.headers.get("Retry-After", ""))
    except ValueError:
        return None
    return found if 0 <= found < 1e9 else None
