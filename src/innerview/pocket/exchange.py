"""The chat form: a turn of each, with its marks."""

from __future__ import annotations

from collections.abc import Sequence

from innerview.pocket.markers import ASSISTANT, END, SYSTEM, USER
from innerview.pocket.sentence import Label, Sentence, Split


def exchange(
    behaviour: str,
    request: str,
    reply: str,
    labels: Sequence[Label],
    split: Split,
    *,
    system: str = "",
    group: str = "",
    needs: Sequence[str] = (),
    any_of: Sequence[str] = (),
    bars: Sequence[str] = (),
) -> Sentence:
    """A request and its reply, with the marks of the chat form; the last end mark is left to the document.

    Args:
        labels: Labels of the request, spans counted in the request alone; those of the reply are the caller's to move.
        needs: What a right reply contains, all of it.
        any_of: What a right reply contains at least one of.
        bars: What no right reply contains.
    """
    before = (SYSTEM + system + END if system else "") + USER
    head = before + request + END + ASSISTANT
    moved = tuple(label.shifted(len(before)) for label in labels)
    answer = Label("reply", reply, len(head), len(head) + len(reply))
    return Sentence(
        head + reply,
        behaviour,
        (*moved, answer),
        split,
        answer,
        group=group,
        needs=tuple(needs),
        any_of=tuple(any_of),
        bars=tuple(bars),
    )
