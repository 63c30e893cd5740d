"""A recipe: edits on disk, as JSON and safetensors."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from innerview.direction import Direction
from innerview.edits import Add, Edit, ProjectOut, Replace, checked
from innerview.errors import InnerviewError, RecipeError
from innerview.where import Decay, Ramp, Where

VERSION = 1
PLAN, TENSORS = "recipe.json", "recipe.safetensors"


@dataclass(frozen=True, eq=False)
class Recipe:
    """A set of edits, and the network they were made for.

    Attributes:
        edits: The edits, in order.
        model_name: How the network was opened.
    """

    edits: tuple[Edit, ...]
    model_name: str = "unknown"

    def __post_init__(self) -> None:
        object.__setattr__(self, "edits", checked(self.edits))

    def save(self, path: str | Path) -> Path:
        """Write `recipe.json` and `recipe.safetensors` into a folder; returns it."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        tensors: dict[str, Any] = {}
        plan = {
            "version": VERSION,
            "model": self.model_name,
            "edits": [_packed(e, i, tensors) for i, e in enumerate(self.edits)],
        }
        save_file(tensors, folder / TENSORS)
        (folder / PLAN).write_text(json.dumps(plan, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """The recipe in a folder.

        Raises:
            RecipeError: Files are missing or damaged; the field is named.
        """
        folder = Path(path)
        try:
            plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
            tensors = load_file(folder / TENSORS)
        except (OSError, ValueError, SafetensorError) as error:
            raise RecipeError(f"no recipe in {str(folder)!r}: {error}; a recipe is {PLAN} beside {TENSORS}") from error
        if not isinstance(plan, dict) or plan.get("version") != VERSION:
            version = plan.get("version") if isinstance(plan, dict) else plan
            raise RecipeError(f"the recipe in {str(folder)!r} has version {version!r}; this innerview reads {VERSION}")
        try:
            edits = tuple(_unpacked(entry, i, tensors) for i, entry in enumerate(plan["edits"]))
            return cls(edits, str(plan["model"]))
        except (KeyError, TypeError, InnerviewError) as error:
            raise RecipeError(f"the recipe in {str(folder)!r} lacks or garbles {error}; save it again") from error

    def to_code(self) -> str:
        """Python that rebuilds the edits."""
        body = "".join(f"    {edit.to_code()},\n" for edit in self.edits)  # type: ignore[attr-defined]
        return f"import innerview as iv\n\nmodel = iv.open_model({self.model_name!r})\nedits = [\n{body}]\n"


def _packed(edit: Edit, nth: int, tensors: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": type(edit).__name__, "site": edit.site, "where": _where(edit.where)}
    if isinstance(edit, Replace):
        tensors[f"{nth}.value"] = edit.value.detach().cpu().contiguous()
        return entry | {"name": edit.name}
    assert isinstance(edit, (Add, ProjectOut))
    tensors[f"{nth}.vector"] = edit.direction.vector.contiguous()
    entry["direction"] = edit.direction.to_dict()
    return entry | ({"coefficient": edit.coefficient, "unit": edit.unit} if isinstance(edit, Add) else {})


def _unpacked(entry: dict[str, Any], nth: int, tensors: dict[str, Any]) -> Edit:
    operation, site, where = entry["operation"], entry["site"], _where_of(entry["where"])
    if operation == "Replace":
        return Replace(tensors[f"{nth}.value"], site=site, where=where, name=entry["name"])
    if operation not in ("Add", "ProjectOut"):
        raise RecipeError(f"operation {operation!r}; known are Add, ProjectOut and Replace")
    direction = Direction(tensors[f"{nth}.vector"], **entry["direction"])
    if operation == "ProjectOut":
        return ProjectOut(direction, site=site, where=where)
    return Add(direction, entry["coefficient"], unit=entry["unit"], site=site, where=where)


def _where(where: Where) -> dict[str, Any]:
    schedule = where.schedule
    packed = None
    if isinstance(schedule, Ramp):
        packed = {"kind": "ramp", "steps": schedule.steps}
    elif isinstance(schedule, Decay):
        packed = {"kind": "decay", "half_life": schedule.half_life}
    return {"positions": where.positions, "scope": where.scope, "steps": where.steps, "schedule": packed}


def _where_of(entry: dict[str, Any]) -> Where:
    packed = entry["schedule"]
    schedule = None
    if packed is not None:
        schedule = Ramp(packed["steps"]) if packed["kind"] == "ramp" else Decay(packed["half_life"])
    return Where(entry["positions"], entry["scope"], entry["steps"], schedule)
