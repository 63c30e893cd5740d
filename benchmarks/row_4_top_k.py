"""Row 4: TopK encoding into codes, k 64, d 768, 24,576 features."""

import innerview as iv
from benchmarks.encoders import Drawn, checked, workload
from benchmarks.pairing import Contender
from benchmarks.result import Row
from benchmarks.row import run
from benchmarks.ways import with_peers

N_TOKENS, N_FEATURES, D, K = 512, 24_576, 768, 64
TARGETS = {"linear + torch.topk": 1 / 1.2, "the product": 1 / 0.85}


def row(rounds: int | None) -> Row:
    """Ours against torch's, SAELens', sparsify's and dictionary_learning's, and the float32 product alone."""
    drawn = Drawn.of(N_TOKENS, N_FEATURES, D, K)
    ours = drawn.dictionary(iv.TopK(K))
    found, missing = with_peers.load()
    dense: list[Contender] = []
    if "sae_lens" in found:
        theirs = with_peers.sae_lens_top_k(drawn.weight, K)
        dense.append(Contender("SAELens", "peer", lambda: theirs(drawn.x)))
    if "dictionary_learning" in found:
        learned = with_peers.dictionary_learning_top_k(drawn.weight, K)
        # It takes a decoder's bias of zeros off first.
        dense.append(Contender("dictionary_learning", "peer", lambda: learned(drawn.x)))
    contenders = [
        Contender("the product", "limit", lambda: drawn.x @ drawn.weight.T),
        Contender("innerview", "ours", lambda: ours.encode(drawn.x)),
        Contender("linear + torch.topk", "peer", lambda: (drawn.x @ drawn.weight.T).topk(K, dim=-1, sorted=False)),
        *dense,
    ]
    if "sparsify" in found:
        sparse = with_peers.sparsify_top_k(drawn.weight, K)
        contenders.append(Contender("sparsify", "peer", lambda: sparse(drawn.x)))
    gate = checked(drawn, ours, dense)
    others = [(one.name, None) for one in contenders if one.role == "peer" and one.name not in TARGETS]
    targets = [("innerview", name, target) for name, target in (*TARGETS.items(), *others)]
    done = workload(f"TopK {K}, {drawn.name}", gate, contenders, rounds, targets)
    choice = iv.kernels.explain(ours, drawn.x)
    notes = [
        f"innerview's path: {choice.path}: {choice.why}.",
        "Targets are ours ÷ theirs: 0.833× is 1.2 times as fast. flashinfer's topk needs a GPU.",
    ]
    return Row("4", "TopK codes, k 64", [done], notes, missing)


if __name__ == "__main__":
    run(row)
