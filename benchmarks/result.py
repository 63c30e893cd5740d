"""What a row of the performance table measured: times, claims against targets, and how they read."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.pairing import Span, Timings


@dataclass(frozen=True)
class Claim:
    """One number that the table sets a target for, or that it reports.

    Attributes:
        text: What the number is.
        span: The number, with its quartiles over the rounds.
        unit: `×` or a unit of time.
        target: The most it may be; None where it is only reported.
    """

    text: str
    span: Span
    unit: str
    target: float | None = None

    @property
    def verdict(self) -> str | None:
        """`met`, `missed`, or `undecided` where the noise reaches over the target; None without a target."""
        if self.target is None:
            return None
        if self.span.most <= self.target:
            return "met"
        return "missed" if self.span.least > self.target else "undecided"


@dataclass(frozen=True)
class Workload:
    """One piece of work, done by several contenders.

    Attributes:
        name: What was done.
        gate: What was checked before anything was timed.
        timings: Seconds of each contender.
        claims: What follows from them.
    """

    name: str
    gate: str
    timings: Timings
    claims: list[Claim]


@dataclass(frozen=True)
class Row:
    """One row of the performance table.

    Attributes:
        number: Its number in the table.
        title: What it measures.
        workloads: What was run.
        notes: What a reader must know to read the numbers.
        missing: Peers that could not be measured, with the reason.
    """

    number: str
    title: str
    workloads: list[Workload]
    notes: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON takes it; times in milliseconds."""
        return {
            "number": self.number,
            "title": self.title,
            "workloads": [_workload(w) for w in self.workloads],
            "notes": self.notes,
            "missing": self.missing,
        }


def _workload(workload: Workload) -> dict[str, Any]:
    times = workload.timings
    return {
        "name": workload.name,
        "gate": workload.gate,
        "rounds": len(next(iter(times.seconds.values()))),
        "times": [
            {"name": c.name, "role": c.role, "unit": "ms", **_span(times.span(c.name), 1e3)} for c in times.contenders
        ],
        "claims": [
            {"text": c.text, "unit": c.unit, **_span(c.span), "target": c.target, "verdict": c.verdict}
            for c in workload.claims
        ],
    }


def _span(span: Span, scale: float = 1.0) -> dict[str, float]:
    return {name: float(f"{getattr(span, name) * scale:.4g}") for name in ("median", "low", "high", "least", "most")}
