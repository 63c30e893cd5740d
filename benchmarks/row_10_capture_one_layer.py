"""Row 10: capture one layer of a network of GPT-2's size, stopping there."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import networks
from benchmarks.gate import same_tensors
from benchmarks.pairing import Contender, Span, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from benchmarks.ways import load_peers, with_hooks, with_innerview

BATCH, POS, LAYER = 1, 128, 6
TARGET = 1.02


def row(rounds: int | None) -> Row:
    """Ours, a plain hook and the peers, against the network cut behind the same block."""
    module = networks.gpt2()
    ids = networks.ids(module, BATCH, POS)
    contenders, missing = capturers(module, ids, LAYER)
    gate = same_tensors(contenders, exact=("innerview", "plain hook"))
    timings = measure(contenders, rounds=rounds or 60)
    name = f"capture of blocks.{LAYER}.resid, {BATCH} × {POS} tokens, GPT-2's size, random float32 weights, threads: {torch.get_num_threads()}"
    return Row(
        "10", "Capture one layer, stopping there", [Workload(name, gate, timings, claims(timings))], NOTES, missing
    )


NOTES = [
    "The limit is the forward of the network cut behind that block, called with ids alone.",
    "TransformerLens runs its bridge, which computes attention weights eagerly (its default).",
    "interp-engine's `capture` cannot stop: it runs the whole forward, output head included.",
    "Each peer has its own copy of the modules over the same weights, as nnsight and TransformerLens rewrite the modules they are given.",
]


def capturers(module: PreTrainedModel, ids: Tensor, layer: int) -> tuple[list[Contender], dict[str, str]]:
    """Everybody who captures what leaves a block, the limit first; and the peers that cannot."""
    peers, missing = load_peers()
    contenders = [
        Contender("cut network", "limit", with_hooks.cut(module, ids, layer)),
        Contender("innerview", "ours", with_innerview.capture(module, ids, layer)),
        Contender("plain hook", "peer", with_hooks.capture(module, ids, layer)),
    ]
    for peer in peers.values():
        call: Callable[[], Tensor] = peer.capture(networks.twin(module), ids, layer)
        contenders.append(Contender(peer.NAME, "peer", call))
    return contenders, missing


def claims(timings: Timings) -> list[Claim]:
    """Ours over the limit, which has a target; each peer over ours."""
    over: Span = timings.ratio("innerview", "cut network")
    peers = [c.name for c in timings.contenders if c.role == "peer"]
    rest = [Claim(f"time of {name} ÷ innerview's", timings.ratio(name, "innerview"), "×") for name in peers]
    return [Claim("innerview's time ÷ the limit's", over, "×", TARGET), *rest]


if __name__ == "__main__":
    run(row)
