"""What each widget sends has the shape that the golden file says, which the front end's tests draw from."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.widgets.made import MADE
from tests.widgets.worlds import world

GOLDEN = Path(__file__).parent.parent / "wire/traits.json"
HELD = (
    "attention", "evidence_card", "feature_browser", "feature_map", "feature_page", "panel", "patch_grid", "training_monitor"
)  # fmt: skip


def plain(value: Any) -> Any:
    """A trait as JSON; bytes as base64 under `$bytes`."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"$bytes": base64.b64encode(value).decode("ascii")}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def shape(value: Any) -> Any:
    """What a value is made of: names and kinds, not numbers."""
    if isinstance(value, dict):
        return "bytes" if "$bytes" in value else {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__


def sent(name: str, folder: Path) -> dict[str, Any]:
    """All traits of a widget of the small world."""
    widget = MADE[name](world(folder))
    if name == "patch_grid":
        widget.read(1, 2)
    traits = {trait: plain(getattr(widget, trait)) for trait in widget.own_traits()}
    if name == "panel":
        # What other tests have open is not this world's.
        seen = traits["seen"]
        seen["models"] = [model for model in seen["models"] if model["edits"]]
        seen |= {kind: [] for kind in ("dictionaries", "directions", "dashboards", "runs", "trainings")}
    return traits


@pytest.mark.parametrize("name", HELD)
def test_what_crosses_has_the_golden_shape(name: str, tmp_path: Path) -> None:
    golden = json.loads(GOLDEN.read_text("utf-8"))[name]
    assert shape(sent(name, tmp_path)) == shape(golden)


def test_the_golden_file_names_what_is_held_to_it() -> None:
    assert set(json.loads(GOLDEN.read_text("utf-8"))) == set(HELD)


def test_a_missing_field_is_seen() -> None:
    assert shape({"a": 1, "b": [{"c": "x"}]}) != shape({"a": 1, "b": [{"d": "x"}]})
    assert shape({"a": True}) != shape({"a": 1})
