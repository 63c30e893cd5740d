"""One-to-one assignment of largest summed score, by shortest augmenting paths."""

import numpy as np
from jaxtyping import Float, Int


def assigned(score: Float[np.ndarray, "n m"]) -> Int[np.ndarray, "n"]:
    """The column of each row in the assignment with the largest sum; n ≤ m.

    Reference: Jonker and Volgenant, 1987; the form of Crouse, 2016.
    """
    n, m = score.shape
    cost = -score.astype(np.float64)
    # Rows start at their dearest price, so that those whose best column nobody else wants need no search.
    u, v = cost.min(axis=1), np.zeros(m)
    column, row_of = np.full(n, -1), np.full(m, -1)
    for row, best in enumerate(cost.argmin(axis=1)):
        if row_of[best] < 0:
            column[row], row_of[best] = best, row
    for row in np.flatnonzero(column < 0):
        _augment(cost, u, v, column, row_of, int(row))
    return column


def _augment(
    cost: np.ndarray, u: np.ndarray, v: np.ndarray, column: np.ndarray, row_of: np.ndarray, start: int
) -> None:
    """Give a row a column along the cheapest chain of changes, and keep the prices u, v right."""
    m = cost.shape[1]
    cheapest, before = np.full(m, np.inf), np.full(m, -1)
    is_open, seen, row, height = np.ones(m, dtype=bool), [], start, 0.0
    while True:
        seen.append(row)
        reach = height + cost[row] - u[row] - v
        better = is_open & (reach < cheapest)
        cheapest[better], before[better] = reach[better], row
        sink = int(np.where(is_open, cheapest, np.inf).argmin())
        height, is_open[sink] = float(cheapest[sink]), False
        if row_of[sink] < 0:
            break
        row = int(row_of[sink])
    u[start] += height
    for other in seen[1:]:
        u[other] += height - cheapest[column[other]]
    closed = ~is_open
    v[closed] -= height - cheapest[closed]
    while True:
        row = int(before[sink])
        row_of[sink] = row
        column[row], sink = sink, int(column[row])
        if row == start:
            return
