"""Loops that find the k largest of each row, for numba, as those of `loops.py` are.

While tiles of rough products pass by, each row lists the columns that may still be among its k largest, and how large they can be at
most. What the k-th is at least is guessed from the rough products themselves, which miss far less than their bound allows; a guess may be wrong, and a row that
does not reach its guess in the end is marked, and done again with one that holds. Only at the end are products computed, of what is left then.
"""

import numpy as np

from innerview.kernels.loops import (
    BIAS,
    LENGTH,
    LONG,
    OFFSET,
    SCALE,
    SHARP,
    STRETCH,
    WIDTH,
    P,
    Q,
    U,
    V,
    by_column,
    dot,
    is_worth,
    roughly,
    sharpened,
    wide_dot,
)

# What is known of a column that may be among the k largest.
OUT, OPEN, KEPT = 0, 1, 2


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


def thin(listed, mosts, floor):
    """Keep of a list those that may reach `floor`; returns how many."""
    count = 0
    for c in range(len(listed)):
        if not mosts[c] < floor:
            listed[count] = listed[c]
            mosts[count] = mosts[c]
            count += 1
    return count


def guess(rough, is_bits, of_row, of_column, massive_x, massive_w, rank, floors):
    """Write of each row its rough product with a column of a sample, of the column of a rank: a guess at the k-th of all, which need not hold."""
    bits = np.empty(rough.shape[1], np.uint32)
    near, heap = bits.view(np.float32), np.empty(rank, np.float32)
    for i in range(rough.shape[0]):
        part, scale = rough[i], of_row[SCALE, i]
        roughly(part, is_bits, np.float32(0.0), scale, massive_x[i], massive_w, bits, near)
        widths, biases = of_column[WIDTH], of_column[BIAS]
        for j in range(len(part)):
            near[j] = near[j] * widths[j] + biases[j]
        heap[:] = -np.inf
        for j in range(len(part)):
            # What is no number, and what lies beyond the range of the bound, guesses nothing.
            if near[j] > heap[0] and of_row[P, i] * of_column[U, j] < np.inf:
                push(heap, near[j])
        floors[i] = heap[0]


def probably(most, half, margin, gamma, of_row, of_column, i, at):
    """What a column certainly reaches, if its rough product misses no more than `margin` times what it may."""
    open_end = (of_row[P, i] * of_column[U, at] + of_row[Q, i] * of_column[V, at]) * of_column[WIDTH, at]
    near = most - open_end
    error = gamma * (of_row[LENGTH, i] * of_column[LONG, at] + abs(of_column[BIAS, at]))
    return near - margin * open_end - np.float32(2.0) * (half * abs(near) + error)


def list_largest(
    rough, is_bits, half, of_row, of_column, massive_x, massive_w, gamma, margin, first, floors, heaps, counts, listed, mosts, full,
):  # fmt: skip
    """Add to each row's list the columns of a tile that may be among its k largest, and what they are at most.

    `heaps` holds the k largest of what pre-activations probably are, the smallest of them in front; it lifts `floors`, below which nothing
    is listed. A list that is full is thinned by the floor; a row whose list stays full is marked in `full`.
    """
    bits = np.empty(STRETCH, np.uint32)
    most, flags = bits.view(np.float32), np.zeros(STRETCH, np.uint8)
    eights = flags.view(np.uint64)
    n_rows, n_columns, capacity = rough.shape[0], rough.shape[1], listed.shape[1]
    for start in range(0, n_columns, STRETCH):
        n = min(STRETCH, n_columns - start)
        since = first + start
        near = slice(since, since + n)
        u, v, widths = of_column[U, near], of_column[V, near], of_column[WIDTH, near]
        offsets = of_column[OFFSET, near]
        flags[n:] = 0
        for i in range(n_rows):
            part, scale, p, q = rough[i, start : start + n], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
            # Behind the ReLU nothing below 0 is a code.
            heap, floor = heaps[i], max(floors[i], np.float32(0.0))
            roughly(part, is_bits, half, scale, massive_x[i], massive_w[:, near], bits, most)
            for j in range(n):
                most[j] = (most[j] + p * u[j] + q * v[j]) * widths[j] + offsets[j]
            for j in range(n):
                flags[j] = np.uint8(not most[j] < floor)
            for e in range(STRETCH // 8):
                if eights[e] == 0:
                    continue
                for j in range(8 * e, 8 * e + 8):
                    if flags[j] == 0 or most[j] < floor or full[i]:
                        continue
                    if counts[i] == capacity:
                        counts[i] = thin(listed[i], mosts[i], floor)
                        if counts[i] == capacity:
                            full[i] = True
                            continue
                    listed[i, counts[i]] = since + j
                    mosts[i, counts[i]] = most[j]
                    counts[i] += 1
                    likely = probably(most[j], half, margin, gamma, of_row, of_column, i, since + j)
                    if likely > heap[0]:
                        push(heap, likely)
                        floor = max(heap[0], floor)
            floors[i] = max(floors[i], heap[0])


def choose_largest(
    rows, k, margin, half, floors, counts, listed, mosts, full, of_row, of_column, x, weight, again, whole, gamma, tokens, features, values
):  # fmt: skip
    """The k largest of each row's lists, in float64 where float32 cannot tell; of equals the lowest column wins.

    Lists come in parts, [rows, places] each: one part looked at columns of its own, behind those of the part before. A row whose k-th is below its
    floor is marked in `full`. Returns how many codes, and how many products were computed in float32.
    """
    total = 0
    for part in range(len(listed)):
        for i in range(rows[0], rows[1]):
            total += counts[part][i]
    of, columns, near = np.empty(total, np.int32), np.empty(total, np.int32), np.empty(total, np.float32)
    exact, verdict, ends = (
        np.empty(total, np.float64),
        np.zeros(total, np.uint8),
        np.zeros(rows[1] - rows[0] + 1, np.int64),
    )
    lowest = np.zeros(rows[1] - rows[0], np.float32)
    count = 0
    for i in range(rows[0], rows[1]):
        since, floor = count, np.float32(0.0)
        for part in range(len(listed)):
            floor = max(floor, floors[part][i])
            for c in range(0 if full[i] else counts[part][i]):
                of[count], columns[count], near[count] = i, listed[part][i, c], mosts[part][i, c]
                count += 1
        floor = max(
            floor,
            joined_floor(k, margin, half, gamma, columns[since:count], near[since:count], exact, of_row, of_column, i),
        )
        n = thin(columns[since:count], near[since:count], floor)
        count, ends[i - rows[0] + 1], lowest[i - rows[0]] = since + n, since + n, floor
    sure, errors = np.zeros(len(lowest), np.int64), np.zeros(len(lowest), np.float32)
    candidates = compute(
        rows[0],
        count,
        of,
        columns,
        near,
        verdict,
        lowest,
        sure,
        errors,
        of_row,
        of_column,
        x,
        weight,
        again,
        whole,
        gamma,
    )
    found = 0
    for i in range(rows[0], rows[1]):
        row = slice(ends[i - rows[0]], ends[i - rows[0] + 1])
        # Of what is left, k must reach the floor for certain; else it was too high.
        if full[i] or (lowest[i - rows[0]] > 0 and sure[i - rows[0]] < k):
            full[i] = True
            continue
        n = kept(columns[row], near[row], verdict[row])
        decided(n, k, errors[i - rows[0]], columns[row], near[row], exact[row], verdict[row], x, weight, of_column, i)
        for c in range(row.start, row.start + n):
            value = np.float32(exact[c])
            if verdict[c] == KEPT and value > 0:
                tokens[found], features[found], values[found] = i, columns[c], value
                found += 1
    return found, candidates


def joined_floor(k, margin, half, gamma, columns, mosts, likely, of_row, of_column, i):
    """What the k-th of a row's lists together probably is."""
    n = len(columns)
    if n < k:
        return np.float32(-np.inf)
    for c in range(n):
        value = probably(mosts[c], half, margin, gamma, of_row, of_column, i, columns[c])
        # What is no number says nothing.
        likely[c] = value if value > -np.inf else -np.inf
    return np.float32(np.partition(likely[:n], n - k)[n - k])


def compute(
    first, count, of, columns, near, verdict, lowest, sure, errors, of_row, of_column, x, weight, again, whole, gamma
):
    """Write in place of what columns are at most what they are, and mark as open those that may reach the floor of their row.

    Columns go in their order, so that the weight of one is near while it is multiplied by all its rows. Also written: how many of each row certainly
    reach its floor, and the largest of its errors. Returns how many were computed.
    """
    order, starts = np.empty(count, np.int32), np.empty(weight.shape[0] + 1, np.int32)
    by_column(columns, count, starts, order)
    candidates, looked, refused = 0, 0, 0
    for place in range(count):
        c = order[place]
        i, at, floor = of[c], columns[c], lowest[of[c] - first]
        if again.shape[1] and is_worth(looked, refused):
            looked += 1
            # What the row's second numbers say, and how much less they leave open.
            gained = (np.float64(of_row[P, i]) - np.float64(of_row[SHARP, i])) * of_column[U, at]
            most = near[c] + (sharpened(0.0, again, whole, of_row, i, at) - gained) * of_column[WIDTH, at]
            if most < floor:
                refused += 1
                continue
        candidates += 1
        bias = of_column[BIAS, at]
        pre = dot(x, i, weight, at) + bias
        error = np.float32(gamma * (of_row[LENGTH, i] * of_column[LONG, at] + abs(bias)))
        if pre + error < floor:
            continue
        if pre - error >= floor:
            sure[i - first] += 1
        errors[i - first] = max(errors[i - first], error)
        near[c], verdict[c] = pre, OPEN
    return candidates


def kept(columns, near, verdict):
    """Put the open columns of a row in front; returns how many."""
    n = 0
    for c in range(len(columns)):
        if verdict[c] == OPEN:
            columns[n], near[n] = columns[c], near[c]
            n += 1
    return n


def decided(n, k, error, columns, near, exact, verdict, x, weight, of_column, i):
    """Write which of a row's columns are its k largest, and their values."""
    wide = np.float64(error)
    kth = np.float64(np.partition(near[:n], n - k)[n - k]) if n > k else -np.inf
    sure = 0
    for c in range(n):
        value = np.float64(near[c])
        exact[c] = value
        verdict[c] = OUT
        if value > kth + 2 * wide and value > wide:
            verdict[c] = KEPT
            sure += 1
        elif value >= kth - 2 * wide and value >= -wide:
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
