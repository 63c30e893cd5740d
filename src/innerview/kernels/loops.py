"""Loops over tiles of rough products, for numba: each is plain Python too, slow and the same, so that it runs without numba.

Rows are tokens, columns features. `rough` is a tile [rows, columns] of screening products: whole numbers, float32, or the upper
halves of float32 numbers (bfloat16) as unsigned integers. A pre-activation without its bias, in units of its column's scale, is at most
`rough · scale_row + half · |…| + massive + p_row · u_column + q_row · v_column`; `docs/explanation/exact-codes.md` derives it.
Stretches are taken out as arrays of their own: only then do the inner loops become vector instructions.
"""

import numpy as np

# Largest whole number of int8 that is used, so that rows are symmetric; and how many steps of a row's second numbers make one of its first.
WHOLE = 127
STEPS = 254
# Below this a row's scale would have no inverse.
LEAST_SCALE = 2.0**-100
# Columns that are looked at together.
STRETCH = 512
# Candidates that tell whether a second look is worth it.
FEW = 256
# Places of what is known of each row, and of each column.
SCALE, P, Q, LENGTH, SHARP = 0, 1, 2, 3, 4
U, V, CUT, WIDTH, OFFSET, LONG, BIAS, FACTOR, SHIFT = 0, 1, 2, 3, 4, 5, 6, 7, 8


def dot(x, i, weight, at):
    """A product of two rows, summed in float32."""
    total, row, column = np.float32(0.0), x[i], weight[at]
    for k in range(len(row)):
        total += row[k] * column[k]
    return total


def whole_dot(x, i, weight, at):
    """A product of two rows of whole numbers, which stays below 2³¹."""
    total, row, column = np.int32(0), x[i], weight[at]
    for k in range(len(row)):
        # Named at each step: numba would widen the sum, and no vector instruction would be left.
        total = np.int32(total + np.int32(row[k]) * np.int32(column[k]))
    return total


def wide_dot(x, i, weight, at):
    """A product of two float32 rows, summed in float64."""
    total = np.float64(0.0)
    for k in range(x.shape[1]):
        total += np.float64(x[i, k]) * np.float64(weight[at, k])
    return total


def round_whole(span, rows, numbers, scales, lengths, residuals):
    """Write rows as whole numbers times a scale each, how long they are (the longer of both), and how long what is left is."""
    for i in range(span[0], span[1]):
        row, whole = rows[i], numbers[i]
        largest = np.float32(0.0)
        for k in range(len(row)):
            largest = max(largest, abs(row[k]))
        scale = largest / np.float32(WHOLE)
        # A row of zeros, and one that is smaller than its scale could be, have any scale: what that costs is measured.
        if not (scale > LEAST_SCALE and scale < np.inf):
            scale = np.float32(1.0)
        inverse = np.float32(1.0) / scale
        for k in range(len(row)):
            nearest = np.rint(row[k] * inverse)
            whole[k] = np.int8(min(max(nearest, np.float32(-WHOLE)), np.float32(WHOLE)))
        own, near, left = np.float64(0.0), np.float64(0.0), np.float64(0.0)
        for k in range(len(row)):
            value, rounded = np.float64(row[k]), np.float64(whole[k]) * np.float64(scale)
            own += value * value
            near += rounded * rounded
            left += (value - rounded) * (value - rounded)
        scales[i] = scale
        lengths[i] = np.sqrt(max(own, near))
        residuals[i] = np.sqrt(left)


def round_again(span, rows, numbers, scales, again, residuals):
    """Write what rounding to whole numbers left of rows as whole numbers of a finer step, and how long what is left then is."""
    for i in range(span[0], span[1]):
        row, whole, finer = rows[i], numbers[i], again[i]
        scale = np.float64(scales[i])
        left = np.float64(0.0)
        for k in range(len(row)):
            rest = np.float64(row[k]) / scale - np.float64(whole[k])
            step = min(max(np.rint(rest * STEPS), -np.float64(WHOLE)), np.float64(WHOLE))
            finer[k] = np.int16(step)
            away = (rest - step / STEPS) * scale
            left += away * away
        residuals[i] = np.sqrt(left)


def halves(part, half, scale, bits, most):
    """Write a stretch of bfloat16 products as what they are at most into `most`, which shares its memory with `bits`."""
    for j in range(len(part)):
        bits[j] = np.uint32(part[j]) << np.uint32(16)
    for j in range(len(part)):
        most[j] = most[j] * scale + half * abs(most[j])


def add_massive(own, across, most):
    """Add the part of massive coordinates to a stretch of products."""
    for k in range(len(own)):
        factor, row = own[k], across[k]
        for j in range(len(row)):
            most[j] += factor * row[j]


def roughly(part, is_bits, half, scale, own, across, bits, most):
    """Write what a stretch of rough products is at most, its bound aside, into `most`, which shares its memory with `bits`."""
    if is_bits:
        halves(part, half, scale, bits, most)
    else:
        for j in range(len(part)):
            most[j] = np.float32(part[j]) * scale
    if len(own):
        add_massive(own, across, most)


def gather(flags, most, i, rows, columns, mosts, count):
    """Append the marked places of a row's stretch to lists; returns how long those are then."""
    eights = flags.view(np.uint64)
    for e in range(len(eights)):
        if eights[e] == 0:
            continue
        for j in range(8 * e, 8 * e + 8):
            if flags[j] != 0:
                rows[count] = i
                columns[count] = j
                mosts[count] = most[j]
                count += 1
    return count


def by_column(columns, count, starts, order):
    """Write the places of a list in the order of their columns, so that a column's weight is near while it is multiplied."""
    starts[:] = 0
    for c in range(count):
        starts[columns[c] + 1] += 1
    for j in range(1, len(starts)):
        starts[j] += starts[j - 1]
    for c in range(count):
        place = starts[columns[c]]
        starts[columns[c]] = place + 1
        order[place] = c


def is_worth(looked, refused):
    """Whether a row's second numbers are worth a look: while they keep half of the candidates from float32, or few were seen."""
    return looked < FEW or 2 * refused > looked


def sharpened(near, again, whole, of_row, i, at):
    """A product with the row's second numbers added to it, in float64."""
    return np.float64(near) + np.float64(whole_dot(again, i, whole, at)) * (np.float64(of_row[SCALE, i]) / STEPS)


def above(
    rough,
    is_bits,
    half,
    of_row,
    of_column,
    cuts,
    massive_x,
    massive_w,
    x,
    weight,
    again,
    whole,
    gamma,
    first,
    tokens,
    features,
    values,
):
    """Codes of a tile by a rule that looks at each feature alone; returns how many, and how many candidates there were.

    A column whose product may pass its cut, by the row's second numbers too where it has some (`again`, with the columns' `whole`), is
    computed in float32, and in float64 where that lies within float32's own error. Features
    of each token come in order, tokens do not.
    """
    bits = np.empty(STRETCH, np.uint32)
    most, flags = bits.view(np.float32), np.zeros(STRETCH, np.uint8)
    n_rows, n_columns, found, candidates, looked, refused = rough.shape[0], rough.shape[1], 0, 0, 0, 0
    at_rows, at_columns = np.empty(n_rows * STRETCH, np.int32), np.empty(n_rows * STRETCH, np.int32)
    mosts, order = np.empty(n_rows * STRETCH, np.float32), np.empty(n_rows * STRETCH, np.int32)
    starts = np.empty(STRETCH + 1, np.int32)
    for start in range(0, n_columns, STRETCH):
        n, count = min(STRETCH, n_columns - start), 0
        since = first + start
        near = slice(since, since + n)
        u, v, cut = of_column[U, near], of_column[V, near], of_column[CUT, near]
        flags[n:] = 0
        for i in range(n_rows):
            part, scale, p, q = rough[i, start : start + n], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
            roughly(part, is_bits, half, scale, massive_x[i], massive_w[:, near], bits, most)
            for j in range(n):
                # Not `>`: what is no number is looked at.
                flags[j] = np.uint8(not most[j] + p * u[j] + q * v[j] <= cut[j])
            count = gather(flags, most, i, at_rows, at_columns, mosts, count)
        by_column(at_columns, count, starts, order)
        for c in range(count):
            i, j = at_rows[order[c]], at_columns[order[c]]
            at = since + j
            if again.shape[1] and is_worth(looked, refused):
                looked += 1
                open_end = of_row[SHARP, i] * np.float64(u[j]) + of_row[Q, i] * np.float64(v[j])
                if sharpened(mosts[order[c]], again, whole, of_row, i, at) + open_end <= cut[j]:
                    refused += 1
                    continue
            candidates += 1
            bias, limit = of_column[BIAS, at], cuts[at]
            pre = np.float64(dot(x, i, weight, at) + bias)
            error = gamma * (of_row[LENGTH, i] * of_column[LONG, at] + abs(bias) + abs(limit))
            if abs(pre - limit) <= error:
                pre = wide_dot(x, i, weight, at) + np.float64(bias)
            value = np.float32(pre * of_column[FACTOR, at] + of_column[SHIFT, at])
            if pre > limit and value > 0:
                tokens[found] = i
                features[found] = at
                values[found] = value
                found += 1
    return found, candidates


def by_token(tokens, features, values, starts, out_tokens, out_features, out_values):
    """Put codes that are ordered by feature within each token in the order of tokens; `starts` is where each token's begin, and moves."""
    for c in range(len(tokens)):
        token = tokens[c]
        place = starts[token]
        starts[token] = place + 1
        out_tokens[place] = token
        out_features[place] = features[c]
        out_values[place] = values[c]
