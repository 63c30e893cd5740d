"""Row 8: decoding from codes, k 64 of 65,536 features, d 768."""

import torch

import innerview as iv
from benchmarks.encoders import workload
from benchmarks.gate import same_tensors
from benchmarks.pairing import Contender
from benchmarks.result import Row
from benchmarks.row import run
from benchmarks.ways import with_peers

N_TOKENS, N_FEATURES, D, K = 512, 65_536, 768, 64


def row(rounds: int | None) -> Row:
    """Ours against the dense product, embedding_bag and sparsify's, and the gathering of the rows alone."""
    drawn = torch.Generator().manual_seed(0)
    decoder = torch.randn(N_FEATURES, D, generator=drawn)
    features = torch.stack([torch.randperm(N_FEATURES, generator=drawn)[:K].sort().values for _ in range(N_TOKENS)])
    values = torch.rand(N_TOKENS, K, generator=drawn) + 0.1
    tokens = torch.arange(N_TOKENS).repeat_interleave(K)
    codes = iv.Codes(tokens, features.flatten(), values.flatten(), (N_TOKENS,), N_FEATURES)
    weights = iv.Weights(torch.zeros(N_FEATURES, 1), torch.zeros(N_FEATURES), decoder, torch.zeros(D))
    own = iv.Dictionary(weights, iv.TopK(K), iv.Manifest(False, iv.Normalisation(), site="x", site_out="y"))
    dense = codes.dense()
    found, missing = with_peers.load()
    contenders = [
        Contender("innerview", "ours", lambda: own.decode(codes)),
        Contender("dense", "peer", lambda: dense @ decoder),
        Contender(
            "embedding_bag",
            "peer",
            lambda: torch.nn.functional.embedding_bag(features, decoder, per_sample_weights=values, mode="sum"),
        ),
    ]
    if "sparsify" in found:
        theirs = with_peers.sparsify_decode(decoder)
        contenders.append(Contender("sparsify", "peer", lambda: theirs(features, values)))
    gate = same_tensors(contenders, exact=())
    flat = features.flatten()
    contenders.append(Contender("gathering the rows", "limit", lambda: decoder[flat]))
    targets = [("innerview", "dense", 1 / 10), ("innerview", "embedding_bag", 1.0)]
    targets += [("innerview", one.name, None) for one in contenders[3:]]
    name = f"k {K}, {N_TOKENS} tokens, d {D}, {N_FEATURES:,} features, float32, threads: {torch.get_num_threads()}"
    done = workload(name, gate, contenders, rounds, targets)
    notes = [
        "The dense product has its dense codes made already. Gathering the rows writes them too, which a sum need not."
    ]
    return Row("8", "Decoding from codes, k 64, 65k features", [done], notes, missing)


if __name__ == "__main__":
    run(row)
