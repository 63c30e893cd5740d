"""When the build hook builds the front end, and when it leaves it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def hook(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", root / "hatch_build.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tree(root: Path, *, built_s: float, source_s: float, bundles: tuple[str, ...] = ("steer.js", "steer.css")) -> Path:
    static = root / "src/innerview/widgets/static"
    static.mkdir(parents=True)
    (root / "js/widgets").mkdir(parents=True)
    for path, at in [(root / "js/widgets/steer.ts", source_s), *((static / name, built_s) for name in bundles)]:
        path.write_text("x")
        os.utime(path, (at, at))
    return root


def test_bundles_as_new_as_their_sources_are_left_alone(hook: ModuleType, tmp_path: Path) -> None:
    assert hook.is_built(tree(tmp_path, built_s=100, source_s=100))


def test_a_source_that_changed_since_is_built_again(hook: ModuleType, tmp_path: Path) -> None:
    assert not hook.is_built(tree(tmp_path, built_s=100, source_s=101))


def test_styles_alone_are_no_front_end(hook: ModuleType, tmp_path: Path) -> None:
    assert not hook.is_built(tree(tmp_path, built_s=100, source_s=50, bundles=("steer.css",)))


def test_packages_are_installed_again_when_the_lock_file_changed(hook: ModuleType, tmp_path: Path) -> None:
    lock, done = tmp_path / "package-lock.json", tmp_path / "node_modules/.package-lock.json"
    done.parent.mkdir()
    lock.write_text("{}")
    assert not hook.is_installed(tmp_path)
    done.write_text("{}")
    os.utime(lock, (100, 100))
    os.utime(done, (100, 100))
    assert hook.is_installed(tmp_path)
    os.utime(lock, (101, 101))
    assert not hook.is_installed(tmp_path)
