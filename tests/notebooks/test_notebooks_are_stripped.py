"""Notebooks hold what was written, not what was run."""

from __future__ import annotations

import itertools
from pathlib import Path

import nbformat

# The one that is kept with what it showed, for code hosts.
EXECUTED = "features_executed.ipynb"
TUTORIAL = "03_features.ipynb"


def test_a_committed_notebook_has_no_outputs_no_counts_and_no_widget_state(tracked: list[Path]) -> None:
    notebooks = [path for path in tracked if path.suffix == ".ipynb" and path.exists() and path.name != EXECUTED]
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


def test_the_executed_notebook_is_the_tutorial_and_shows_tables_where_nothing_runs(tracked: list[Path]) -> None:
    found = {path.name: nbformat.read(path, as_version=4) for path in tracked if path.name in (EXECUTED, TUTORIAL)}
    executed, tutorial = found[EXECUTED], found[TUTORIAL]
    nbformat.validate(executed)
    assert [cell.source for cell in executed.cells] == [cell.source for cell in tutorial.cells], (
        "run `python scripts/executed_notebook.py` behind a change of the tutorial"
    )
    outputs = [output for cell in executed.cells for output in cell.get("outputs", ())]
    assert sum("<table" in output.get("data", {}).get("text/html", "") for output in outputs) >= 5
    assert all("widget" not in kind for output in outputs for kind in output.get("data", {}))
    assert "widgets" not in executed.metadata
