"""One build of the wheel and the sdist for all packaging tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.packaging.building import build


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
