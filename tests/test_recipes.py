"""Recipes come back from disk as they were, and damaged ones are refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.errors import RecipeError
from tests.networks import direction

EDITS = (
    iv.Add(direction(), 2.5, unit="raw", where=iv.Where(positions=(1, -1), schedule=iv.Ramp(3))),
    iv.ProjectOut(direction(seed=1), site="blocks.*.resid", where=iv.Where(scope="generated", schedule=iv.Decay(2.0))),
    iv.Replace(torch.arange(4.0), site="blocks.0.resid", where=iv.Where(steps=range(2)), name="four"),
)


def test_a_recipe_comes_back_as_it_was(tmp_path: Path) -> None:
    iv.Recipe(EDITS, "pocket").save(tmp_path / "r")
    again = iv.Recipe.load(tmp_path / "r")
    assert again.model_name == "pocket" and [e.to_code() for e in again.edits] == [e.to_code() for e in EDITS]


def test_the_code_of_a_recipe_builds_its_edits() -> None:
    made: dict[str, Any] = {}
    code = iv.Recipe(EDITS, "pocket").to_code().replace("model = iv.open_model('pocket')\n", "")
    exec(code, made)
    assert [e.to_code() for e in made["edits"]] == [e.to_code() for e in EDITS]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: {**plan, "version": 9}, r"has version 9; this innerview reads 1"),
        (lambda plan: {k: v for k, v in plan.items() if k != "edits"}, r"edits"),
        (lambda plan: {**plan, "edits": [{**plan["edits"][0], "operation": "Explode"}]}, r"'Explode'; known are Add"),
        (lambda plan: {**plan, "edits": [{**plan["edits"][0], "coefficient": float("nan")}]}, r"finite"),
        (lambda plan: [], r"has version \[\]"),
    ],
)
def test_a_damaged_recipe_is_refused_and_the_field_named(tmp_path: Path, damage: Any, message: str) -> None:
    iv.Recipe(EDITS, "pocket").save(tmp_path)
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(RecipeError, match=message):
        iv.Recipe.load(tmp_path)


def test_a_folder_without_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe in .*a recipe is recipe.json beside recipe.safetensors"):
        iv.Recipe.load(tmp_path)
