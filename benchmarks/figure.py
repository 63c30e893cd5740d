"""Lines over a growing size, both axes logarithmic, as an SVG that needs nothing to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log2, log10

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 380, 74, 16, 44, 76
COLORS = ("#1f6fb4", "#c8501e", "#2e8540", "#7a4fa3", "#8a6d1d", "#555555")


@dataclass(frozen=True)
class Line:
    """A name, and points (size, number above 0)."""

    name: str
    points: Sequence[tuple[float, float]]


def figure(title: str, across: str, up: str, lines: Sequence[Line]) -> str:
    """SVG of some lines; numbers that are 0 or below are left out.

    Args:
        title: What stands above it.
        across: What grows to the right.
        up: What is counted upward, with its unit.
        lines: At least one point together.
    Raises:
        ValueError: There is no point.
    """
    kept = [Line(one.name, [(x, y) for x, y in one.points if x > 0 and y > 0]) for one in lines]
    points = [point for one in kept for point in one.points]
    if not points:
        raise ValueError(f"no points to draw in {title!r}; give sizes and numbers above 0")
    x0, x1 = floor(log2(min(x for x, _ in points))), ceil(log2(max(x for x, _ in points)))
    y0, y1 = floor(log10(min(y for _, y in points))), ceil(log10(max(y for _, y in points)))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)

    def place(x: float, y: float) -> tuple[float, float]:
        right = LEFT + (log2(x) - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)
        return right, HEIGHT - BOTTOM - (log10(y) - y0) / (y1 - y0) * (HEIGHT - TOP - BOTTOM)

    made = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="system-ui, sans-serif" font-size="12" fill="#222">'
        ),
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="22" font-size="14" font-weight="600">{escape(title)}</text>',
    ]
    for power in range(x0, x1 + 1):
        x = place(2.0**power, 10.0**y0)[0]
        made.append(f'<path d="M{x:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#e4e4e4"/>')
        if (power - x0) % max(1, (x1 - x0) // 8) == 0:
            made.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{short(2**power)}</text>')
    for power in range(y0, y1 + 1):
        y = place(2.0**x0, 10.0**power)[1]
        made.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#e4e4e4"/>')
        made.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(10.0**power)}</text>')
    made.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - BOTTOM + 34}" text-anchor="middle">{escape(across)}</text>'
    )
    made.append(
        f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>'
    )
    for number, one in enumerate(kept):
        made += _line(one, number, [place(x, y) for x, y in one.points], len(kept))
    return "\n".join([*made, "</svg>"]) + "\n"


def short(number: float) -> str:
    """A size in few characters: 4096 is 4k, 1048576 is 1M."""
    for unit, word in ((1 << 20, "M"), (1 << 10, "k")):
        if number >= unit and number % unit == 0:
            return f"{number / unit:g}{word}"
    return f"{number:g}"


def _line(one: Line, number: int, places: Sequence[tuple[float, float]], count: int) -> list[str]:
    color = COLORS[number % len(COLORS)]
    path = " ".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(places))
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in places]
    x = LEFT + number * (WIDTH - LEFT - RIGHT) / max(1, count)
    key = f'<circle cx="{x + 4:.1f}" cy="{HEIGHT - 16}" r="4" fill="{color}"/><text x="{x + 13:.1f}" y="{HEIGHT - 12}">{escape(one.name)}</text>'
    return [f'<path d="{path}" fill="none" stroke="{color}" stroke-width="2"/>', *dots, key]
