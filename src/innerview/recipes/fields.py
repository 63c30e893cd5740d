"""Fields of an edit as JSON and tensors, and back: one kind a class, every refusal naming the field."""

import dataclasses
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from innerview.direction import Direction
from innerview.edits import Add, Cap, Edit, ProjectOut, Replace, Rotate, Scale, SetFeatures, Transport
from innerview.edits.set_features import Affine, FeatureReader, Readings
from innerview.errors import InnerviewError, RecipeError
from innerview.where import Where

DIRECTION_FIELDS = sorted(f.name for f in dataclasses.fields(Direction) if f.name != "vector")
Tensors = dict[str, Tensor]


def field(entry: Any, key: str, kind: type | tuple[type, ...], said: str, at: str = "") -> Any:
    """A field of the plan, of the right type.

    Raises:
        RecipeError: It is missing, or of another type.
    """
    path = f"{at}.{key}" if at else key
    if not isinstance(entry, dict):
        raise RecipeError(f"{at or 'the plan'}: an object, not {reprlib.repr(entry)}")
    if key not in entry:
        raise RecipeError(path)
    return _typed(entry[key], kind, said, path)


def _typed(value: Any, kind: type | tuple[type, ...], said: str, path: str) -> Any:
    if (isinstance(value, bool) and kind is not bool) or not isinstance(value, kind):
        raise RecipeError(f"{path}: {said}, not {reprlib.repr(value)}")
    return value


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Names the field whose content is refused."""
    try:
        yield
    except RecipeError:
        raise
    except InnerviewError as error:
        raise RecipeError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Plain:
    """A value that JSON holds."""

    kind: type | tuple[type, ...]
    said: str

    def pack(self, value: Any, name: str, tensors: Tensors) -> Any:
        """The value as JSON holds it."""
        return list(value) if isinstance(value, tuple) else value

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Any:
        """The value again."""
        return _typed(packed, self.kind, self.said, at)


class Numbers:
    """A tensor, beside the plan."""

    def pack(self, value: Tensor, name: str, tensors: Tensors) -> Any:
        """The tensor's name."""
        # A copy: safetensors refuses tensors that share memory, as two edits along one direction do.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return name

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Tensor:
        """The tensor of that name."""
        packed = _typed(packed, str, "the name of a tensor", at)
        if packed not in tensors:
            raise RecipeError(f"{packed!r} of recipe.safetensors ({at})")
        return tensors[packed]


class OneDirection:
    """A direction: its vector beside the plan."""

    def pack(self, value: Direction, name: str, tensors: Tensors) -> Any:
        """Everything but the vector, and the vector's name."""
        return value.to_dict() | {"vector": Numbers().pack(value.vector, name, tensors)}

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Direction:
        """The direction again."""
        fields = _typed(packed, dict, "an object", at)
        wanted = [*DIRECTION_FIELDS, "vector"]
        for key in wanted:
            if key not in fields:
                raise RecipeError(f"{at}.{key}")
        if len(fields) != len(wanted):
            raise RecipeError(f"{at}: the fields {', '.join(wanted)}, not {', '.join(sorted(map(str, fields)))}")
        vector = Numbers().unpack(fields["vector"], name, tensors, f"{at}.vector")
        if vector.ndim != 1:
            raise RecipeError(f"{fields['vector']!r} of recipe.safetensors: shape [width], not {list(vector.shape)}")
        with naming(at):
            return Direction(vector, **{key: fields[key] for key in DIRECTION_FIELDS})


class Directions(OneDirection):
    """One direction, or a list of them."""

    def pack(self, value: Any, name: str, tensors: Tensors) -> Any:
        """The same for each."""
        if isinstance(value, Direction):
            return super().pack(value, name, tensors)
        return [super(Directions, self).pack(one, f"{name}.{i}", tensors) for i, one in enumerate(value)]

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Any:
        """The same for each."""
        if isinstance(packed, list):
            return [super(Directions, self).unpack(one, name, tensors, f"{at}[{i}]") for i, one in enumerate(packed)]
        return super().unpack(packed, name, tensors, at)


class DirectionOrNone:
    """A direction, or null."""

    def pack(self, value: Direction | None, name: str, tensors: Tensors) -> Any:
        """The direction, or null."""
        return None if value is None else OneDirection().pack(value, name, tensors)

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Direction | None:
        """The direction, or None."""
        return None if packed is None else OneDirection().unpack(packed, name, tensors, at)


class Places:
    """A Where."""

    def pack(self, value: Where, name: str, tensors: Tensors) -> Any:
        """The Where as JSON holds it."""
        return value.to_dict()

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Where:
        """The Where again."""
        with naming(at):
            return Where.from_dict(_typed(packed, dict, "an object", at))


class FeatureReadings:
    """How features of a dictionary are read."""

    def pack(self, value: FeatureReader, name: str, tensors: Tensors) -> Any:
        """Readings as JSON holds them; features that need their dictionary say why it does not fit."""
        return value.to_dict()

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Readings:
        """The readings again."""
        with naming(at):
            return Readings.from_dict(_typed(packed, dict, "an object", at))


class Changes:
    """What becomes of each feature."""

    def pack(self, value: Affine, name: str, tensors: Tensors) -> Any:
        """Gains and offsets."""
        return {"gain": list(value.gain), "offset": list(value.offset)}

    def unpack(self, packed: Any, name: str, tensors: Tensors, at: str) -> Affine:
        """The same again."""
        given = [field(packed, key, list, "a list of numbers", at) for key in ("gain", "offset")]
        if len(packed) != 2 or len(given[0]) != len(given[1]):
            raise RecipeError(f"{at}: gain and offset, one number a feature each, not {reprlib.repr(packed)}")
        with naming(at):
            return Affine.of(given[0], given[1], len(given[0]))


NUMBER, TEXT = Plain((int, float), "a number"), Plain(str, "a text")
NUMBERS = Plain((int, float, list), "a number, or a list of them")
LIMIT = Plain((int, float, type(None)), "a number or null")
INDICES = Plain((list, type(None)), "a list or null")
SHARED: dict[str, Any] = {"site": TEXT, "where": Places(), "heads": INDICES, "neurons": INDICES}
KINDS: dict[type[Edit], dict[str, Any]] = {
    Add: {"direction": OneDirection(), "coefficient": NUMBERS, "unit": TEXT},
    ProjectOut: {"direction": Directions()},
    Cap: {"direction": OneDirection(), "at_most": LIMIT, "at_least": LIMIT, "unit": TEXT},
    Scale: {"factor": NUMBER, "direction": DirectionOrNone()},
    Replace: {"value": Numbers(), "name": TEXT},
    Transport: {"matrix": Numbers(), "bias": Numbers(), "coefficient": NUMBER, "name": TEXT},
    Rotate: {"direction": OneDirection(), "degrees": NUMBER, "start": DirectionOrNone()},
    SetFeatures: {"reader": FeatureReadings(), "rows": Numbers(), "change": Changes(), "verb": TEXT},
}
NAMES: dict[str, Callable[..., Edit]] = {kind.__name__: kind for kind in KINDS}


def packed(edit: Edit, nth: int, tensors: Tensors) -> dict[str, Any]:
    """An edit as JSON holds it; its tensors join the others.

    Raises:
        RecipeError: No file can hold it.
    """
    if type(edit) not in KINDS:
        raise RecipeError(
            f"edit {nth}, {edit.label!r}, is a {type(edit).__name__}, which calls a function that a file cannot hold; "
            f"a recipe holds {', '.join(NAMES)}, and recipe.to_code() writes the others down by name"
        )
    kinds = SHARED | KINDS[type(edit)]
    said: dict[str, Any] = {"operation": type(edit).__name__}
    for name, kind in kinds.items():
        try:
            said[name] = kind.pack(getattr(edit, name), f"{nth}.{name}", tensors)
        except InnerviewError as error:
            raise RecipeError(f"edit {nth}, {edit.label!r}, cannot be saved: its {name}: {error}") from error
    return said


def unpacked(entry: Any, nth: int, tensors: Tensors) -> Edit:
    """The edit of an entry of the plan.

    Raises:
        RecipeError: A field is missing, unknown or damaged; it is named.
    """
    at = f"edits[{nth}]"
    operation = field(entry, "operation", str, "a text", at)
    if operation not in NAMES:
        raise RecipeError(f"{at}.operation {operation!r}; known are {', '.join(NAMES)}")
    kinds = SHARED | KINDS[NAMES[operation]]  # type: ignore[index]
    for key in entry:
        if key != "operation" and key not in kinds:
            raise RecipeError(f"{at}.{key}: no field of {operation}, which has {', '.join(kinds)}")
    given = {}
    for key, kind in kinds.items():
        if key not in entry:
            raise RecipeError(f"{at}.{key}")
        given[key] = kind.unpack(entry[key], f"{nth}.{key}", tensors, f"{at}.{key}")
    with naming(at):
        return NAMES[operation](**given)
