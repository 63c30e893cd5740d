"""Functions of the user's own inside edits: their names, and whether two are one."""

from typing import Any

from innerview.errors import EditError


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


def is_same_function(one: Any, other: Any) -> bool:
    """Whether two functions are one, or the same lines run again with the same values around them."""
    if one is other:
        return True
    lines = getattr(one, "__code__", None)
    if lines is None or lines != getattr(other, "__code__", None):
        return False
    return all(getattr(one, key) == getattr(other, key) for key in ("__defaults__", "__kwdefaults__")) and _around(
        one
    ) == _around(other)


def _around(function: Any) -> list[Any]:
    # By identity: tensors do not compare to a bool.
    return [id(cell.cell_contents) for cell in function.__closure__ or ()]
