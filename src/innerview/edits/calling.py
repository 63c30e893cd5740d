"""Functions of the user's own inside edits: their names."""

from typing import Any

from innerview.errors import EditError
from innerview.where.functions import is_same_function

__all__ = ["code_of_function", "is_same_function", "name_of"]


def name_of(function: Any, given: str, verb: str) -> str:
    """What to call a function.

    Raises:
        EditError: It cannot be called.
    """
    if not callable(function):
        raise EditError(f"{verb} takes a function, not {function!r} of type {type(function).__name__}")
    return given or getattr(function, "__name__", type(function).__name__)


def code_of_function(name: str) -> str:
    """An expression that stands for a function: its name, where it has one."""
    return name if name.isidentifier() else f"function_named({name!r})"
