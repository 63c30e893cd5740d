"""What a claim stands on: its controls, each measured, not run, or not applicable."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd

from innerview.errors import EvidenceError
from innerview.shows import ShowsItself

State = Literal["measured", "not run", "does not apply"]
Verdict = Literal["holds", "flagged", "shown", "not run", "does not apply"]
STATES = ("measured", "not run", "does not apply")
SIDES = ("above", "below")


@dataclass(frozen=True, eq=False)
class Control:
    """One control of a claim.

    Attributes:
        control: What was controlled for, in words.
        figure: What came out; None where it was not run or does not apply.
        unit: What the figure counts, such as `"nat"`.
        threshold: Beyond it the claim is flagged; None where the figure is only shown.
        flags: Whether a figure `"above"` or `"below"` the threshold flags the claim.
        n: How many directions, prompts or tokens it was measured on.
        interval: 95 % interval of the figure.
        compared_with: What the figure is seen against, such as the effects of random directions: its plot shows them.
        effect: Where among these the claim itself stands; the figure when None.
        state: `"measured"`, `"not run"` or `"does not apply"`.
        why: Why it was not run or does not apply; else what to know of it.
        is_ours: Whether the threshold is ours, and no paper's.
    Raises:
        EvidenceError: A measured control has no figure, or one that was not has some or does not say why.
    """

    control: str
    figure: float | None = None
    unit: str = ""
    threshold: float | None = None
    flags: Literal["above", "below"] = "above"
    n: int | None = None
    interval: tuple[float, float] | None = None
    compared_with: Sequence[float] = field(default=(), repr=False)
    effect: float | None = None
    state: State = "measured"
    why: str = ""
    is_ours: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.control, str) or not self.control.strip():
            raise EvidenceError(f"a control has a name, not {self.control!r}")
        if self.state not in STATES or self.flags not in SIDES:
            raise EvidenceError(
                f"{self.control!r} has the state {self.state!r} and flags {self.flags!r}; states are {', '.join(STATES)}, and it flags above or below"
            )
        if self.state == "measured":
            self._check_figures()
        elif self.figure is not None or self.interval is not None or len(self.compared_with):
            raise EvidenceError(
                f"{self.control!r} is {self.state}, yet it has figures; leave them out, or say it was measured"
            )
        elif not self.why.strip():
            raise EvidenceError(f"{self.control!r} is {self.state}: say why, with why='...'")

    @classmethod
    def not_run(cls, control: str, why: str) -> "Control":
        """A control that was not run, and why."""
        return cls(control, state="not run", why=why)

    @classmethod
    def not_applicable(cls, control: str, why: str) -> "Control":
        """A control that says nothing about this claim, and why."""
        return cls(control, state="does not apply", why=why)

    @property
    def verdict(self) -> Verdict:
        """`holds`, `flagged`, `shown` where there is no threshold, or why there is no figure."""
        if self.state != "measured":
            return self.state
        if self.threshold is None or self.figure is None:
            return "shown"
        is_beyond = self.figure > self.threshold if self.flags == "above" else self.figure < self.threshold
        return "flagged" if is_beyond else "holds"

    def _check_figures(self) -> None:
        if self.figure is None or math.isnan(self.figure):
            raise EvidenceError(
                f"{self.control!r} is measured, and its figure is {self.figure}; give a number, or Control.not_run({self.control!r}, why)"
            )
        if self.interval is not None and not self.interval[0] <= self.interval[1]:
            raise EvidenceError(
                f"the interval of {self.control!r} goes from its lower end to its upper, not {self.interval}"
            )
        if self.n is not None and (isinstance(self.n, bool) or not isinstance(self.n, int) or self.n < 0):
            raise EvidenceError(f"n of {self.control!r} counts something, from 0; it is {self.n!r}")


@dataclass(frozen=True, eq=False)
class Evidence(ShowsItself):
    """A claim and its controls; shows itself as a card.

    Attributes:
        claim: What is claimed, in words.
        controls: The controls, those that were not run too.
        about: On which network, at which site, on which texts.
    Raises:
        EvidenceError: There is no claim, or something else than controls.
    """

    claim: str
    controls: tuple[Control, ...]
    about: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.claim, str) or not self.claim.strip():
            raise EvidenceError(f"a claim is a sentence, not {self.claim!r}")
        object.__setattr__(self, "controls", tuple(self.controls))
        wrong = [one for one in self.controls if not isinstance(one, Control)]
        if wrong:
            raise EvidenceError(f"evidence is made of Controls, not {type(wrong[0]).__name__}")

    def frame(self) -> pd.DataFrame:
        """One row a control: control, figure, unit, low, high, threshold, verdict, n, why, is_ours."""
        rows: list[dict[str, Any]] = [
            {
                "control": one.control, "figure": one.figure, "unit": one.unit,
                "low": one.interval[0] if one.interval else None, "high": one.interval[1] if one.interval else None,
                "threshold": one.threshold, "verdict": one.verdict, "n": one.n, "why": one.why, "is_ours": one.is_ours,
            }
            for one in self.controls
        ]  # fmt: skip
        numbers = dict.fromkeys(("figure", "low", "high", "threshold"), "float64")
        names = ["control", "figure", "unit", "low", "high", "threshold", "verdict", "n", "why", "is_ours"]
        return pd.DataFrame(rows, columns=names).astype({**numbers, "n": "Int64"})

    def counts(self) -> dict[str, int]:
        """How many controls have which verdict."""
        found: dict[str, int] = {}
        for one in self.controls:
            found[one.verdict] = found.get(one.verdict, 0) + 1
        return found

    def __repr__(self) -> str:
        said = ", ".join(f"{count} {verdict}" for verdict, count in self.counts().items()) or "no controls"
        lines = "".join(f"\n  {one.verdict:<14}  {one.control}{_figure(one)}" for one in self.controls)
        return f"Evidence({self.claim!r}: {said}){lines}"


def _figure(one: Control) -> str:
    if one.figure is None:
        return f": {one.why}"
    n = "" if one.n is None else f", n = {one.n}"
    return f": {one.figure:.3g}{' ' if one.unit else ''}{one.unit}{n}"
