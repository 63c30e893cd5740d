"""The floors of the house: imports point toward the ground, are at the top of the file, and never go round."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SRC = Path(__file__).resolve().parent.parent / "src" / "innerview"
FLOORS = (
    ("ground", {"errors", "opened", "shows", "interrupts", "bundled", "pocket", "glyphs", "progress", "plots"}),
    ("network", {"models", "kernels"}),
    (
        "engine",
        {
            "runs", "hooks", "attachments", "own_forwards", "writing_runs", "pair_runs", "compiled_runs", "taps", "tap_sets", "calls", "activations", "direction", "readings",
            "conditions", "recorder", "rows", "plans", "forwards", "sides",
            "inputs", "one_site", "chosen", "reductions", "sinks", "capture_runs", "capture_tasks", "site_gradients", "chunks", "written", "compiling",
            "where", "capturing", "edits", "generation", "generation_requests", "writers", "decoding", "teams", "written_ids", "stores",
        },
    ),
    ("codes", {"dictionaries"}),
    ("study", {"directions", "lens", "causal", "measures", "recipes", "sweeps", "metrics", "outcomes"}),
    ("features", {"features"}),
    ("claims", {"claims"}),
    ("face", {"widgets"}),
    ("doors", {"lab", "cli"}),
)  # fmt: skip
FLOOR = {name: height for height, (_, names) in enumerate(FLOORS) for name in names}
# Optional dependencies, imported where they are used: the extra `export`, for pages of notebooks, and jupyter's own.
OPTIONAL = {
    "sae_lens",
    "nbclient",
    "pyarrow",
    "nbformat",
    "mistune",
    "pygments",
    "IPython",
    "ipykernel",
    "torchvision",
    "peft",
    "numba",
    "triton",
}
GUARDED = {
    "triton": ("kernels/",),
    "transformers": ("models/", "dictionaries/loaders/"),
    "huggingface_hub": ("models/", "dictionaries/loaders/"),
    "anywidget": ("widgets/", "lab"),
    "traitlets": ("widgets/", "lab"),
    "ipywidgets": ("widgets/", "lab"),
}
# The lazy face of the package, the one dynamic import (result type to widget), and the optional dependencies of pages.
DYNAMIC = {"__init__.py", "shows.py", "cli/execution.py"}


def files() -> list[Path]:
    found = [p for p in sorted(SRC.rglob("*.py")) if "static" not in p.parts]
    assert len(found) > 20
    return found


def module_of(path: Path) -> str:
    """Dotted name inside the package: `models.site`; of a package, its own name."""
    parts = path.relative_to(SRC).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Each imported module's full name, and whether the import stands at the top of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tops = {id(node) for node in tree.body}
    # What is imported for types alone is never executed, but it still says who knows whom.
    tops |= {
        id(n)
        for node in tree.body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for n in node.body
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, id(node) in tops) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively; write the whole name"
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if is_ours(whole) else str(node.module)), id(node) in tops


def is_ours(name: str) -> bool:
    """Whether a dotted name is a module of the package."""
    if name.split(".")[0] != "innerview":
        return False
    place = SRC.joinpath(*name.split(".")[1:])
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def own(path: Path) -> set[str]:
    """Modules of the package that a file imports, without `innerview.` in front."""
    return {
        name.removeprefix("innerview").lstrip(".") for name, _ in imports(path) if name.split(".")[0] == "innerview"
    } - {""}


def test_every_file_has_its_floor() -> None:
    homes = {module_of(p).split(".")[0] for p in files()} - {"", "__main__"}
    assert homes - set(FLOOR) == set(), "name the floor of these in FLOORS and in architecture.md"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_a_file_imports_only_from_its_floor_and_below(path: Path) -> None:
    home = module_of(path).split(".")[0]
    if home in ("", "__main__"):
        return
    above = {name for name in own(path) if FLOOR[name.split(".")[0]] > FLOOR[home]}
    assert above == set(), f"{home} is of the floor {FLOORS[FLOOR[home]][0]}, and these stand above it"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_no_import_hides_in_a_function(path: Path) -> None:
    hidden = {name for name, is_top in imports(path) if not is_top}
    assert {name for name in hidden if name.split(".")[0] not in OPTIONAL} == set()


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_heavy_libraries_stay_in_their_rooms(path: Path) -> None:
    place = str(path.relative_to(SRC))
    for name, _ in imports(path):
        rooms = GUARDED.get(name.split(".")[0])
        assert rooms is None or place.startswith(rooms), f"{place} imports {name}; only {', '.join(rooms)} may"


@pytest.mark.parametrize("path", files(), ids=lambda p: str(p.relative_to(SRC)))
def test_nothing_is_imported_by_a_name_made_up_at_run_time(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    dynamic = called & {"__import__", "importlib.import_module", "import_module"}
    assert not dynamic or str(path.relative_to(SRC)) in DYNAMIC


def test_imports_never_go_round() -> None:
    graph = {module_of(p): {n for n in own(p) if n != module_of(p)} for p in files() if module_of(p)}
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a loop: {' -> '.join((*trail[trail.index(name) :], name))}"
        if name in done:
            return
        for other in sorted(graph.get(name, ())):
            walk(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        walk(name, ())
    assert done >= set(graph)


def test_importing_innerview_imports_no_torch_and_prints_nothing() -> None:
    code = (
        "import sys; before = set(sys.modules); import innerview; dir(innerview); innerview.__all__; "
        "heavy = {'torch', 'transformers', 'numpy', 'pandas', 'plotly', 'anywidget'} & set(sys.modules); "
        "assert not heavy, heavy; assert {m for m in set(sys.modules) - before if m.startswith('innerview')} == {'innerview'}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=SRC.parent, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and done.stderr == ""


def test_no_file_is_called_utils_helpers_or_common() -> None:
    assert {p.stem for p in files()} & {"utils", "util", "helpers", "helper", "common", "misc"} == set()
