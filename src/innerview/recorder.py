"""What a run records while it writes: readings of each token that it feeds."""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from innerview.direction import Direction
from innerview.models.model import Model
from innerview.models.site import Site
from innerview.readings import Reading
from innerview.runs import Run


class Recorder:
    """Readings of each token fed so far, row by row."""

    def __init__(self, model: Model, readings: Sequence[Direction | Reading]) -> None:
        self.values: dict[str, list[list[float]]] = {one.name: [] for one in readings}
        self._readings = [one.reading() if isinstance(one, Direction) else one for one in readings]
        self._sites = {one.name: model.site(one.site) for one in readings}
        self.run: Run | None = None

    def taps(self) -> dict[Any, list[Any]]:
        """Taps by point."""
        found: dict[Any, list[Any]] = {}
        for reading in self._readings:
            site = self._sites[reading.name]
            found.setdefault(site.point, []).append((site, self._tap(reading)))
        return found

    def _tap(self, reading: Reading) -> Callable[[Site, Tensor], None]:
        def record(site: Site, value: Tensor) -> None:
            forward = None if self.run is None else self.run.at(site.point)
            assert forward is not None
            amounts = reading.of(value.detach())
            real, kept = forward.real, self.values[reading.name]
            starts_over = forward.col0 == 0
            rows = [row if real is None else row[real[i]] for i, row in enumerate(amounts)]
            fresh = [row.tolist() for row in rows]
            self.values[reading.name] = fresh if starts_over else [a + b for a, b in zip(kept, fresh, strict=True)]

        return record
