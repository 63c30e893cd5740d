"""Row 4 on a GPU: TopK encoding into codes, k 64, d 2304, 131,072 features."""

import importlib.util

import torch
from torch import Tensor

from benchmarks.gpu.drawn import Drawn, Size, checked, contender, same, tensors_like, workload
from benchmarks.gpu.row import run
from benchmarks.result import Row, Workload
from benchmarks.ways import with_peers
from innerview.kernels.encode import encode

SIZES = (Size(4096, 131_072, 2304),)
K = 64
TARGETS = {"linear + torch.topk": 1 / 2.5, "linear + flashinfer's": 1 / 1.2, "the product": 1 / 0.8}


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against torch's and flashinfer's choice behind the product, sparsify's encode, and the product alone."""
    found, missing = with_peers.load()
    if importlib.util.find_spec("flashinfer") is None:
        missing = {**missing, "flashinfer": "it is not installed"}
    done = [top_k(size, rounds, device, "sparsify" in found) for size in sizes]
    notes = ["Everybody encodes bfloat16.", "Targets are ours ÷ theirs: 0.4× is 2.5 times as fast."]
    return Row("4", "TopK codes on a GPU, k 64", done, notes, missing)


def top_k(size: Size, rounds: int | None, device: str, has_sparsify: bool) -> Workload:
    """The k largest of some tokens by everybody."""
    drawn, k = Drawn.of(size, torch.bfloat16, device), min(K, size.m - 1)
    one, x, weight = drawn.encoder(k), drawn.x, drawn.weight
    contenders = [
        contender("the product", "limit", device, lambda: x @ weight.T),
        contender("innerview", "ours", device, lambda: encode(one, x, "fused")),
        contender("linear + torch.topk", "peer", device, lambda: (x @ weight.T).topk(k, dim=-1, sorted=False)),
    ]
    if importlib.util.find_spec("flashinfer") is not None:
        contenders.append(contender("linear + flashinfer's", "peer", device, lambda: _flashinfer(x @ weight.T, k)))
    if has_sparsify:
        with tensors_like(weight):
            theirs = with_peers.sparsify_top_k(weight, k)
        contenders.append(contender("sparsify", "peer", device, lambda: theirs(x)))
    gate = checked(drawn, "fused", k) + same(drawn, "fused", k, contenders[2:])
    names = [one.name for one in contenders if one.name != "innerview"]
    return workload(
        f"TopK {k}, {drawn.name}", gate, contenders, rounds, [("innerview", name, TARGETS.get(name)) for name in names]
    )


def _flashinfer(pre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import flashinfer

    return flashinfer.top_k(pre, k)


if __name__ == "__main__":
    run(row)
