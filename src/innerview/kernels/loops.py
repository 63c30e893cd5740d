"""Loops over tiles of rough products, for numba: each is plain Python too, slow and the same, so that it runs without numba.

Rows are tokens, columns features. `rough` is a tile [rows, columns] of screening products: whole numbers, float32, or the upper
halves of float32 numbers (bfloat16) as unsigned integers. A pre-activation without its bias, in units of its column's scale, is at most
`rough · scale_row + half · |…| + massive + p_row · u_column + q_row · v_column`; `docs/explanation/exact-codes.md` derives it.
Stretches are taken out as arrays of their own: only then do the inner loops become vector instructions.
"""

import numpy as np

# Largest whole number of int8 that is used, so that rows are symmetric.
WHOLE = 127
# Below this a row's scale would have no inverse.
LEAST_SCALE = 2.0**-100
# Columns that are looked at together, for so many rows in turn: what both hold of x and the weight lies near the processor.
STRETCH = 128
BLOCK = 256
# Places of what is known of each row, and of each column.
SCALE, P, Q, LENGTH = 0, 1, 2, 3
U, V, CUT, WIDTH, OFFSET, LONG, BIAS, FACTOR, SHIFT = 0, 1, 2, 3, 4, 5, 6, 7, 8
# What is known of a column that may be among the k largest.
OUT, OPEN, KEPT = 0, 1, 2


def dot(x, i, weight, at):
    """A product of two rows, summed in float32."""
    total = np.float32(0.0)
    for k in range(x.shape[1]):
        total += x[i, k] * weight[at, k]
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
    gamma,
    rows,
    first,
    tokens,
    features,
    values,
):
    """Codes of a tile by a rule that looks at each feature alone; returns how many, and how many candidates there were.

    A column whose product may pass its cut is computed in float32, and in float64 where that lies within float32's own error. Features
    of each token come in order, tokens do not.
    """
    bits = np.empty(STRETCH, np.uint32)
    most = bits.view(np.float32)
    flags = np.zeros(STRETCH, np.uint8)
    eights = flags.view(np.uint64)
    n_columns, found, candidates = rough.shape[1], 0, 0
    for block in range(rows[0], rows[1], BLOCK):
        for start in range(0, n_columns, STRETCH):
            n = min(STRETCH, n_columns - start)
            since = first + start
            u, v, cut = (
                of_column[U, since : since + n],
                of_column[V, since : since + n],
                of_column[CUT, since : since + n],
            )
            flags[n:] = 0
            for i in range(block, min(block + BLOCK, rows[1])):
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
                for e in range(STRETCH // 8):
                    if eights[e] == 0:
                        continue
                    for j in range(8 * e, 8 * e + 8):
                        if flags[j] == 0:
                            continue
                        at = since + j
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


def guess(rough, is_bits, half, of_row, of_column, massive_x, massive_w, rows, rank, floors):
    """Write of each row what its product with a column of a sample is at least, of the column of a rank: a guess at the k-th of all."""
    bits = np.empty(rough.shape[1], np.uint32)
    least = bits.view(np.float32)
    for i in range(rows[0], rows[1]):
        part, scale, p, q = rough[i], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
        if is_bits:
            halves(part, np.float32(-half), scale, bits, least)
        else:
            for j in range(len(part)):
                least[j] = np.float32(part[j]) * scale
        if massive_x.shape[1]:
            add_massive(massive_x[i], massive_w, least)
        for j in range(len(part)):
            least[j] = (least[j] - p * of_column[U, j] - q * of_column[V, j]) * of_column[WIDTH, j] + of_column[BIAS, j]
            # What is no number, and what lies beyond the range of the bound, guesses nothing.
            if not least[j] > -np.inf:
                least[j] = -np.inf
        floors[i] = np.partition(least, len(part) - rank)[len(part) - rank]


def list_largest(
    rough, is_bits, half, of_row, of_column, massive_x, massive_w, x, weight, gamma, rows, first, floors, heaps, errors, counts, listed,
    scored, full,
):  # fmt: skip
    """Add to each row's list the columns of a tile that may be among its k largest; returns how many were computed in float32.

    `heaps` holds the k largest of what pre-activations are at least, the smallest of them in front: no column that cannot reach it is
    computed, and none that was computed and does not reach it is listed; nor what does not reach `floors`, guesses that hold where the
    heap has reached them in the end. A list that is full is thinned by what is known by then; a row
    whose list stays full is marked in `full`.
    """
    bits = np.empty(STRETCH, np.uint32)
    most = bits.view(np.float32)
    flags = np.zeros(STRETCH, np.uint8)
    eights = flags.view(np.uint64)
    n_columns, capacity, candidates = rough.shape[1], listed.shape[1], 0
    for block in range(rows[0], rows[1], BLOCK):
        for start in range(0, n_columns, STRETCH):
            n = min(STRETCH, n_columns - start)
            since = first + start
            u, v = of_column[U, since : since + n], of_column[V, since : since + n]
            widths, offsets = of_column[WIDTH, since : since + n], of_column[OFFSET, since : since + n]
            flags[n:] = 0
            for i in range(block, min(block + BLOCK, rows[1])):
                part, scale, p, q = rough[i, start : start + n], of_row[SCALE, i], of_row[P, i], of_row[Q, i]
                heap = heaps[i]
                # Behind the ReLU nothing below 0 is a code.
                floor = max(heap[0], max(floors[i], np.float32(0.0)))
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
                for e in range(STRETCH // 8):
                    if eights[e] == 0:
                        continue
                    for j in range(8 * e, 8 * e + 8):
                        if flags[j] == 0 or most[j] < floor or full[i]:
                            continue
                        at = since + j
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
                            floor = max(heap[0], floor)
    return candidates


def choose_largest(rows, k, counts, errors, listed, scored, x, weight, of_column, tokens, features, values):
    """The k largest of each row's list, in float64 where float32 cannot tell; of equals the lowest column wins. Returns how many codes."""
    found, capacity = 0, listed.shape[1]
    exact = np.empty(capacity, np.float64)
    verdict = np.empty(capacity, np.uint8)
    for i in range(rows[0], rows[1]):
        n, error = counts[i], np.float64(errors[i])
        kth = np.float64(np.partition(scored[i, :n], n - k)[n - k]) if n > k else -np.inf
        sure = 0
        for c in range(n):
            value = np.float64(scored[i, c])
            exact[c] = value
            verdict[c] = OUT
            if value > kth + 2 * error and value > error:
                verdict[c] = KEPT
                sure += 1
            elif value >= kth - 2 * error and value >= -error:
                verdict[c] = OPEN
                exact[c] = wide_dot(x, i, weight, listed[i, c]) + np.float64(of_column[BIAS, listed[i, c]])
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
                features[found] = listed[i, c]
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
