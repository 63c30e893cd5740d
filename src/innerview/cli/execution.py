"""Reading and running a notebook, with a line of progress a step."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from innerview.cli.outputs import plain
from innerview.errors import InnerviewError


class NotebookError(InnerviewError):
    """A notebook cannot be read, or one of its cells failed."""


class PathError(InnerviewError):
    """A path that was given cannot be read or written."""


def needed(name: str) -> Any:
    """A module of the `[export]` extra.

    Raises:
        InnerviewError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InnerviewError(
            f"pages need {error.name}, which is not installed; run: pip install 'innerview[export]'"
        ) from error


def read(path: Path) -> Any:
    """The notebook at `path`, as nbformat 4.

    Raises:
        PathError: There is none, or it cannot be read.
        NotebookError: It is none.
    """
    nbformat = needed("nbformat")
    try:
        return nbformat.read(path, as_version=4)
    except FileNotFoundError as error:
        raise PathError(f"no notebook at {path}; give the path of an .ipynb file") from error
    except OSError as error:
        raise PathError(f"cannot read {path}: {error.strerror}; give the path of an .ipynb file") from error
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, UnicodeDecodeError) as error:
        raise NotebookError(f"{path} is no notebook ({first_line(str(error))}); give an .ipynb file") from error


def execute(notebook: Any, *, folder: Path, timeout_s: int, say: Callable[[str], None]) -> Any:
    """The notebook with outputs and widget state, after a run in a fresh kernel started in `folder`.

    Args:
        say: Called with one line as each step starts and with the total at the end.
    Raises:
        NotebookError: A cell raised, took longer than `timeout_s`, or took the kernel down.
    """
    nbclient = needed("nbclient")
    steps = headings(notebook)
    code = [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code" and cell.source.strip()]

    def starting(cell: Any, cell_index: int) -> None:
        if cell_index in code:
            say(f"[{code.index(cell_index) + 1:>2}/{len(code)}] {steps[cell_index]}")

    client = nbclient.NotebookClient(
        notebook,
        timeout=timeout_s,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=True,
        coalesce_streams=True,
        # The kernel warns of its own transport on each start; its errors still show.
        extra_arguments=["--log-level=ERROR"],
        on_cell_start=starting,
    )
    began = time.monotonic()
    try:
        client.execute()
    except nbclient.exceptions.CellExecutionError as error:
        raise NotebookError(f"a cell failed with {error.ename}: {error.evalue}\n{plain(str(error))}") from error
    except nbclient.exceptions.CellTimeoutError as error:
        raise NotebookError(f"a cell took longer than {timeout_s} s; allow more with --timeout-s") from error
    except nbclient.exceptions.DeadKernelError as error:
        raise NotebookError("the kernel died while a cell ran; run the notebook in Jupyter to see where") from error
    say(f"        done in {time.monotonic() - began:.0f} s")
    return notebook


def headings(notebook: Any) -> list[str]:
    """For each cell what it belongs to: the last heading above it and, for code, its first line."""
    found, heading = [], ""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            lines = [line.lstrip("#").strip() for line in cell.source.splitlines() if line.startswith("#")]
            heading = lines[-1] if lines else heading
        words = first_line(cell.source) if cell.cell_type == "code" else ""
        found.append(shorten(f"{heading}: {words}" if heading and words else heading or words, 96))
    return found


def first_line(text: str) -> str:
    """The first line that says something; empty when none does."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def shorten(text: str, width: int) -> str:
    """`text`, cut with an ellipsis to `width` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"
