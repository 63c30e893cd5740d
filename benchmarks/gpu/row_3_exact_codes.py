"""Row 3 on a GPU: exact float32 codes at low-precision speed, JumpReLU and TopK, in three sizes."""

import torch
from torch import Tensor

from benchmarks.gpu.drawn import Drawn, Size, checked, contender, once, tensors_like, workload
from benchmarks.gpu.row import run
from benchmarks.result import Claim, Row, Workload
from benchmarks.ways import with_peers
from innerview.kernels import fused_screen
from innerview.kernels.encode import encode

SIZES = (Size(4096, 16_384, 2304, 70), Size(4096, 24_576, 768, 116), Size(4096, 131_072, 4096, 64))
TARGETS = {"the float32 product": 1 / 8, "the bfloat16 product": 1 / 0.7}
K = 64
NOTES = [
    "The float32 product is without TF32. TF32's product and three bfloat16 products of halves (split-bf16) are peers that are not exact.",
    "Exact: the active set is float64's but for pre-activations within 2⁻⁴⁰ of the lengths of their cut. docs/explanation/exact-codes.md derives it.",
    "Targets are ours ÷ theirs: 0.125× is eight times as fast.",
]


def row(rounds: int | None, device: str, sizes: tuple[Size, ...] = SIZES) -> Row:
    """Ours against the float32 product alone, SAELens' float32 encode, TF32 and split-bf16, and the bfloat16 product."""
    done = [exact(size, k, rounds, device) for size in sizes for k in (0, min(K, size.m - 1))]
    return Row("3", "Exact float32 codes on a GPU at low-precision speed", done, NOTES, with_peers.load()[1])


def exact(size: Size, k: int, rounds: int | None, device: str) -> Workload:
    """Exact codes of some tokens, and what surrounds them."""
    drawn = Drawn.of(size, torch.float32, device)
    one, x, weight = drawn.encoder(k), drawn.x, drawn.weight
    rough_x, rough_weight = x.to(torch.bfloat16), weight.to(torch.bfloat16)
    rest_x, rest_weight = (x - rough_x.float()).to(torch.bfloat16), (weight - rough_weight.float()).to(torch.bfloat16)

    def split() -> Tensor:
        return (rough_x @ rough_weight.T).float() + (rough_x @ rest_weight.T) + (rest_x @ rough_weight.T)

    contenders = [
        contender("the bfloat16 product", "limit", device, lambda: rough_x @ rough_weight.T),
        contender("innerview", "ours", device, lambda: encode(one, x, "fused_screen")),
        contender("the float32 product", "peer", device, lambda: x @ weight.T),
        contender("TF32's product", "peer", device, lambda: _tf32(x, weight)),
        contender("split-bf16", "peer", device, split),
    ]
    if "sae_lens" in with_peers.load()[0]:
        with tensors_like(weight):
            theirs = (
                with_peers.sae_lens_top_k(weight, k) if k else with_peers.sae_lens_jump_relu(weight, drawn.threshold)
            )
        contenders.append(contender("SAELens", "peer", device, lambda: theirs(x)))
    gate = checked(drawn, "fused_screen", k)
    others = [one.name for one in contenders if one.role == "peer" and one.name not in TARGETS]
    targets = [("innerview", name, target) for name, target in (*TARGETS.items(), *((name, None) for name in others))]
    name = f"{'TopK ' + str(k) if k else 'JumpReLU'}, {drawn.name}"
    done = workload(name, gate, contenders, rounds, targets)
    counted = fused_screen.Screened()
    fused_screen.encode(one, x, counted)
    share = counted.candidates / max(1, counted.active)
    done.claims.append(Claim("candidates for each active feature", once(share), "×"))
    done.claims.append(Claim("tokens that were looked at twice, of all", once(counted.again / len(x)), "×"))
    return done


def _tf32(x: Tensor, weight: Tensor) -> Tensor:
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        return x @ weight.T
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


if __name__ == "__main__":
    run(row)
