"""docs/performance.md and its plots, from benchmarks/results/*.json: `make results`, or `python -m benchmarks.results_page`."""

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from benchmarks import table
from benchmarks.figure import Line, figure

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
# Rows of the performance table, and those that a GPU runs too.
NUMBERS = ("1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "10b", "11", "12", "13", "14", "15", "16")
OF_A_GPU = NUMBERS[:8]
HEAD = [
    "# Performance, as it was measured",
    "",
    "Written by `make results` from `benchmarks/results/*.json`, which `make bench` and `make bench-gpu` write; not by hand. Every row checks first that all",
    "contenders compute the same, and ends there when they do not. Ratios hold from machine to machine; seconds do not.",
    "",
    *table.HOW,
]
NO_GPU = "**No figure has been measured on a GPU yet.** The kernels for it run in Triton's interpreter in the tests, and are compiled for Hopper there; `make bench-gpu` measures them where there is a card."
UNITS = {"us_a_token": "microseconds a token", "bytes_a_token": "bytes a token"}


def main() -> None:
    """Write the page and the plots."""
    machines = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    folder = DOCS / "images" / "performance"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, drawing in plots(machines).items():
        (folder / name).write_text(drawing)
    (DOCS / "performance.md").write_text(page(machines))
    print("wrote docs/performance.md")


def page(machines: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    lines = [*HEAD, "", *summary(machines)]
    if not any("card" in one for one in machines):
        lines += ["", NO_GPU]
    for one in machines:
        lines += ["", f"## {one.get('card', one['machine'])}", "", *table.measured_with(one), "", not_measured(one)]
        lines += growths(one)
        lines += [line for row in one["rows"] for line in table.row(row, level=3)]
    return "\n".join(lines) + "\n"


def summary(machines: Sequence[dict[str, Any]]) -> list[str]:
    """How many targets are met, and each one that is not, with by how much."""
    found = [
        (one["machine"], row["number"], load["name"], claim)
        for one in machines
        for row in one["rows"]
        for load in row["workloads"]
        for claim in load["claims"]
        if claim["target"] is not None
    ]
    missed = [one for one in found if one[-1]["verdict"] == "missed"]
    undecided = [one for one in found if one[-1]["verdict"] == "undecided"]
    met = len(found) - len(missed) - len(undecided)
    lines = [
        "## Targets",
        "",
        f"{len(found)} were measured: {met} met, {len(missed)} missed, {len(undecided)} undecided (the noise reaches over them).",
    ]
    if missed or undecided:
        lines += ["", "| machine | row | | measured | target | |", "|---|---|---|---|---|---|"]
    for machine, number, name, claim in missed + undecided:
        told = table.verdict(claim)
        lines.append(
            f"| {machine} | {number} | {claim['text']}: {name} | {table.number(claim)} {claim['unit']} | {table.target(claim)} | {told} |"
        )
    return lines


def not_measured(one: dict[str, Any]) -> str:
    """Which rows have no figure on a machine."""
    wanted = OF_A_GPU if "card" in one else NUMBERS
    missing = [number for number in wanted if number not in {row["number"] for row in one["rows"]}]
    return f"Without a figure here: rows {', '.join(missing)}." if missing else "Every row has its figures here."


def growths(one: dict[str, Any]) -> list[str]:
    """How cost grows on a machine: the plots, and the numbers behind them."""
    lines: list[str] = []
    for name, (title, _, _, _) in drawings(one).items():
        lines += ["", f"![{title}](images/performance/{name})"]
    if not lines:
        return ["", "How cost grows was not measured here."]
    lines += ["", "| row | | over | from | to | cost a token at the end ÷ at the start |", "|---|---|---|---|---|---|"]
    for series in one["growth"]:
        first, last = series["points"][0], series["points"][-1]
        axis = series["axis"]
        told = ", ".join(
            f"{unit.split()[0]} {last[key] / first[key]:.3g}×"
            for key, unit in UNITS.items()
            if first.get(key) and last.get(key)
        )
        lines.append(
            f"| {series['row']} | {series['title']} | {axis} | {first[axis]:,} | {last[axis]:,} | {told or '–'} |"
        )
    return lines


def plots(machines: Sequence[dict[str, Any]]) -> dict[str, str]:
    """SVG by file name."""
    return {name: figure(*drawing) for one in machines for name, drawing in drawings(one).items()}


def drawings(one: dict[str, Any]) -> dict[str, tuple[str, str, str, list[Line]]]:
    """What is drawn of a machine's growth: by file name, the arguments of `figure`; one for each axis and unit that has points."""
    made: dict[str, tuple[str, str, str, list[Line]]] = {}
    by_axis = sorted(one.get("growth", []), key=lambda series: series["axis"])
    for axis, group in groupby(by_axis, key=lambda series: series["axis"]):
        together = list(group)
        for key, unit in UNITS.items():
            lines = [
                Line(f"row {one['row']}", [(point[axis], point[key]) for point in one["points"] if point.get(key)])
                for one in together
            ]
            if any(line.points for line in lines):
                title = f"{unit[0].upper()}{unit[1:]} over {axis}"
                made[f"{one['machine']}-{key.split('_')[0]}-over-{axis}.svg"] = (title, axis, unit, lines)
    return made


if __name__ == "__main__":
    main()
