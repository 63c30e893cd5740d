"""A machine's results as a page of tables."""

from typing import Any

SIGNS = {"met": "met", "missed": "**missed**", "undecided": "undecided: the noise reaches over the target", None: "–"}


def page(results: dict[str, Any]) -> str:
    """Markdown of a machine's results, as `run.py` writes them to JSON."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    head = [
        f"# Measured on {results['machine']}",
        "",
        f"{results['date']}. {versions}.",
        "",
        "Medians, with the quartiles of the rounds in brackets. Ratios and differences are taken within each round (all contenders, in",
        "alternating order, in one process), so they hold better than the times. A target is met or missed when 95 % of the noise is on one side. Written by `make bench`.",
    ]
    return "\n".join(head + [line for one in results["rows"] for line in row(one)]) + "\n"


def row(one: dict[str, Any]) -> list[str]:
    """Markdown lines of one row."""
    lines = ["", f"## {one['number']}. {one['title']}"]
    for workload in one["workloads"]:
        lines += _workload(workload)
    lines += [f"- {note}" for note in one["notes"]]
    lines += [f"- Not measured: {peer} ({why})" for peer, why in one["missing"].items()]
    lines.append(f"- Load of the machine when it began: {one['load']} runnable processes a core (1 min).")
    if "others" in one:
        lines.append(f"- Other processes took {one['others']:.0%} of the cores while it ran.")
    return lines


def _workload(workload: dict[str, Any]) -> list[str]:
    lines = ["", f"**{workload['name']}**, {workload['rounds']} rounds. Checked first: {workload['gate']}.", ""]
    lines += ["| | role | ms |", "|---|---|---|"]
    lines += [f"| {t['name']} | {t['role']} | {_number(t)} |" for t in workload["times"]]
    lines += ["", "| | measured | target | |", "|---|---|---|---|"]
    for claim in workload["claims"]:
        target = "–" if claim["target"] is None else f"≤ {claim['target']:g}{_unit(claim)}"
        lines.append(f"| {claim['text']} | {_number(claim)}{_unit(claim)} | {target} | {SIGNS[claim['verdict']]} |")
    return [*lines, ""]


def _number(span: dict[str, Any]) -> str:
    return f"{span['median']:.4g} [{span['low']:.4g}, {span['high']:.4g}]"


def _unit(claim: dict[str, Any]) -> str:
    return claim["unit"] if claim["unit"] == "×" else f" {claim['unit']}"
