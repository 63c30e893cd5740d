"""The one number of an edit that a slider moves."""

from dataclasses import dataclass

from innerview.edits import Add, Edit, Rotate, Scale
from innerview.errors import WidgetError

LIMIT = 4.0
TURN = 180.0


@dataclass(frozen=True)
class Strength:
    """A slider: where it stands, its ends, its step, and what it counts."""

    value: float
    low: float
    high: float
    step: float
    unit: str


def strength_of(edit: Edit) -> Strength | None:
    """The slider of an edit; None where there is none to move."""
    if isinstance(edit, Add) and isinstance(edit.coefficient, float):
        end = max(LIMIT, 2 * abs(edit.coefficient))
        return Strength(
            edit.coefficient,
            -end,
            end,
            end / 80,
            {"step": "steps", "raw": "raw", "residual": "residual norms"}[edit.unit],
        )
    if isinstance(edit, Scale):
        end = max(2.0, 2 * abs(edit.factor))
        return Strength(edit.factor, min(0.0, -end if edit.factor < 0 else 0.0), end, end / 80, "×")
    if isinstance(edit, Rotate):
        return Strength(edit.degrees, -TURN, TURN, 1.0, "°")
    return None


def moved(edit: Edit, value: float) -> Edit:
    """The same edit at another strength, clamped to its slider's ends.

    Raises:
        WidgetError: It has no slider.
    """
    slider = strength_of(edit)
    if slider is None:
        raise WidgetError(f"{edit.label} has no slider; make another edit")
    return edit.with_coefficient(min(slider.high, max(slider.low, value)))
