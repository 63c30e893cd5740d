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
# Columns that are looked at together, for so many rows in turn: what both hold of x and the weight lies near the processor.
STRETCH = 512
BLOCK = 256
# Candidates that tell whether a second look is worth it.
FEW = 256
# Places of what is known of each row, and of each column.
SCALE, P, Q, LENGTH, SHARP = 0, 1, 2, 3, 4
U, V, CUT, WIDTH, OFFSET, LONG, BIAS, FACTOR, SHIFT = 0, 1, 2, 3, 4, 5, 6, 7, 8
# What is known of a column that may be among the k largest.
OUT, OPEN, KEPT = 0, 1, 2


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
    computed in float32, and in float64 where that lies within float32's own error. Features of each token come in order, tokens do not.
    """
    bits = np.empty(STRETCH, np.uint32)
    most, flags = bits.view(np.float32), np.zeros(STRETCH, np.uint8)
    at_rows, at_columns = np.empty(BLOCK * STRETCH, np.int32), np.empty(BLOCK * STRETCH, np.int32)
    mosts, order = np.empty(BLOCK * STRETCH, np.float32), np.empty(BLOCK * STRETCH, np.int32)
    starts = np.empty(STRETCH + 1, np.int32)
    n_rows, n_columns, found, candidates, looked, refused = rough.shape[0], rough.shape[1], 0, 0, 0, 0
    for block in range(0, n_rows, BLOCK):
        for start in range(0, n_columns, STRETCH):
            n, count = min(STRETCH, n_columns - start), 0
            since = first + start
            near = slice(since, since + n)
            u, v, cut = of_column[U, near], of_column[V, near], of_column[CUT, near]
            flags[n:] = 0
            for i in range(block, min(block + BLOCK, n_rows)):
                part, scale, p, q = rough[i, start : start + n], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
                if is_bits:
                    halves(part, half, scale, bits, most)
                else:
                    for j in range(n):
                        most[j] = np.float32(part[j]) * scale
                if massive_x.shape[1]:
                    add_massive(massive_x[i], massive_w[:, since : since + n], most)
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


def push(heap, value):
    """Replace the smallest number of a heap, which stands in front, by a larger one."""
    place, size = 0, len(heap)
    while 2 * place + 1 < size:
        below = 2 * place + 1
        if below + 1 < size and heap[below + 1] < heap[below]:
            below += 1
        if heap[below] >= value:
            break
        heap[place] = heap[below]
        place = below
    heap[place] = value


def thin(listed, scored, error, floor):
    """Keep of a list those that reach `floor` within their error; returns how many."""
    count = 0
    for c in range(len(listed)):
        if not scored[c] + error < floor:
            listed[count] = listed[c]
            scored[count] = scored[c]
            count += 1
    return count


def guess(rough, is_bits, of_row, of_column, massive_x, massive_w, rank, floors):
    """Write of each row its rough product with a column of a sample, of the column of a rank: a guess at the k-th of all, which need not hold."""
    bits = np.empty(rough.shape[1], np.uint32)
    near = bits.view(np.float32)
    for i in range(rough.shape[0]):
        part, scale = rough[i], of_row[SCALE, i]
        if is_bits:
            halves(part, np.float32(0.0), scale, bits, near)
        else:
            for j in range(len(part)):
                near[j] = np.float32(part[j]) * scale
        if massive_x.shape[1]:
            add_massive(massive_x[i], massive_w, near)
        for j in range(len(part)):
            near[j] = near[j] * of_column[WIDTH, j] + of_column[BIAS, j]
            # What is no number, and what lies beyond the range of the bound, guesses nothing.
            if not of_row[P, i] * of_column[U, j] < np.inf or not near[j] > -np.inf:
                near[j] = -np.inf
        floors[i] = np.partition(near, len(part) - rank)[len(part) - rank]


def least_of(heap, floor):
    """What a column must reach to be among the k largest: of the heap, of the guess, and behind the ReLU more than nothing."""
    return max(heap[0], max(floor, np.float32(0.0)))


def list_largest(
    rough, is_bits, half, of_row, of_column, massive_x, massive_w, x, weight, again, whole, gamma, first, floors, heaps, errors, counts,
    listed, scored, full,
):  # fmt: skip
    """Add to each row's list the columns of a tile that may be among its k largest; returns how many were computed in float32.

    `heaps` holds the k largest of what pre-activations are at least, the smallest of them in front: no column that cannot reach it is
    computed, and none that was computed and does not reach it is listed; nor what does not reach `floors`, guesses that hold where the
    heap has reached them in the end. A list that is full is thinned by what is known by then; a row
    whose list stays full is marked in `full`.
    """
    bits = np.empty(STRETCH, np.uint32)
    most, flags = bits.view(np.float32), np.zeros(STRETCH, np.uint8)
    at_rows, at_columns = np.empty(BLOCK * STRETCH, np.int32), np.empty(BLOCK * STRETCH, np.int32)
    mosts, order = np.empty(BLOCK * STRETCH, np.float32), np.empty(BLOCK * STRETCH, np.int32)
    starts = np.empty(STRETCH + 1, np.int32)
    n_rows, n_columns, capacity = rough.shape[0], rough.shape[1], listed.shape[1]
    candidates, looked, refused = 0, 0, 0
    for block in range(0, n_rows, BLOCK):
        for start in range(0, n_columns, STRETCH):
            n, count = min(STRETCH, n_columns - start), 0
            since = first + start
            near = slice(since, since + n)
            u, v, widths, offsets = (
                of_column[U, near],
                of_column[V, near],
                of_column[WIDTH, near],
                of_column[OFFSET, near],
            )
            flags[n:] = 0
            for i in range(block, min(block + BLOCK, n_rows)):
                part, scale, p, q = rough[i, start : start + n], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
                floor = least_of(heaps[i], floors[i])
                if is_bits:
                    halves(part, half, scale, bits, most)
                else:
                    for j in range(n):
                        most[j] = np.float32(part[j]) * scale
                if massive_x.shape[1]:
                    add_massive(massive_x[i], massive_w[:, since : since + n], most)
                for j in range(n):
                    most[j] = (most[j] + p * u[j] + q * v[j]) * widths[j] + offsets[j]
                for j in range(n):
                    flags[j] = np.uint8(not most[j] < floor)
                count = gather(flags, most, i, at_rows, at_columns, mosts, count)
            by_column(at_columns, count, starts, order)
            for c in range(count):
                i, j, upper = at_rows[order[c]], at_columns[order[c]], np.float64(mosts[order[c]])
                at, heap, floor = since + j, heaps[i], least_of(heaps[i], floors[i])
                if full[i] or upper < floor:
                    continue
                if again.shape[1] and is_worth(looked, refused):
                    looked += 1
                    # What the row's second numbers say, and how much less they leave open.
                    gained = (np.float64(of_row[P, i]) - np.float64(of_row[SHARP, i])) * u[j]
                    if upper + (sharpened(0.0, again, whole, of_row, i, at) - gained) * widths[j] < floor:
                        refused += 1
                        continue
                candidates += 1
                bias = of_column[BIAS, at]
                pre = dot(x, i, weight, at) + bias
                error = np.float32(gamma * (of_row[LENGTH, i] * of_column[LONG, at] + abs(bias)))
                if pre + error < floor:
                    continue
                errors[i] = max(errors[i], error)
                if counts[i] == capacity:
                    counts[i] = thin(listed[i], scored[i], errors[i], floor)
                    if counts[i] == capacity:
                        full[i] = True
                        continue
                listed[i, counts[i]] = at
                scored[i, counts[i]] = pre
                counts[i] += 1
                if pre - error > heap[0]:
                    push(heap, pre - error)
    return candidates


def choose_largest(rows, k, counts, errors, listed, scored, x, weight, of_column, tokens, features, values):
    """The k largest of each row's lists, in float64 where float32 cannot tell; of equals the lowest column wins. Returns how many codes.

    Lists come in parts, [rows, places] each: one part looked at columns of its own, behind those of the part before.
    """
    found, room = 0, len(listed) * listed[0].shape[1]
    columns, near = np.empty(room, np.int32), np.empty(room, np.float32)
    exact = np.empty(room, np.float64)
    verdict = np.empty(room, np.uint8)
    for i in range(rows[0], rows[1]):
        n, error = 0, np.float64(0.0)
        for part in range(len(listed)):
            error = max(error, np.float64(errors[part][i]))
            for c in range(counts[part][i]):
                columns[n] = listed[part][i, c]
                near[n] = scored[part][i, c]
                n += 1
        kth = np.float64(np.partition(near[:n], n - k)[n - k]) if n > k else -np.inf
        sure = 0
        for c in range(n):
            value = np.float64(near[c])
            exact[c] = value
            verdict[c] = OUT
            if value > kth + 2 * error and value > error:
                verdict[c] = KEPT
                sure += 1
            elif value >= kth - 2 * error and value >= -error:
                verdict[c] = OPEN
                exact[c] = wide_dot(x, i, weight, columns[c]) + np.float64(of_column[BIAS, columns[c]])
        for _ in range(k - sure):
            best = -1
            for c in range(n):
                # Strictly: of equals the first, which is the lowest column.
                if verdict[c] == OPEN and (best < 0 or exact[c] > exact[best]):
                    best = c
            if best < 0:
                break
            verdict[best] = KEPT
        for c in range(n):
            value = np.float32(exact[c])
            if verdict[c] == KEPT and value > 0:
                tokens[found] = i
                features[found] = columns[c]
                values[found] = value
                found += 1
    return found


def by_token(tokens, features, values, starts, out_tokens, out_features, out_values):
    """Put codes that are ordered by feature within each token in the order of tokens; `starts` is where each token's begin, and moves."""
    for c in range(len(tokens)):
        token = tokens[c]
        place = starts[token]
        starts[token] = place + 1
        out_tokens[place] = token
        out_features[place] = features[c]
        out_values[place] = values[c]
