"""Prints constraints.txt: every package that pyproject.toml asks for, and theirs, as installed here."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HEADER = "# Every version that the commands in the Makefile install. Written by `make pins`; not by hand."


def main() -> None:
    """Prints one line a package; what this platform does not install is not pinned."""
    project = tomllib.loads(Path("pyproject.toml").read_text())
    pins: dict[str, str] = {}
    for requirement in asked_for(project):
        collect(Requirement(requirement), pins)
    print(HEADER)
    for name in sorted(pins):
        print(f"{name}=={pins[name]}")


def asked_for(project: dict) -> list[str]:
    """Requirements of the package, its extras, its groups and its build, and pip's own."""
    lists = [["pip"], project["build-system"]["requires"], project["project"]["dependencies"]]
    lists += project["project"]["optional-dependencies"].values()
    lists += project["dependency-groups"].values()
    return [item for one in lists for item in one if isinstance(item, str)]


def collect(requirement: Requirement, pins: dict[str, str], extra: str = "") -> None:
    """Adds the requirement and what it needs to `pins`."""
    name = canonicalize_name(requirement.name)
    if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
        return
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return
    is_known = name in pins
    # Without the local part: 2.13.0+cpu here may be 2.13.0 elsewhere.
    pins[name] = found.version.split("+")[0]
    if is_known and not requirement.extras:
        return
    for line in found.requires or []:
        for wanted in requirement.extras or {""}:
            collect(Requirement(line), pins, wanted)


if __name__ == "__main__":
    main()
