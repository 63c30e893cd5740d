"""TokenStrip: words, values and what they are called."""

from __future__ import annotations

import numpy as np
import pytest

import innerview as iv
from innerview.widgets import wire


def test_values_of_one_series_or_several_cross() -> None:
    assert wire.unpack(iv.TokenStrip(["a", "b"], [1, 2]).values).tolist() == [[1, 2]]
    assert wire.unpack(iv.TokenStrip(["a", "b"], [[1, 2], [3, 4]], ["x", "y"]).values).shape == (2, 2)


def test_values_that_do_not_match_the_words_are_refused() -> None:
    with pytest.raises(iv.WidgetError, match=r"2 words take values of shape \[2\] or \[series, 2\], not \[3\]"):
        iv.TokenStrip(["a", "b"], [1, 2, 3])
    with pytest.raises(iv.WidgetError, match="1 series of values, but 2 labels"):
        iv.TokenStrip(["a"], [1], ["x", "y"])
    with pytest.raises(iv.WidgetError, match="2 words, but 1 ids"):
        iv.TokenStrip(["a", "b"], [1, 2], ids=[1])


def test_a_projection_shows_itself_text_by_text_without_its_special_tokens(
    model: iv.Model, direction: iv.Direction
) -> None:
    acts = iv.capture(model, [[0, 10, 11], [0, 12]], [direction.site])
    projection = iv.project(acts, direction)
    widget = projection.widget()
    values = wire.unpack(widget.values)[0]
    assert widget.about["starts"] == [0, 3]
    assert np.isnan(values[[0, 3]]).all()
    assert values[1] == pytest.approx(float(projection.values[0, 1]))
    assert values[4] == pytest.approx(float(projection.values[1, 1]))
    assert "good mood" in widget.plain_text()


def test_its_table_shows_what_cannot_be_seen() -> None:
    table = iv.TokenStrip([" <i>", "\n"], [1, float("nan")]).html_table()
    assert "␣&lt;i&gt;" in table and "↵" in table and "–" in table
