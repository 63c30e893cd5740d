"""Conditions: a number read from an activation, compared; and, or, not of these."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal

from torch import Tensor

from innerview.errors import EditError

Relation = Literal[">", ">=", "<", "<="]
_COMPARE: dict[str, Callable[[Tensor, float], Tensor]] = {
    ">": lambda x, limit: x > limit,
    ">=": lambda x, limit: x >= limit,
    "<": lambda x, limit: x < limit,
    "<=": lambda x, limit: x <= limit,
}


class Comparable:
    """A number that comparing with a limit makes a condition of."""

    def __gt__(self, limit: Any) -> "Compare":
        return Compare(self, ">", limit)

    def __ge__(self, limit: Any) -> "Compare":
        return Compare(self, ">=", limit)

    def __lt__(self, limit: Any) -> "Compare":
        return Compare(self, "<", limit)

    def __le__(self, limit: Any) -> "Compare":
        return Compare(self, "<=", limit)

    def to_code(self) -> str:
        """The expression that builds this number."""
        raise TypeError(f"{type(self).__name__} is no number of its own; use a Reading")

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        raise TypeError(f"{type(self).__name__} is no number of its own; use a Reading")


class Condition:
    """What must hold for an edit to apply; joined by `&`, `|` and `~`."""

    @property
    def terms(self) -> tuple[Any, ...]:
        """The numbers that are compared: readings, and readings over the prompt."""
        raise TypeError(f"{type(self).__name__} is no condition of its own; compare a reading with a number")

    def holds(self, number: Callable[[Any], Tensor]) -> Tensor:
        """True where it holds, shape [rows, q], or [rows, 1] when it decides whole rows.

        Args:
            number: Gives the value of a term, of one of these shapes.
        """
        raise TypeError(f"{type(self).__name__} is no condition of its own; compare a reading with a number")

    def to_code(self) -> str:
        """The expression that builds this condition."""
        raise TypeError(f"{type(self).__name__} is no condition of its own; compare a reading with a number")

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        raise TypeError(f"{type(self).__name__} is no condition of its own; compare a reading with a number")

    def __and__(self, other: Any) -> "Condition":
        return Both(self, _condition(other, "&"))

    def __or__(self, other: Any) -> "Condition":
        return Either(self, _condition(other, "|"))

    def __invert__(self) -> "Condition":
        return Not(self)

    def __bool__(self) -> bool:
        # `a and b` and `0 < reading < 1` would silently keep one half.
        raise EditError(
            "a condition is true or false only while a network runs; join conditions with &, | and ~, and write "
            "(reading > 0.2) & (reading < 0.8) for a range"
        )


def _condition(given: Any, sign: str) -> Condition:
    if not isinstance(given, Condition):
        raise EditError(f"{sign} joins two conditions, and {given!r} of type {type(given).__name__} is none")
    return given


@dataclass(frozen=True)
class Compare(Condition):
    """A reading compared with a number."""

    term: Any
    relation: Relation
    limit: float

    def __post_init__(self) -> None:
        given: Any = self.limit
        if isinstance(given, Tensor) and given.numel() == 1:
            given = given.item()
        if isinstance(given, bool) or not isinstance(given, Real) or math.isnan(float(given)):
            raise EditError(f"a reading is compared with a number, not {given!r} of type {type(given).__name__}")
        if not isinstance(self.term, Comparable):
            raise EditError(f"a condition compares a Reading, not {self.term!r}; make one with direction.reading()")
        if self.relation not in _COMPARE:
            raise EditError(f"no comparison {self.relation!r}; it is one of {', '.join(_COMPARE)}")
        object.__setattr__(self, "limit", float(given))

    @property
    def terms(self) -> tuple[Any, ...]:
        return (self.term,)

    def holds(self, number: Callable[[Any], Tensor]) -> Tensor:
        return _COMPARE[self.relation](number(self.term), self.limit)

    def to_code(self) -> str:
        limit = repr(self.limit) if math.isfinite(self.limit) else f'float("{self.limit}")'
        return f"({self.term.to_code()} {self.relation} {limit})"

    def to_dict(self) -> dict[str, Any]:
        # JSON has no infinity.
        limit = self.limit if math.isfinite(self.limit) else str(self.limit)
        return {"kind": "compare", "relation": self.relation, "limit": limit, "term": self.term.to_dict()}


@dataclass(frozen=True)
class Joined(Condition):
    """Two conditions, and how they go together."""

    left: Condition
    right: Condition
    sign: ClassVar[str]
    word: ClassVar[str]

    @property
    def terms(self) -> tuple[Any, ...]:
        return self.left.terms + self.right.terms

    def to_code(self) -> str:
        return f"({self.left.to_code()} {self.sign} {self.right.to_code()})"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.word, "of": [self.left.to_dict(), self.right.to_dict()]}


class Both(Joined):
    """Two conditions that must both hold."""

    sign, word = "&", "and"

    def holds(self, number: Callable[[Any], Tensor]) -> Tensor:
        return self.left.holds(number) & self.right.holds(number)


class Either(Joined):
    """Two conditions of which one must hold."""

    sign, word = "|", "or"

    def holds(self, number: Callable[[Any], Tensor]) -> Tensor:
        return self.left.holds(number) | self.right.holds(number)


@dataclass(frozen=True)
class Not(Condition):
    """A condition that must not hold."""

    of: Condition

    @property
    def terms(self) -> tuple[Any, ...]:
        return self.of.terms

    def holds(self, number: Callable[[Any], Tensor]) -> Tensor:
        return ~self.of.holds(number)

    def to_code(self) -> str:
        return f"~{self.of.to_code()}"

    def to_dict(self) -> dict[str, Any]:
        return {"kind": "not", "of": [self.of.to_dict()]}
