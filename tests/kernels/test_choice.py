"""What is kept of a weight goes with it, and the loops are woken when that has paid."""

import gc

import pytest
import torch

from innerview.kernels import work
from innerview.kernels.derived import derived
from innerview.kernels.path import Task


def test_what_is_made_of_a_weight_is_made_once_and_goes_with_it() -> None:
    weight, made = torch.ones(3, 2), []

    def make(one: torch.Tensor) -> list[float]:
        made.append(float(one.sum()))
        return made[-1:]

    first = derived(weight, "sum", make)
    assert derived(weight, "sum", make) is first and made == [6.0]
    weight.mul_(2)
    assert derived(weight, "sum", make) == [12.0] and made == [6.0, 12.0]
    assert derived(weight.clone(), "sum", make) == [12.0] and len(made) == 3


def test_what_is_made_of_other_tensors_too_follows_them() -> None:
    weight, bias, made = torch.ones(3, 2), torch.ones(3), []
    for _ in range(2):
        derived(weight, "both", made.append, (bias,))
    bias.add_(1)
    derived(weight, "both", made.append, (bias,))
    derived(weight, "both", made.append, (torch.ones(3),))
    assert len(made) == 3


def test_nothing_is_kept_of_a_weight_that_trains() -> None:
    weight, made = torch.ones(3, 2, requires_grad=True), []
    for _ in range(2):
        derived(weight, "sum", made.append)
    assert len(made) == 2


def test_what_is_kept_does_not_hold_its_weight() -> None:
    kept = derived(weight := torch.ones(3, 2), "held", lambda one: torch.zeros(1))
    before = sum(one is kept for one in gc.get_objects())
    del weight
    gc.collect()
    assert derived(torch.ones(3, 2), "held", lambda one: torch.ones(1)) is not kept and before > 0


def test_the_loops_are_woken_when_the_calls_without_them_have_cost_as_much(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "is_awake", lambda: False)
    patience = work.Patience()
    assert patience.waking_s() == work.WAKE_S
    patience.wait(1.0, 0.25 + patience.waking_s())
    assert patience.waking_s() == work.WAKE_S - 0.75
    patience.wait(0.1, 0.2 + patience.waking_s())
    assert patience.waking_s() == work.WAKE_S - 0.75
    patience.wait(9.0, 0.1 + patience.waking_s())
    assert patience.waking_s() == 0.0
    task = Task(1, 64, 64, torch.float32, "cpu", "Above")
    monkeypatch.setattr(work, "PATIENCE", patience)
    woken = work.screened_seconds(task, "float32")
    monkeypatch.setattr(work, "PATIENCE", work.Patience())
    assert work.screened_seconds(task, "float32") == pytest.approx(woken + work.WAKE_S)
