"""Row 1: JumpReLU encoding into codes, d 2304, 16,384 features, L0 70."""

import torch

import innerview as iv
from benchmarks.encoders import Drawn, checked, workload
from benchmarks.pairing import Contender
from benchmarks.result import Row, Workload
from benchmarks.row import run
from benchmarks.ways import with_peers

N_TOKENS, N_FEATURES, D, L0 = 512, 16_384, 2304, 70
TARGETS = {"SAELens": 1 / 1.3, "compiled, then nonzero": 1 / 1.1, "the product": 1 / 0.9}


def row(rounds: int | None) -> Row:
    """Ours against SAELens', the same compiled, and the float32 product alone."""
    drawn = Drawn.of(N_TOKENS, N_FEATURES, D, L0)
    missing = with_peers.load()[1]
    return Row("1", "JumpReLU codes, d 2304, 16k features", [encoding(drawn, rounds, TARGETS)], notes(drawn), missing)


def encoding(drawn: Drawn, rounds: int | None, targets: dict[str, float]) -> Workload:
    """JumpReLU codes of some tokens by everybody."""
    ours = drawn.dictionary(iv.JumpReLU())
    plain = _plain(drawn.weight.T.contiguous(), drawn.threshold)
    compiled = torch.compile(plain)
    contenders = [
        Contender("the product", "limit", lambda: drawn.x @ drawn.weight.T),
        Contender("innerview", "ours", lambda: ours.encode(drawn.x)),
        Contender("compiled, then nonzero", "peer", lambda: _sparse(compiled(drawn.x))),
    ]
    dense = [Contender("plain PyTorch", "peer", lambda: plain(drawn.x))]
    if "sae_lens" in with_peers.load()[0]:
        theirs = with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
        dense = [Contender("SAELens", "peer", lambda: theirs(drawn.x))]
    gate = checked(drawn, ours, dense)
    name = dense[0].name
    limits = [("innerview", one, target) for one, target in targets.items() if one != "SAELens"]
    return workload(
        f"JumpReLU, L0 {drawn.l0}, {drawn.name}", gate, [*contenders, *dense], rounds,
        [("innerview", name, targets["SAELens"]), *limits],
    )  # fmt: skip


def notes(drawn: Drawn) -> list[str]:
    """What a reader must know."""
    choice = iv.kernels.explain(drawn.dictionary(iv.JumpReLU()), drawn.x)
    return [
        f"innerview's path: {choice.path}: {choice.why}.",
        "SAELens gives dense codes, and its encode is timed without taking the active ones out of them; compiled is the same computation in plain PyTorch through torch.compile, and nonzero.",
        "Targets are ours ÷ theirs: 0.769× is 1.3 times as fast. The limit is the float32 product; a screen may be below it.",
    ]


def _plain(weight, threshold: float):
    def encode(x):
        pre = x @ weight
        return pre.relu() * (pre > threshold)

    return encode


def _sparse(dense):
    places = dense.nonzero(as_tuple=True)
    return places, dense[places]


if __name__ == "__main__":
    run(row)
