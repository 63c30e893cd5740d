"""Building and running where there is no Node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


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
