"""Outputs as they stand on a page without scripts."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from innerview.cli.outputs import PLOTLY, VIEW, still, view_of


def shown(**data: object) -> str:
    return still({"output_type": "execute_result", "data": {name.replace("__", "/"): v for name, v in data.items()}})


def test_printed_text_is_escaped_and_loses_the_colours_of_the_terminal() -> None:
    assert still({"output_type": "stream", "text": "\x1b[31ma < b\x1b[0m\n"}) == '<pre class="iv-stream">a &lt; b</pre>'


def test_an_error_shows_its_traceback() -> None:
    output = {"output_type": "error", "ename": "E", "evalue": "v", "traceback": ["\x1b[0;31mE\x1b[0m: v"]}
    assert still(output) == '<pre class="iv-error">E: v</pre>'


def test_html_wins_over_text_and_is_sanitised() -> None:
    assert shown(text__html="<b>1</b><script>x</script>", text__plain="1") == '<div class="iv-output"><b>1</b></div>'


def test_a_picture_is_held_in_the_page() -> None:
    content = base64.b64encode(b"png").decode()
    assert f'src="data:image/png;base64,{content}"' in shown(image__png=content + "\n", text__plain='a "b"')


def test_a_picture_that_is_no_base64_brings_nothing_in() -> None:
    assert "onerror" not in shown(image__png='" onerror="alert(1)')


def test_a_plotly_figure_becomes_the_numbers_that_it_draws() -> None:
    packed = {"dtype": "f4", "bdata": base64.b64encode(np.array([1.5, 2.25], "f4").tobytes()).decode()}
    spec = {
        "data": [{"type": "scatter", "name": "<kl>", "x": [1, 2], "y": packed}],
        "layout": {"title": {"text": "dose"}},
    }
    html = still({"output_type": "display_data", "data": {PLOTLY: spec}})
    assert "<summary>dose: the numbers</summary>" in html
    assert "<td>2</td><td>2.25</td>" in html
    assert "&lt;kl&gt;" in html


def test_a_table_given_with_a_figure_stands_for_it() -> None:
    spec = {"data": [{"type": "heatmap", "z": [[1]]}], "layout": {"title": {"text": "a &lt;b&gt;<br><span>c</span>"}}}
    data = {PLOTLY: spec, "text/html": "<table><tr><td>1</td></tr></table><script>x</script>"}
    html = still({"output_type": "display_data", "data": data})
    assert "<summary>a &lt;b&gt;</summary><table>" in html and "script" not in html


@pytest.mark.parametrize("rows", [3, 1000])
def test_a_long_trace_is_cut_and_says_so(rows: int) -> None:
    html = still({"output_type": "display_data", "data": {PLOTLY: {"data": [{"x": list(range(rows))}]}}})
    assert html.count("<td>") == min(rows, 200)
    assert ("and 800 more rows" in html) == (rows == 1000)


def test_a_widget_is_known_by_its_view() -> None:
    assert view_of({"data": {VIEW: {"model_id": "abc"}}}) == "abc"
    assert view_of({"data": {"text/plain": "1"}}) is None
    assert view_of({"output_type": "stream", "text": ""}) is None
