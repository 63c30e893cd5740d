"""A recipe: edits on disk, as JSON and safetensors."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from innerview.edits import Edit, checked
from innerview.errors import RecipeError
from innerview.models.model import Model
from innerview.recipes.baking import baked
from innerview.recipes.control_vector import edits_of, vectors_of
from innerview.recipes.fields import field, packed, unpacked
from innerview.recipes.files import write_together
from innerview.recipes.gguf import read_gguf, written_gguf

VERSION = 2
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
        """Write `recipe.json` and `recipe.safetensors` into a folder; returns it.

        Raises:
            RecipeError: An edit calls a function of your own, or the folder cannot be written; what was there stays.
        """
        tensors: dict[str, Tensor] = {}
        edits = [packed(e, i, tensors) for i, e in enumerate(self.edits)]
        body = save(tensors)
        plan = {"version": VERSION, "model": self.model_name, "tensors": _digest(body), "edits": edits}
        said = json.dumps(plan, indent=2, ensure_ascii=False) + "\n"
        try:
            folder = Path(path)
            folder.mkdir(parents=True, exist_ok=True)
            # Half a character of a name is written as JSON's own escape, which reads back the same.
            write_together({folder / TENSORS: body, folder / PLAN: said.encode("utf-8", "backslashreplace")})
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
            if field(plan, "tensors", str, "a text") != _digest(body):
                raise RecipeError(f"{TENSORS}, which belongs to another {PLAN} (tensors)")
            entries = field(plan, "edits", list, "a list")
            edits = tuple(unpacked(entry, i, tensors) for i, entry in enumerate(entries))
            return cls(edits, field(plan, "model", str, "a text"))
        except RecipeError as error:
            raise RecipeError(f"the recipe in {str(folder)!r} lacks or garbles {error}; save it again") from error

    def to_code(self) -> str:
        """Python that rebuilds the edits; functions of your own are there by name."""
        body = "".join(f"    {edit.to_code()},\n" for edit in self.edits)
        return f"import innerview as iv\n\nmodel = iv.open_model({self.model_name!r})\nedits = [\n{body}]\n"

    def to_gguf(self, path: str | Path, model: Model | None = None, *, model_hint: str = "") -> Path:
        """Write a control vector of llama.cpp, `direction.N` for what is added behind block N; returns the path.

        Args:
            path: The file.
            model: The network; needed for wildcards and for other names of a site.
            model_hint: Architecture that it is meant for; the network's own when empty.
        Raises:
            RecipeError: An edit does not fit the format, which adds one vector behind each block but the first to every token; or the file
                cannot be written.
        """
        vectors = vectors_of(self.edits, model)
        config = getattr(getattr(model, "module", None), "config", None)
        hint = model_hint or getattr(config, "model_type", "") or self.model_name
        file = Path(path)
        try:
            write_together({file: written_gguf(vectors, hint)})
        except (OSError, UnicodeEncodeError) as error:
            raise RecipeError(f"no control vector can be written to {str(path)!r}: {error}; give a file") from error
        return file

    @classmethod
    def from_gguf(cls, path: str | Path) -> "Recipe":
        """The additions of a control vector of llama.cpp: one at `blocks.N.resid` for each `direction.N`, of one natural step each.

        Raises:
            RecipeError: The file is missing or damaged, or holds something else.
        """
        vectors, hint = read_gguf(Path(path))
        return cls(edits_of(vectors, Path(path).stem), hint or "unknown")

    def to_model(self, model: Model) -> Model:
        """A new network with the edits in its weights and nothing attached; the one that was given stays as it is.

        Each is baked where that is exact: additions, projections, factors, affine maps and given values at `embed`, `attn.out` and
        `mlp.out` into the weights and biases that write them; additions at `resid_in`, `resid_mid` and `resid` into the last writer
        before; projections there too, where all that was written before is free of the directions already. The result is run
        against the live edits. A new bias is lost by `save_pretrained` where the network's config has no place for it.

        Raises:
            RecipeError: An edit is not everywhere (tokens, schedules, conditions), is not affine, or does not come out of the weights
                equal to 1e-5.
        """
        return baked(self.edits, model)


def _digest(body: bytes) -> str:
    return f"sha256 {hashlib.sha256(body).hexdigest()}"
