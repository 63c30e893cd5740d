"""Evidence: verdicts follow from figures and thresholds, and what was not run is never silent."""

from __future__ import annotations

import json
import math

import pytest

import innerview as iv
from innerview.widgets import wire


def some() -> iv.Evidence:
    return iv.Evidence(
        "good mood steers pocket",
        (
            iv.Control("permuted labels", 0.005, threshold=0.01, n=200, compared_with=[0.1 * i for i in range(200)], effect=25.0),
            iv.Control("wrong way", 0.31, unit="share", threshold=0.2, n=60, interval=(0.2, 0.42), is_ours=True),
            iv.Control("accuracy over control", 0.05, threshold=0.1, flags="below"),
            iv.Control("cost", 0.8, unit="nat"),
            iv.Control.not_run("held-out templates", "no templates were given"),
            iv.Control.not_applicable("row part", "no linear reader has a kernel here"),
        ),
        about="pocket · blocks.3.resid",
    )  # fmt: skip


def test_a_verdict_is_what_the_threshold_says() -> None:
    assert [one.verdict for one in some().controls] == [
        "holds", "flagged", "flagged", "shown", "not run", "does not apply",
    ]  # fmt: skip
    at_threshold = iv.Control("x", 0.2, threshold=0.2)
    assert at_threshold.verdict == "holds"


def test_the_frame_has_a_row_for_each_control() -> None:
    frame = some().frame()
    assert list(frame["verdict"].value_counts().sort_index().items()) == [
        ("does not apply", 1), ("flagged", 2), ("holds", 1), ("not run", 1), ("shown", 1),
    ]  # fmt: skip
    assert frame["n"].tolist()[:2] == [200, 60] and frame["figure"].isna().sum() == 2
    assert frame.loc[1, "high"] == 0.42 and frame.loc[4, "why"] == "no templates were given"
    assert iv.Evidence("nothing was tried", ()).frame().empty


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"figure": None}, "its figure is None; give a number, or Control.not_run"),
        ({"figure": math.nan}, "its figure is nan"),
        ({"figure": 1.0, "interval": (2.0, 1.0)}, "from its lower end to its upper"),
        ({"figure": 1.0, "n": -1}, "counts something, from 0; it is -1"),
        ({"figure": 1.0, "state": "not run", "why": "late"}, "is not run, yet it has figures"),
        ({"state": "not run"}, "is not run: say why"),
        ({"state": "skipped"}, "has the state 'skipped'"),
        ({"figure": 1.0, "flags": "sideways"}, "flags 'sideways'"),
    ],
)
def test_a_control_that_says_too_little_or_too_much_is_refused(given: dict, message: str) -> None:
    with pytest.raises(iv.EvidenceError, match=message):
        iv.Control("x", **given)


def test_evidence_without_a_claim_or_of_other_things_is_refused() -> None:
    with pytest.raises(iv.EvidenceError, match="a claim is a sentence"):
        iv.Evidence("  ", ())
    with pytest.raises(iv.EvidenceError, match="made of Controls, not str"):
        iv.Evidence("x", ("control",))  # type: ignore[arg-type]
    with pytest.raises(iv.WidgetError, match="takes an Evidence, not dict"):
        iv.EvidenceCard({})  # type: ignore[arg-type]


def test_it_shows_itself_as_a_card_with_every_control_in_the_table() -> None:
    shown, _ = some()._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    for one in some().controls:
        assert one.control in shown["text/html"] and one.control in shown["text/plain"]
    assert shown["text/html"].count("not run") == 1 and "&gt; 0.2 (ours)" in shown["text/html"]


def test_what_crosses_is_json_whatever_the_numbers() -> None:
    odd = iv.Evidence(
        "x", (iv.Control("a", math.inf, threshold=0.5, interval=(0.0, math.inf), compared_with=[math.nan, 1]),)
    )
    card = odd.widget()
    (control,) = card.evidence["controls"]
    assert control["verdict"] == "flagged" and control["figure"] is None and control["interval"] is None
    json.dumps({k: v for k, v in control.items() if k != "compared_with"}, allow_nan=False)
    many = iv.Evidence("x", (iv.Control("a", 1.0, compared_with=range(10_001)),)).widget().evidence["controls"][0]
    assert len(wire.unpack(many["compared_with"])) <= 4_000 and many["n_compared"] == 10_001
