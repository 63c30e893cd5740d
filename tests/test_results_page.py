"""The page of results: what is missed and by how much, what was not measured, and plots of growth."""

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from benchmarks import results_page, table
from benchmarks.figure import Line, figure


def claim(median: float, target: float | None, verdict: str | None) -> dict[str, Any]:
    span = {"median": median, "low": median * 0.9, "high": median * 1.1, "least": median * 0.95, "most": median * 1.05}
    return {"text": "ours ÷ the limit's", "unit": "×", **span, "target": target, "verdict": verdict}


def machine(**more: Any) -> dict[str, Any]:
    times = [{"name": "ours", "role": "ours", "unit": "ms", "median": 2.0, "low": 1.9, "high": 2.1}]
    claims = [claim(1.5, 1.2, "missed"), claim(1.0, 1.2, "met"), claim(1.2, 1.2, "undecided"), claim(3.0, None, None)]
    work = {"name": "codes", "gate": "all agree", "rounds": 20, "times": times, "claims": claims}
    row = {
        "number": "4",
        "title": "TopK",
        "workloads": [work],
        "notes": [],
        "missing": {"a peer": "no wheel"},
        "load": 0.1,
    }
    return {"machine": "box", "date": "2026-01-02", "versions": {"torch": "2.13"}, "rows": [row], **more}


def series(row: str, axis: str, us: tuple[float, ...], held: tuple[float, ...]) -> dict[str, Any]:
    points = [
        {"tokens": 512 << i, "features": 4096 << i, "us_a_token": time, "bytes_a_token": size}
        for i, (time, size) in enumerate(zip(us, held, strict=True))
    ]
    return {"row": row, "title": "codes", "axis": axis, "points": points}


def test_a_missed_target_is_named_with_how_far_it_was_missed() -> None:
    told = results_page.page([machine()])
    assert "3 were measured: 1 met, 1 missed, 1 undecided" in told
    assert "**missed** by 25%" in told and "≤ 1.2×" in told
    assert table.excess(claim(50.0, 1.0, "missed")) == "50 times the target"


def test_rows_without_a_figure_and_peers_that_could_not_run_are_named() -> None:
    told = results_page.page([machine()])
    assert "Without a figure here: rows 1, 2, 3, 5," in told
    assert "Not measured: a peer (no wheel)" in told


def test_without_a_card_the_page_says_that_no_gpu_was_measured() -> None:
    assert results_page.NO_GPU in results_page.page([machine()])
    told = results_page.page([machine(), machine(machine="card", card="A Card", rates={"copy, TB/s": 3.0})])
    assert results_page.NO_GPU not in told
    assert "A Card, by its own copy and products: copy: TB/s 3" in told
    assert "Without a figure here: rows 1, 2, 3, 5, 6, 7, 8." in told


def test_growth_is_drawn_over_each_axis_and_told_in_numbers() -> None:
    growth = [
        series("1", "tokens", (2.0, 2.0, 3.0), (800.0, 700.0, 600.0)),
        series("4", "tokens", (4.0, 4.0, 4.0), (0.0, 0.0, 0.0)),
        series("1", "features", (1.0, 2.0, 4.0), (0.0, 0.0, 0.0)),
    ]
    one = machine(growth=growth)
    made = results_page.plots([one])
    assert sorted(made) == ["box-bytes-over-tokens.svg", "box-us-over-features.svg", "box-us-over-tokens.svg"]
    told = results_page.page([one])
    assert all(f"images/performance/{name}" in told for name in made)
    assert "| 1 | codes | tokens | 512 | 2,048 | microseconds 1.5×, bytes 0.75× |" in told
    drawn = ET.fromstring(made["box-us-over-tokens.svg"])
    # A dot a point, and one in the key for each line.
    assert len([one for one in drawn.iter() if one.tag.endswith("circle")]) == 6 + 2


def test_a_line_that_stays_flat_is_drawn_flat_and_a_doubling_evenly() -> None:
    drawn = ET.fromstring(figure("a & b", "tokens", "time", [Line("flat", [(2.0, 5.0), (4.0, 5.0), (8.0, 5.0)])]))
    dots = [one.attrib for one in drawn.iter() if one.tag.endswith("circle")][:3]
    assert len({one["cy"] for one in dots}) == 1
    first, second, third = (float(one["cx"]) for one in dots)
    assert third - second == pytest.approx(second - first, abs=0.2) and second > first


def test_a_plot_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="no points to draw in 'empty'"):
        figure("empty", "tokens", "time", [Line("none", [(1.0, 0.0)])])
