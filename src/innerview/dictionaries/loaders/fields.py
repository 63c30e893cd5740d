"""Fields of a config, each read with its type; what is missing or of another type is refused by its name."""

import math
import reprlib
from typing import Any

from innerview.errors import DictionaryError

_MISSING = object()
# Keys by which other libraries are told to import or call something.
CODE = ("_target_", "auto_map", "custom_pipelines", "py/object", "py/reduce", "py/type", "__reduce__", "__class__")


class Fields:
    """An object of a config file.

    Attributes:
        where: The file, and the path in it.
        values: What it holds.
    """

    def __init__(self, where: str, values: dict[str, Any]) -> None:
        self.where, self.values = where, values

    @classmethod
    def of(cls, where: str, values: Any) -> "Fields":
        """The fields of an object.

        Raises:
            DictionaryError: It is no object.
        """
        if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
            raise DictionaryError(f"{where} holds an object of named fields, not {reprlib.repr(values)}")
        acting = next((key for key in CODE if key in values), None)
        if acting:
            raise DictionaryError(
                f"{where}: {acting} tells a library to run code; configs of dictionaries are plain values"
            )
        return cls(where, values)

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def inner(self, key: str) -> "Fields":
        """The fields of an object inside; those of an empty one where it is not there."""
        value = self.values.get(key)
        return Fields.of(f"{self.where}: {key}", {} if value is None else value)

    def text(self, key: str, default: Any = _MISSING, *, among: tuple[str, ...] = ()) -> str:
        """A text, one of `among` where that is given."""
        value = self._taken(key, str, "a text", default)
        if among and isinstance(value, str) and value not in among:
            raise DictionaryError(f"{self.where}: {key} is one of {', '.join(among)}, not {reprlib.repr(value)}")
        return value

    def flag(self, key: str, default: Any = _MISSING) -> bool:
        """True or false."""
        return self._taken(key, bool, "true or false", default)

    def whole(self, key: str, default: Any = _MISSING, *, least: int = 1) -> int:
        """A whole number from `least`."""
        value = self._taken(key, int, f"a whole number from {least}", default)
        if value is not default and not least <= value < 1 << 62:
            raise DictionaryError(f"{self.where}: {key} is a whole number from {least}, not {reprlib.repr(value)}")
        return value

    def number(self, key: str, default: Any = _MISSING, *, above: float = -math.inf) -> float:
        """A finite number, above `above`."""
        value = self._taken(key, (int, float), "a number", default)
        if value is default:
            return value
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
        if not above < value < math.inf:
            raise DictionaryError(f"{self.where}: {key} is a finite number above {above:g}, not {value!r}")
        return value

    def _taken(self, key: str, kind: Any, said: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            if default is _MISSING:
                raise DictionaryError(
                    f"{self.where}: {key} is missing, {said}; it changes the codes, so it is not guessed"
                )
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise DictionaryError(f"{self.where}: {key} is {said}, not {reprlib.repr(value)}")
        return value
