"""Readings: numbers read from activations while a run writes."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from innerview.direction import Direction
from innerview.edits import fit
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.runs import Run


class Recorder:
    """Projections onto directions of each token fed so far, row by row."""

    def __init__(self, model: Model, directions: Sequence[Direction]) -> None:
        self.values: dict[str, list[list[float]]] = {d.name: [] for d in directions}
        self._directions = directions
        self._sites = {d.name: model.site(d.site) for d in directions}
        self.run: Run | None = None

    def taps(self) -> dict[Any, list[Any]]:
        """Taps by point."""
        found: dict[Any, list[Any]] = {}
        for direction in self._directions:
            site = self._sites[direction.name]
            found.setdefault(site.point, []).append((site, self._tap(direction)))
        return found

    def _tap(self, direction: Direction) -> Callable[[Site, Tensor], None]:
        def record(site: Site, value: Tensor) -> None:
            assert self.run is not None and self.run.forward is not None
            amounts = direction.project(value if fit(direction.vector, value).ndim == 1 else value.flatten(-2))
            real, kept = self.run.forward.real, self.values[direction.name]
            starts_over = self.run.forward.col0 == 0
            rows = [row if real is None else row[real[i]] for i, row in enumerate(amounts)]
            fresh = [row.tolist() for row in rows]
            self.values[direction.name] = fresh if starts_over else [a + b for a, b in zip(kept, fresh, strict=True)]

        return record
