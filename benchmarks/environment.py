"""The benchmarks' own environment: `python -m benchmarks.environment` makes `.venv-bench`, with the peers in it.

Innerview comes into it by its sources and its dependencies, at the versions of this folder's constraints; a peer that
cannot be installed is written down with the reason, and the rows report it.
"""

import hashlib
import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
FOLDER = ROOT / ".venv-bench"
PYTHON = FOLDER / "bin" / "python"
CONSTRAINTS = HERE / "constraints.txt"
# Of the packages that come alone, those that rows 1 to 8, and row 15, are measured beside.
ALONE = ("dictionary-learning", "eai-sparsify", "circuitsvis")
_MADE = FOLDER / "made.json"


def make() -> dict[str, str]:
    """Make the environment, or find it made; returns the peers that could not be installed, with the reason."""
    wanted = _wanted()
    if _MADE.exists():
        made = json.loads(_MADE.read_text())
        if made["wanted"] == wanted:
            return made["missing"]
    print("making .venv-bench with the peers in it (the first time takes some minutes)", flush=True)
    venv.create(FOLDER, clear=True, symlinks=os.name != "nt", with_pip=True)
    _install(_own())
    missing = _install_peers(_peers()) | _install_alone()
    _sources().write_text(f"{ROOT / 'src'}\n")
    _MADE.write_text(json.dumps({"wanted": wanted, "missing": missing}))
    return missing


def _install_alone() -> dict[str, str]:
    """The peers that come without their dependencies; returns those that failed."""
    failed = {peer: _tried(["--no-deps", peer]) for peer in _alone()}
    return {peer: reason for peer, reason in failed.items() if reason is not None}


def _alone() -> list[str]:
    lines = (HERE / "requirements-publishers.txt").read_text().splitlines()
    return [line for line in lines if line.startswith(ALONE)]


def _own() -> list[str]:
    """What innerview itself stands on, and what makes it fast."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["dependencies"] + project["optional-dependencies"]["fast"]


def _peers() -> list[str]:
    lines = (HERE / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def _wanted() -> str:
    """A digest of everything that decides what is installed."""
    parts = [*_own(), *_peers(), *_alone(), CONSTRAINTS.read_text(), str(ROOT), sys.version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _install_peers(peers: list[str]) -> dict[str, str]:
    """All peers together where that works, else one by one; returns those that failed."""
    if _tried(peers) is None:
        return {}
    failed = {peer: _tried([peer]) for peer in peers}
    return {peer: reason for peer, reason in failed.items() if reason is not None}


def _tried(packages: list[str]) -> str | None:
    """The last line of what pip said when it failed, None when it did not."""
    try:
        _install(packages)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if line.startswith("ERROR")]
        return lines[-1] if lines else f"pip ended with {error.returncode}"
    return None


def _install(packages: list[str]) -> None:
    pip = [
        str(PYTHON),
        "-m",
        "pip",
        "--disable-pip-version-check",
        "install",
        "--quiet",
        "--constraint",
        str(CONSTRAINTS),
    ]
    subprocess.run([*pip, *packages], check=True, stderr=subprocess.PIPE, text=True)


def _sources() -> Path:
    """The file that puts innerview's sources on this environment's path."""
    return next((FOLDER / "lib").glob("python3.*")) / "site-packages" / "innerview.pth"


if __name__ == "__main__":
    for name, why in make().items():
        print(f"{name} could not be installed: {why}")
