"""Row 12: greedy decoding with one edit at each token, a network of GPT-2's size, one row and eight."""

import torch
from transformers import PreTrainedModel

from benchmarks import networks
from benchmarks.gate import other_ids, same_ids
from benchmarks.pairing import Contender, Timings, measure
from benchmarks.result import Claim, Row, Workload
from benchmarks.row import run
from benchmarks.ways import load_peers, with_compile, with_hooks, with_innerview

BATCHES, POS, TOKENS, LAYER = (1, 8), 16, 16, 6
# Long enough to change what a network of random weights writes.
LENGTH = 20.0
# The table asks to be 1.2 times as fast as the plain hook, and to reach 0.98 of the unedited speed.
TARGET_HOOK, TARGET_LIMIT = round(1 / 1.2, 3), round(1 / 0.98, 3)
LIMIT, PLAIN, HOOK, COMPILED = "unedited, compiled", "unedited", "plain hook", "innerview, compiled"


def row(rounds: int | None) -> Row:
    """Ours, a plain hook on transformers' `generate` and the peers, against unedited decoding."""
    module = networks.gpt2()
    workloads, missing = [], {}
    for batch in BATCHES:
        workload, missing = _decode(module, batch, rounds or 20)
        workloads.append(workload)
    return Row("12", "Steered greedy decoding", workloads, NOTES, missing)


NOTES = [
    "The limit is a static cache and `torch.compile` by hand, nothing edited and no tap put in; the prompt is read uncompiled, as by innerview.",
    "`innerview` decodes by a loop of its own around the network; `innerview, compiled` is `iv.generate` of what `iv.compiled` made.",
    "Compiling itself is not timed: it takes a minute or more here, once for each number of rows and bucket of lengths.",
    "interp-engine decodes one row by a loop of its own around the forward, which does less at each token than `generate`; eight rows are written one after another.",
    "TransformerLens is left out: its `generate` is another loop over eager attention.",
]


def _decode(module: PreTrainedModel, batch: int, rounds: int) -> tuple[Workload, dict[str, str]]:
    ids, delta = networks.ids(module, batch, POS), networks.delta(module, LENGTH)
    peers, missing = load_peers()
    limits = [
        Contender(LIMIT, "limit", with_compile.unedited(networks.twin(module), ids, TOKENS)),
        Contender(PLAIN, "peer", with_hooks.unedited(module, ids, TOKENS)),
    ]
    edited = [
        Contender(HOOK, "peer", with_hooks.decode(module, ids, LAYER, delta, TOKENS)),
        Contender("innerview", "ours", with_innerview.decode(module, ids, LAYER, delta, TOKENS)),
        Contender(
            COMPILED,
            "ours",
            with_innerview.decode_compiled(
                networks.twin(module), ids, LAYER, with_innerview.added(LAYER, delta), TOKENS
            ),
        ),
        *[
            Contender(peer.NAME, "peer", peer.decode(networks.twin(module), ids, LAYER, delta, TOKENS))
            for peer in peers.values()
            if hasattr(peer, "decode")
        ],
    ]
    gate = f"{same_ids(limits, length=TOKENS)} that edit nothing; {same_ids(edited, length=TOKENS)} that edit, {other_ids(edited[0], limits[1])}"
    timings = measure([*limits, *edited], rounds=rounds, warm_up=2)
    name = (
        f"{batch} × {TOKENS} greedy tokens behind {POS}, one Add at blocks.{LAYER}.resid at each, GPT-2's size, random float32 weights, "
        f"threads: {torch.get_num_threads()}"
    )
    return Workload(name, gate, timings, claims(timings)), missing


def claims(timings: Timings) -> list[Claim]:
    """Ours over the limit and over a plain hook, which have targets; the other peers over ours; what ours costs a token."""
    others = [c.name for c in timings.contenders if c.role == "peer" and c.name not in (HOOK, PLAIN)]
    return [
        Claim(f"{COMPILED}: time ÷ {LIMIT}", timings.ratio(COMPILED, LIMIT), "×", TARGET_LIMIT),
        Claim(f"{COMPILED}: time ÷ the plain hook's", timings.ratio(COMPILED, HOOK), "×", TARGET_HOOK),
        Claim("innerview: time ÷ the plain hook's", timings.ratio("innerview", HOOK), "×"),
        Claim("innerview: time ÷ unedited", timings.ratio("innerview", PLAIN), "×"),
        *[Claim(f"time of {name} ÷ {COMPILED}", timings.ratio(name, COMPILED), "×") for name in others],
        Claim("plain hook beyond unedited, a step", timings.difference(HOOK, PLAIN, 1e6 / TOKENS), "µs"),
        Claim("innerview beyond unedited, a step", timings.difference("innerview", PLAIN, 1e6 / TOKENS), "µs"),
    ]


if __name__ == "__main__":
    run(row)
