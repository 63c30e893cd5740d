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
    """Runs one command; returns the exit status, 1 with a plain line for an error of ours."""
    options = parser().parse_args(arguments)
    try:
        return options.run(options)
    except InnerviewError as error:
        print(f"innerview: {error}", file=sys.stderr)
        return 1


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
    """The command `page`."""
    notebook = execution.read(options.notebook)
    if options.execute:
        notebook = execution.execute(
            notebook, folder=options.notebook.resolve().parent, timeout_s=options.timeout_s, say=print
        )
    output = options.output or options.notebook.with_suffix(".html")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(document.html(notebook, title=document.title(notebook, options.notebook.stem)), "utf-8")
    print(f"{output} ({output.stat().st_size / 1e6:.1f} MB)")
    return 0
