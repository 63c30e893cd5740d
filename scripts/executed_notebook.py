"""Runs the tutorial on features and keeps it with what it showed, for code hosts: python scripts/executed_notebook.py

Widgets stay as the tables that they give where no JavaScript runs; their state and progress bars are left out.
"""

import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = ROOT / "notebooks" / "tutorials" / "03_features.ipynb"
EXECUTED = ROOT / "docs" / "features_executed.ipynb"
VIEW = "application/vnd.jupyter.widget-view+json"


def main() -> None:
    """Run, strip, write."""
    notebook = nbformat.read(TUTORIAL, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": folder}}).execute()
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", ()):
            output.get("data", {}).pop(VIEW, None)
        if "outputs" in cell:
            cell.outputs = [one for one in cell.outputs if one.get("data") or one.get("text")]
    nbformat.write(notebook, EXECUTED)


if __name__ == "__main__":
    main()
