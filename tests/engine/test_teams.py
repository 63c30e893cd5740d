"""A thread that hands work over keeps no team of OpenMP's threads, and computes on as before."""

import threading
from pathlib import Path

import pytest
import torch

from innerview import teams


def tasks() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists the threads of a process")
def test_a_team_ends_and_the_next_operation_makes_one_anew() -> None:
    if teams._pause() is None:
        pytest.skip("torch brings no OpenMP of GNU's along here")
    counts: list[int] = []
    sums: list[torch.Tensor] = []

    def work() -> None:
        torch.set_num_threads(3)
        for _ in range(2):
            sums.append(torch.arange(2_000_000.0).sin().sum())
            counts.append(tasks())
            teams.let_go()
            counts.append(tasks())
        assert torch.get_num_threads() == 3

    threads = torch.get_num_threads()
    worker = threading.Thread(target=work)
    worker.start()
    worker.join()
    torch.set_num_threads(threads)
    before, after, again, last = counts
    assert before - after == 2 and again == before and last == after
    assert torch.equal(sums[0], sums[1])


def test_one_thread_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    monkeypatch.setattr(teams, "_pause", lambda: called.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    teams.let_go()
    assert called == []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    teams.let_go()
    assert called == [1]
