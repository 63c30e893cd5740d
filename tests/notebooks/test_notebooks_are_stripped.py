"""Notebooks hold what was written, not what was run."""

from __future__ import annotations

import itertools
from pathlib import Path

import nbformat


def test_a_committed_notebook_has_no_outputs_no_counts_and_no_widget_state(tracked: list[Path]) -> None:
    notebooks = [path for path in tracked if path.suffix == ".ipynb" and path.exists()]
    assert notebooks
    for path in notebooks:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        ran = [cell.id for cell in notebook.cells if cell.get("outputs") or cell.get("execution_count")]
        assert not ran, f"{path.name}: run `jupyter nbconvert --clear-output --inplace {path}`"
        assert "widgets" not in notebook.metadata, path.name


def test_every_code_cell_of_a_tutorial_or_howto_stands_under_words(tracked: list[Path]) -> None:
    for path in [path for path in tracked if path.suffix == ".ipynb" and {"tutorials", "howto"} & set(path.parts)]:
        kinds = [cell.cell_type for cell in nbformat.read(path, as_version=4).cells]
        assert kinds[0] == "markdown"
        assert ("code", "code") not in itertools.pairwise(kinds), path.name
