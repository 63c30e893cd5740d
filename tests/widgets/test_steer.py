"""Steer on a real network: it streams, follows the sliders, stops, and says in code what it did."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.models.text import token_word
from innerview.widgets import dose as doses
from innerview.widgets import wire
from innerview.widgets.edit_form import EditForm


@pytest.fixture
def steer(model: iv.Model, direction: iv.Direction) -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(**options: Any) -> Any:
        options = {"directions": [direction], "prompt": "A text", "max_new_tokens": 8, **options}
        made.append(iv.Steer(model, **options))
        return made[-1]

    yield make
    for widget in made:
        widget.stop()
        widget.wait()


@pytest.fixture
def slow(model: iv.Model) -> Iterator[None]:
    """Each forward takes a while, so that something can happen in its middle."""
    handle = model.module.register_forward_pre_hook(lambda *_: time.sleep(0.03))
    yield
    handle.remove()


def moved(widget: Any, **fields: Any) -> None:
    """What the browser sends when a person changes the first row."""
    widget.set_state({"edits": [{**widget.edits[0], **fields}, *widget.edits[1:]]})


def test_both_columns_are_what_generate_gives(model: iv.Model, direction: iv.Direction, steer: Callable) -> None:
    edits = [iv.Add(direction, 2.0)]
    widget = steer(edits=edits).wait()
    plain = iv.generate(model, "A text", max_new_tokens=8, hermetic=True).text
    edited = iv.generate(model, "A text", max_new_tokens=8, edits=edits, hermetic=True).text
    assert (widget.text("plain"), widget.text()) == (plain, edited)
    assert plain != edited
    assert "".join(widget.columns["edited"]["words"]) == edited
    assert widget.columns["plain"]["state"] == widget.columns["edited"]["state"] == "done"


def test_an_edit_of_nothing_leaves_the_text_as_it_is(steer: Callable) -> None:
    widget = steer().wait()
    assert widget.active_edits() == []
    assert widget.text() == widget.text("plain")


def test_an_edit_that_python_sets_is_written_when_wait_returns(steer: Callable, model: iv.Model) -> None:
    widget = steer().wait()
    for strength, then in ((3.0, widget.wait), (-3.0, widget.compute_dose)):
        widget.edits = [{**widget.edits[0], "coefficient": strength}]
        then()
        wanted = iv.generate(model, "A text", edits=widget.active_edits(), max_new_tokens=8).text
        assert widget.text() == wanted and widget.columns["edited"]["words"]
    assert widget.text("plain") == iv.generate(model, "A text", max_new_tokens=8).text


def test_words_stream_in_at_a_pace_and_the_last_state_is_whole(steer: Callable, slow: None, listen: Callable) -> None:
    widget = steer(max_new_tokens=12)
    comm = listen(widget)
    widget.wait()
    lengths = [len(m["state"]["columns"]["edited"]["words"]) for m in comm.sent if "columns" in m.get("state", {})]
    assert lengths == sorted(lengths)
    assert len(set(lengths)) > 2
    assert lengths[-1] == 12


def test_stop_keeps_what_was_written(
    steer: Callable, slow: None, until: Callable, listen: Callable, ask: Callable
) -> None:
    widget = steer(max_new_tokens=60)
    comm = listen(widget)
    assert until(lambda: len(widget.columns["edited"]["words"]) > 3)
    ask(widget, comm, {"id": 1, "kind": "stop"})
    widget.wait()
    written = widget.columns["edited"]["words"]
    assert 3 < len(written) < 60
    assert widget.columns["edited"]["state"] == "stopped"


def test_stop_says_nothing_of_a_column_that_had_come_to_its_end(
    steer: Callable, listen: Callable, ask: Callable
) -> None:
    widget = steer().wait()
    ask(widget, listen(widget), {"id": 1, "kind": "stop"})
    assert widget.wait().columns["edited"]["state"] == "done"


def test_a_slider_moved_while_it_writes_changes_what_comes_next(
    steer: Callable, slow: None, until: Callable, listen: Callable
) -> None:
    widget = steer(max_new_tokens=30)
    listen(widget)
    assert until(lambda: len(widget.columns["edited"]["words"]) > 3)
    kept = list(widget.columns["edited"]["words"])
    moved(widget, coefficient=4.0)
    widget.wait()
    whole = widget.columns["edited"]["words"]
    assert whole[: len(kept)] == kept
    assert whole != widget.columns["plain"]["words"]
    assert widget.columns["edited"]["mixed"] is True
    assert widget.columns["plain"]["mixed"] is False


def test_a_slider_moved_when_nothing_writes_starts_the_edited_column_anew(
    model: iv.Model, direction: iv.Direction, steer: Callable, listen: Callable, until: Callable
) -> None:
    widget = steer().wait()
    listen(widget)
    wanted = iv.generate(model, "A text", max_new_tokens=8, edits=[iv.Add(direction, -3.0)], hermetic=True).text
    for coefficient in (-1.0, -2.0, -3.0):
        moved(widget, coefficient=coefficient)
    assert until(lambda: widget.text() == wanted and widget.columns["edited"]["state"] == "done")
    assert widget.columns["edited"]["mixed"] is False


def test_a_run_that_fails_shows_why_and_does_not_stay_running(
    model: iv.Model, steer: Callable, listen: Callable, until: Callable
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("the device is gone")

    widget = steer(prompt="")
    listen(widget)
    handle = model.module.register_forward_pre_hook(fail)
    try:
        widget.set_state({"prompt": {"chat": False, "text": "A text", "before": []}})
        widget.do_run({})
        assert until(lambda: widget.columns["edited"]["state"] == "error")
        assert until(lambda: "the device is gone" in widget.status["message"])
    finally:
        handle.remove()
        widget.do_run({})


def test_another_prompt_is_written_by_the_next_run(steer: Callable, listen: Callable, ask: Callable) -> None:
    widget = steer().wait()
    comm = listen(widget)
    widget.set_state({"prompt": {"chat": False, "text": "Something else", "before": []}})
    assert widget.columns["plain"]["prompt"]["text"] == "A text"
    ask(widget, comm, {"id": 1, "kind": "run"})
    widget.wait()
    assert widget.columns["plain"]["prompt"]["text"] == "Something else"
    assert "".join(widget.columns["plain"]["prompt_words"]).endswith("Something else")


def test_a_prompt_that_cannot_be_read_is_refused_in_words(steer: Callable, listen: Callable, ask: Callable) -> None:
    widget = steer().wait()
    comm = listen(widget)
    widget.set_state({"prompt": {"chat": False, "text": " ", "before": []}})
    assert "the text is empty" in ask(widget, comm, {"id": 1, "kind": "run"})[0]["error"]
    widget.set_state({"prompt": {"chat": False, "text": "x" * 300, "before": []}})
    assert "longer than the context" in ask(widget, comm, {"id": 2, "kind": "run"})[0]["error"]
    assert widget.columns["plain"]["words"]


def test_a_chat_is_sent_as_messages(model: iv.Model, steer: Callable) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]
    widget = steer(prompt=messages).wait()
    assert "".join(widget.columns["plain"]["prompt_words"]) == "user: a\nassistant: b\nuser: c\nassistant: "
    assert widget.text("plain") == iv.generate(model, messages, max_new_tokens=8, hermetic=True).text


def test_every_token_but_the_newest_has_its_projection(
    model: iv.Model, direction: iv.Direction, steer: Callable
) -> None:
    widget = steer().wait()
    column = widget.columns["plain"]
    values = wire.unpack(column["values"])[0]
    assert len(values) == len(column["prompt_words"]) + len(column["words"])
    run = widget._columns["plain"].run
    acts = iv.capture(model, [*run.prompt_tokens[0], *run.tokens_so_far[0]], [direction.site])
    expected = iv.project(acts, direction).values[0]
    known = ~(values != values)
    assert known[:-1].all() and not known[-1]
    assert values[:-1] == pytest.approx(expected[:-1].numpy(), abs=1e-4)


def test_what_is_attached_is_named_and_left_out(model: iv.Model, direction: iv.Direction, steer: Callable) -> None:
    alone = steer().wait().text("plain")
    handle = iv.attach(model, [iv.Add(direction, 4.0)], name="always glad")
    try:
        widget = steer().wait()
        assert widget.text("plain") == alone
        assert widget.columns["attached"] == ["always glad"]
    finally:
        handle.detach()


def test_the_code_gives_the_same_text_in_a_fresh_process(tmp_path: Path) -> None:
    model = iv.open_model("pocket")
    raised, lowered = ["It was a great day", "The film was good"], ["It was an awful day", "The film was bad"]
    direction = iv.contrast(model, raised, lowered, site="blocks.3.resid", name="a “quoted” mood")
    edits = [
        iv.Add(direction, 3.0, where=iv.Where(schedule=iv.Decay(9.0))),
        iv.ProjectOut(direction, site="blocks.*.resid", where=iv.Where(scope="generated")),
    ]
    widget = iv.Steer(model, [direction], 'She said "no"\n', max_new_tokens=12, edits=edits).wait()
    script = tmp_path / "pasted.py"
    script.write_text(widget.code(), "utf-8")
    source = str(Path(iv.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": source, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run([sys.executable, script], capture_output=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode("utf-8") == widget.text() + "\n"


def test_a_recipe_holds_the_edits_as_they_stand(
    model: iv.Model, direction: iv.Direction, steer: Callable, tmp_path: Path
) -> None:
    widget = steer(edits=[iv.Add(direction, 2.0)], recipe_path=tmp_path / "mood")
    loaded = iv.Recipe.load(widget.save_recipe())
    assert [edit.label for edit in loaded.edits] == [edit.label for edit in widget.active_edits()]


def test_without_a_folder_there_is_nothing_to_save_to(steer: Callable) -> None:
    with pytest.raises(iv.WidgetError, match="recipe_path"):
        steer().save_recipe()


def test_the_dose_is_nothing_at_zero_and_its_texts_are_those_of_generate(
    model: iv.Model, direction: iv.Direction, steer: Callable
) -> None:
    widget = steer().compute_dose()
    dose = widget.dose[0]
    strengths = wire.unpack(dose["strengths"]).tolist()
    assert strengths == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    for name in ("effect", "cost", "random_effect", "random_cost"):
        values = wire.unpack(dose[name])
        assert values[4] == pytest.approx(0, abs=1e-6)
        assert values[0] != values[8]
    assert (wire.unpack(dose["cost"])[[0, 8]] > 0.001).all()
    assert len(dose["words"]) == 20
    for strength, column in zip(strengths, dose["texts"], strict=True):
        edits = [iv.Add(direction, strength)] if strength else []
        assert (
            "".join(column["words"]) == iv.generate(model, "A text", max_new_tokens=8, edits=edits, hermetic=True).text
        )


def test_a_direction_taken_out_is_measured_off_and_out(
    model: iv.Model, direction: iv.Direction, steer: Callable
) -> None:
    widget = steer(edits=[iv.ProjectOut(direction, site="blocks.*.resid")]).compute_dose()
    dose = widget.dose[0]
    assert wire.unpack(dose["strengths"]).tolist() == [0, 1]
    assert wire.unpack(dose["cost"])[0] == 0
    assert wire.unpack(dose["cost"])[1] > 0


def test_the_dose_counts_a_scope_as_generation_does(model: iv.Model, direction: iv.Direction) -> None:
    run = iv.generate(model, "A text", max_new_tokens=6, hermetic=True)
    run.wait()
    prompt, written = run.prompt_tokens[0], run.tokens_so_far[0]
    form = EditForm(0, coefficient=2.0, scope="generated")
    forced = doses.forced(model, torch.tensor([[*prompt, *written]]), len(prompt), [form.edit([direction])])
    plain = doses.forced(model, torch.tensor([[*prompt, *written]]), len(prompt), [])
    assert torch.allclose(forced[0], plain[0])
    assert not torch.allclose(forced[1], plain[1])
    assert plain.argmax(-1).tolist() == written


def test_the_raised_words_are_those_that_one_step_raises_in_fact(model: iv.Model, direction: iv.Direction) -> None:
    run = iv.generate(model, "the film was", max_new_tokens=6)
    run.wait()
    prompt, written = run.prompt_tokens[0], run.tokens_so_far[0]
    response = doses.measure(model, EditForm(0), [direction], prompt, written, 4.0)
    ids = torch.tensor([[*prompt, *written]])

    def odds() -> torch.Tensor:
        with torch.no_grad():
            return model.module(ids).logits[0, len(prompt) - 1 : -1].softmax(-1).mean(0)

    plain = odds()
    with iv.editing(model, [iv.Add(direction, 1.0)]):
        gain = odds() - plain
    raised = gain.topk(20)
    assert response.words == [token_word(model.tokenizer, int(i)) for i in raised.indices]
    one_step = response.effect[response.strengths.index(1.0)]
    assert one_step == pytest.approx(float(raised.values.sum()), abs=1e-5)
    assert one_step > 0


def test_a_dose_asked_for_by_the_browser_arrives(
    steer: Callable, listen: Callable, ask: Callable, until: Callable
) -> None:
    widget = steer().wait()
    comm = listen(widget)
    ask(widget, comm, {"id": 1, "kind": "dose", "edit": 0})
    assert until(lambda: widget.dose[0] is not None)
    assert until(lambda: widget.status["state"] == "ready")


def test_forms_and_edits_say_the_same(model: iv.Model, direction: iv.Direction, steer: Callable) -> None:
    edits = [
        iv.Add(direction, 8.0, unit="raw", where=iv.Where(scope="prompt")),
        iv.Add(direction, 1.0, site="blocks.*.resid", where=iv.Where(schedule=iv.Ramp(5))),
        iv.ProjectOut(direction, site="blocks.1.resid"),
    ]
    widget = steer(edits=edits)
    shown = widget.active_edits()
    assert [type(e) for e in shown] == [type(e) for e in edits]
    assert shown[0].direction.length(shown[0].coefficient) == pytest.approx(8.0)
    assert [e.where for e in shown] == [e.where for e in edits]
    assert [e.site for e in shown] == [e.site for e in edits]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": [{"role": "assistant", "content": "x"}]}, "whose last message is the user's"),
        ({"prompt": 7}, "a prompt is a text"),
        ({"directions": ["mood"]}, "holds Directions, not str"),
        ({"directions": None}, "holds Directions, not None; leave it out for none"),
        ({"directions": "mood"}, "holds Directions, not 'mood'"),
        ({"limit": "x"}, "limit is a finite number of steps above 0, not 'x'"),
        ({"limit": float("nan")}, "limit is .* not nan"),
        ({"limit": float("inf")}, "limit is .* not inf"),
        ({"limit": 0}, "limit is .* not 0"),
        ({"max_new_tokens": 0, "prompt": ""}, "max_new_tokens is a whole number, at least 1, not 0"),
        ({"max_new_tokens": "8"}, "max_new_tokens is .* not '8'"),
    ],
)
def test_what_steer_cannot_take_is_refused(options: dict, message: str, steer: Callable) -> None:
    with pytest.raises(iv.WidgetError, match=message):
        steer(**options)


def test_a_direction_of_another_width_is_refused_at_once(steer: Callable) -> None:
    narrow = iv.Direction.from_vector(torch.ones(5), "blocks.1.resid", name="narrow")
    with pytest.raises(
        iv.WidgetError, match=r"direction 'narrow' is 5 wide, and blocks.1.resid is \[batch, pos, d_model=32\]"
    ):
        steer(directions=[narrow])


def test_a_direction_over_all_heads_is_taken(steer: Callable) -> None:
    wide = iv.Direction.from_vector(torch.ones(32), "blocks.1.attn.heads", name="heads")
    widget = steer(directions=[wide], edits=[iv.Add(wide, 2.0)]).wait()
    assert widget.columns["edited"]["state"] == "done"


def test_half_a_character_in_a_prompt_is_refused(steer: Callable) -> None:
    for prompt in ("\ud800", [{"role": "user", "content": "\ud800"}]):
        with pytest.raises(iv.TextError, match="half a character"):
            steer(prompt=prompt)


def test_no_lock_is_held_while_a_dose_leaves(steer: Callable, listen: Callable) -> None:
    widget = steer().wait()
    comm, locked = listen(widget), []
    send = comm.send

    def noted(data: Any = None, **rest: Any) -> None:
        if "dose" in data.get("state", {}):
            locked.append(widget._lock.locked())
        send(data, **rest)

    comm.send = noted
    widget.compute_dose()
    assert locked == [False]


def test_a_dose_leaves_out_what_is_attached_to_the_read_out(
    model: iv.Model, direction: iv.Direction, steer: Callable
) -> None:
    words = steer().compute_dose().dose[0]
    push = iv.Direction.from_vector(torch.randn(model.vocab or 0, generator=torch.Generator().manual_seed(3)), "logits")
    bend = iv.Replace(torch.linspace(-9, 9, 32), site="final_norm")
    handle = iv.attach(model, [bend, iv.Add(push, 50.0)], name="loud")
    try:
        again = steer().compute_dose().dose[0]
    finally:
        handle.detach()
    assert again["words"] == words["words"] and again["effect"]["data"] == words["effect"]["data"]


def test_a_network_of_few_words_has_as_many_raised() -> None:
    odds = torch.randn(3, 12).log_softmax(-1)
    assert sorted(doses.raised_ids(odds, odds.flip(-1)).tolist()) == list(range(12))


def test_the_code_of_a_network_built_by_hand_leaves_its_opening_to_the_reader(
    model: iv.Model, direction: iv.Direction, steer: Callable
) -> None:
    widget = steer(edits=[iv.Add(direction, 2.0)]).wait()
    code = widget.code()
    assert "iv.open_model('" not in code
    assert "# This network was opened from a LlamaForCausalLM that code of your own built" in code
    given: dict[str, Any] = {"model": model}
    exec(code.replace("print(run.text)", ""), given)
    assert given["run"].text == widget.text()


def test_two_directions_of_one_name_are_refused(direction: iv.Direction, steer: Callable) -> None:
    with pytest.raises(iv.WidgetError, match="two directions are named 'good mood'"):
        steer(directions=[direction, direction.named("good mood")])


def test_edits_that_no_row_can_show_are_refused(model: iv.Model, direction: iv.Direction, steer: Callable) -> None:
    with pytest.raises(iv.WidgetError, match="no positions or steps"):
        steer(edits=[iv.Add(direction, 1.0, where=iv.Where(positions=0))])
    for where in (iv.Where(text="film"), iv.Where(special=False), iv.Where(condition=direction.reading() > 1)):
        with pytest.raises(iv.WidgetError, match="no texts, roles, tokens or conditions"):
            steer(edits=[iv.Add(direction, 1.0, where=where)])
    with pytest.raises(iv.WidgetError, match="no schedules but ramp and decay"):
        steer(edits=[iv.Add(direction, 1.0, where=iv.Where(schedule=iv.Pulse(1, 2)))])
    with pytest.raises(iv.WidgetError, match="no heads or neurons"):
        steer(edits=[iv.ProjectOut(direction, neurons=3)])
    with pytest.raises(iv.WidgetError, match="no coefficients of rows"):
        steer(edits=[iv.Add(direction, [1.0, 2.0])])
    with pytest.raises(iv.WidgetError, match="no several directions in one edit"):
        steer(edits=[iv.ProjectOut([direction, direction])])
    with pytest.raises(iv.WidgetError, match="not Replace"):
        steer(edits=[iv.Replace(direction.vector, site="blocks.0.resid")])
