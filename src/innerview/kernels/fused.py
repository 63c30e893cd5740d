"""Codes in one pass on a GPU: Triton's tiles compare in the product's epilogue and write codes alone, never tokens × features."""

from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels import largest, trial
from innerview.kernels.derived import derived
from innerview.kernels.path import Path, Task
from innerview.kernels.program import is_interpreted, why_not
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Sparse
from innerview.kernels.slots import Part, Slots, read_out, room
from innerview.kernels.tiling import ROUNDS_TO_0, Product, single
from innerview.kernels.work import products_a_second

# Tokens of one launch: the slots of more would grow with the tokens.
BLOCK = 16384
# Slots of a token at first, and words of slots that are held at once when tokens are computed again.
FIRST_ROOM = 256
AGAIN = 1 << 26
# What some launches and one wait for the device take.
LAUNCHES_S = 1e-4


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Sparse:
    """Codes, as `reference.encode` gives them."""
    size, rule = BLOCK, encoder.rule
    if isinstance(rule, Largest):
        size = min(size, largest.tokens_at_once(rule.k, encoder.n_features))
    starts = list(range(0, max(len(x), 1), size))
    return Sparse.joined([_block(encoder, x[start : start + size]) for start in starts], starts)


def refusal(task: Task) -> str | None:
    """Why this cannot do a task; None where it can."""
    if task.dtype == torch.float64:
        return "its products are of float32 at most"
    if (reason := why_not(task.device)) is not None or is_interpreted():
        return reason
    return trial.why_not(encode, task.rule, task.dtype)


def seconds(task: Task) -> float:
    """How long a task takes by the rate of products; the epilogue, and what follows it, cost a part of them."""
    if is_interpreted():
        return inf
    return LAUNCHES_S + 1.25 * task.products / products_a_second(task.device, task.dtype)


FUSED = Path("fused", encode, refusal, seconds, "one pass on the GPU, which never writes tokens × features")


def _block(encoder: Encoder, x: Tensor) -> Sparse:
    rule, (product, _) = encoder.rule, prepared(encoder, x)
    if isinstance(rule, Largest) and rule.k < encoder.n_features:
        return largest.encode(product, rule.k)
    slots = Slots.empty(len(x), room(FIRST_ROOM, encoder.n_features), x.device)
    fill(encoder, x, slots)
    return completed(encoder, x, slots)


def prepared(encoder: Encoder, x: Tensor) -> tuple[Product, str]:
    """The product of an encoder and inputs, and the name of the rule in `tiles`."""
    # A threshold below 0 lets no negative number through, and what rounds to 0 is no code.
    least, bias = ROUNDS_TO_0[encoder.weight.dtype], single(encoder.bias)
    match encoder.rule:
        case Behind(gate=gate, scale=scale, shift=shift):
            name, by_feature = "behind", (single(gate), single(scale), single(shift))
        case Above(threshold=Tensor() as threshold):
            cut = derived(threshold, f"cuts from {least}", lambda own: own.float().clamp(min=least))
            name, by_feature = "above", (cut, cut, cut)
        case _:
            cut = derived(
                encoder.bias, f"cuts of {least}", lambda own: torch.full_like(own, least, dtype=torch.float32)
            )
            name, by_feature = "above", (cut, cut, cut)
    weight = encoder.weight.contiguous()
    return Product(x.contiguous(), weight, bias, by_feature, weight.dtype), name


def fill(encoder: Encoder, x: Float[Tensor, "tokens d"], slots: Slots) -> None:
    """Write the codes of tokens into slots that are empty; nothing waits for the device, so a CUDA graph can hold it.

    Args:
        encoder: What encodes, by a rule under which features do not compete.
        x: In the weight's format, beside it.
        slots: Room, its counts 0.
    """
    product, name = prepared(encoder, x)
    product.fill(name, slots)


def completed(encoder: Encoder, x: Tensor, slots: Slots) -> Sparse:
    """The codes in slots, those of tokens that had no room computed again with more of it."""
    counts = slots.counts.to(torch.int64)
    parts = [Part(slots)]
    most, total = (int(one) for one in torch.stack([counts.max(), counts.sum()]).tolist()) if len(x) else (0, 0)
    if most > slots.capacity:
        wanted = room(most, encoder.n_features)
        for rows in (counts > slots.capacity).nonzero()[:, 0].split(max(1, AGAIN // wanted)):
            more = Slots.empty(len(rows), wanted, x.device)
            fill(encoder, x[rows], more)
            parts.append(Part(more, rows))
    return read_out(parts, counts, total, encoder.weight.dtype)
