"""What a person installs: complete, and working where there is no Node and no network."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.building import build, without_node

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(900)]

FIRST_LIGHT = """
import json, sys
import innerview as iv
import innerview.widgets
model = iv.open_model("pocket")
run = iv.generate(model, "The film was", max_new_tokens=8)
steer = iv.Steer(model).wait()
print(json.dumps({"text": run.text, "where": iv.__file__, "layers": model.n_layers, "esm": len(str(steer._esm))}))
"""


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_carries_every_bundle_that_the_front_end_build_made(wheel: Path, root: Path) -> None:
    static = root / "src/innerview/widgets/static"
    built = {f"innerview/widgets/static/{path.name}" for path in static.iterdir() if path.suffix in {".js", ".css"}}
    assert any(name.endswith(".js") for name in built)
    assert any(name.endswith(".css") for name in built)
    assert built <= names_in(wheel)


def test_the_wheel_carries_every_file_of_the_package_that_git_tracks(
    wheel: Path, root: Path, tracked: list[Path]
) -> None:
    package = root / "src"
    expected = {str(path.relative_to(package)) for path in tracked if path.is_relative_to(package) and path.exists()}
    assert "innerview/py.typed" in expected
    assert expected <= names_in(wheel)


def test_the_wheel_carries_the_weights_and_is_no_larger_than_promised(wheel: Path) -> None:
    weights = [name for name in names_in(wheel) if name.startswith("innerview/bundled/pocket")]
    for kept in ("pocket/model", "pocket-chat/adapter"):
        assert f"innerview/bundled/{kept}.safetensors" in weights
    assert wheel.stat().st_size < 40_000_000


def test_an_sdist_without_its_bundles_says_what_to_run(sdist: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    shutil.rmtree(source / "src/innerview/widgets/static")
    result = build(source, tmp_path / "out", "--wheel")
    assert result.returncode != 0
    assert "npm ci && npm run build" in result.stdout + result.stderr


def test_a_clean_environment_without_node_opens_pocket(wheel: Path, root: Path, tmp_path: Path) -> None:
    place = tmp_path / "clean"
    venv.create(place, with_pip=True)
    python = place / "bin/python"
    constraints = str(root / "constraints.txt")
    install = [
        str(python),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--constraint",
        constraints,
        str(wheel),
    ]
    installed = subprocess.run(install, env=without_node(), capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    offline = without_node(HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "empty"), OMP_NUM_THREADS="1")
    shown = subprocess.run(
        [str(python), "-c", FIRST_LIGHT],
        env=offline,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert shown.returncode == 0, shown.stderr
    seen = json.loads(shown.stdout.splitlines()[-1])
    assert seen["text"].strip()
    assert seen["layers"] > 1
    assert seen["esm"] > 1000
    assert Path(seen["where"]).is_relative_to(place)
