"""A feature's page as the browser gets it: all examples in one run of words and numbers, with the borders between them."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from innerview.features.view import Example, FeatureView, Partner, Word
from innerview.widgets import wire


def view_traits(view: FeatureView, n_features: int | None) -> dict[str, Any]:
    """A view as plain values, its arrays as bytes.

    Args:
        view: What is known of the feature.
        n_features: How many features its dictionary has; None where that is not known.
    """
    label = view.label
    return {
        "feature": view.feature,
        "n_features": n_features,
        "dictionary": wire.sendable(view.dictionary),
        "model": wire.sendable(view.model),
        "site": view.site,
        "n_tokens": view.n_tokens,
        "n_active": view.n_active,
        "bos": view.bos,
        "notes": [wire.sendable(note) for note in view.notes],
        "label": None if label is None else _label(label),
        "histogram": {
            "edges": wire.pack(view.histogram.edges, "float32"),
            "counts": wire.pack(view.histogram.counts, "float64"),
            "zero": int(view.histogram.zero),
        },
        "quantiles": wire.pack(np.array(sorted(view.quantiles.items()), np.float32).reshape(-1, 2), "float32"),
        "stretches": [
            {"low": s.low, "high": s.high, "least": _number(s.least), "most": _number(s.most)} for s in view.stretches
        ],
        "examples": _examples([(i, one) for i, s in enumerate(view.stretches) for one in s.examples]),
        "promoted": _words(view.promoted),
        "suppressed": _words(view.suppressed),
        "nearest": partners(view.nearest),
        "together": partners(view.together),
        "neurons": partners(view.neurons),
        "fired_on": {
            "texts": [wire.sendable(one.text) for one in view.fired_on],
            "ids": wire.pack([one.id for one in view.fired_on], "int32"),
            "shares": wire.pack([one.share for one in view.fired_on], "float32"),
            "n": wire.pack([one.n for one in view.fired_on], "int32"),
            "of": wire.pack([one.of for one in view.fired_on], "int32"),
            "means": wire.pack([one.mean for one in view.fired_on], "float32"),
        },
    }


def drawn(one: Example) -> int:
    """The token that an example was chosen for."""
    return one.peak if one.drawn < 0 else one.drawn


def _label(label: Any) -> dict[str, Any]:
    detail = {
        wire.sendable(str(name)): _number(value)
        for name, value in label.detail.items()
        if isinstance(value, (int, float))
    }
    score = None if label.score is None else _number(label.score)
    return {
        "text": wire.sendable(label.text),
        "score": score,
        "source": wire.sendable(label.source),
        "detail": detail,
    }


def _number(value: float) -> float | None:
    """A number that JSON can hold; None for what is no finite one."""
    return float(value) if np.isfinite(value) else None


def _examples(examples: Sequence[tuple[int, Example]]) -> dict[str, Any]:
    ones = [one for _, one in examples]
    lengths = [len(one.words) for one in ones]
    has_effects = any(one.effects is not None for one in ones)
    effects = [np.full(len(one.words), np.nan) if one.effects is None else one.effects for one in ones]
    return {
        "words": [wire.sendable(word) for one in ones for word in one.words],
        "ids": wire.pack([i for one in ones for i in one.ids], "int32"),
        "values": wire.pack(_joined(one.values for one in ones), "float32"),
        "effects": wire.pack(_joined(effects), "float32") if has_effects else None,
        "ends": wire.pack(np.cumsum(lengths, dtype=np.int64), "int32"),
        "drawn": wire.pack([drawn(one) for one in ones], "int32"),
        "texts": wire.pack([one.text for one in ones], "int32"),
        "starts": wire.pack([one.start for one in ones], "int32"),
        "stretch": wire.pack([i for i, _ in examples], "int32"),
    }


def _joined(arrays: Iterable[np.ndarray]) -> np.ndarray:
    listed = [np.asarray(array, np.float32) for array in arrays]
    return np.concatenate(listed) if listed else np.zeros(0, np.float32)


def _words(words: Sequence[Word]) -> dict[str, Any]:
    return {
        "texts": [wire.sendable(word.text) for word in words],
        "ids": wire.pack([word.id for word in words], "int32"),
        "logits": wire.pack([word.logit for word in words], "float32"),
    }


def partners(some: Sequence[Partner]) -> dict[str, Any]:
    """Features or neurons with a number each, as the wire carries them."""
    return {
        "texts": [wire.sendable(one.text) for one in some],
        "features": wire.pack([one.index for one in some], "int32"),
        "values": wire.pack([one.value for one in some], "float32"),
        "n": wire.pack([one.n for one in some], "int32"),
    }
