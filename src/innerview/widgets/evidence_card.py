"""`EvidenceCard`: a claim and its controls; each opens its plot."""

from typing import Any, ClassVar

import traitlets

from innerview.claims.evidence import Control, Evidence
from innerview.errors import WidgetError
from innerview.widgets import wire
from innerview.widgets.base import Widget

MOST_COMPARED = 4_000


class EvidenceCard(Widget):
    """A claim with its controls beside it: figure, threshold, verdict and n of each; what was not run is shown as not run.

    Args:
        evidence: The claim and its controls.
    Raises:
        WidgetError: It is no Evidence.
    """

    bundle: ClassVar[str] = "evidence_card"
    heading: ClassVar[str] = "Evidence"
    writable: ClassVar[dict[str, str]] = {"shown": "check_shown"}

    evidence = traitlets.Dict().tag(sync=True)
    shown = traitlets.List().tag(sync=True, echo_update=False)

    def __init__(self, evidence: Evidence) -> None:
        if not isinstance(evidence, Evidence):
            raise WidgetError(f"EvidenceCard takes an Evidence, not {type(evidence).__name__}")
        self._evidence = evidence
        super().__init__(
            evidence={
                "claim": wire.sendable(evidence.claim), "about": wire.sendable(evidence.about),
                "controls": [_sent(one) for one in evidence.controls], "counts": evidence.counts(),
            }
        )  # fmt: skip

    @classmethod
    def from_result(cls, result: Evidence) -> "EvidenceCard":
        """The widget that shows evidence."""
        return cls(result)

    def check_shown(self, value: Any) -> list[int]:
        """Which controls' plots are open."""
        count = len(self._evidence.controls)
        if not isinstance(value, list) or len(value) > max(count, 1):
            raise WidgetError(f"the open controls are a list of at most {count} numbers, not {str(value)[:40]}")
        wrong = [one for one in value if isinstance(one, bool) or not isinstance(one, int)]
        if wrong:
            raise WidgetError(f"a control is a whole number, not {str(wrong[0])[:40]!r}")
        return sorted({one for one in value if 0 <= one < count})

    def html_table(self) -> str:
        rows = [
            [one.control, _figure(one), _threshold(one), one.verdict, "–" if one.n is None else f"{one.n:,}", one.why]
            for one in self._evidence.controls
        ]
        caption = f"Evidence · {self._evidence.claim} · {self._evidence.about}"
        return wire.html_table(["control", "figure", "flagged", "verdict", "n", ""], rows, caption)

    def plain_text(self) -> str:
        return repr(self._evidence)

    def page_title(self) -> str:
        return f"Evidence · {self._evidence.claim}"


def _sent(one: Control) -> dict[str, Any]:
    compared = list(one.compared_with)
    # Evenly through them, in their order, where they are too many to be drawn.
    step = -(-len(compared) // MOST_COMPARED) or 1
    return {
        "control": wire.sendable(one.control), "figure": _finite(one.figure), "said": _figure(one), "threshold": _finite(one.threshold),
        "flagged": _threshold(one), "verdict": one.verdict, "n": one.n, "interval": _interval(one),
        "compared_with": wire.pack(compared[::step], "float32"), "n_compared": len(compared),
        "effect": _finite(one.figure if one.effect is None else one.effect),
        "unit": wire.sendable(one.unit), "why": wire.sendable(one.why), "is_ours": one.is_ours,
    }  # fmt: skip


def _interval(one: Control) -> list[float] | None:
    ends = [_finite(end) for end in one.interval or ()]
    return None if len(ends) != 2 or None in ends else ends  # type: ignore[return-value]


def _finite(value: float | None) -> float | None:
    """A number that JSON has a word for."""
    return None if value is None or value in (float("inf"), float("-inf")) else float(value)


def _figure(one: Control) -> str:
    if one.figure is None:
        return "–"
    unit = f" {wire.sendable(one.unit)}" if one.unit else ""
    interval = "" if one.interval is None else f" [{one.interval[0]:.3g}, {one.interval[1]:.3g}]"
    return f"{one.figure:.3g}{unit}{interval}"


def _threshold(one: Control) -> str:
    if one.threshold is None:
        return "–"
    return f"{'>' if one.flags == 'above' else '<'} {one.threshold:.3g}{' (ours)' if one.is_ours else ''}"
