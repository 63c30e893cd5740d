"""Row 8 on a GPU: decoding codes, k 64 of 65,536 features, bound by the bytes that are gathered."""

import torch
from torch import Tensor

from benchmarks.gpu.drawn import Drawn, Size, contender, workload
from benchmarks.gpu.row import run
from benchmarks.pairing import DisagreementError
from benchmarks.result import Row, Workload
from benchmarks.ways import with_peers
from innerview.kernels import Sparse
from innerview.kernels.sums import summed

SIZES = (Size(4096, 65_536, 2304),)
K = 64
TARGETS = {"dense": 1 / 10, "embedding_bag": 1 / 1.1, "gathering the rows": 1 / 0.7}


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against the dense product, embedding_bag, sparsify's, and a read of the rows alone."""
    notes = [
        "The limit reads the gathered rows and sums their words.",
        "Targets are ours ÷ theirs: 0.1× is ten times as fast.",
    ]
    done = [decoding(size, rounds, device) for size in sizes]
    return Row("8", "Decoding codes on a GPU, k 64", done, notes, with_peers.load()[1])


def decoding(size: Size, rounds: int | None, device: str) -> Workload:
    """Sums of the decoder's rows by everybody."""
    drawn, k = Drawn.of(size, torch.bfloat16, device), min(K, size.m)
    decoder, n = drawn.weight, size.n
    generator = torch.Generator(device).manual_seed(2)
    # Any features, in order: so many of so many are hardly ever equal.
    features = torch.randint(size.m, (n, k), generator=generator, device=device).sort(dim=1).values
    values = torch.rand(n, k, generator=generator, device=device).to(decoder.dtype)
    codes = Sparse(torch.arange(n, device=device).repeat_interleave(k), features.flatten(), values.flatten())
    dense = torch.zeros(n, size.m, dtype=decoder.dtype, device=device)
    dense.index_put_((codes.tokens, codes.features), codes.values, accumulate=True)
    starts = torch.arange(0, n * k, k, device=device)

    def bag() -> Tensor:
        return torch.nn.functional.embedding_bag(
            codes.features, decoder, starts, mode="sum", per_sample_weights=codes.values
        )

    words = decoder.view(torch.int32) if size.d % 2 == 0 else decoder
    contenders = [
        contender("gathering the rows", "limit", device, lambda: words[codes.features].sum()),
        contender("innerview", "ours", device, lambda: summed(codes, n, decoder)),
        contender("embedding_bag", "peer", device, bag),
        contender("dense", "peer", device, lambda: dense @ decoder),
    ]
    if "sparsify" in with_peers.load()[0]:
        theirs = with_peers.sparsify_decode(decoder)
        contenders.append(contender("sparsify", "peer", device, lambda: theirs(features, values)))
    wanted = contenders[3].call().float()
    for one in (contenders[1], contenders[2]):
        off = float((one.call().float() - wanted).abs().max() / wanted.abs().max())
        if off > 2.0**-6:
            raise DisagreementError(f"{one.name} differs from the dense product by {off:.2g} of its largest number")
    names = [one.name for one in contenders if one.name != "innerview"]
    targets = [("innerview", name, TARGETS.get(name)) for name in names]
    return workload(
        f"k {k}, {drawn.name}", "sums are the dense product's within bfloat16's rounding", contenders, rounds, targets
    )


if __name__ == "__main__":
    run(row)
