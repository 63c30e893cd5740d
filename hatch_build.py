"""Build hook: the front end is in the wheel, or the build says what to run."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STATIC = Path("src/innerview/widgets/static")
SOURCES = ("js/**/*", "package.json", "package-lock.json", "tsconfig.json")
WAY_OUT = "install Node 20 or newer and run `npm ci && npm run build`, or install a released wheel, which carries it"


class FrontEndHook(BuildHookInterface):
    """Builds `js/` into the package when it is missing or older than its sources."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes sure that the bundles lie where the wheel takes them from.

        Raises:
            RuntimeError: They are absent and cannot be built here.
        """
        root = Path(self.root)
        if is_built(root):
            return
        npm = shutil.which("npm")
        if npm and (root / "package.json").is_file():
            build(root, npm)
        if not bundles(root):
            raise RuntimeError(f"the front end is not built: no .js in {root / STATIC}; {WAY_OUT}")


def bundles(root: Path) -> list[Path]:
    """Built JavaScript and CSS, in no order; empty without JavaScript."""
    folder = root / STATIC
    built = [*folder.glob("*.js"), *folder.glob("*.css")]
    return built if any(path.suffix == ".js" for path in built) else []


def is_built(root: Path) -> bool:
    """True when every bundle is at least as new as every source (an unpacked sdist has equal times)."""
    built = [path.stat().st_mtime for path in bundles(root)]
    sources = [path.stat().st_mtime for glob in SOURCES for path in root.glob(glob) if path.is_file()]
    return bool(built) and min(built) >= max(sources, default=0.0)


def build(root: Path, npm: str) -> None:
    """Installs the locked packages once, then runs the build, with npm's own words on the terminal."""
    if not is_installed(root):
        subprocess.run([npm, "ci", "--no-audit", "--no-fund"], cwd=root, check=True)
    subprocess.run([npm, "run", "build"], cwd=root, check=True)


def is_installed(root: Path) -> bool:
    """True when `npm ci` ran after the lock file last changed; npm leaves this file when it has finished."""
    done, lock = root / "node_modules/.package-lock.json", root / "package-lock.json"
    return done.is_file() and lock.is_file() and done.stat().st_mtime >= lock.stat().st_mtime
