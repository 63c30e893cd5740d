"""What the README says works when it is pasted."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest


def python_blocks(root: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (root / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_the_ten_lines_run_as_they_stand_and_the_two_moods_differ(root: Path, tmp_path: Path) -> None:
    (block,) = python_blocks(root)
    ran = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert ran.returncode == 0, ran.stderr
    up, down = (line.strip() for line in ran.stdout.splitlines() if line.strip())
    assert up and down and up != down
    assert (tmp_path / "lens.html").stat().st_size > 10_000


def test_the_readme_has_ten_lines_of_code_and_the_commands_that_exist(root: Path) -> None:
    (block,) = python_blocks(root)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    readme, makefile = (root / "README.md").read_text("utf-8"), (root / "Makefile").read_text("utf-8")
    for target in set(re.findall(r"\bmake ([a-z]+)\b", readme)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_every_file_that_a_document_links_to_is_tracked(document: str, root: Path, tracked: list[Path]) -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", (root / document).read_text("utf-8")):
        assert root / link in tracked, link
