"""Texts as rows of ids that a network can read."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from innerview.errors import DictionaryError
from innerview.models import text
from innerview.models.model import Model


def whole_rows(model: Model, texts: Any) -> list[list[int]]:
    """Ids of each text, however long."""
    return text.encode(replace(model, context=None), texts).rows()


def readable_rows(model: Model, texts: Any) -> list[list[int]]:
    """Ids of each text; one longer than the network reads comes in several pieces, each with the BOS token of the whole.

    Raises:
        DictionaryError: A text has nothing to predict.
    """
    made = []
    for nth, row in enumerate(whole_rows(model, texts)):
        if len(row) < 2:
            raise DictionaryError(f"text {nth} has one token, so nothing in it is predicted; give at least two")
        made += list(_cut(model, row))
    return made


def _cut(model: Model, row: list[int]) -> Iterator[list[int]]:
    if model.context is None or len(row) <= model.context:
        yield row
        return
    front = row[:1] if text.starts_with_bos(model, row) else []
    size = model.context - len(front)
    for start in range(len(front), len(row), size):
        piece = front + row[start : start + size]
        # A last piece of one token predicts nothing.
        if len(piece) > 1:
            yield piece
