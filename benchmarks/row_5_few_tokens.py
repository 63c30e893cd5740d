"""Row 5: encoding 1 and 16 tokens by 131,072 features, where reading the weights is all there is."""

import innerview as iv
from benchmarks.encoders import Drawn, checked, workload
from benchmarks.pairing import Contender
from benchmarks.result import Row, Workload
from benchmarks.row import run
from benchmarks.ways import with_peers

N_FEATURES, D, L0, K = 131_072, 768, 64, 64
TARGET = 1 / 0.85


def row(rounds: int | None) -> Row:
    """Ours against SAELens and sparsify, and one sum over the float32 weights."""
    workloads = [_few(n, rounds) for n in (1, 16)]
    notes = [
        "The limit is one sum over the float32 weight, which reads it once. A screen reads a quarter of those bytes, so it may be below.",
        "The weight's rounded copy is made at the first call, and not in these times.",
    ]
    return Row("5", "Encoding 1 and 16 tokens, 131k features", workloads, notes, with_peers.load()[1])


def _few(n_tokens: int, rounds: int | None) -> Workload:
    drawn = Drawn.of(n_tokens, N_FEATURES, D, L0)
    jump, top = drawn.dictionary(iv.JumpReLU()), drawn.dictionary(iv.TopK(K))
    found, _ = with_peers.load()
    peers: list[Contender] = []
    if "sae_lens" in found:
        theirs = with_peers.sae_lens_jump_relu(drawn.weight, drawn.threshold)
        peers.append(Contender("SAELens, JumpReLU", "peer", lambda: theirs(drawn.x)))
    gate = checked(drawn, jump, peers)
    if "sparsify" in found:
        sparse = with_peers.sparsify_top_k(drawn.weight, K)
        peers.append(Contender("sparsify, TopK", "peer", lambda: sparse(drawn.x)))
    contenders = [
        Contender("reading the weights", "limit", lambda: drawn.weight.sum()),
        Contender("innerview, JumpReLU", "ours", lambda: jump.encode(drawn.x)),
        Contender("innerview, TopK", "ours", lambda: top.encode(drawn.x)),
        *peers,
    ]
    targets = [(one, "reading the weights", TARGET) for one in ("innerview, JumpReLU", "innerview, TopK")]
    targets += [(f"innerview, {peer.name.split(', ')[1]}", peer.name, None) for peer in peers]
    return workload(drawn.name, f"{gate}; {checked(drawn, top)}", contenders, rounds, targets)


if __name__ == "__main__":
    run(row)
