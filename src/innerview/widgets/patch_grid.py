"""`PatchGridView`: what each place's patch did, and a clicked cell run again with its answers."""

from typing import Any, ClassVar

import numpy as np
import traitlets

from innerview.causal.grid import PatchGrid
from innerview.causal.rerun import Answer, Rerun
from innerview.causal.study import share_of_way
from innerview.errors import WidgetError
from innerview.widgets import wire
from innerview.widgets.base import Widget, whole

TRAIT_BYTES = 600_000
MOST_PROMPTS = 200
MOST_READ = 64
TABLE_COLUMNS = 24


class PatchGridView(Widget):
    """A patching grid: sites × positions, or heads, each cell shaded by its effect; click one to run it again and read both answers.

    Args:
        grid: What `iv.patch_grid` returned.
    Raises:
        WidgetError: It is none.
    """

    bundle: ClassVar[str] = "patch_grid"
    heading: ClassVar[str] = "Patching"
    verbs: ClassVar[tuple[str, ...]] = ("rerun", "effects")
    writable: ClassVar[dict[str, str]] = {"pair": "check_pair", "pinned": "check_pinned"}

    grid = traitlets.Dict().tag(sync=True)
    effects = traitlets.Dict().tag(sync=True)
    pair = traitlets.Int(-1).tag(sync=True, echo_update=False)
    pinned = traitlets.List(allow_none=True, default_value=None).tag(sync=True, echo_update=False)
    answers = traitlets.List().tag(sync=True)

    def __init__(self, grid: PatchGrid) -> None:
        if not isinstance(grid, PatchGrid):
            raise WidgetError(f"PatchGridView takes what iv.patch_grid returns, not {type(grid).__name__}")
        self._grid = grid
        super().__init__(grid=_described(grid), effects=_effects(grid))

    @classmethod
    def from_result(cls, result: PatchGrid) -> "PatchGridView":
        """The widget that shows a grid."""
        return cls(result)

    def read(self, row: int, column: int, pair: int = 0) -> "PatchGridView":
        """Run a cell again and keep its answers, as a click does; returns the widget."""
        self._keep(row, column, self._grid.rerun(row, column, pair))
        self.pinned = [row, column]
        return self

    def check_pair(self, value: Any) -> int:
        return whole(value, -1, len(self._grid.prompts) - 1)

    def check_pinned(self, value: Any) -> list[int] | None:
        if value is None:
            return None
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise WidgetError(f"a cell is [row, column], not {str(value)[:40]!r}")
        return [*self._cell(*value)]

    def do_rerun(self, message: dict[str, Any]) -> Any:
        """Run a cell again; the answers come by the trait, so that they are saved with the notebook."""
        row, column = self._cell(message.get("row"), message.get("column"))
        pair = whole(message.get("pair"), 0, len(self._grid.prompts) - 1)

        def run() -> dict[str, Any]:
            self._keep(row, column, self._grid.rerun(row, column, pair))
            return {"row": row, "column": column, "pair": pair}

        return run

    def do_effects(self, message: dict[str, Any]) -> dict[str, Any]:
        """Effects of one pair, shape [site, column], for a grid too large to be sent whole."""
        pair = whole(message.get("pair"), 0, len(self._grid.prompts) - 1)
        return {"effect": wire.pack(_of_pair(self._grid, pair), "float32")}

    def html_table(self) -> str:
        grid = self._grid
        shown = grid.columns[:TABLE_COLUMNS]
        effect = grid.effect.tolist()
        rows = [
            [grid.sites[row], *(_said(effect[row][i]) for i in range(len(shown)))]
            for row in reversed(range(len(grid.sites)))
        ]
        caption = f"Patching ({grid.direction}) · {grid.model_name} · effect on {grid.metric}" + (
            f", first {TABLE_COLUMNS} of {len(grid.columns)} columns" if len(grid.columns) > TABLE_COLUMNS else ""
        )
        return wire.html_table(["", *(wire.visible(column.label) for column in shown)], rows, caption)

    def plain_text(self) -> str:
        return repr(self._grid)

    def page_title(self) -> str:
        return f"Patching · {self._grid.model_name} · {self._grid.metric}"

    def _cell(self, row: Any, column: Any) -> tuple[int, int]:
        return whole(row, 0, len(self._grid.sites) - 1), whole(column, 0, len(self._grid.columns) - 1)

    def _keep(self, row: int, column: int, found: Rerun) -> None:
        """The newest answers of each cell, the oldest cells dropped."""
        kept = [one for one in self.answers if (one["row"], one["column"], one["pair"]) != (row, column, found.pair)]
        self.answers = [*kept[-MOST_READ + 1 :], _answered(row, column, found)]


def _described(grid: PatchGrid) -> dict[str, Any]:
    kind, labels = grid.row_labels()
    said = wire.sendable
    return {
        "model": said(grid.model_name), "metric": said(grid.metric), "direction": grid.direction, "over": grid.over,
        "sites": [said(site) for site in grid.sites], "rows": [said(label) for label in labels], "row_kind": said(kind),
        "columns": [said(column.label) for column in grid.columns],
        "prompts": [[said(text) for text in pair] for pair in grid.prompts[:MOST_PROMPTS]], "n_pairs": len(grid.prompts),
        "attached": [said(name) for name in grid.attached], "is_whole": grid.is_whole, "measured": grid.measured_cells(),
        "can_rerun": grid.study is not None,
    }  # fmt: skip


def _effects(grid: PatchGrid) -> dict[str, Any]:
    """The effects of all pairs together, and those of each pair where they are not too many bytes; raw numbers of the sides."""
    cells = len(grid.sites) * len(grid.columns)
    room = TRAIT_BYTES // (4 * max(cells, 1)) - 2
    pairs = [_of_pair(grid, pair) for pair in range(min(room, len(grid.prompts)))] if len(grid.prompts) > 1 else []
    return {
        "mean": wire.pack(grid.effect, "float32"),
        "patched": wire.pack(grid.patched.mean(dim=-1), "float32"),
        "pairs": wire.pack(np.stack(pairs) if pairs else np.zeros((0, *grid.effect.shape)), "float32"),
        "clean": wire.pack(grid.clean, "float32"),
        "corrupt": wire.pack(grid.corrupt, "float32"),
    }


def _of_pair(grid: PatchGrid, pair: int) -> np.ndarray:
    found = share_of_way(grid.patched[:, :, pair], grid.clean[pair], grid.corrupt[pair], grid.direction)
    return found.detach().cpu().float().numpy()


def _answered(row: int, column: int, found: Rerun) -> dict[str, Any]:
    def side(answer: Answer) -> dict[str, Any]:
        return {"words": [wire.sendable(w) for w in answer.words], "p": wire.pack(answer.probabilities, "float32")}

    return {
        "row": row, "column": column, "pair": found.pair, "clean": side(found.clean), "corrupt": side(found.corrupt),
        "patched": side(found.patched), "metric": list(found.metric), "effect": found.effect,
        "attached": [wire.sendable(name) for name in found.attached], "is_same": found.is_same,
    }  # fmt: skip


def _said(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:+.3g}"
