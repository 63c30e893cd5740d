"""Where an edit applies: positions, scope, generated steps and a schedule over them."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import torch
from torch import Tensor

from innerview.errors import EditError

Scope = Literal["all", "prompt", "generated"]
SCOPES = ("all", "prompt", "generated")


@dataclass(frozen=True)
class Ramp:
    """A coefficient that grows evenly from its first share at step 0 to whole at step `steps - 1`."""

    steps: int

    def __post_init__(self) -> None:
        steps = _whole(self.steps)
        if steps is None or steps < 1:
            raise EditError(f"a ramp takes at least 1 step, not {self.steps!r}; give a whole number")
        object.__setattr__(self, "steps", steps)

    def factor(self, step: Tensor) -> Tensor:
        """Share of the coefficient at each step, shape as `step`; prompts count as step 0."""
        return ((step.clamp(min=0) + 1) / self.steps).clamp(max=1.0)

    def to_code(self) -> str:
        """The expression that builds this schedule."""
        return f"iv.Ramp({self.steps})"


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


Schedule = Ramp | Decay


@dataclass(frozen=True)
class Where:
    """Which tokens an edit applies to; everything that is given must hold.

    Attributes:
        positions: Token positions in a row, 0 is the first real token; negative ones count from the prompt's end.
        scope: `"all"`, the `"prompt"`, or what is `"generated"`.
        steps: Numbers of generated tokens, 0 is the first.
        schedule: Share of the coefficient at each generated step.
    """

    positions: tuple[int, ...] | None = None
    scope: Scope = "all"
    steps: tuple[int, ...] | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scope, str) or self.scope not in SCOPES:
            raise EditError(f"no scope {self.scope!r}; it is one of {', '.join(SCOPES)}")
        object.__setattr__(self, "positions", _numbers(self.positions, "positions"))
        object.__setattr__(self, "steps", _numbers(self.steps, "steps"))
        if self.steps is not None and min(self.steps) < 0:
            raise EditError(f"generated steps count from 0, not {min(self.steps)}")
        if self.steps is not None and self.scope == "prompt":
            raise EditError("steps number generated tokens, so scope='prompt' leaves none; drop one of the two")
        if self.schedule is not None and not isinstance(self.schedule, (Ramp, Decay)):
            raise EditError(f"a schedule is Ramp(steps) or Decay(half_life), not {self.schedule!r}")

    @property
    def is_everywhere(self) -> bool:
        """Whether every real token is meant."""
        return self.positions is None and self.scope == "all" and self.steps is None

    @property
    def needs_prompt(self) -> bool:
        """Whether the prompt's length must be known."""
        counts_back = self.positions is not None and min(self.positions) < 0
        return counts_back or self.scope != "all" or self.steps is not None or self.schedule is not None

    def mask(self, pos: Tensor, prompt_len: Callable[[], Tensor]) -> Tensor | None:
        """True where the edit applies, shape [rows, q]; None for everywhere.

        Args:
            pos: Position of each token in its row, shape [rows, q].
            prompt_len: Gives the prompts' lengths, shape [rows, 1]; raises when they are unknown.
        """
        if self.is_everywhere:
            return None
        chosen = torch.ones_like(pos, dtype=torch.bool)
        if self.positions is not None:
            chosen = torch.zeros_like(chosen)
            for position in self.positions:
                chosen = chosen | (pos == (position if position >= 0 else _from_end(position, prompt_len())))
        if self.scope != "all" or self.steps is not None:
            is_prompt = pos < prompt_len()
            chosen = chosen & (is_prompt if self.scope == "prompt" else ~is_prompt)
        if self.steps is not None:
            step = pos - prompt_len()
            chosen = chosen & torch.isin(step, torch.tensor(self.steps, device=pos.device))
        return chosen

    def to_code(self) -> str:
        """The expression that builds this."""
        said = []
        if self.positions is not None:
            said.append(f"positions={self.positions!r}")
        if self.scope != "all":
            said.append(f"scope={self.scope!r}")
        if self.steps is not None:
            said.append(f"steps={self.steps!r}")
        if self.schedule is not None:
            said.append(f"schedule={self.schedule.to_code()}")
        return f"iv.Where({', '.join(said)})"


def _from_end(position: int, prompt_len: Tensor) -> Tensor:
    """Absolute positions of one that counts from the prompts' ends, shape [rows, 1]."""
    shortest = int(prompt_len.min())
    if shortest + position < 0:
        raise EditError(
            f"position {position} is before the start of a prompt of {shortest} tokens; use {-shortest} to -1"
        )
    return prompt_len + position


def _whole(given: Any) -> int | None:
    """A whole number of any library as an int; None for anything else, True and False among it."""
    try:
        return None if isinstance(given, bool) else operator.index(given)
    except TypeError:
        return None


def _numbers(given: Any, name: str) -> tuple[int, ...] | None:
    """Whole numbers from one number, a range, an array, or a sequence of them."""
    if given is None:
        return None
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, (str, bytes)) or not (hasattr(given, "__iter__") or _whole(given) is not None):
        raise EditError(f"{name} are whole numbers, not {given!r} of type {type(given).__name__}")
    numbers = [_whole(n) for n in (given if hasattr(given, "__iter__") else (given,))]
    if not numbers or None in numbers:
        raise EditError(f"{name} are whole numbers, at least one, not {given!r}")
    return tuple(numbers)  # type: ignore[arg-type]
