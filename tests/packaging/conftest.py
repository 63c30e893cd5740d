"""One build of the wheel and the sdist for all packaging tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def without_node(**more: str) -> dict[str, str]:
    """An environment whose path leads to no Node; pip's own settings stay."""
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "TMPDIR"))}
    return {**kept, "HOME": os.environ.get("HOME", "/"), "PATH": "", **more}


def build(source: Path, output: Path, *kinds: str) -> subprocess.CompletedProcess[str]:
    """Builds with the tools that are installed here, on a path without Node."""
    return subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", *kinds, "--outdir", str(output), str(source)],
        env=without_node(),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="session")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of the tree and the wheel built from that sdist, as `python -m build` does."""
    output = tmp_path_factory.mktemp("dist")
    result = build(root, output)
    assert result.returncode == 0, result.stdout + result.stderr
    return output


@pytest.fixture(scope="session")
def wheel(built: Path) -> Path:
    """The wheel."""
    (path,) = built.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def sdist(built: Path) -> Path:
    """The source archive."""
    (path,) = built.glob("*.tar.gz")
    return path
