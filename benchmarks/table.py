"""A machine's results as a page of tables."""

from typing import Any

SIGNS = {"met": "met", "undecided": "undecided: the noise reaches over the target", None: "–"}


def page(results: dict[str, Any]) -> str:
    """Markdown of a machine's results, as `run.py` writes them to JSON."""
    head = [
        f"# Measured on {results['machine']}",
        "",
        *measured_with(results),
        "",
        *HOW,
    ]
    return "\n".join(head + [line for one in results["rows"] for line in row(one)]) + "\n"


HOW = [
    "Medians, with the quartiles of the rounds in brackets. Ratios and differences are taken within each round (all contenders, in",
    "alternating order, in one process), so they hold better than the times. A target is met or missed when 95 % of the noise is on one side. Written by `make bench`.",
]


def measured_with(results: dict[str, Any]) -> list[str]:
    """The day, the versions and, of a GPU, the card and what it does by itself."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lines = [f"{results['date']}. {versions}."]
    if "rates" in results:
        rates = "; ".join(f"{name.replace(', ', ': ')} {value:g}" for name, value in results["rates"].items())
        lines += ["", f"{results['card']}, by its own copy and products: {rates}."]
    return lines


def row(one: dict[str, Any], level: int = 2) -> list[str]:
    """Markdown lines of one row, under a heading of a level."""
    lines = ["", f"{'#' * level} {one['number']}. {one['title']}"]
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
    lines += [f"| {t['name']} | {t['role']} | {number(t)} |" for t in workload["times"]]
    lines += ["", "| | measured | target | |", "|---|---|---|---|"]
    for claim in workload["claims"]:
        lines.append(f"| {claim['text']} | {number(claim)}{_unit(claim)} | {target(claim)} | {verdict(claim)} |")
    return [*lines, ""]


def number(span: dict[str, Any]) -> str:
    """A median, with its quartiles; alone where nothing varied."""
    if span["low"] == span["high"] == span["median"]:
        return f"{span['median']:.4g}"
    return f"{span['median']:.4g} [{span['low']:.4g}, {span['high']:.4g}]"


def target(claim: dict[str, Any]) -> str:
    """What a claim may be at most."""
    return "–" if claim["target"] is None else f"≤ {claim['target']:.3g}{_unit(claim)}"


def verdict(claim: dict[str, Any]) -> str:
    """Whether the target is met; where it is missed, by how much of it."""
    if claim["verdict"] != "missed":
        return SIGNS[claim["verdict"]]
    return f"**missed** by {excess(claim)}"


def excess(claim: dict[str, Any]) -> str:
    """How far the median lies over its target, as a share of it."""
    over = claim["median"] / claim["target"] - 1
    return f"{over:.0%}" if over < 10 else f"{over + 1:.0f} times the target"


def _unit(claim: dict[str, Any]) -> str:
    return claim["unit"] if claim["unit"] == "×" else f" {claim['unit']}"
