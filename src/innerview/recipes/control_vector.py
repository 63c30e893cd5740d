"""Additions behind blocks as one vector a block, and back.

llama.cpp adds `direction.N` to what leaves block N, counted from 0, at every token: our `blocks.N.resid`. It has none behind block 0.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from innerview.direction import Direction
from innerview.edits import Add, Edit
from innerview.errors import DirectionError, InnerviewError, RecipeError
from innerview.models.model import Model
from innerview.where import Where

BEHIND = re.compile(r"blocks\.(\d+)\.resid")


def vectors_of(edits: Sequence[Edit], model: Model | None) -> dict[int, Tensor]:
    """What the edits add behind each block, in the activations' own units, summed; float32, shape [d_model].

    Raises:
        RecipeError: An edit is something else than an addition of one strength to every token behind a block from 1.
    """
    sums: dict[int, Tensor] = {}
    for edit in edits:
        vector = _vector(edit)
        for layer in _layers(edit, model):
            before = sums.get(layer, torch.zeros_like(vector))
            if before.shape != vector.shape:
                raise RecipeError(f"{edit.label}: {vector.numel()} numbers, where another edit adds {before.numel()}")
            sums[layer] = before + vector
    if not sums:
        raise RecipeError("a control vector without additions says nothing; give the recipe an Add at 'blocks.N.resid'")
    return {layer: vector.float() for layer, vector in sums.items()}


def _vector(edit: Edit) -> Tensor:
    """What an edit adds, float64."""
    reason = ""
    if not isinstance(edit, Add):
        reason = f"{type(edit).__name__} is no addition"
    elif not isinstance(edit.coefficient, float):
        reason = "it has a coefficient for each row"
    elif edit.where != Where():
        reason = "it applies to certain tokens, steps or conditions"
    elif edit.heads is not None or edit.neurons is not None:
        reason = "it applies to certain heads or neurons"
    if reason or not isinstance(edit, Add):
        raise RecipeError(
            f"{edit.label} does not fit a control vector: {reason}, and llama.cpp adds one vector behind a block to every token; "
            "save a recipe instead"
        )
    return edit.direction.vector.double() * edit.direction.length(edit.coefficient, edit.unit)  # type: ignore[arg-type]


def _layers(edit: Edit, model: Model | None) -> list[int]:
    """The blocks that an edit is behind."""
    names = [edit.site]
    if model is not None:
        try:
            names = [site.name for site in model.expand(edit.site)]
        except InnerviewError as error:
            raise RecipeError(f"{edit.label} does not fit a control vector: {error}") from error
    layers = []
    for name in names:
        found = BEHIND.fullmatch(name)
        if found is None:
            hint = "give model= for wildcards and other names" if model is None else "add at 'blocks.N.resid'"
            raise RecipeError(
                f"{edit.label} does not fit a control vector: {name!r} is not what leaves a block; {hint}"
            )
        if int(found[1]) == 0:
            raise RecipeError(
                f"{edit.label} does not fit a control vector: llama.cpp adds nothing behind block 0; add from 'blocks.1.resid' on"
            )
        layers.append(int(found[1]))
    return layers


def edits_of(vectors: dict[int, Tensor], name: str) -> tuple[Edit, ...]:
    """An addition of one natural step, the vector's own length, behind each block; a vector of zeros adds nothing.

    Raises:
        RecipeError: A vector holds NaN or infinity.
    """
    made = []
    for layer, vector in sorted(vectors.items()):
        if not vector.any():
            continue
        try:
            direction = Direction.from_vector(
                vector, f"blocks.{layer}.resid", name=f"{name} {layer}", origin="a control vector of llama.cpp"
            )
        except DirectionError as error:
            raise RecipeError(f"direction.{layer}: {error}") from error
        made.append(Add(direction))
    return tuple(made)
