"""The pace and the order of what leaves a widget."""

from __future__ import annotations

import itertools
import time

from innerview.widgets.writer import Writer


def test_at_most_twenty_messages_leave_in_a_second() -> None:
    left: list[float] = []
    writer = Writer()
    for i in range(8):
        writer.put(i, lambda: left.append(time.monotonic()))
    assert writer.wait()
    gaps = [b - a for a, b in itertools.pairwise(left)]
    assert len(left) == 8
    assert min(gaps) >= 0.045


def test_the_newest_value_of_a_name_leaves_and_the_others_do_not() -> None:
    left: list[int] = []
    writer = Writer()
    for i in range(500):
        writer.put("columns", lambda i=i: left.append(i))
    assert writer.wait()
    assert left[-1] == 499
    assert len(left) < 10


def test_a_sender_that_fails_does_not_stop_the_others() -> None:
    left: list[str] = []
    writer = Writer(gap_s=0)

    def fail() -> None:
        raise OSError("the comm is closed")

    writer.put("bad", fail)
    writer.put("good", lambda: left.append("good"))
    assert writer.wait()
    writer.put("later", lambda: left.append("later"))
    assert writer.wait()
    assert left == ["good", "later"]
