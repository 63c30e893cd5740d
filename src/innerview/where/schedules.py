"""Schedules: the share of a coefficient at each generated step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from innerview.errors import EditError
from innerview.where.functions import is_same_function
from innerview.where.numbers import whole


@dataclass(frozen=True)
class Constant:
    """The same share of the coefficient at every step."""

    share: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "share", _finite(self.share, "a constant share"))

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`."""
        return torch.full(step.shape, self.share, device=step.device)

    def to_code(self) -> str:
        """The expression that builds this schedule."""
        return f"iv.Constant({self.share!r})"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"kind": "constant", "share": self.share}


@dataclass(frozen=True)
class Ramp:
    """A coefficient that grows evenly from its first share at step 0 to whole at step `steps - 1`."""

    steps: int

    def __post_init__(self) -> None:
        steps = whole(self.steps)
        if steps is None or steps < 1:
            raise EditError(f"a ramp takes at least 1 step, not {self.steps!r}; give a whole number")
        object.__setattr__(self, "steps", steps)

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`; prompts count as step 0."""
        return ((step.clamp(min=0) + 1) / self.steps).clamp(max=1.0)

    def to_code(self) -> str:
        """The expression that builds this schedule."""
        return f"iv.Ramp({self.steps})"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"kind": "ramp", "steps": self.steps}


@dataclass(frozen=True)
class Decay:
    """A coefficient that halves every `half_life` steps."""

    half_life: float

    def __post_init__(self) -> None:
        given: Any = self.half_life
        if isinstance(given, bool) or not isinstance(given, Real) or not 0 < float(given) < math.inf:
            raise EditError(f"a half-life is above 0 steps, not {given!r}; give a finite number")
        object.__setattr__(self, "half_life", float(given))

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`; prompts count as step 0."""
        return 0.5 ** (step.clamp(min=0) / self.half_life)

    def to_code(self) -> str:
        """The expression that builds this schedule."""
        return f"iv.Decay({self.half_life!r})"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"kind": "decay", "half_life": self.half_life}


@dataclass(frozen=True)
class Pulse:
    """A coefficient that is whole for `on` steps, then nothing for `off` steps, again and again."""

    on: int
    off: int

    def __post_init__(self) -> None:
        for name in ("on", "off"):
            steps = whole(getattr(self, name))
            if steps is None or steps < 1:
                raise EditError(
                    f"a pulse is {name} for at least 1 step, not {getattr(self, name)!r}; give a whole number"
                )
            object.__setattr__(self, name, steps)

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`; prompts count as step 0."""
        return (step.clamp(min=0) % (self.on + self.off) < self.on).float()

    def to_code(self) -> str:
        """The expression that builds this schedule."""
        return f"iv.Pulse({self.on}, {self.off})"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it."""
        return {"kind": "pulse", "on": self.on, "off": self.off}


@dataclass(frozen=True, eq=False)
class Steps:
    """A coefficient whose share is any function of the step, called once for each step and then remembered."""

    function: Callable[[int], float]

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise EditError(f"a schedule of steps is a function of the step, and {self.function!r} cannot be called")
        object.__setattr__(self, "_table", [])

    def __eq__(self, other: object) -> bool:
        # A cell that runs again makes its function anew.
        return isinstance(other, Steps) and is_same_function(self.function, other.function)

    def __hash__(self) -> int:
        return hash(getattr(self.function, "__code__", self.function))

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`; prompts count as step 0.

        Raises:
            EditError: The function returns no finite number.
        """
        at = step.clamp(min=0)
        table: list[float] = self._table  # type: ignore[attr-defined]
        while len(table) <= int(at.max()):
            table.append(_finite(self.function(len(table)), f"the share that the schedule gives at step {len(table)}"))
        return torch.tensor(table, device=step.device)[at]

    def to_code(self) -> str:
        """Refused: a function cannot be written down.

        Raises:
            EditError: Always, with the schedules that can be.
        """
        raise EditError(f"a schedule that is {self._name} cannot be written down; {_WRITABLE}")

    def to_dict(self) -> dict[str, Any]:
        """Refused: a function cannot be written down.

        Raises:
            EditError: Always, with the schedules that can be.
        """
        raise EditError(f"a schedule that is {self._name} cannot be written down; {_WRITABLE}")

    @property
    def _name(self) -> str:
        name = getattr(self.function, "__name__", repr(self.function))
        return "a lambda" if name == "<lambda>" else f"the function {name}"


_WRITABLE = "iv.Constant, iv.Ramp, iv.Decay and iv.Pulse can, and so can a Where for each window of steps"
Schedule = Constant | Ramp | Decay | Pulse | Steps
_BY_KIND: dict[str, tuple[Any, tuple[str, ...]]] = {
    "constant": (Constant, ("share",)),
    "ramp": (Ramp, ("steps",)),
    "decay": (Decay, ("half_life",)),
    "pulse": (Pulse, ("on", "off")),
}


def schedule_of(given: Any) -> Schedule | None:
    """A schedule from one, from a number (a constant share), or from a function of the step; None stays None.

    Raises:
        EditError: It is none of these.
    """
    if given is None or isinstance(given, Schedule):
        return given
    if isinstance(given, Real) and not isinstance(given, bool):
        return Constant(float(given))
    if callable(given) and not isinstance(given, type):
        return Steps(given)  # type: ignore[arg-type]
    raise EditError(
        f"a schedule is Constant, Ramp(steps), Decay(half_life), Pulse(on, off) or a function of the step, not {given!r}"
    )


def schedule_from_dict(given: Any) -> Schedule:
    """The schedule that `to_dict` said.

    Raises:
        EditError: A field is missing or unknown.
    """
    kind = given.get("kind") if isinstance(given, dict) else None
    if not isinstance(kind, str) or kind not in _BY_KIND:
        raise EditError(f"no schedule {given!r}; its kind is one of {', '.join(_BY_KIND)}")
    made, fields = _BY_KIND[kind]
    if set(given) != {"kind", *fields}:
        raise EditError(f"a schedule {kind!r} has the fields kind, {', '.join(fields)}, not {sorted(map(str, given))}")
    return made(**{field: given[field] for field in fields})


def _finite(given: Any, what: str) -> float:
    if hasattr(given, "item"):
        given = given.item()
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise EditError(f"{what} is a finite number, not {given!r}")
    return float(given)
