"""TrainingMonitor: it sees the training as it runs, stops it, and never calls an ended one running."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch

import innerview as iv
from innerview.dictionaries.training.live import LiveTraining
from innerview.opened import opened
from innerview.widgets import wire

SETTINGS = iv.TrainingSettings(n_tokens=2000, batch_tokens=50, report_every=5, buffer_tokens=100)


def texts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(3)
    return [[0, *row] for row in torch.randint(3, 90, (40, 11), generator=generator).tolist()]


def train(model: iv.Model) -> Any:
    spec = iv.DictionarySpec("blocks.0.resid", iv.TopK(4), n_features=32)
    return iv.train_dictionaries(model, [spec], texts=texts(), settings=SETTINGS, progress=False)


def test_it_waits_for_a_training_and_shows_its_curves_and_examples(model: iv.Model) -> None:
    monitor = iv.TrainingMonitor()
    assert monitor.progress is None and "no training has begun" in monitor.plain_text()
    trained = train(model)
    monitor._writer.wait()
    assert monitor.progress == {"step": 40, "tokens": 2000, "state": "done", "is_stopping": False}
    (curves,) = monitor.curves
    values = wire.unpack(curves["values"])
    history = trained.histories[0]
    assert curves["names"] == ["tokens", "loss", "l0", "fvu", "dead"] and values.shape == (5, len(history))
    assert values[1].tolist() == pytest.approx([point["loss"] for point in history], rel=1e-5)
    (features,) = monitor.examples
    example = next(one["examples"][0] for one in features if one["examples"])
    words = {model.tokenizer.decode([i]) for row in texts() for i in row}
    assert example["words"][example["place"]] in words
    monitor.close()


def test_its_button_stops_the_training_and_what_is_trained_is_kept(
    model: iv.Model, listen: Callable, ask: Callable
) -> None:
    monitor = iv.TrainingMonitor()
    comm = listen(monitor)
    answers: list[Any] = []

    def press(live: LiveTraining) -> None:
        if live.step >= 10 and not answers:
            pressed = threading.Thread(target=lambda: answers.extend(ask(monitor, comm, {"id": 1, "kind": "stop"})))
            pressed.start()
            pressed.join(20)

    end = opened.listen(lambda kind, thing: thing.listen(press) if kind == "training" else None)  # type: ignore[attr-defined]
    try:
        trained = train(model)
    finally:
        end()
    monitor._writer.wait()
    assert answers == [{"id": 1, "ok": {"step": 10}}]
    assert monitor.progress["state"] == "stopped" and trained.tokens == 500
    (refused,) = ask(monitor, comm, {"id": 2, "kind": "stop"})
    assert "no training runs" in refused["error"]
    monitor.close()


def test_a_training_that_fails_is_not_called_running(model: iv.Model) -> None:
    monitor = iv.TrainingMonitor()
    spec = iv.DictionarySpec(
        "blocks.0.resid", iv.TopK(4), n_features=32, optimization=iv.Optimization(learning_rate=1e30)
    )
    with pytest.raises(iv.DictionaryError, match="take a smaller learning rate"):
        iv.train_dictionaries(model, [spec], texts=texts(), settings=SETTINGS, progress=False)
    monitor._writer.wait()
    assert monitor.progress["state"] == "failed"
    monitor.close()


def test_a_long_training_sends_few_points_and_always_the_last() -> None:
    live = LiveTraining((), 10, 1000, "none")
    live.histories = [[{"tokens": float(i), "loss": 1.0} for i in range(10_001)]]
    monitor = iv.TrainingMonitor(live)
    monitor._writer.wait()
    tokens = wire.unpack(monitor.curves[0]["values"])[0]
    assert len(tokens) <= 400 and tokens[-1] == 10_000


def test_a_monitor_that_nobody_holds_is_not_held_by_what_it_watched(model: iv.Model) -> None:
    monitor = iv.TrainingMonitor()
    monitor.close()
    before = len(opened._listeners)
    del monitor
    gc.collect()
    assert len(opened._listeners) <= before


def test_what_is_no_training_is_refused() -> None:
    with pytest.raises(iv.WidgetError, match="watches a training under way, not str"):
        iv.TrainingMonitor("training")  # type: ignore[arg-type]
