"""Where an edit applies: positions, spans, tokens, scope, generated steps, a schedule over them, and a condition."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from innerview.conditions import Comparable, Condition
from innerview.errors import EditError
from innerview.readings import condition_of
from innerview.where.numbers import whole, whole_numbers
from innerview.where.schedules import Schedule, Steps, schedule_from_dict, schedule_of

Scope = Literal["all", "prompt", "generated"]
SCOPES = ("all", "prompt", "generated")


@dataclass(frozen=True)
class Window:
    """Steps from `start` up to, and without, `stop`; without end when None."""

    start: int
    stop: int | None = None

    def holds(self, step: Tensor) -> Tensor:
        """True for steps inside, shape as `step`."""
        return step >= self.start if self.stop is None else (step >= self.start) & (step < self.stop)

    def to_code(self) -> str:
        """The expression that `steps=` takes."""
        return f"slice({self.start}, {self.stop})"


class Passing(Protocol):
    """The tokens that a `Where` is asked about: those that pass in one forward."""

    @property
    def pos(self) -> Tensor:
        """Position of each token in its row, shape [rows, q]."""
        ...

    def prompt_len(self) -> Tensor:
        """Length of each row's prompt, shape [rows, 1]; raises when it is unknown."""
        ...

    def token_ids(self) -> Tensor:
        """Id of each token, shape [rows, q]; raises when they are unknown."""
        ...

    def span(self, where: "Where", reader: Any) -> Tensor:
        """True for the tokens of the text or role that is named, shape [rows, q]; raises when it is not there."""
        ...


@dataclass(frozen=True)
class Where:
    """Which tokens an edit applies to; everything that is given must hold.

    Attributes:
        positions: Token positions in a row, 0 is the first real token; negative ones count from the prompt's end.
        scope: `"all"`, the `"prompt"`, or what is `"generated"`.
        steps: Numbers of generated tokens, 0 is the first: numbers, a range, or a `slice`, which may be without end.
        schedule: Share of the coefficient at each generated step: `Ramp`, `Decay`, `Pulse`, a number, or a function of the step.
        text: A text in the prompt; every token that writes part of it is meant. It must be in every row.
        nth: Which occurrence of the text: 1 is the first, -1 the last, None all of them.
        role: A role of the chat; what it says is meant, generated tokens too while it is its turn.
        tokens: Ids, or texts of single tokens.
        special: False leaves special tokens out, True means only them, None all alike.
        condition: Of readings, such as `direction.reading() > 1.0`. A site is read as it leaves, behind the edits there; an edit's own
            site as the edit receives it.
    """

    positions: tuple[int, ...] | None = None
    scope: Scope = "all"
    steps: tuple[int, ...] | Window | None = None
    schedule: Schedule | None = None
    text: str | None = None
    nth: int | None = None
    role: str | None = None
    tokens: tuple[int | str, ...] | None = None
    special: bool | None = None
    condition: Condition | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.scope, str) or self.scope not in SCOPES:
            raise EditError(f"no scope {self.scope!r}; it is one of {', '.join(SCOPES)}")
        put = {
            "positions": whole_numbers(self.positions, "positions"),
            "steps": _steps(self.steps),
            "schedule": schedule_of(self.schedule),
            "nth": _nth(self.nth),
            "tokens": _tokens(self.tokens),
        }
        for name, value in put.items():
            object.__setattr__(self, name, value)
        self._check()
        needs_text = self.text is not None or self.role is not None
        is_everywhere = self.positions is None and self.scope == "all" and self.steps is None and not needs_text
        is_everywhere = is_everywhere and self.tokens is None and self.special is None
        object.__setattr__(self, "_is_everywhere", is_everywhere)

    def _check(self) -> None:
        if self.steps is not None and self.scope == "prompt":
            raise EditError("steps number generated tokens, so scope='prompt' leaves none; drop one of the two")
        for name in ("text", "role"):
            given = getattr(self, name)
            if given is not None and (not isinstance(given, str) or not given):
                raise EditError(f"{name} is a text, not {given!r} of type {type(given).__name__}")
        if self.nth is not None and self.text is None:
            raise EditError(f"nth={self.nth} counts occurrences of a text; give text= too")
        if self.text is not None and (self.scope == "generated" or self.steps is not None):
            raise EditError(
                f"text={self.text!r} is sought in the prompt, so generated tokens are none of it; drop one of the two, or use tokens="
            )
        if self.special is not None and not isinstance(self.special, bool):
            raise EditError(
                f"special is True (only special tokens), False (none of them) or None, not {self.special!r}"
            )
        if self.condition is not None and not isinstance(self.condition, Condition):
            way = (
                "compare it, as in reading > 1.0"
                if isinstance(self.condition, Comparable)
                else "use one such as direction.reading() > 1.0"
            )
            raise EditError(f"a condition compares readings, and {self.condition!r} does not; {way}")

    @property
    def is_everywhere(self) -> bool:
        """Whether every real token is meant, conditions aside."""
        return self._is_everywhere  # type: ignore[attr-defined]

    @property
    def needs_positions(self) -> bool:
        """Whether it must be known where each token stands in its row."""
        return self.positions is not None or self.scope != "all" or self.steps is not None

    @property
    def needs_reader(self) -> bool:
        """Whether a tokenizer must be asked."""
        has_words = self.tokens is not None and any(isinstance(token, str) for token in self.tokens)
        return self.needs_prompt_ids or self.special is not None or has_words

    @property
    def needs_prompt_ids(self) -> bool:
        """Whether the prompts' ids must be known."""
        return self.text is not None or self.role is not None

    @property
    def needs_prompt(self) -> bool:
        """Whether the prompt's length must be known."""
        counts_back = self.positions is not None and min(self.positions) < 0
        return counts_back or self.scope != "all" or self.steps is not None or self.schedule is not None

    def mask(self, passing: Passing, reader: Any = None) -> Tensor | None:
        """True where the edit applies, conditions and padding aside, shape [rows, q]; None for everywhere.

        Args:
            passing: The tokens that are asked about.
            reader: Of the network's tokenizer; needed where `needs_reader`.
        """
        if self.is_everywhere:
            return None
        parts = list(self._parts(passing, reader))
        chosen = parts[0]
        for part in parts[1:]:
            chosen = chosen & part
        return chosen

    def _parts(self, passing: Passing, reader: Any) -> Iterable[Tensor]:
        pos = passing.pos if self.needs_positions else None
        if self.positions is not None:
            assert pos is not None
            yield _at(self.positions, pos, passing.prompt_len)
        if pos is not None and (self.scope != "all" or self.steps is not None):
            is_prompt = pos < passing.prompt_len()
            yield is_prompt if self.scope == "prompt" else ~is_prompt
        if pos is not None and self.steps is not None:
            step = pos - passing.prompt_len()
            is_window = isinstance(self.steps, Window)
            yield self.steps.holds(step) if is_window else torch.isin(step, torch.tensor(self.steps, device=pos.device))  # type: ignore[union-attr]
        if self.needs_prompt_ids:
            yield passing.span(self, reader)
        if self.tokens is not None:
            yield _among(passing.token_ids(), self.token_ids(reader))
        if self.special is not None:
            is_special = _among(passing.token_ids(), reader.special_ids)
            yield is_special if self.special else ~is_special

    def token_ids(self, reader: Any) -> frozenset[int]:
        """The ids of `tokens`.

        Raises:
            EditError: A text is no single token.
        """
        return frozenset(t if isinstance(t, int) else reader.id_of(t) for t in self.tokens or ())

    def to_code(self) -> str:
        """The expression that builds this.

        Raises:
            EditError: The schedule is a function.
        """
        said = []
        for name in (
            "positions",
            "scope",
            "steps",
            "schedule",
            "text",
            "nth",
            "role",
            "tokens",
            "special",
            "condition",
        ):
            value = getattr(self, name)
            if value is not None and not (name == "scope" and value == "all"):
                said.append(f"{name}={value.to_code() if hasattr(value, 'to_code') else repr(value)}")
        return f"iv.Where({', '.join(said)})"

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON takes it; what is not given is left out.

        Raises:
            EditError: The schedule is a function.
        """
        said: dict[str, Any] = {"scope": self.scope}
        for name in ("positions", "nth", "text", "role", "special", "tokens"):
            value = getattr(self, name)
            if value is not None:
                said[name] = list(value) if isinstance(value, tuple) else value
        if self.steps is not None:
            is_window = isinstance(self.steps, Window)
            said["steps"] = {"start": self.steps.start, "stop": self.steps.stop} if is_window else list(self.steps)  # type: ignore[union-attr,arg-type]
        for name in ("schedule", "condition"):
            value = getattr(self, name)
            if value is not None:
                said[name] = value.to_dict()
        return said

    @classmethod
    def from_dict(cls, given: Any) -> "Where":
        """The Where that `to_dict` said; a field that is null counts as left out.

        Raises:
            EditError: A field is unknown or damaged; it is named.
        """
        if not isinstance(given, dict):
            raise EditError(f"a Where is an object, not {given!r}")
        unknown = sorted(str(name) for name in given if name not in cls.__dataclass_fields__)
        if unknown:
            raise EditError(f"a Where has no field {unknown[0]!r}; it has {', '.join(cls.__dataclass_fields__)}")
        told = {name: value for name, value in given.items() if value is not None}
        if isinstance(told.get("steps"), dict):
            if set(told["steps"]) != {"start", "stop"}:
                raise EditError(f"a window of steps has the fields start and stop, not {told['steps']!r}")
            told["steps"] = slice(told["steps"]["start"], told["steps"]["stop"])
        if "schedule" in told:
            told["schedule"] = schedule_from_dict(told["schedule"])
        if "condition" in told:
            told["condition"] = condition_of(told["condition"])
        return cls(**told)


def _at(positions: tuple[int, ...], pos: Tensor, prompt_len: Callable[[], Tensor]) -> Tensor:
    """True at some positions, shape as `pos`."""
    chosen = torch.zeros_like(pos, dtype=torch.bool)
    for position in positions:
        chosen = chosen | (pos == (position if position >= 0 else _from_end(position, prompt_len())))
    return chosen


def _from_end(position: int, prompt_len: Tensor) -> Tensor:
    """Absolute positions of one that counts from the prompts' ends, shape [rows, 1]."""
    shortest = int(prompt_len.min())
    if shortest + position < 0:
        raise EditError(
            f"position {position} is before the start of a prompt of {shortest} tokens; use {-shortest} to -1"
        )
    return prompt_len + position


def _among(ids: Tensor, wanted: frozenset[int]) -> Tensor:
    return torch.isin(ids, torch.tensor(sorted(wanted), dtype=torch.long, device=ids.device))


def _steps(given: Any) -> tuple[int, ...] | Window | None:
    if isinstance(given, Window):
        given = slice(given.start, given.stop)
    if not isinstance(given, slice):
        steps = whole_numbers(given, "steps")
        if steps is not None and min(steps) < 0:
            raise EditError(f"generated steps count from 0, not {min(steps)}")
        return steps
    start, stop = (None if end is None else whole(end) for end in (given.start, given.stop))
    start = 0 if given.start is None else start
    is_whole = start is not None and (given.stop is None or stop is not None) and given.step in (None, 1)
    if not is_whole or start < 0 or (stop is not None and stop <= start):  # type: ignore[operator]
        raise EditError(f"a window of steps is slice(start, stop) with 0 <= start < stop, not {given!r}")
    return Window(start, stop)  # type: ignore[arg-type]


def _nth(given: Any) -> int | None:
    nth = whole(given)
    if given is not None and (nth is None or nth == 0):
        raise EditError(f"nth counts occurrences from 1, or from -1 for the last, not {given!r}")
    return nth


def _tokens(given: Any) -> tuple[int | str, ...] | None:
    """Ids and texts of tokens, each once, in a fixed order."""
    if given is None:
        return None
    if hasattr(given, "tolist"):
        given = given.tolist()
    listed = [given] if isinstance(given, str) or not isinstance(given, Iterable) else list(given)
    made = [token if isinstance(token, str) else whole(token) for token in listed]
    bad = [
        one
        for one, token in zip(listed, made, strict=True)
        if token is None or token == "" or (isinstance(token, int) and token < 0)
    ]
    if bad or not made:
        raise EditError(
            f"tokens are ids from 0 or texts of single tokens, at least one, not {bad[0] if bad else given!r}"
        )
    return tuple(sorted(set(made), key=lambda token: (isinstance(token, str), token)))  # type: ignore[arg-type,return-value,type-var]


__all__ = ["SCOPES", "Passing", "Scope", "Steps", "Where", "Window"]
