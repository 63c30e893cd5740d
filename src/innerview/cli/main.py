"""`innerview`: what the command line offers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from innerview import __version__
from innerview.cli import document, execution
from innerview.errors import InnerviewError


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status: with a plain line, 2 for a path of no use and 1 for any other error of ours."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except InnerviewError as error:
        print(f"innerview: {error}", file=sys.stderr)
        return 2 if isinstance(error, execution.PathError) else 1


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="innerview", description="A workbench for the inside of a neural network.")
    top.add_argument("--version", action="version", version=f"innerview {__version__}")
    commands = top.add_subparsers(required=True, metavar="command")
    page = commands.add_parser("page", help="one offline HTML page from a notebook, its widgets alive")
    page.add_argument("notebook", type=Path, help="the .ipynb to read")
    page.add_argument("-o", "--output", type=Path, help="the .html to write; beside the notebook unless told")
    page.add_argument("--execute", action="store_true", help="run it first, in a fresh kernel")
    page.add_argument("--timeout-s", type=int, default=600, help="the longest that one cell may take")
    page.set_defaults(run=write_page)
    return top


def write_page(options: argparse.Namespace) -> int:
    """The command `page`.

    Raises:
        PathError: A path cannot be read or written.
    """
    notebook = execution.read(options.notebook)
    output = options.output or options.notebook.with_suffix(".html")
    if output.is_dir():
        # Said before a long run, not behind it.
        raise execution.PathError(f"{output} is a folder; name the .html file to write in it")
    if options.execute:
        notebook = execution.execute(
            notebook, folder=options.notebook.resolve().parent, timeout_s=options.timeout_s, say=print
        )
    page = document.html(notebook, title=document.title(notebook, options.notebook.stem))
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page, "utf-8")
    except OSError as error:
        raise execution.PathError(f"cannot write {output}: {error.strerror}; give another path with -o") from error
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
