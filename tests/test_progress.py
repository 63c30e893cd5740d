"""A bar of progress leaves nothing behind."""

from __future__ import annotations

import nbformat
import pytest

from innerview.progress import progress

SOURCE = """
from innerview.progress import progress
print("before")
with progress(2, "dose", "strength") as step:
    step()
    step()
print("after")
"""


def test_in_a_notebook_no_output_area_is_left() -> None:
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SOURCE)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    outputs = notebook.cells[0].outputs
    assert [o["text"] for o in outputs if o["output_type"] == "stream"] == ["before\n", "after\n"]
    bars = [o for o in outputs if o["output_type"] == "display_data"]
    assert len(bars) == 1 and bars[0]["data"] == {}


def test_outside_a_terminal_nothing_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(2, "dose", "strength") as step:
        step()
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "")


def test_a_bar_of_short_work_never_shows() -> None:
    nbclient = pytest.importorskip("nbclient")
    source = SOURCE.replace('"strength")', '"strength", delay_s=60)')
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbclient.NotebookClient(notebook, timeout=120).execute()
    assert [o["output_type"] for o in notebook.cells[0].outputs] == ["stream"]
