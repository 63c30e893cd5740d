"""Row 7: 128 chosen features of 131,072, d 4096."""

import torch

import innerview as iv
from benchmarks.encoders import Drawn, workload
from benchmarks.gate import same_tensors
from benchmarks.pairing import Contender
from benchmarks.result import Row
from benchmarks.row import run

N_TOKENS, N_FEATURES, D, L0, CHOSEN = 64, 131_072, 4096, 64, 128


def row(rounds: int | None) -> Row:
    """Ours against everything encoded and masked, and the columns of an encoder that lies [d, n_features]."""
    drawn = Drawn.of(N_TOKENS, N_FEATURES, D, L0)
    ours = drawn.dictionary(iv.ReLU())
    features = torch.randperm(N_FEATURES, generator=torch.Generator().manual_seed(1))[:CHOSEN].tolist()
    across = drawn.weight.T.contiguous()
    near = drawn.weight[features].T.contiguous()
    contenders = [
        Contender("the chosen columns alone", "limit", lambda: (drawn.x @ near).relu_()),
        Contender("innerview", "ours", lambda: ours.encode_features(drawn.x, features)),
        Contender("everything, then masked", "peer", lambda: (drawn.x @ across).relu_()[:, features]),
        Contender("x @ W[:, i]", "peer", lambda: (drawn.x @ across[:, features]).relu_()),
    ]
    gate = same_tensors(contenders, exact=())
    targets = [
        ("innerview", "everything, then masked", 1 / 20), ("innerview", "x @ W[:, i]", 1 / 1.5), ("innerview", "the chosen columns alone", None),
    ]  # fmt: skip
    done = workload(f"{CHOSEN} chosen of {drawn.name}", gate, contenders, rounds, targets)
    notes = [
        "SAEDashboard masks features after SAELens has encoded all of them: the same computation in plain PyTorch.",
        "Ours refuses NaN and infinity, gathers 128 rows of the encoder and multiplies them. The limit has them gathered already.",
    ]
    return Row("7", "128 chosen features of 131k", [done], notes)


if __name__ == "__main__":
    run(row)
