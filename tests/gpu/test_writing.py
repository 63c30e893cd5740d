"""Texts written on a GPU by compiled code whose graphs are replayed: as the network writes them, with edits that change nothing compiled."""

import pytest
import torch
import torch._dynamo
from torch._dynamo.utils import counters

import innerview as iv
from tests.networks import direction, opened, ragged

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="no CUDA device on this machine: graphs are replayed on one only"
    ),
]


def on_gpu(family: str) -> iv.Model:
    model = opened(family, layers=2)
    model.module.to("cuda")
    return model


def tokens(network: iv.Model | iv.Compiled, prompt: list[list[int]], edits: list[iv.Edit]) -> list[list[int]]:
    run = iv.generate(network, prompt, edits=edits, max_new_tokens=12)
    run.wait()
    assert run.decoder == ("compiled" if isinstance(network, iv.Compiled) else "own loop")
    return run.tokens_so_far


@pytest.mark.parametrize("mode", [None, "reduce-overhead"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_replayed_graphs_write_what_the_network_writes(family: str, mode: str | None) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = on_gpu(family)
    cases = [
        (ragged(lengths), edits)
        for lengths in ((5, 5), (7, 3), (2, 9))
        for edits in ([], [iv.Add(direction(), 0.5)], [iv.ProjectOut(direction())], [iv.Add(direction(), -2.0)])
    ]
    wanted = [tokens(model, rows, edits) for rows, edits in cases]
    live = iv.compiled(model, ["blocks.1.resid"], rows=2, tokens=16, mode=mode)
    assert [tokens(live, rows, edits) for rows, edits in cases] == wanted
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    if mode is not None:
        assert not counters["inductor"]["cudagraph_skips"]
