"""Numbers that architectures take, checked."""

from innerview.errors import DictionaryError


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number from `least`.

    Raises:
        DictionaryError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise DictionaryError(f"{name} is a whole number from {least}, not {value!r}")
    return value


def real(name: str, value: object, least: float = 0.0) -> float:
    """A finite number, not below `least`.

    Raises:
        DictionaryError: It is none.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
        raise DictionaryError(f"{name} is a number from {least:g}, not {value!r}")
    return float(value)
