"""Exact float32 codes on a GPU at the speed of bfloat16: tiles that keep what may pass, which is computed again in float64.

`docs/explanation/exact-codes.md` derives the bound; its parts for the weight are measured once (`bounds.py`).
"""

from dataclasses import dataclass, field, replace
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels import bounds, largest, trial
from innerview.kernels.derived import derived
from innerview.kernels.largest import codes_of, keys_of, merged
from innerview.kernels.path import Path, Task
from innerview.kernels.program import is_interpreted, why_not
from innerview.kernels.rescoring import rescore, rounded
from innerview.kernels.rules import Above, Behind, Encoder, Largest, Sparse
from innerview.kernels.slots import NONE, Part, Slots, read_out, room
from innerview.kernels.tiling import Product, Tiling
from innerview.kernels.work import products_a_second

# Tokens of one launch; slots of a token at first; words that are held at once when tokens are computed again.
BLOCK, FIRST_ROOM, AGAIN = 16384, 512, 1 << 25
# A coordinate this many times as large in square as the middle one is kept in float32; at most so many are.
MASSIVE, MASSIVE_MOST = 64.0, 8
LAUNCHES_S = 2e-4


@dataclass
class Screened:
    """What the screen let through: candidates that were computed again, codes among them, tokens, and tokens that were looked at twice."""

    candidates: int = 0
    active: int = 0
    tokens: int = 0
    again: int = 0


def encode(encoder: Encoder, x: Float[Tensor, "tokens d"], counted: Screened | None = None) -> Sparse:
    """Codes of float32, as float64 says them.

    Args:
        encoder: What encodes, in float32.
        x: Finite inputs beside it.
        counted: Takes what the screen let through.
    """
    counted = counted or Screened()
    size, rule = BLOCK, encoder.rule
    if isinstance(rule, Largest):
        size = min(size, largest.tokens_at_once(rule.k, encoder.n_features, each=2))
    starts = list(range(0, max(len(x), 1), size))
    found = Sparse.joined([_block(encoder, x[start : start + size], counted) for start in starts], starts)
    counted.tokens += len(x)
    counted.active += len(found)
    return found


def refusal(task: Task) -> str | None:
    """Why this cannot do a task; None where it can."""
    if task.dtype != torch.float32:
        return "it screens float32 alone"
    if task.d > bounds.WIDEST["bfloat16"]:
        return f"its bound was not looked at for a width of {task.d}"
    if not task.is_fixed:
        return "the weight trains, so no rounded copy of it is kept"
    if (reason := why_not(task.device)) is not None or is_interpreted():
        return reason
    return trial.why_not(encode, task.rule, task.dtype, is_exact=True)


def seconds(task: Task) -> float:
    """How long a task takes: the product of bfloat16 with its epilogue, and some hundred candidates a token."""
    if is_interpreted():
        return inf
    candidates = 150 * task.n_tokens * task.d * 4
    rough = task.products / products_a_second(task.device, torch.bfloat16)
    return LAUNCHES_S + 1.25 * rough + candidates / 2e12


FUSED_SCREEN = Path(
    "fused_screen", encode, refusal, seconds, "a bfloat16 screen on the GPU, and what may pass in float64"
)


def _block(encoder: Encoder, x: Tensor, counted: Screened) -> Sparse:
    if not len(x):
        return read_out([], torch.zeros(0, dtype=torch.int64, device=x.device), 0, torch.float32)
    x, rule = x.contiguous(), encoder.rule
    product = screening(encoder, x)
    if isinstance(rule, Largest) and rule.k < encoder.n_features:
        return _largest(encoder, product, x, rule.k, counted)
    slots = Slots.empty(len(x), room(FIRST_ROOM, encoder.n_features), x.device)
    product.fill("upper", slots)
    return _completed(encoder, product, x, slots, counted)


@dataclass(frozen=True, eq=False)
class Columns:
    """What is made of a weight once.

    Attributes:
        numbers: Its rows in bfloat16, parts of massive coordinates behind them, shape [n_features, d or more].
        length: Length of each row, as the bound takes it, float32, shape [n_features]; infinite where all is a candidate.
        lost: Length of what rounding took, likewise.
        is_massive: Which coordinates are massive, uint8, shape [d].
        massive: Their numbers, int64.
    """

    numbers: Tensor = field(repr=False)
    length: Tensor = field(repr=False)
    lost: Tensor = field(repr=False)
    is_massive: Tensor = field(repr=False)
    massive: Tensor = field(repr=False)

    @classmethod
    def of(cls, weight: Tensor, x: Tensor) -> "Columns":
        """Of a weight, and the coordinates that are massive in some tokens.

        Any choice of them is sound, and a dictionary's later tokens are of the same site.
        """
        energy = x[:: max(1, len(x) // 512)].square().mean(dim=0)
        chosen = energy.topk(min(MASSIVE_MOST, len(energy))).indices
        massive = chosen[energy[chosen] > MASSIVE * energy.median()]
        made = bounds.rounded(weight, "bfloat16")
        fits = made.is_in_range()
        numbers = (
            made.numbers if not len(massive) else torch.cat([made.numbers, in_parts(weight[:, massive], 1)], dim=1)
        )
        length = torch.where(fits, bounds.single(made.length), inf)
        lost = torch.where(fits, bounds.single(made.residual), 0.0)
        is_massive = torch.zeros_like(energy, dtype=torch.uint8).index_fill_(0, massive, 1)
        return cls(numbers.contiguous(), length, lost, is_massive, massive)


# Pairs of parts of two float32 numbers, each number the sum of three of bfloat16, whose products make up theirs to 2⁻²⁶.
PARTS = ((0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (2, 0))


def in_parts(few: Float[Tensor, "rows n"], side: int) -> Float[Tensor, "rows 64"]:
    """Few float32 columns in bfloat16, so that the product of both sides, 0 and 1, is the columns' own."""
    parts: list[Tensor] = []
    rest = few.float()
    for _ in range(3):
        parts.append(rest.to(torch.bfloat16))
        rest = rest - parts[-1].float()
    made = torch.cat([parts[pair[side]] for pair in PARTS], dim=1)
    return torch.nn.functional.pad(made, (0, 64 - made.shape[1]))


def screening(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Product:
    """The product of bfloat16 that screens, with what its bound takes of each feature and row."""
    columns = derived(encoder.weight, "columns of the fused screen", lambda weight: Columns.of(weight, x))
    width = columns.numbers.shape[1]
    numbers, by_row = rounded(x, columns.is_massive, width)
    if width > encoder.d:
        numbers[:, encoder.d :] = in_parts(x[:, columns.massive], 0)
    bias, cut = _bias_and_cut(encoder)
    return Product(numbers, columns.numbers, bias, (cut, columns.length, columns.lost), torch.float32, by_row)


def _bias_and_cut(encoder: Encoder) -> tuple[Tensor, Tensor]:
    """What is added to a product before it is compared, and what it must reach to be a candidate, with room for their own rounding."""
    bias = encoder.bias.double()
    match encoder.rule:
        case Behind(gate=gate, scale=scale, shift=shift):
            cut = torch.maximum(-gate.double(), -shift.double() / scale.double())
        case Above(threshold=Tensor() as threshold):
            cut = threshold.double().clamp(min=0)
        case _:
            cut = torch.zeros_like(bias)
    room_for = bounds.SLACK * (bias.abs() + cut.abs()) + bounds.LEAST
    if isinstance(encoder.rule, Largest) and encoder.rule.k < encoder.n_features:
        return (bias + bounds.SLACK * bias.abs() + bounds.LEAST).float(), cut.float()
    return torch.zeros_like(encoder.bias), (cut - bias - room_for).float()


def _completed(encoder: Encoder, product: Product, x: Tensor, slots: Slots, counted: Screened) -> Sparse:
    """The codes among candidates, tokens that had no room looked at again with more of it."""
    codes = rescore(encoder, x, slots).to(torch.int64)
    parts = [Part(slots)]
    most, candidates, total = (
        int(one) for one in torch.stack([slots.counts.max(), slots.counts.sum(), codes.sum()]).tolist()
    )
    if most > slots.capacity:
        wanted = room(most, encoder.n_features)
        for rows in (slots.counts > slots.capacity).nonzero()[:, 0].split(max(1, AGAIN // wanted)):
            more = Slots.empty(len(rows), wanted, x.device)
            product.of_rows(rows).fill("upper", more)
            codes[rows] = rescore(encoder, x[rows], more).to(torch.int64)
            parts.append(Part(more, rows))
            counted.again += len(rows)
        total = int(codes.sum())
    counted.candidates += candidates
    return read_out(parts, codes, total, torch.float32)


def _largest(encoder: Encoder, product: Product, x: Tensor, k: int, counted: Screened) -> Sparse:
    """The k largest: whoever may be at least the k-th of what the first k are at least."""
    n, m = len(x), encoder.n_features
    tiling = Tiling.of(n, product.x.dtype)
    capacity = room(4 * k, m)
    each = min(2 * largest.kept_of_a_tile(k, tiling.along_features(m), tiling.features), tiling.features)
    keys = product.best("best_upper", each, tiling)
    upper = merged(keys, max(capacity, k))
    least = _least(product, encoder, upper[:, :k])
    # Keys of the same upper half are of the same value: one that equals the least may be it.
    from_here = least.view(torch.int32).to(torch.int64) << 32
    counts = (keys.flatten(1) >= from_here[:, None]).logical_and_(keys.flatten(1) > 0).sum(dim=1)
    unsure = counts > capacity
    if each < min(m, tiling.features):
        unsure |= ((keys[:, :, -1] >= from_here[:, None]) & (keys[:, :, -1] > 0)).any(dim=1)
    unsure |= torch.isinf(product.by_row[0])
    words = ((largest.LAST - (upper & largest.LAST)) << 32).masked_fill(upper == 0, NONE)
    slots = Slots(words[:, :capacity].contiguous(), counts.masked_fill(unsure, 0).int())
    rescore(encoder, x, slots)
    chosen = merged(keys_of(slots)[:, None], k)
    again = unsure.nonzero()[:, 0]
    if len(again):
        chosen[again] = _again(encoder, product, x, again, least[again], k, counted)
    counted.candidates += int(slots.counts.sum())
    return codes_of(chosen, torch.float32)


def _least(product: Product, encoder: Encoder, upper: Tensor) -> Tensor:
    """What the k-th largest is at least, float32, shape [rows]: the least of what those with the largest upper bounds are at least."""
    features = (largest.LAST - (upper & largest.LAST)).clamp(max=encoder.n_features - 1)
    value = (upper >> 32).int().view(torch.float32).double()
    _, length, lost = product.by_feature
    p, q = product.by_row[0].double(), product.by_row[1].double()
    bound = p[:, None] * length.double()[features] + q[:, None] * lost.double()[features]
    bias = encoder.bias.double()[features].abs()
    lower = value - (2 + bounds.SLACK) * bound - 4 * (bounds.SLACK * bias + bounds.LEAST)
    # Fewer than k, or one without a bound: then whatever is above 0 may be one.
    return lower.masked_fill(upper == 0, 0.0).amin(dim=1).nan_to_num(nan=0.0).clamp(min=0).mul(1 - bounds.SLACK).float()


def _again(
    encoder: Encoder, product: Product, x: Tensor, rows: Tensor, least: Tensor, k: int, counted: Screened
) -> Tensor:
    """Keys of the k largest of some tokens, of all features that may reach a value."""
    some = product.of_rows(rows)
    some = replace(some, by_row=torch.cat([some.by_row, least[None]]))
    found = torch.zeros(len(rows), k, dtype=torch.int64, device=x.device)
    left, capacity = torch.arange(len(rows), device=x.device), room(16 * k, encoder.n_features)
    while len(left):
        failed: list[Tensor] = []
        most = 0
        for part in left.split(max(1, AGAIN // capacity)):
            slots = Slots.empty(len(part), capacity, x.device)
            some.of_rows(part).fill("from_cut", slots)
            rescore(encoder, x[rows[part]], slots)
            fits = slots.counts <= capacity
            found[part] = merged(keys_of(slots)[:, None], k)
            failed.append(part[~fits])
            most = max(most, int(slots.counts.max()))
            counted.candidates += int(slots.counts[fits].sum())
        left, capacity = torch.cat(failed), room(most, encoder.n_features)
    counted.again += len(rows)
    return found
