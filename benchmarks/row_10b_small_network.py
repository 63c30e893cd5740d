"""Row 10b: a small network, where the library's own cost shows: capture one layer, and one edit at each decoded token."""

import torch
from transformers import PreTrainedModel

from benchmarks import networks
from benchmarks.gate import same_ids, same_tensors
from benchmarks.pairing import Contender, Span, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from benchmarks.row_10_capture_one_layer import capturers
from benchmarks.ways import load_peers, with_hooks, with_innerview

BATCH, POS, LAYER, TOKENS = 1, 16, 3, 32
TARGET_US = 50.0


def row(rounds: int | None) -> Row:
    """Both workloads on pocket, against a plain hook."""
    module = networks.pocket()
    # One thread: a network this small loses more to the second than it gains.
    torch.set_num_threads(1)
    ids = networks.ids(module, BATCH, POS)
    capture, missing = _capture(module, ids, rounds or 200)
    decode = _decode(module, ids, rounds or 40)
    return Row("10b", "The same on pocket, and one edit at each decoded token", [capture, decode], NOTES, missing)


NOTES = [
    "One thread. The limit of an edit is a plain hook on transformers' `generate`; innerview decodes by a loop of its own that makes the same calls of the network, in a worker thread.",
    "interp-engine decodes by a loop of its own around the forward, which does less at each token than transformers' `generate`.",
    "TransformerLens is left out of decoding: its `generate` is another loop over eager attention.",
]


def _capture(module: PreTrainedModel, ids: torch.Tensor, rounds: int) -> tuple[Workload, dict[str, str]]:
    contenders, missing = capturers(module, ids, LAYER)
    gate = same_tensors(contenders, exact=("innerview", "plain hook"))
    timings = measure(contenders, rounds=rounds, warm_up=10)
    peers = [c.name for c in contenders if c.role == "peer" and c.name != "plain hook"]
    found = [
        Claim("innerview beyond a plain hook", _microseconds(timings, "innerview"), "µs", TARGET_US),
        *[Claim(f"{name} beyond a plain hook", _microseconds(timings, name), "µs") for name in peers],
    ]
    return Workload(f"capture of blocks.{LAYER}.resid, {BATCH} × {POS} tokens, pocket", gate, timings, found), missing


def _decode(module: PreTrainedModel, ids: torch.Tensor, rounds: int) -> Workload:
    delta = networks.delta(module)
    peers, _ = load_peers()
    contenders = [
        Contender("plain hook", "limit", with_hooks.decode(module, ids, LAYER, delta, TOKENS)),
        Contender("innerview", "ours", with_innerview.decode(module, ids, LAYER, delta, TOKENS)),
        *[
            Contender(peer.NAME, "peer", peer.decode(networks.twin(module), ids, LAYER, delta, TOKENS))
            for peer in peers.values()
            if hasattr(peer, "decode")
        ],
    ]
    gate = same_ids(contenders, length=TOKENS)
    timings = measure(contenders, rounds=rounds)
    found = [
        Claim(
            f"{c.name} beyond a plain hook, a token",
            _microseconds(timings, c.name, TOKENS),
            "µs",
            TARGET_US if c.role == "ours" else None,
        )
        for c in contenders[1:]
    ]
    return Workload(
        f"{TOKENS} greedy tokens behind {POS}, one Add at blocks.{LAYER}.resid at each, pocket", gate, timings, found
    )


def _microseconds(timings: Timings, name: str, each: int = 1) -> Span:
    return timings.difference(name, "plain hook", 1e6 / each)


if __name__ == "__main__":
    run(row)
