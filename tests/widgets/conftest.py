"""A small network with a tokenizer of its own, and widgets whose messages are kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import innerview as iv
from tests.widgets.worlds import Comm, direction_of, network, tokenizer


@pytest.fixture(scope="session")
def model() -> iv.Model:
    """Two layers, weights large enough that its words differ."""
    return iv.open_model(network(), tokenizer=tokenizer())


@pytest.fixture(scope="session")
def direction(model: iv.Model) -> iv.Direction:
    return direction_of("good mood")


@pytest.fixture
def listen() -> Callable[[Any], Comm]:
    """Keep what a widget sends from now on."""

    def listening(widget: Any) -> Comm:
        widget.comm = Comm()
        return widget.comm

    return listening


@pytest.fixture
def until() -> Callable[..., Any]:
    """What a function gives once it is something, or its last word after a while."""

    def found_by(found: Callable[[], Any], timeout_s: float = 20.0) -> Any:
        end = time.monotonic() + timeout_s
        while not found() and time.monotonic() < end:
            time.sleep(0.01)
        return found()

    return found_by


@pytest.fixture
def ask(until: Callable[..., Any]) -> Callable[..., Any]:
    """Hand a message over as the browser would; the answers to its id, waited for."""

    def asked(widget: Any, comm: Comm, message: dict[str, Any]) -> list[dict[str, Any]]:
        widget._handle_custom_msg(message, [])
        return until(lambda: [answer for answer in comm.answers if answer["id"] == message["id"]])

    return asked
