"""The compiled interpreter of incremental programs, and the draw from the head.

One call executes a row of pixels for a part of the batch: no Python, no allocation, no lock.
`likely.sampling.compiled` writes the instructions; `likely.sampling.records` says what they hold.

Compiled on first use and cached on disk.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from likely.sampling.records import Op, Panels, Product
from likely.sampling.vectors import (
    HEIGHTS,
    MAPS,
    PAIRS,
    TILES,
    lstm,
    meet,
    soften,
    standardize,
    weigh,
)

# Without numba's reference counts, which would cost as much as a small instruction: so no arrays
# are made here, and the caller holds those that come in.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "_nrt": False}
# Wrappers for Python are of the entries.
_INNER: Any = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, **_OPTIONS}
_jit: Any = njit(**_INNER)
# Sums over vectors may be taken in any order.
_loose: Any = njit(fastmath={"contract", "reassoc"}, **_INNER)
# Into its caller: a call hands on some eighty numbers, those of the machine's arrays.
_inlined: Any = njit(forceinline=True, **_INNER)
# The same, and not compiled by itself.
_within: Any = njit(inline="always", **_OPTIONS)
_entry: Any = njit(cache=True, **_OPTIONS)

MAP_OPS = (*MAPS, "softplus")
BERNOULLI, CATEGORICAL, MIXTURE = range(3)

# Images of a convolution that go through all its outputs before the next ones: their inputs
# stay in the first cache, and 48 is a multiple of every tile's height.
BLOCK = 48


def _columns(vectors: int) -> Any:
    """A product with outputs of some vectors, any number of images."""
    heights = [*[HEIGHTS[vectors][0]] * (4 - len(HEIGHTS[vectors])), *HEIGHTS[vectors]]
    h1, h2, h3, h4 = heights
    t1, t2, t3, t4 = (TILES[h, vectors] for h in heights)

    @_jit
    def columns(mem, weights, bound, product, row, last):
        while row < last:
            left = last - row
            if left >= h4:
                t4(mem, weights, bound, product, row)
                row += h4
            elif left >= h3:
                t3(mem, weights, bound, product, row)
                row += h3
            elif left >= h2:
                t2(mem, weights, bound, product, row)
                row += h2
            else:
                t1(mem, weights, bound, product, row)
                row += h1

    return columns


_columns_1, _columns_2, _columns_3, _columns_4 = (_columns(v) for v in (1, 2, 3, 4))


@_inlined
def _panel(product, panels, panel, lanes):
    """The product of one panel of outputs."""
    first = panel * panels.vectors * lanes
    return Product(
        product.out + first,
        product.out_step,
        product.start + first if product.start >= 0 else np.int64(-1),
        product.start_step,
        product.bias + first if product.bias >= 0 else np.int64(-1),
        product.taps,
        product.weights + first * panels.inputs,
    )


@_jit
def _matmul(mem, weights, bound, product, panels, images, lanes):
    for row in range(0, images, BLOCK):
        end = min(images, row + BLOCK)
        for panel in range(panels.panels):
            wide = panels.vectors if panel < panels.panels - 1 else panels.last
            part = _panel(product, panels, panel, lanes)
            if wide == 4:
                _columns_4(mem, weights, bound, part, row, end)
            elif wide == 3:
                _columns_3(mem, weights, bound, part, row, end)
            elif wide == 2:
                _columns_2(mem, weights, bound, part, row, end)
            else:
                _columns_1(mem, weights, bound, part, row, end)


_row_1, _row_2, _row_3, _row_4 = (TILES[1, v] for v in (1, 2, 3, 4))
_pair_3, _pair_4 = (PAIRS[v] for v in (3, 4))


@_inlined
def _one_row(mem, weights, bound, product, panels, lanes):
    """`_matmul` of one image: two panels at once, or the sums would wait for each other."""
    panel = np.int64(0)
    while panel < panels.panels:
        wide = panels.vectors if panel < panels.panels - 1 else panels.last
        part = _panel(product, panels, panel, lanes)
        left = panels.panels - panel
        if wide >= 3 and (left > 2 or (left == 2 and panels.last == panels.vectors)):
            step = panels.inputs * panels.vectors * lanes
            pair = Product(
                part.out, step, part.start, part.start_step, part.bias, part.taps, part.weights
            )
            if wide == 4:
                _pair_4(mem, weights, bound, pair, 0)
            else:
                _pair_3(mem, weights, bound, pair, 0)
            panel += 2
            continue
        if wide == 4:
            _row_4(mem, weights, bound, part, 0)
        elif wide == 3:
            _row_3(mem, weights, bound, part, 0)
        elif wide == 2:
            _row_2(mem, weights, bound, part, 0)
        else:
            _row_1(mem, weights, bound, part, 0)
        panel += 1


_copy, _negative, _relu, _elu = MAPS["copy"], MAPS["negative"], MAPS["relu"], MAPS["elu"]
_tanh, _sigmoid, _silu, _exp = MAPS["tanh"], MAPS["sigmoid"], MAPS["silu"], MAPS["exp"]
_square, _add, _multiply = MAPS["square"], MAPS["add"], MAPS["multiply"]
_gate, _linear_gate = MAPS["gate"], MAPS["linear_gate"]


@_jit
def _apply(function, mem, out, x, y, count, factor):
    if function == 0:
        _copy(mem, out, x, y, count, factor)
    elif function == 1:
        _negative(mem, out, x, y, count, factor)
    elif function == 2:
        _relu(mem, out, x, y, count, factor)
    elif function == 3:
        _elu(mem, out, x, y, count, factor)
    elif function == 4:
        _tanh(mem, out, x, y, count, factor)
    elif function == 5:
        _sigmoid(mem, out, x, y, count, factor)
    elif function == 6:
        _silu(mem, out, x, y, count, factor)
    elif function == 7:
        _exp(mem, out, x, y, count, factor)
    elif function == 8:
        _square(mem, out, x, y, count, factor)
    elif function == 9:
        _add(mem, out, x, y, count, factor)
    elif function == 10:
        _multiply(mem, out, x, y, count, factor)
    elif function == 11:
        _gate(mem, out, x, y, count, factor)
    elif function == 12:
        _linear_gate(mem, out, x, y, count, factor)
    else:  # softplus
        for i in range(count):
            value = float(mem[x + i])
            mem[out + i] = factor * (max(value, 0.0) + math.log1p(math.exp(-abs(value))))


@_inlined
def _place(m, view, cell):
    """Where a view's cell begins, for the first image."""
    seen = m.views[view]
    at = cell * seen.ratio
    if seen.coarse != 1:  # divisions take long
        at //= seen.coarse
    return m.lines[view] + at * seen.column_step


@_inlined
def _side_by_side(m, view):
    """Whether the cells of a row follow each other without a gap, as the images of a cell do."""
    seen = m.views[view]
    if seen.ratio != 1 or seen.coarse != 1:
        return False
    return seen.column_step == m.batch * seen.image_step


@_inlined
def _linear(m, op, first, last):
    together = op.period == 1 and last - first > 1 and _side_by_side(m, op.out)
    together = together and (op.start < 0 or _side_by_side(m, op.start))
    inputs = np.int64(0)
    for k in range(op.tap_count):
        tap = m.taps[op.taps + k]
        together = together and _side_by_side(m, tap.x)
        inputs += tap.inputs
    panels = Panels(inputs, op.vectors, op.panels, op.last_vectors)
    images = m.batch * (last - first) if together else m.batch
    for cell in range(first, first + 1 if together else last, op.period):
        for k in range(op.tap_count):
            tap = m.taps[op.taps + k]
            m.bound[k, 0] = _place(m, tap.x, cell)
            m.bound[k, 1] = m.views[tap.x].image_step
            m.bound[k, 2] = tap.inputs
        start, start_step = np.int64(-1), np.int64(0)
        if op.start >= 0:
            start, start_step = _place(m, op.start, cell), m.views[op.start].image_step
        product = Product(
            _place(m, op.out, cell),
            m.views[op.out].image_step if images > 1 else np.int64(0),
            start,
            start_step,
            op.bias,
            op.tap_count,
            op.weights,
        )
        if images == 1:
            _one_row(m.mem, m.weights, m.bound, product, panels, m.lanes)
        else:
            _matmul(m.mem, m.weights, m.bound, product, panels, images, m.lanes)


@_inlined
def _map(m, op, first, last):
    count, factor = op.count, m.floats[op.factor]
    out_step, x_step = m.views[op.out].image_step, m.views[op.x].image_step
    y_step = m.views[op.y].image_step
    # Images in a run where nothing lies between them.
    joined = out_step == count and x_step == count and y_step == count
    together = joined and op.period == 1 and _side_by_side(m, op.out)
    together = together and _side_by_side(m, op.x) and _side_by_side(m, op.y)
    for cell in range(first, first + 1 if together else last, op.period):
        to, x, y = _place(m, op.out, cell), _place(m, op.x, cell), _place(m, op.y, cell)
        if joined:
            cells = last - first if together else 1
            _apply(op.function, m.mem, to, x, y, count * m.batch * cells, factor)
            continue
        for _ in range(m.batch):
            _apply(op.function, m.mem, to, x, y, count, factor)
            to, x, y = to + out_step, x + x_step, y + y_step


@_inlined
def _lstm(m, op, cell):
    h, c, before = _place(m, op.h, cell), _place(m, op.out, cell), _place(m, op.before, cell)
    o, f = _place(m, op.o, cell), _place(m, op.f, cell)
    i, g = _place(m, op.i, cell), _place(m, op.g, cell)
    for _ in range(m.batch):
        lstm(m.mem, h, c, o, f, i, g, before, op.count)
        h, c = h + m.views[op.h].image_step, c + m.views[op.out].image_step
        o, f = o + m.views[op.o].image_step, f + m.views[op.f].image_step
        i, g = i + m.views[op.i].image_step, g + m.views[op.g].image_step
        before += m.views[op.before].image_step


@_loose
def _total(mem, at, count):
    total = 0.0
    for i in range(count):
        total += float(mem[at + i])
    return total


@_loose
def _squares(mem, at, count, mean):
    total = 0.0
    for i in range(count):
        total += (float(mem[at + i]) - mean) ** 2
    return total


@_inlined
def _normalize(m, op, cell):
    count, eps = op.count, m.floats[op.eps]
    at, to = _place(m, op.x, cell), _place(m, op.out, cell)
    for _ in range(m.batch):
        if count % m.lanes == 0:
            standardize(m.mem, m.weights, to, at, count // m.lanes, op.gain, op.shift, eps)
        else:
            mean = _total(m.mem, at, count) / count
            variance = _squares(m.mem, at, count, mean) / count
            scale = 1.0 / math.sqrt(variance + eps)
            for i in range(count):
                value = (m.mem[at + i] - mean) * scale
                m.mem[to + i] = value * m.weights[op.gain + i] + m.weights[op.shift + i]
        at += m.views[op.x].image_step
        to += m.views[op.out].image_step


@_inlined
def _remember(m, op, row, place):
    """Key and value of a cell, where attention reads them: keys a vector of cells side by side."""
    mem, lanes = m.mem, m.lanes
    wide = -(-op.value_size // lanes) * lanes
    above = place // op.columns < row
    keys, values = (op.keys_above, op.values_above) if above else (op.keys, op.values)
    key, value = _place(m, keys, place % op.columns), _place(m, values, place % op.columns)
    for part in range(m.batch * op.heads):
        image, head = part // op.heads, part % op.heads
        at = key + image * m.views[keys].image_step + head * op.key_size
        block = part * -(-op.cells // lanes) + place // lanes
        to = op.packed_keys + block * op.key_size * lanes
        for i in range(op.key_size):
            mem[to + i * lanes + place % lanes] = mem[at + i]
        at = value + image * m.views[values].image_step + head * op.value_size
        to = op.packed_values + (part * op.cells + place) * wide
        for i in range(op.value_size):
            mem[to + i] = mem[at + i]


@_inlined
def _attend(m, op, row, cell):
    mem, scores, lanes = m.mem, m.scores, m.lanes
    count = row * op.columns + cell + op.current
    wide, blocks = -(-op.value_size // lanes) * lanes, -(-count // lanes)
    held = -(-op.cells // lanes) * lanes  # behind the scores
    if count:
        _remember(m, op, row, count - 1)
    for image in range(m.batch):
        to = _place(m, op.out, cell) + image * m.views[op.out].image_step
        at = _place(m, op.query, cell) + image * m.views[op.query].image_step
        for head in range(op.heads):
            if count == 0:
                for i in range(op.value_size):
                    mem[to + i] = 0.0
            else:
                part = image * op.heads + head
                keys = op.packed_keys + part * -(-op.cells // lanes) * op.key_size * lanes
                meet(mem, scores, at, keys, op.key_size, blocks, m.floats[op.scale])
                for index in range(count, blocks * lanes):
                    scores[index] = -np.inf
                share = 1.0 / float(soften(scores, blocks))
                values = op.packed_values + part * op.cells * wide
                weigh(mem, scores, held, values, wide, count, share)
                for i in range(op.value_size):
                    mem[to + i] = scores[held + i]
            to += op.value_size
            at += op.key_size


@_loose
def _inner(mem, weights, read, at, count, total):
    for i in range(count):
        total += mem[read + i] * weights[at + i]
    return total


@_inlined
def _grow(m, op, index):
    """Weights stand with the inputs of one output side by side; a bias there, or for each image."""
    mem, weights = m.mem, m.weights
    first, last = (m.integers[op.bounds + index], m.integers[op.bounds + op.dimensions + index])
    seen = m.integers[op.bounds + 2 * op.dimensions + index]
    for image in range(m.batch):
        read = m.lines[op.x] + image * m.views[op.x].image_step
        to = m.lines[op.out] + image * m.views[op.out].image_step
        begin = np.int64(-1)
        if op.start >= 0:
            begin = m.lines[op.start] + image * m.views[op.start].image_step
        for unit in range(first, last):
            total = mem[begin + unit] if begin >= 0 else weights[op.bias + unit]
            mem[to + unit] = _inner(mem, weights, read, op.weights + unit * op.inputs, seen, total)


@_inlined
def _grow_run(m, op, pixel):
    """What the first pixel of a run knows is multiplied for all of its pixels together."""
    mem, weights, integers = m.mem, m.weights, m.integers
    run = op.runs + 5 * (pixel // op.length)
    known = integers[run]
    if pixel % op.length == 0:
        vectors = integers[run + 2]
        panels = max(1, -(-vectors // 4))
        wide = -(-vectors // panels)
        panels = -(-vectors // max(1, wide))
        m.bound[0, 0], m.bound[0, 1] = m.lines[op.x], m.views[op.x].image_step
        m.bound[0, 2] = known
        none, zero = np.int64(-1), np.int64(0)
        product = Product(op.sums, op.sums_step, none, zero, none, np.int64(1), integers[run + 1])
        layout = Panels(known, wide, panels, vectors - wide * (panels - 1))
        _matmul(mem, weights, m.bound, product, layout, m.batch, m.lanes)
    line = op.pixels + 4 * pixel
    first, last, place = integers[line], integers[line + 1], integers[line + 3]
    count, width = integers[line + 2] - known, integers[run + 4]
    for image in range(m.batch):
        read = m.lines[op.x] + image * m.views[op.x].image_step + known
        to = m.lines[op.out] + image * m.views[op.out].image_step
        for unit in range(first, last):
            total = mem[op.sums + image * op.sums_step + place + unit - first]
            if op.start >= 0:
                total += mem[m.lines[op.start] + image * m.views[op.start].image_step + unit]
            else:
                total += weights[op.bias + unit]
            at = integers[run + 3] + (place + unit - first) * width
            mem[to + unit] = _inner(mem, weights, read, at, count, total)


@_inlined
def _map_new(m, op, index):
    """Only what became final since the dimension before; everything at the first."""
    first = m.integers[op.ends + index] if index else np.int64(0)
    last = m.integers[op.ends + index + 1] if index else op.count
    if first == last:
        return
    to, x = m.lines[op.out] + first, m.lines[op.x] + first
    for _ in range(m.batch):
        _apply(op.function, m.mem, to, x, x, last - first, m.floats[op.factor])
        to += m.views[op.out].image_step
        x += m.views[op.x].image_step


@_inlined
def _keep(m, op, cell, index):
    at, to = _place(m, op.x, cell), m.lines[op.out] + index
    for image in range(m.batch):
        m.mem[to + image * m.views[op.out].image_step] = m.mem[
            at + image * m.views[op.x].image_step
        ]


@_inlined
def _pick(m, op, cell, index):
    for image in range(m.batch):
        to = _place(m, op.out, cell) + image * m.views[op.out].image_step
        at = m.lines[op.x] + image * m.views[op.x].image_step + index * op.count
        for i in range(op.count):
            m.mem[to + i] = m.mem[at + i]


@_inlined
def _accumulate(m, op, cell, index):
    for image in range(m.batch):
        value = m.mem[_place(m, op.x, cell) + image * m.views[op.x].image_step]
        to = m.lines[op.out] + image * m.views[op.out].image_step
        at = op.weights + index * op.count
        for i in range(op.count):
            m.mem[to + i] += value * m.weights[at + i]


@_jit
def _log_sigmoid(x):
    return min(x, 0.0) - math.log1p(math.exp(-abs(x)))


@_jit
def _sigmoid_of(x):
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    e = math.exp(x)
    return e / (1.0 + e)


@_jit
def _draw_mixture(mem, at, chances, x, image, channel, row, column):
    """The level of a discretized logistic mixture, by bisection on its distribution function.

    The bins' masses telescope: levels up to l have sum_k w_k sigma((x_l + h - mu_k) / s_k).
    """
    levels, channels, parts = chances.kind[1], chances.kind[2], chances.kind[3]
    u, temperature = chances.uniform[image, channel, row, column], chances.temperature
    logit, means, inverses = chances.parts[0], chances.parts[1], chances.parts[2]
    half = 1.0 / (levels - 1)
    floor = -7.0 if levels <= 256 else -3.0 - math.log(levels - 1)
    top = -np.inf
    for k in range(parts):
        chance = mem[at + k] / temperature
        for before in range(channel + 1):
            place = k * channels + before
            mean = float(mem[at + parts + place])
            pair = before * (before - 1) // 2
            for earlier in range(before):
                value = x[image, earlier, row, column] * (2.0 / (levels - 1)) - 1.0
                slot = at + parts * (1 + 2 * channels) + k * (channels * (channels - 1) // 2)
                mean += math.tanh(mem[slot + pair + earlier]) * value
            raw = mem[at + parts * (1 + channels) + place] + math.log(temperature)
            scale = min(max(raw, floor), 40.0)
            inverse = math.exp(-scale)
            if before == channel:
                means[k], inverses[k] = mean, inverse
                break
            level = x[image, before, row, column]
            centred = level * (2.0 / (levels - 1)) - 1.0 - mean
            upper, lower = (centred + half) * inverse, (centred - half) * inverse
            if level == 0:
                chance += _log_sigmoid(upper)
            elif level == levels - 1:
                chance += _log_sigmoid(-lower)
            else:
                gap = math.log(-math.expm1(-2.0 * half * inverse))
                chance += _log_sigmoid(upper) + _log_sigmoid(-lower) + gap
        logit[k] = chance
        top = max(top, chance)
    total = 0.0
    for k in range(parts):
        logit[k] = math.exp(logit[k] - top)  # now a chance
        total += logit[k]
    low, high = np.int64(0), levels - 1
    while low < high:
        middle = (low + high) // 2
        edge = middle * (2.0 / (levels - 1)) - 1.0 + half
        mass = 0.0
        for k in range(parts):
            mass += logit[k] * _sigmoid_of((edge - means[k]) * inverses[k])
        if mass <= u * total:
            low = middle + 1
        else:
            high = middle
    return low


@_jit
def _draw(mem, at, chances, x, image, channel, row, column):
    kind, levels = chances.kind[0], chances.kind[1]
    u, temperature = chances.uniform[image, channel, row, column], chances.temperature
    if kind == MIXTURE:
        return _draw_mixture(mem, at, chances, x, image, channel, row, column)
    if kind == BERNOULLI:
        zero = _sigmoid_of(-mem[at + channel] / temperature)
        return np.int64(1) if zero <= u else np.int64(0)
    first = at + channel * levels
    top = float(mem[first])
    for level in range(1, levels):
        top = max(top, float(mem[first + level]))
    total = 0.0
    for level in range(levels):
        total += math.exp((mem[first + level] - top) / temperature)
    below, sum_so_far = u * total, 0.0
    for level in range(levels - 1):
        sum_so_far += math.exp((mem[first + level] - top) / temperature)
        if sum_so_far > below:
            return np.int64(level)
    return levels - 1


@_inlined
def _write_level(m, image, channel, column, level):
    for index in range(len(m.images)):
        seen = m.images[index]
        place = _place(m, seen.x, column) + image * m.views[seen.x].image_step + channel
        m.mem[place] = level * m.floats[seen.scale] + m.floats[seen.scale + 1]


@_entry
def put(m, x, row, first_column, last_column, first, last):
    """Write channels [first, last) of given pixels where the program reads them."""
    for image in range(x.shape[0]):
        for column in range(first_column, last_column):
            for channel in range(first, last):
                _write_level(m, image, channel, column, x[image, channel, row, column])


@_entry
def draw_cells(m, chances, x, row, start):
    """Draw the pixels of a row from `start` on, whose parameters stand side by side."""
    for column in range(start, x.shape[3]):
        for image in range(x.shape[0]):
            at = _place(m, m.output, column) + image * m.views[m.output].image_step
            for channel in range(x.shape[1]):
                x[image, channel, row, column] = _draw(
                    m.mem, at, chances, x, image, channel, row, column
                )


@_within
def _execute(m, begin, end, row, first_column, last_column):
    for index in range(begin, end):
        op = m.code[index]
        first, last = first_column, last_column
        if op.stride > 1 or op.period > 1:
            if row % op.stride or (row // op.stride) % op.period != op.row_phase:
                continue
            first = -(-first_column // op.stride)
            last = -(-last_column // op.stride)
            first += (op.column_phase - first) % op.period
            if first >= last:
                continue
        if op.kind == Op.LINEAR:
            _linear(m, op, first, last)
        elif op.kind == Op.MAP:
            _map(m, op, first, last)
        else:
            for cell in range(first, last):
                dimension = (row * m.width + cell) * op.groups + op.group
                if op.kind == Op.LSTM:
                    _lstm(m, op, cell)
                elif op.kind == Op.NORMALIZE:
                    _normalize(m, op, cell)
                elif op.kind == Op.ATTEND:
                    _attend(m, op, row // op.stride, cell)
                elif op.kind == Op.ACCUMULATE:
                    _accumulate(m, op, cell, dimension)
                elif op.kind == Op.GROW:
                    _grow(m, op, dimension)
                elif op.kind == Op.GROW_RUN:
                    _grow_run(m, op, row * m.width + cell)
                elif op.kind == Op.MAP_NEW:
                    _map_new(m, op, dimension)
                elif op.kind == Op.KEEP:
                    _keep(m, op, cell, dimension)
                else:
                    _pick(m, op, cell, dimension)


@_entry
def run(m, begin, end, row, first, last, steps, chances, x, known):
    """Compute the cells that begin in columns [first, last) of a row.

    Without steps: instructions [begin, end), each on all the columns. With those of the groups:
    the columns one after another are computed, drawn and taken in; the first `known` are given in
    x. One entry for both, as each would be optimised with all the instructions.
    """
    drawn = len(steps) > 0
    together = 1 if drawn else max(1, last - first)
    groups = max(1, len(steps))
    size = x.shape[1] // groups
    for column in range(first, last, together):
        for group in range(groups):
            for late in range(1 + drawn):
                if drawn and late:
                    begin, end = steps[group].late_begin, steps[group].late_end
                elif drawn:
                    begin, end = steps[group].begin, steps[group].end
                _execute(m, begin, end, row, column, column + together)
                if late or not drawn:
                    continue
                for image in range(m.batch):
                    at = _place(m, m.output, column) + image * m.views[m.output].image_step
                    for channel in range(group * size, (group + 1) * size):
                        if column >= known:
                            x[image, channel, row, column] = _draw(
                                m.mem, at, chances, x, image, channel, row, column
                            )
                        _write_level(m, image, channel, column, x[image, channel, row, column])


@_entry
def bind(views, lines, row):
    """Where each view's line begins at an image row: the rows kept are used in rotation."""
    for index in range(len(views)):
        seen = views[index]
        turn = (row // seen.stride - seen.up) % seen.kept
        lines[index] = seen.base + turn * seen.row_step
