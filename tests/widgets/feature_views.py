"""A feature's view made by hand, and dashboards of the small network."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

import innerview as iv
from innerview.features.view import Example, FeatureView, FiredOn, Histogram, Label, Partner, Stretch, Word
from tests.dictionaries.made import dictionary

TEXTS = ["one two", "three four five", "a b c d", "the end of it", "no", "what now then"]


def example(text: int, words: list[str], values: list[float], effects: list[float] | None = None) -> Example:
    array = np.array(values, np.float32)
    return Example(
        text, 3, tuple(range(10, 10 + len(words))), tuple(words), array, int(array.argmax()),
        None if effects is None else np.array(effects, np.float32),
    )  # fmt: skip


def view(**fields: Any) -> FeatureView:
    """One feature, in round numbers."""
    strongest = Stretch(
        1.0, 1.0, 8.0, 8.0, (example(0, [" two", " Monday", "\n"], [0.0, 8.0, 0.5], [0.0, 0.5, -0.25]),)
    )
    middle = Stretch(
        0.5, 0.75, 2.0, 4.0, (example(4, ["<b>x</b>", " week"], [0.0, 2.5]), example(5, ["late"], [2.0], [0.125]))
    )
    made: dict[str, Any] = {
        "feature": 17,
        "dictionary": "a dictionary",
        "model": "a model",
        "site": "blocks.1.resid",
        "n_tokens": 1000,
        "n_active": 5,
        "histogram": Histogram(np.array([1.0, 2.0, 4.0, 8.0]), np.array([1, 3, 1]), 995),
        "quantiles": {0.5: 2.5, 0.99: 7.5},
        "stretches": (strongest, middle),
        "promoted": (Word(3, " Tuesday", 1.5), Word(4, " week", 0.5)),
        "suppressed": (Word(5, " Sunday", -0.75),),
        "nearest": (Partner(18, 0.9375, text="other days"), Partner(3, 0.5)),
        "together": (Partner(2, 1.25, 4),),
        "neurons": (Partner(40, -0.5),),
        "fired_on": (FiredOn(11, " Monday", 4, 0.75, 6.0),),
        "label": Label(17, "days of the week", 0.875, "known labels", {"fuzzing": 0.75, "note": "not a number"}),
        "notes": ("duplicates removed: 14",),
    }
    return FeatureView(**{**made, **fields})


def sae(**fields: Any) -> iv.Dictionary:
    """A random dictionary of the small network's first block."""
    return dictionary("relu", site="blocks.0.resid", **fields)


def dashboard(
    model: iv.Model, own: iv.Dictionary | None = None, labels: dict[int, str] | None = None, texts: Any = TEXTS
) -> Any:
    made = iv.dashboard(own or sae(), model, texts, progress=False)
    return made.with_labels(labels) if labels else made


def written(value: Any) -> Any:
    """What crosses, with bytes as base64, as the golden files hold it."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {key: written(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [written(inner) for inner in value]
    return value
