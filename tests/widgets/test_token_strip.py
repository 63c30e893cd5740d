"""TokenStrip: words, values and what they are called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

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


def test_values_in_half_precision_and_with_gradients_cross() -> None:
    for values in (torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.tensor([1.0, 2.0], requires_grad=True)):
        assert wire.unpack(iv.TokenStrip(["a", "b"], values).values).tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (
            [[1.0], [1.0, 2.0]],
            {},
            r"2 words take numbers of shape \[2\] or \[series, 2\], not \[\[1.0\], \[1.0, 2.0\]\]",
        ),
        (["x", "y"], {}, r"take numbers of shape"),
        ({"a": 1}, {}, r"take numbers of shape"),
        ([1.0, 2.0], {"labels": [5]}, r"are texts, not 5 of type int"),
        ([1.0, 2.0], {"unit": None}, r"are texts, not None"),
    ],
)
def test_what_no_strip_can_show_is_refused(values: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(iv.WidgetError, match=message):
        iv.TokenStrip(["a", "b"], values, **options)


def test_one_label_may_be_given_as_it_is() -> None:
    assert iv.TokenStrip(["a", "b"], [1, 2], "mood").labels == ["mood"]


def test_half_characters_are_sent_and_written_as_signs_of_their_lack(tmp_path: Path) -> None:
    strip = iv.TokenStrip(["\ud800", "\ud83d\ude42"], [1, 2], ["\udfff"], unit="\ud800", what="a\ud800")
    assert (strip.words, strip.labels) == (["\ufffd", "🙂"], ["\ufffd"])
    assert (strip.about["unit"], strip.about["what"]) == ("\ufffd", "a\ufffd")
    assert "🙂" in strip.to_html(tmp_path / "strip.html").read_text("utf-8")


def test_a_page_is_not_written_over_a_folder_or_into_none(tmp_path: Path) -> None:
    strip = iv.TokenStrip(["a"], [1.0])
    with pytest.raises(iv.WidgetError, match=r"is a folder; name a file in it, such as .*token_strip.html"):
        strip.to_html(tmp_path)
    with pytest.raises(iv.WidgetError, match=r"no folder .*nope.* make it first"):
        strip.to_html(tmp_path / "nope/x.html")
    with pytest.raises(iv.WidgetError, match=r"cannot write '/proc/x.html': .*; give another path"):
        strip.to_html("/proc/x.html")
