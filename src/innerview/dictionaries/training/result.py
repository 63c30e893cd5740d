"""What training gives: the dictionaries, and the curves of how they came about."""

from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from innerview.dictionaries.dictionary import Dictionary
from innerview.dictionaries.training.settings import DictionarySpec
from innerview.errors import DictionaryError
from innerview.plots import ShowsFigure, drawn

COLORS = ("#14958a", "#d6700a", "#7054a8", "#c2405f", "#4a7fc1", "#8a8f00")
CURVES = {"fvu": "FVU", "l0": "L0", "dead": "dead features", "loss": "loss"}


@dataclass(frozen=True, eq=False)
class DictionaryTraining(ShowsFigure):
    """Trained dictionaries.

    Attributes:
        specs: What each was to become.
        dictionaries: What each became.
        histories: Points of each one's curves.
        tokens: Tokens that were seen.
        is_complete: Whether it ran to its end; False where it was stopped, or the texts ran out.
        seconds: Time that this run took; a run that went on from a state counts its own part.
    """

    specs: tuple[DictionarySpec, ...]
    dictionaries: tuple[Dictionary, ...] = field(repr=False)
    histories: tuple[tuple[dict[str, float], ...], ...] = field(repr=False)
    tokens: int
    is_complete: bool
    seconds: float

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary, where one was trained.

        Raises:
            DictionaryError: Several were.
        """
        if len(self.dictionaries) != 1:
            raise DictionaryError(f"{len(self.dictionaries)} dictionaries were trained; take one of .dictionaries")
        return self.dictionaries[0]

    def frame(self) -> pd.DataFrame:
        """One row a point of a curve: dictionary, site, architecture, step, tokens, loss and its parts, l0, fvu, dead."""
        rows: list[dict[str, Any]] = []
        for nth, (spec, history) in enumerate(zip(self.specs, self.histories, strict=True)):
            named = {"dictionary": nth, "site": spec.site, "architecture": repr(spec.architecture), "seed": spec.seed}
            rows.extend(named | point for point in history)
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """One row a dictionary: its last point."""
        frame = self.frame()
        return frame.groupby("dictionary").last().reset_index() if len(frame) else frame

    def figure(self) -> Any:
        """FVU, L0, dead share and loss over tokens, a line a dictionary."""
        traces: list[dict[str, Any]] = []
        for nth, (spec, history) in enumerate(zip(self.specs, self.histories, strict=True)):
            tokens = [point["tokens"] for point in history]
            for place, name in enumerate(CURVES):
                axis = "" if place == 0 else str(place + 1)
                traces.append({
                    "type": "scatter", "mode": "lines", "x": tokens, "y": [point[name] for point in history],
                    "xaxis": f"x{axis}", "yaxis": f"y{axis}", "name": f"{nth}: {spec.architecture!r} at {spec.site}",
                    "legendgroup": str(nth), "showlegend": place == 0, "line": {"color": COLORS[nth % len(COLORS)]},
                })  # fmt: skip
        made = drawn(traces, f"training on {self.tokens:,} tokens", showlegend=len(self.specs) > 1)
        made.update_layout(grid={"rows": 2, "columns": 2, "pattern": "independent"}, legend={"orientation": "h"})
        for place, (name, title) in enumerate(CURVES.items()):
            axis = "" if place == 0 else str(place + 1)
            made.update_layout(
                {f"yaxis{axis}": {"title": {"text": title}}, f"xaxis{axis}": {"title": {"text": "tokens"}}}
            )
            if name in ("fvu", "loss"):
                made.update_layout({f"yaxis{axis}": {"type": "log"}})
        return made
