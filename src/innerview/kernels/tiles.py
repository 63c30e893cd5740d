"""The product of inputs and encoder, tile by tile, whose results never leave the chip whole: what passes the rule does."""

# Triton's compiler knows the types of what its reductions give; its Python says tuple too.
# pyright: reportOperatorIssue=false, reportArgumentType=false

from __future__ import annotations

from typing import TYPE_CHECKING

from innerview.kernels.program import Program

if TYPE_CHECKING:
    import triton.language as tl  # pyright: ignore[reportMissingImports]


@Program
def tiles(
    x,
    weight,
    bias,
    first,
    second,
    third,
    by_row,
    words,
    counts,
    n_rows,
    n_features,
    d,
    capacity,
    RULE: tl.constexpr,
    BEST: tl.constexpr,
    LEAST: tl.constexpr,
    PRECISION: tl.constexpr,
    IS_WIDENED: tl.constexpr,
    IS_EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    FEATURES: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
    LANE: tl.constexpr,
):
    """A tile of pre-activations, and what of it is a code, appended to the slots of its rows.

    Args:
        x: Inputs, shape [n_rows, d].
        weight: Shape [n_features, d].
        bias: float32, shape [n_features].
        first: `above`, `upper`: cuts; `behind`: the gate's bias; shape [n_features].
        second: `behind`: factor of the magnitude; screens: length of the weight's row; shape [n_features].
        third: `behind`: bias of the magnitude; screens: length of what rounding took from the row; shape [n_features].
        by_row: `at_least`: the row's cut, shape [n_rows]; screens: what the bound takes of `second`, and of `third`, and, in
            `from_cut`, the row's cut, shape [3, n_rows].
        words: Slots, int64, shape [n_rows, capacity]; with `BEST`, keys, shape [n_rows, tiles of features, BEST].
        counts: Codes that were found in each row, those without a slot too, int32, shape [n_rows]. It starts at 0.
        RULE: `above`, `behind`, `at_least` (a row's own cut), `largest` (the best of each row of the tile), and screens, which look at
            what a product may be at most: `upper` (at least a cut), `from_cut` (at least a row's), `best_upper` (the best).
        LEAST: What is not above it rounds to 0 in the weight's own format, and is no code of `behind`.
        IS_WIDENED: Whether products are taken of float32: Triton's interpreter has no bf16 ones.
        LANE: Columns of a lane: a quarter of FEATURES, or 32 where that is less.
        BEST: How many of each row of the tile `largest` and `best_upper` keep.
    """
    row_tiles = tl.cdiv(n_rows, ROWS)
    feature_tiles = tl.cdiv(n_features, FEATURES)
    # Tiles of a group of rows follow one another, so that the rows of the weight that they share are still in the cache.
    number = tl.program_id(0)
    group = number // (GROUP * feature_tiles)
    within = number - group * (GROUP * feature_tiles)
    height = tl.minimum(row_tiles - group * GROUP, GROUP)
    row_tile = group * GROUP + within % height
    feature_tile = within // height

    first_row = row_tile * ROWS
    first_feature = feature_tile * FEATURES
    row = first_row + tl.arange(0, ROWS)
    column = tl.arange(0, FEATURES)
    feature = first_feature + column
    is_row = row < n_rows
    is_feature = feature < n_features
    depth = tl.arange(0, DEPTH)
    # int64: a million features of width 4096 are more numbers than int32 counts.
    from_x = x + (tl.where(is_row, row, 0).to(tl.int64) * d)[:, None] + depth[None, :]
    from_weight = weight + (tl.where(is_feature, feature, 0).to(tl.int64) * d)[None, :] + depth[:, None]
    total = tl.zeros((ROWS, FEATURES), dtype=tl.float32)
    for start in range(0, d, DEPTH):
        if IS_EVEN:
            left = tl.load(from_x)
            right = tl.load(from_weight)
        else:
            left = tl.load(from_x, mask=(depth < d - start)[None, :], other=0.0)
            right = tl.load(from_weight, mask=(depth < d - start)[:, None], other=0.0)
        if IS_WIDENED:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        total = tl.dot(left, right, total, input_precision=PRECISION)
        from_x += DEPTH
        from_weight += DEPTH

    pre = total + tl.load(bias + feature, mask=is_feature, other=0.0)[None, :]
    is_inside = is_row[:, None] & is_feature[None, :]
    value = pre
    if RULE == "above":
        cut = tl.load(first + feature, mask=is_feature, other=0.0)
        keep = pre > cut[None, :]
    elif RULE == "behind":
        gate = tl.load(first + feature, mask=is_feature, other=0.0)
        scale = tl.load(second + feature, mask=is_feature, other=0.0)
        shift = tl.load(third + feature, mask=is_feature, other=0.0)
        value = pre * scale[None, :] + shift[None, :]
        keep = (pre + gate[None, :] > 0) & (value > LEAST)
    elif RULE == "at_least":
        least = tl.load(by_row + row, mask=is_row, other=0.0)
        keep = (pre >= least[:, None]) & (pre > 0)
    elif RULE == "largest":
        keep = pre > 0
    else:
        length = tl.load(second + feature, mask=is_feature, other=0.0)
        lost = tl.load(third + feature, mask=is_feature, other=0.0)
        of_length = tl.load(by_row + row, mask=is_row, other=0.0)
        of_lost = tl.load(by_row + n_rows + row, mask=is_row, other=0.0)
        value = pre + of_length[:, None] * length[None, :] + of_lost[:, None] * lost[None, :]
        # What is no number is looked at.
        value = tl.where(value == value, value, float("inf"))
        if RULE == "upper":
            cut = tl.load(first + feature, mask=is_feature, other=0.0)
            keep = value >= cut[None, :]
        elif RULE == "from_cut":
            least = tl.load(by_row + 2 * n_rows + row, mask=is_row, other=0.0)
            keep = (value >= least[:, None]) & (value > 0)
        else:
            keep = value > 0
    keep = keep & is_inside

    if BEST > 0:
        rest = tl.where(keep, value, 0.0)
        to = words + (row.to(tl.int64) * feature_tiles + feature_tile) * BEST
        for i in range(BEST):
            best, place = tl.max(rest, axis=1, return_indices=True)
            # Bits of positive numbers are ordered as the numbers are; of equals the lowest feature has the larger key.
            behind = 0x7FFFFFFF - (first_feature + place).to(tl.int64)
            key = (best.to(tl.int32, bitcast=True).to(tl.int64) << 32) | behind
            tl.store(to + i, tl.where(best > 0, key, 0), mask=is_row)
            rest = tl.where(column[None, :] == place[:, None], 0.0, rest)
    else:
        # In tensor cores' results four threads share a row, and each holds pairs of every eight columns. Seen as lanes of its own columns,
        # what follows stays inside of a thread: few columns of a lane pass, and they are taken out one by one.
        LANES: tl.constexpr = FEATURES // LANE
        value = tl.where(keep, value, 0.0)
        if RULE == "upper" or RULE == "from_cut":
            value = tl.where(keep, 1.0, 0.0)
        value = tl.permute(tl.reshape(value, (ROWS, FEATURES // 8, 4, 2)), (0, 2, 1, 3))
        value = tl.reshape(value, (ROWS * LANES, LANE))
        within = tl.arange(0, LANE)
        bits = tl.sum(tl.where(value > 0, (tl.full((LANE,), 1, tl.int32) << within)[None, :], 0), axis=1)
        found = tl.sum((value > 0).to(tl.int32), axis=1)
        number = tl.arange(0, ROWS * LANES)
        lane = number % LANES
        row = first_row + number // LANES
        # Columns of a lane are pairs, eight apart; lanes of the same thread lie behind one another.
        start = first_feature + 2 * (lane * 4 // LANES) + (lane % (LANES // 4)) * (4 * LANE)
        place = tl.atomic_add(counts + row, found, mask=(row < n_rows) & (found > 0))
        to = words + row.to(tl.int64) * capacity
        for _ in range(tl.max(found, axis=0)):
            # The lowest bit's number, by the exponent of a float.
            lowest = (bits & -bits).to(tl.float32).to(tl.int32, bitcast=True)
            at = ((lowest >> 23) & 255) - 127
            taken = tl.sum(tl.where(within[None, :] == at[:, None], value, 0.0), axis=1)
            passing = (start + at // 2 * 8 + at % 2).to(tl.int64)
            word = (passing << 32) | taken.to(tl.int32, bitcast=True).to(tl.int64)
            tl.store(to + place, word, mask=(bits != 0) & (place < capacity))
            bits = bits & (bits - 1)
            place += 1
