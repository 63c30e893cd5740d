"""A recipe: edits on disk, as JSON and safetensors."""

import dataclasses
import hashlib
import json
import os
import reprlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from innerview.direction import Direction
from innerview.edits import Add, Edit, ProjectOut, Replace, checked
from innerview.errors import InnerviewError, RecipeError
from innerview.where import Decay, Ramp, Where

VERSION = 1
PLAN, TENSORS = "recipe.json", "recipe.safetensors"
DIRECTION_FIELDS = sorted(f.name for f in dataclasses.fields(Direction) if f.name != "vector")


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
        """Write `recipe.json` and `recipe.safetensors` into a folder; returns it.

        Raises:
            RecipeError: The folder cannot be written; what was there stays.
        """
        tensors: dict[str, Tensor] = {}
        edits = [_packed(e, i, tensors) for i, e in enumerate(self.edits)]
        body = save(tensors)
        plan = {"version": VERSION, "model": self.model_name, "tensors": _digest(body), "edits": edits}
        said = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
        try:
            folder = Path(path)
            folder.mkdir(parents=True, exist_ok=True)
            # Half a character of a name is written as JSON's own escape, which reads back the same.
            _write_together({folder / TENSORS: body, folder / PLAN: said.encode("utf-8", "backslashreplace")})
        except (OSError, TypeError, ValueError) as error:
            raise RecipeError(f"no recipe can be written to {str(path)!r}: {error}; give a folder") from error
        return folder

    @classmethod
    def load(cls, path: str | Path) -> "Recipe":
        """The recipe in a folder.

        Raises:
            RecipeError: Files are missing, damaged or of two recipes; the field is named.
        """
        try:
            folder = Path(path)
            plan = json.loads((folder / PLAN).read_bytes().decode("utf-8"))
            body = (folder / TENSORS).read_bytes()
            tensors = load(body)
        except (OSError, ValueError, TypeError, RecursionError, SafetensorError) as error:
            raise RecipeError(f"no recipe in {str(path)!r}: {error}; a recipe is {PLAN} beside {TENSORS}") from error
        if not isinstance(plan, dict) or isinstance(plan.get("version"), bool) or plan.get("version") != VERSION:
            version = plan.get("version") if isinstance(plan, dict) else plan
            raise RecipeError(f"the recipe in {str(folder)!r} has version {version!r}; this innerview reads {VERSION}")
        try:
            if _field(plan, "tensors", str, "a text") != _digest(body):
                raise RecipeError(f"{TENSORS}, which belongs to another {PLAN} (tensors)")
            entries = _field(plan, "edits", list, "a list")
            edits = tuple(_unpacked(entry, i, tensors) for i, entry in enumerate(entries))
            return cls(edits, _field(plan, "model", str, "a text"))
        except RecipeError as error:
            raise RecipeError(f"the recipe in {str(folder)!r} lacks or garbles {error}; save it again") from error

    def to_code(self) -> str:
        """Python that rebuilds the edits."""
        body = "".join(f"    {edit.to_code()},\n" for edit in self.edits)  # type: ignore[attr-defined]
        return f"import innerview as iv\n\nmodel = iv.open_model({self.model_name!r})\nedits = [\n{body}]\n"


def _digest(body: bytes) -> str:
    return f"sha256 {hashlib.sha256(body).hexdigest()}"


def _write_together(files: dict[Path, bytes]) -> None:
    """Write every file under another name first, so that an error leaves what was there."""
    fresh = {path: path.with_name(f"{path.name}.{os.getpid()}.new") for path in files}
    try:
        for path, body in files.items():
            fresh[path].write_bytes(body)
        for path, written in fresh.items():
            os.replace(written, path)
    finally:
        for written in fresh.values():
            written.unlink(missing_ok=True)


def _packed(edit: Edit, nth: int, tensors: dict[str, Tensor]) -> dict[str, Any]:
    entry: dict[str, Any] = {"operation": type(edit).__name__, "site": edit.site, "where": _where(edit.where)}
    # Copies: safetensors refuses tensors that share memory, as two edits along one direction do.
    if isinstance(edit, Replace):
        tensors[f"{nth}.value"] = edit.value.detach().cpu().clone().contiguous()
        return entry | {"name": edit.name}
    assert isinstance(edit, (Add, ProjectOut))
    tensors[f"{nth}.vector"] = edit.direction.vector.clone().contiguous()
    entry["direction"] = edit.direction.to_dict()
    return entry | ({"coefficient": edit.coefficient, "unit": edit.unit} if isinstance(edit, Add) else {})


def _field(entry: Any, key: str, kind: type | tuple[type, ...], said: str, at: str = "") -> Any:
    """A field of the plan, of the right type.

    Raises:
        RecipeError: It is missing, or of another type.
    """
    path = f"{at}.{key}" if at else key
    if not isinstance(entry, dict):
        raise RecipeError(f"{at or 'the plan'}: an object, not {reprlib.repr(entry)}")
    if key not in entry:
        raise RecipeError(path)
    value = entry[key]
    if isinstance(value, bool) or not isinstance(value, kind):
        raise RecipeError(f"{path}: {said}, not {reprlib.repr(value)}")
    return value


@contextmanager
def _at(path: str) -> Iterator[None]:
    """Names the field whose content is refused."""
    try:
        yield
    except RecipeError:
        raise
    except InnerviewError as error:
        raise RecipeError(f"{path}: {error}") from error


def _unpacked(entry: Any, nth: int, tensors: dict[str, Tensor]) -> Edit:
    at = f"edits[{nth}]"
    operation, site = (_field(entry, key, str, "a text", at) for key in ("operation", "site"))
    where = _where_of(_field(entry, "where", dict, "an object", at), f"{at}.where")
    with _at(at):
        if operation == "Replace":
            name = _field(entry, "name", str, "a text", at)
            return Replace(_tensor(tensors, f"{nth}.value"), site=site, where=where, name=name)
        if operation not in ("Add", "ProjectOut"):
            raise RecipeError(f"{at}.operation {operation!r}; known are Add, ProjectOut and Replace")
        direction = _direction_of(entry, nth, tensors)
        if operation == "ProjectOut":
            return ProjectOut(direction, site=site, where=where)
        coefficient = _field(entry, "coefficient", (int, float), "a number", at)
        return Add(direction, coefficient, unit=_field(entry, "unit", str, "a text", at), site=site, where=where)  # type: ignore[arg-type]


def _tensor(tensors: dict[str, Tensor], name: str) -> Tensor:
    if name not in tensors:
        raise RecipeError(f"{name!r} of {TENSORS}")
    return tensors[name]


def _direction_of(entry: dict[str, Any], nth: int, tensors: dict[str, Tensor]) -> Direction:
    at = f"edits[{nth}].direction"
    fields = _field(entry, "direction", dict, "an object", f"edits[{nth}]")
    for key in DIRECTION_FIELDS:
        if key not in fields:
            raise RecipeError(f"{at}.{key}")
    if sorted(fields) != DIRECTION_FIELDS:
        raise RecipeError(f"{at}: the fields {', '.join(DIRECTION_FIELDS)}, not {', '.join(sorted(fields))}")
    vector = _tensor(tensors, f"{nth}.vector")
    if vector.ndim != 1:
        raise RecipeError(f"'{nth}.vector' of {TENSORS}: shape [width], not {list(vector.shape)}")
    with _at(at):
        return Direction(vector, **fields)


def _where(where: Where) -> dict[str, Any]:
    schedule = where.schedule
    packed = None
    if isinstance(schedule, Ramp):
        packed = {"kind": "ramp", "steps": schedule.steps}
    elif isinstance(schedule, Decay):
        packed = {"kind": "decay", "half_life": schedule.half_life}
    return {"positions": where.positions, "scope": where.scope, "steps": where.steps, "schedule": packed}


def _where_of(entry: dict[str, Any], at: str) -> Where:
    numbers = (list, type(None))
    positions, steps = (_field(entry, key, numbers, "a list or null", at) for key in ("positions", "steps"))
    scope = _field(entry, "scope", str, "a text", at)
    packed = _field(entry, "schedule", (dict, type(None)), "an object or null", at)
    with _at(at):
        return Where(positions, scope, steps, None if packed is None else _schedule_of(packed, f"{at}.schedule"))


def _schedule_of(packed: dict[str, Any], at: str) -> Ramp | Decay:
    kind = _field(packed, "kind", str, "a text", at)
    with _at(at):
        if kind == "ramp":
            return Ramp(_field(packed, "steps", int, "a whole number", at))
        if kind == "decay":
            return Decay(_field(packed, "half_life", (int, float), "a number", at))
    raise RecipeError(f"{at}.kind {kind!r}; known are ramp and decay")
