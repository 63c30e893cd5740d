"""Whole numbers of any library, as plain ones."""

import operator
from typing import Any

from innerview.errors import EditError


def whole(given: Any) -> int | None:
    """A whole number of any library as an int; None for anything else, True and False among it."""
    try:
        return None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return None


def whole_numbers(given: Any, name: str) -> tuple[int, ...] | None:
    """Whole numbers from one number, a range, an array, or a sequence of them.

    Raises:
        EditError: There is none, or something else among them.
    """
    if given is None:
        return None
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, (str, bytes)) or not (hasattr(given, "__iter__") or whole(given) is not None):
        raise EditError(f"{name} are whole numbers, not {given!r} of type {type(given).__name__}")
    numbers = [whole(n) for n in (given if hasattr(given, "__iter__") else (given,))]
    if not numbers or None in numbers:
        raise EditError(f"{name} are whole numbers, at least one, not {given!r}")
    return tuple(numbers)  # type: ignore[arg-type]
