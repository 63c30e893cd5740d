"""Functions of the user's own: whether two are one."""

from typing import Any


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
