"""Exact float32 codes on a GPU at the speed of bfloat16: tiles that keep what may pass, which is computed again in float64.

`docs/explanation/exact-codes.md` derives the bound; its parts for the weight are measured once (`bounds.py`).
"""

from dataclasses import dataclass, field, replace
from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from innerview.kernels import bounds, largest
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
# A coordinate this many times as large in square as the middle one is kept in float32; at most so many are, which tiles want at least.
MASSIVE, MASSIVE_MOST = 64.0, 16
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
    return why_not(task.device)


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
    """What is made of a weight once: its rows in bfloat16, and their lengths, as the bound takes them, float32, shape [n_features]."""

    numbers: Tensor = field(repr=False)
    length: Tensor = field(repr=False)
    lost: Tensor = field(repr=False)

    @classmethod
    def of(cls, weight: Tensor) -> "Columns":
        """Of a weight; a row beyond the range of the bound is always a candidate."""
        made = bounds.rounded(weight, "bfloat16")
        fits = made.is_in_range()
        length = torch.where(fits, bounds.single(made.length), inf)
        return cls(made.numbers.contiguous(), length, torch.where(fits, bounds.single(made.residual), 0.0))


@dataclass(frozen=True, eq=False)
class Apart:
    """Massive coordinates: which they are, uint8, shape [d]; their numbers, 16; the weight's columns there, shape [n_features, 16]."""

    is_massive: Tensor
    coordinates: Tensor
    weight: Tensor
    has_some: bool


def screening(encoder: Encoder, x: Float[Tensor, "tokens d"]) -> Product:
    """The product of bfloat16 that screens, with what its bound takes of each feature and row."""
    columns = derived(encoder.weight, "columns of the fused screen", Columns.of)
    # Any choice is sound; the first tokens say which are large, and a dictionary's later ones are of the same site.
    apart = derived(encoder.weight, "massive coordinates of the fused screen", lambda weight: _apart(weight, x))
    numbers, by_row = rounded(x, apart.is_massive)
    bias, cut = _bias_and_cut(encoder)
    massive = (x[:, apart.coordinates] * apart.is_massive[apart.coordinates], apart.weight) if apart.has_some else None
    return Product(
        numbers, columns.numbers, bias, (cut, columns.length, columns.lost), torch.float32, by_row, massive
    )  # fmt: skip


def _apart(weight: Tensor, x: Tensor) -> Apart:
    energy = x[:: max(1, len(x) // 512)].square().mean(dim=0)
    chosen = energy.topk(min(MASSIVE_MOST, len(energy))).indices
    is_massive = torch.zeros_like(energy, dtype=torch.uint8)
    is_massive[chosen] = (energy[chosen] > MASSIVE * energy.median()).to(torch.uint8)
    # Always 16: those that are not massive are 0 in the inputs.
    coordinates = torch.nn.functional.pad(chosen, (0, MASSIVE_MOST - len(chosen)), value=int(energy.argmin()))
    is_one = torch.arange(MASSIVE_MOST, device=x.device) < len(chosen)
    columns = torch.where(is_one, weight[:, coordinates], 0.0).contiguous()
    return Apart(is_massive, coordinates, columns, bool(is_massive.any()))


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
    assert some.by_row is not None
    some = replace(some, by_row=torch.cat([some.by_row[:2], least[None]]))
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
