"""Row 11: capture what leaves every block of a network of GPT-2's size, to host memory."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks import networks
from benchmarks.gate import same_tensors
from benchmarks.pairing import Contender, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from benchmarks.ways import load_peers, with_hooks, with_innerview

BATCH, POS = 1, 512
TARGET = 1.05
FORWARD, CUT = "plain forward", "forward to the last block"


def row(rounds: int | None) -> Row:
    """Ours, a plain hook with copies and the peers, against the forward that keeps nothing."""
    module = networks.gpt2()
    ids = networks.ids(module, BATCH, POS)
    limits = [
        Contender(FORWARD, "limit", with_hooks.whole(module, ids)),
        Contender(CUT, "limit", with_hooks.cut(module, ids, module.config.num_hidden_layers - 1)),
    ]
    capturers, missing = _capturers(module, ids)
    gate = _checked(limits[1], capturers)
    timings = measure([*limits, *capturers], rounds=rounds or 40)
    name = f"capture of blocks.*.resid, {BATCH} × {POS} tokens, GPT-2's size, random float32 weights, threads: {torch.get_num_threads()}"
    return Row(
        "11", "Capture every layer to host memory", [Workload(name, gate, timings, claims(timings))], NOTES, missing
    )


NOTES = [
    "The plain forward ends with the head over all tokens; what is captured is there behind the last block, so the forward cut there is the stricter limit.",
    "On a CPU the activations are in host memory when they are computed; the copies through pinned memory show on a GPU only.",
    "The plain hook and interp-engine copy; nnsight and TransformerLens keep; innerview keeps, and looks behind the forward whether one was written over.",
    "TransformerLens runs its bridge, which computes attention weights eagerly (its default).",
    "interp-engine's `capture` cannot stop: it runs the whole forward, output head included.",
]


def _capturers(module: PreTrainedModel, ids: Tensor) -> tuple[list[Contender], dict[str, str]]:
    """Everybody who captures what leaves every block; and the peers that cannot be imported."""
    peers, missing = load_peers()
    return [
        Contender("plain hook with copies", "peer", with_hooks.capture_all(module, ids)),
        Contender("innerview", "ours", with_innerview.capture_all(module, ids)),
        *[Contender(peer.NAME, "peer", peer.capture_all(networks.twin(module), ids)) for peer in peers.values()],
    ], missing


def _checked(cut: Contender, capturers: list[Contender]) -> str:
    """All layers alike from everybody, and the last one what the forward to the last block returns."""
    gate = same_tensors(capturers, exact=("innerview",))
    last = Contender("innerview's last layer", "ours", lambda: capturers[1].call()[-1])
    same_tensors([cut, last], exact=(last.name,))
    return f"{gate}; the last one equal to what the forward to the last block returns"


def claims(timings: Timings) -> list[Claim]:
    """Ours over both limits, which have a target; each peer over ours, and what each adds to the forward."""
    peers = [c.name for c in timings.contenders if c.role == "peer"]
    return [
        Claim(f"innerview's time ÷ the {FORWARD}'s", timings.ratio("innerview", FORWARD), "×", TARGET),
        Claim(f"innerview's time ÷ the {CUT}'s", timings.ratio("innerview", CUT), "×", TARGET),
        *[Claim(f"time of {name} ÷ innerview's", timings.ratio(name, "innerview"), "×") for name in peers],
    ]


if __name__ == "__main__":
    run(row)
