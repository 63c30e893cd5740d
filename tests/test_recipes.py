"""Recipes come back from disk as they were, and damaged ones are refused."""

import copy
import json
import math
import os
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
WIDE = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
EVERY = (
    *EDITS,
    iv.Add(direction(), [1.0, -2.0, 0.5], neurons=(3, 4)),
    iv.ProjectOut([direction(), direction(seed=1)], where=iv.Where(tokens=(3, 5), special=False)),
    iv.Cap(direction(), at_most=1.5, where=iv.Where(text="was", nth=1)),
    iv.Cap(direction(), at_most=1.0, at_least=-1.0, unit="raw", where=iv.Where(condition=direction().reading() > 0.5)),
    iv.Scale(0.5, site="blocks.0.attn.heads", heads=(0, 2)),
    iv.Scale(-1.0, direction(), where=iv.Where(scope="generated", schedule=iv.Pulse(2, 3))),
    iv.Transport(WIDE[0], WIDE[1], site="blocks.0.resid"),
    iv.Transport(WIDE, WIDE[1], 0.5, site="blocks.0.resid", name="carried", where=iv.Where(role="user")),
    iv.Rotate(direction(), 30),
    iv.Rotate(direction(), 30, start=direction(seed=1), where=iv.Where(steps=slice(2, None))),
    iv.Replace(WIDE.double(), site="blocks.*.resid"),
)


def test_a_recipe_comes_back_as_it_was(tmp_path: Path) -> None:
    iv.Recipe(EVERY, "pocket").save(tmp_path / "r")
    again = iv.Recipe.load(tmp_path / "r")
    assert again.model_name == "pocket" and [e.to_code() for e in again.edits] == [e.to_code() for e in EVERY]
    assert [e.where for e in again.edits] == [e.where for e in EVERY]
    x = torch.randn(3, 2, 4, 8)
    for one, other in zip(again.edits, EVERY, strict=True):
        if one.width == 32:
            assert torch.equal(one.apply(x), other.apply(x))


def test_functions_are_refused_by_a_file_and_named_in_code(tmp_path: Path) -> None:
    def shout(x: Any, context: Any) -> Any:
        return x * 2

    for edit in (iv.Custom(shout, site="blocks.0.resid"), iv.GradientSteer(shout, site="blocks.0.resid")):  # type: ignore[arg-type]
        recipe = iv.Recipe((EDITS[0], edit))
        with pytest.raises(
            RecipeError, match=r"edit 1, .*shout at blocks.0.resid', is a .* calls a function that a file"
        ):
            recipe.save(tmp_path / "r")
        assert f"iv.{type(edit).__name__}(shout, " in recipe.to_code()
    scheduled = iv.Add(direction(), where=iv.Where(scope="generated", schedule=lambda step: step * 0.1))
    with pytest.raises(RecipeError, match=r"edit 0, .* cannot be saved: its where: "):
        iv.Recipe((scheduled,)).save(tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_code_of_a_recipe_builds_its_edits() -> None:
    made: dict[str, Any] = {}
    code = iv.Recipe(EVERY, "pocket").to_code().replace("model = iv.open_model('pocket')\n", "")
    exec(code, made)
    assert [e.to_code() for e in made["edits"]] == [e.to_code() for e in EVERY]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: {**plan, "version": 9}, r"has version 9; this innerview reads 2"),
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


def test_two_edits_along_one_direction_are_saved(tmp_path: Path) -> None:
    d = direction()
    value = torch.arange(4.0)
    edits = (
        iv.Add(d, 2.0),
        iv.ProjectOut(d),
        iv.Replace(value[:2], site="x"),
        iv.Replace(value.expand(2, 4), site="x"),
    )
    iv.Recipe(edits).save(tmp_path)
    assert [e.to_code() for e in iv.Recipe.load(tmp_path).edits] == [e.to_code() for e in edits]


def test_a_recipe_of_no_edits_comes_back(tmp_path: Path) -> None:
    iv.Recipe(()).save(tmp_path)
    assert iv.Recipe.load(tmp_path).edits == ()


def test_half_a_character_in_a_name_comes_back(tmp_path: Path) -> None:
    iv.Recipe((iv.Replace(torch.ones(2), site="x", name="é \ud800"),)).save(tmp_path)
    assert iv.Recipe.load(tmp_path).edits[0].name == "é \ud800"  # type: ignore[attr-defined]


def test_a_save_that_fails_leaves_the_recipe_that_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iv.Recipe(EDITS, "pocket").save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if "json" in self.name:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RecipeError, match=r"no recipe can be written to .*No space left"):
        iv.Recipe(EDITS[:1], "other").save(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_save_broken_off_between_its_two_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iv.Recipe((iv.Add(direction(seed=1), 1.0),)).save(tmp_path)
    replace = os.replace

    def breaks(source: Any, target: Any) -> None:
        if str(target).endswith("json"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", breaks)
    with pytest.raises(KeyboardInterrupt):
        iv.Recipe((iv.Add(direction(seed=2), 1.0),)).save(tmp_path)
    with pytest.raises(RecipeError, match=r"recipe.safetensors, which belongs to another recipe.json"):
        iv.Recipe.load(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["recipe.json", "recipe.safetensors"]


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(RecipeError, match=r"no recipe can be written to .*taken.*give a folder"):
        iv.Recipe(EDITS).save(tmp_path / "taken")
    with pytest.raises(RecipeError, match=r"no recipe in '5'"):
        iv.Recipe.load(5)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", 5, r"model: a text, not 5"),
        ("edits", {}, r"edits: a list, not \{\}"),
        ("edits.0", [], r"edits\[0\]: an object"),
        ("edits.0.site", 5, r"edits\[0\].site: a text, not 5"),
        ("edits.0.coefficient", "x", r"edits\[0\].coefficient: a number, or a list of them, not 'x'"),
        ("edits.0.unit", [], r"edits\[0\].unit: a text"),
        ("edits.0.where", None, r"edits\[0\].where: an object"),
        ("edits.0.where.positions", "1", r"edits\[0\].where: positions are whole numbers, not '1'"),
        ("edits.0.where.positions", [1.5], r"edits\[0\].where: positions are whole numbers"),
        ("edits.0.where.colour", "red", r"edits\[0\].where: a Where has no field 'colour'"),
        ("edits.0.where.schedule", 3, r"edits\[0\].where: .*schedule.*3"),
        ("edits.0.where.schedule.kind", "jump", r"edits\[0\].where: .*'jump'"),
        ("edits.0.where.schedule.steps", 2.5, r"edits\[0\].where: .*2.5"),
        ("edits.1.where.schedule.half_life", math.inf, r"edits\[1\].where: a half-life is above 0"),
        (
            "edits.0.colour",
            "red",
            r"edits\[0\].colour: no field of Add, which has site, where, heads, neurons, direction",
        ),
        ("edits.0.heads", 3, r"edits\[0\].heads: a list or null, not 3"),
        ("edits.0.neurons", [-1], r"edits\[0\]: neurons are whole numbers from 0"),
        (
            "edits.0.direction.vector",
            "x",
            r"lacks or garbles 'x' of recipe.safetensors \(edits\[0\].direction.vector\)",
        ),
        ("edits.3.coefficient", ["x"], r"edits\[3\]: a coefficient is a finite number, not 'x'"),
        ("edits.4.direction.1", 5, r"edits\[4\].direction\[1\]: an object, not 5"),
        ("edits.5.at_most", "x", r"edits\[5\].at_most: a number or null, not 'x'"),
        ("edits.5.at_most", None, r"edits\[5\]: Cap takes a limit"),
        ("edits.7.factor", math.nan, r"edits\[7\]: a factor is a finite number, not nan"),
        ("edits.8.direction", 1, r"edits\[8\].direction: an object, not 1"),
        ("edits.9.matrix", "2.value", r"edits\[9\]: a matrix of shape \[4\] and a bias of shape \[32\] are no map"),
        ("edits.11.degrees", True, r"edits\[11\].degrees: a number, not True"),
        ("edits.0.direction", [], r"edits\[0\].direction: an object"),
        ("edits.0.direction.scale", [], r"edits\[0\].direction: scale of 'd' is a finite number, not \[\]"),
        ("edits.0.direction.center", math.nan, r"edits\[0\].direction: center"),
        ("edits.0.direction.residual_norm", "x", r"edits\[0\].direction: residual_norm"),
        ("edits.0.direction.name", [], r"edits\[0\].direction: the name"),
        ("edits.0.direction.colour", "red", r"edits\[0\].direction: the fields"),
        ("edits.2.name", 5, r"edits\[2\].name: a text"),
    ],
)
def test_a_field_of_another_type_is_refused_and_named(tmp_path: Path, path: str, value: Any, message: str) -> None:
    iv.Recipe(EVERY, "pocket").save(tmp_path)
    plan = json.loads((tmp_path / "recipe.json").read_text())
    place: Any = plan
    *above, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in above:
        place = place[step]
    place[last] = value
    (tmp_path / "recipe.json").write_text(json.dumps(plan))
    with pytest.raises(RecipeError, match=message):
        iv.Recipe.load(tmp_path)


def test_every_field_that_is_lacking_is_named(tmp_path: Path) -> None:
    iv.Recipe(EVERY, "pocket").save(tmp_path)
    plan = json.loads((tmp_path / "recipe.json").read_text())
    for nth, entry in enumerate(plan["edits"]):
        for key in entry:
            damaged = copy.deepcopy(plan)
            del damaged["edits"][nth][key]
            (tmp_path / "recipe.json").write_text(json.dumps(damaged))
            with pytest.raises(RecipeError, match=rf"edits\[{nth}\].{key}"):
                iv.Recipe.load(tmp_path)


def test_json_without_an_end_is_refused(tmp_path: Path) -> None:
    iv.Recipe(EDITS).save(tmp_path)
    (tmp_path / "recipe.json").write_text("[" * 100_000)
    with pytest.raises(RecipeError, match=r"no recipe in"):
        iv.Recipe.load(tmp_path)
