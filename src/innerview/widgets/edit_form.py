"""An edit as a person sets it in Steer, and the edit that it stands for."""

import dataclasses
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from innerview.direction import Direction
from innerview.edits import Add, Edit, ProjectOut, SetFeatures
from innerview.errors import WidgetError
from innerview.models.model import Model
from innerview.where import SCOPES, Decay, Ramp, Where
from innerview.widgets.base import choice, number, whole

LIMIT = 4.0
LONGEST = 1000
OPERATIONS = ("add", "out")
LAYERS = ("site", "all")
SCHEDULES = ("constant", "ramp", "decay")


@dataclass(frozen=True)
class EditForm:
    """One row of Steer.

    Attributes:
        direction: Index among the widget's directions.
        op: `add`, or take `out`.
        coefficient: Natural steps; raw units for a direction without a step.
        layers: The direction's own `site`, or the same site of `all` layers.
        scope: Tokens it applies to.
        schedule: How its share goes over the generated tokens.
        length: Tokens of the ramp, or of the half-life.
        on: Whether it applies.
    """

    direction: int
    op: Literal["add", "out"] = "add"
    coefficient: float = 0.0
    layers: Literal["site", "all"] = "site"
    scope: Literal["all", "prompt", "generated"] = "all"
    schedule: Literal["constant", "ramp", "decay"] = "constant"
    length: float = 10
    on: bool = True

    @classmethod
    def checked(cls, value: Any, directions: int, limit: float) -> "EditForm":
        """The form that the browser sent, its numbers clamped.

        Raises:
            WidgetError: A field is missing, unknown, or of another kind.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        if not isinstance(value, dict) or sorted(value) != sorted(names):
            raise WidgetError(f"an edit has the fields {', '.join(names)}; received {str(value)[:80]}")
        index = value["direction"]
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < directions:
            raise WidgetError(f"no direction {str(index)[:20]}; there are {directions}")
        if not isinstance(value["on"], bool):
            raise WidgetError(f"on is true or false, not {str(value['on'])[:20]!r}")
        return cls(
            index,
            choice(value["op"], OPERATIONS),  # type: ignore[arg-type]
            float(number(value["coefficient"], -limit, limit)),
            choice(value["layers"], LAYERS),  # type: ignore[arg-type]
            choice(value["scope"], SCOPES),  # type: ignore[arg-type]
            choice(value["schedule"], SCHEDULES),  # type: ignore[arg-type]
            number(value["length"], 1, LONGEST),
            value["on"],
        )

    @property
    def is_active(self) -> bool:
        """Whether it changes anything."""
        return self.on and (self.op == "out" or self.coefficient != 0)

    def to_dict(self) -> dict[str, Any]:
        """As the wire carries it."""
        return asdict(self)

    def edit(self, directions: Sequence[Direction]) -> Edit:
        """The edit that this form stands for."""
        direction = directions[self.direction]
        site = every_layer(direction.site) if self.layers == "all" else direction.site
        length = self.length
        schedule = {"ramp": Ramp(max(1, round(length))), "decay": Decay(float(length))}.get(self.schedule)
        where = Where(scope=self.scope, schedule=schedule)
        if self.op == "out":
            return ProjectOut(direction, site=site, where=where)
        return Add(direction, self.coefficient, unit=unit_of(direction), site=site, where=where)


def unit_of(direction: Direction) -> Literal["step", "raw"]:
    """What a slider counts: natural steps, or raw units where no step is known."""
    return "step" if direction.scale else "raw"


def every_layer(site: str) -> str:
    """The same site of all layers; the site itself where it belongs to no block."""
    return re.sub(r"^blocks\.\d+\.", "blocks.*.", site)


def form_of(edit: Any, directions: list[Direction]) -> EditForm:
    """The form of an edit; its direction joins `directions` unless it is there.

    Raises:
        WidgetError: No row of Steer can show it.
    """
    if not isinstance(edit, (Add, ProjectOut)):
        way = "; of a feature, iv.Add(dictionary.direction(i)) can be shown" if isinstance(edit, SetFeatures) else ""
        raise WidgetError(
            f"Steer shows Add and ProjectOut, not {type(edit).__name__}; attach others with iv.attach{way}"
        )
    where = edit.where
    hidden = _hidden(edit)
    if hidden:
        raise WidgetError(f"Steer has no {hidden} to show for {edit.label!r}; use iv.generate(..., edits=[...]) for it")
    direction, layers = _placed(edit)
    index = next((i for i, known in enumerate(directions) if _is_same(known, direction)), None)
    if index is None:
        directions.append(direction)
        index = len(directions) - 1
    schedule, length = "constant", 10.0
    if isinstance(where.schedule, Ramp):
        schedule, length = "ramp", where.schedule.steps
    elif isinstance(where.schedule, Decay):
        schedule, length = "decay", where.schedule.half_life
    is_add = isinstance(edit, Add)
    coefficient = direction.length(float(edit.coefficient), edit.unit) / (direction.scale or 1.0) if is_add else 0.0  # type: ignore[arg-type]
    return EditForm(index, "add" if is_add else "out", coefficient, layers, where.scope, schedule, length)  # type: ignore[arg-type]


def _hidden(edit: Add | ProjectOut) -> str:
    """What an edit has that no row of Steer shows; empty if nothing."""
    where, shown = edit.where, Where(scope=edit.where.scope, schedule=edit.where.schedule)
    if where.positions is not None or where.steps is not None:
        return "positions or steps"
    if where != shown:
        return "texts, roles, tokens or conditions"
    if where.schedule is not None and not isinstance(where.schedule, (Ramp, Decay)):
        return "schedules but ramp and decay"
    if edit.heads is not None or edit.neurons is not None:
        return "heads or neurons"
    if isinstance(edit, Add) and not isinstance(edit.coefficient, float):
        return "coefficients of rows"
    return "several directions in one edit" if isinstance(edit.direction, tuple) else ""


def _placed(edit: Add | ProjectOut) -> tuple[Direction, Literal["site", "all"]]:
    direction: Any = edit.direction
    if edit.site == direction.site:
        return direction, "site"
    if edit.site == every_layer(direction.site):
        return direction, "all"
    if "*" in edit.site:
        raise WidgetError(
            f"Steer applies {direction.name!r} at {direction.site} or {every_layer(direction.site)}, not at {edit.site!r}"
        )
    # Readings go by name, so the same vector at another site needs another one.
    return dataclasses.replace(direction, site=edit.site, name=f"{direction.name} at {edit.site}"), "site"


def _is_same(a: Direction, b: Direction) -> bool:
    return a is b or (a.site == b.site and a.to_dict() == b.to_dict() and bool((a.vector == b.vector).all()))


def checked_directions(model: Model, directions: Sequence[Any]) -> list[Direction]:
    """The directions, each with a name of its own and a site of the model.

    Raises:
        WidgetError: One is no direction or has another width than its site, or two share a name.
        SiteError: The model has no such site.
    """
    found: list[Direction] = []
    for direction in directions:
        if not isinstance(direction, Direction):
            raise WidgetError(
                f"directions holds Directions, not {type(direction).__name__}; make one with iv.contrast or iv.Direction.from_vector"
            )
        site, width = model.site(direction.site), direction.vector.numel()
        if site.sizes and width not in (site.sizes[-1], math.prod(site.sizes)):
            raise WidgetError(
                f"direction {direction.name!r} is {width} wide, and {site.name} is {site.shape}; find it at that site"
            )
        if any(known.name == direction.name for known in found):
            raise WidgetError(
                f"two directions are named {direction.name!r}; name one with direction.named('another name')"
            )
        found.append(direction)
    return found


def clamp_index(value: Any, directions: int) -> int:
    """An index among the directions, -1 for none."""
    return whole(value, -1, directions - 1)
