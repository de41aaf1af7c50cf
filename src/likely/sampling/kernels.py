"""The compiled interpreter of incremental programs, and the draw from the head.

One call executes a row of pixels for a part of the batch: no Python, no allocation, no lock.
Tables of integers describe the program (`likely.sampling.compiled` writes them):

- `operands`, one line a view: base, rows kept, row step, stride, rows up, column step, image
  step, ratio and coarseness of its cells to those of the instruction;
- `code`, one line an instruction: operation, stride, period and phase, output, then what the
  operation needs;
- `taps`, one line a tap of a convolution: operand, inputs.

Compiled on first use and cached on disk.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

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

_jit: Any = njit(nogil=True, error_model="numpy")
# Sums over vectors may be taken in any order.
_loose: Any = njit(nogil=True, error_model="numpy", fastmath={"contract", "reassoc"})
# Into its caller: a call hands on some fifty numbers.
_inlined: Any = njit(nogil=True, error_model="numpy", forceinline=True)
_entry: Any = njit(nogil=True, error_model="numpy", cache=True)

BASE, KEPT, ROW_STEP, STRIDE, UP, COLUMN_STEP, IMAGE_STEP, RATIO, COARSE = range(9)
LINEAR, MAP, LSTM, NORMALIZE, ATTEND, ACCUMULATE, GROW, PICK, KEEP, GROW_RUN, MAP_NEW = range(11)
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
    def product(mem, weights, out, out_step, start, start_step, bias, taps, row, last, count, at):
        while row < last:
            left = last - row
            if left >= h4:
                t4(mem, weights, out, out_step, start, start_step, bias, taps, row, count, at)
                row += h4
            elif left >= h3:
                t3(mem, weights, out, out_step, start, start_step, bias, taps, row, count, at)
                row += h3
            elif left >= h2:
                t2(mem, weights, out, out_step, start, start_step, bias, taps, row, count, at)
                row += h2
            else:
                t1(mem, weights, out, out_step, start, start_step, bias, taps, row, count, at)
                row += h1

    return product


_product_1, _product_2, _product_3, _product_4 = (_columns(v) for v in (1, 2, 3, 4))


@_jit
def _matmul(mem, weights, out, out_step, start, start_step, bias, taps, images, count, inputs,
            at, vectors, panels, last_vectors, lanes):  # fmt: skip
    for row in range(0, images, BLOCK):
        end = min(images, row + BLOCK)
        for panel in range(panels):
            wide = vectors if panel < panels - 1 else last_vectors
            first = panel * vectors * lanes
            begin = start + first if start >= 0 else -1
            shift = bias + first if bias >= 0 else -1
            place = at + first * inputs
            if wide == 4:
                _product_4(mem, weights, out + first, out_step, begin, start_step, shift, taps,
                           row, end, count, place)  # fmt: skip
            elif wide == 3:
                _product_3(mem, weights, out + first, out_step, begin, start_step, shift, taps,
                           row, end, count, place)  # fmt: skip
            elif wide == 2:
                _product_2(mem, weights, out + first, out_step, begin, start_step, shift, taps,
                           row, end, count, place)  # fmt: skip
            else:
                _product_1(mem, weights, out + first, out_step, begin, start_step, shift, taps,
                           row, end, count, place)  # fmt: skip


_row_1, _row_2, _row_3, _row_4 = (TILES[1, v] for v in (1, 2, 3, 4))
_pair_3, _pair_4 = (PAIRS[v] for v in (3, 4))


@_inlined
def _one_row(mem, weights, out, start, bias, taps, count, inputs, at, vectors, panels,
             last_vectors, lanes):  # fmt: skip
    """`_matmul` of one image: two panels at once, or the sums would wait for each other."""
    panel = np.int64(0)
    while panel < panels:
        wide = vectors if panel < panels - 1 else last_vectors
        first = panel * vectors * lanes
        begin = start + first if start >= 0 else np.int64(-1)
        shift = bias + first if bias >= 0 else np.int64(-1)
        place = at + first * inputs
        pair = panel + 2 < panels or (panel + 2 == panels and last_vectors == vectors)
        if pair and wide >= 3:
            step = inputs * vectors * lanes
            if wide == 4:
                _pair_4(mem, weights, out + first, step, begin, 0, shift, taps, 0, count, place)
            else:
                _pair_3(mem, weights, out + first, step, begin, 0, shift, taps, 0, count, place)
            panel += 2
            continue
        if wide == 4:
            _row_4(mem, weights, out + first, 0, begin, 0, shift, taps, 0, count, place)
        elif wide == 3:
            _row_3(mem, weights, out + first, 0, begin, 0, shift, taps, 0, count, place)
        elif wide == 2:
            _row_2(mem, weights, out + first, 0, begin, 0, shift, taps, 0, count, place)
        else:
            _row_1(mem, weights, out + first, 0, begin, 0, shift, taps, 0, count, place)
        panel += 1


_copy, _negative, _relu, _elu = MAPS["copy"], MAPS["negative"], MAPS["relu"], MAPS["elu"]
_tanh, _sigmoid, _silu, _exp = MAPS["tanh"], MAPS["sigmoid"], MAPS["silu"], MAPS["exp"]
_square, _add, _multiply = MAPS["square"], MAPS["add"], MAPS["multiply"]
_gate, _linear_gate = MAPS["gate"], MAPS["linear_gate"]


@_jit
def _apply(op, mem, out, x, y, count, factor):
    if op == 0:
        _copy(mem, out, x, y, count, factor)
    elif op == 1:
        _negative(mem, out, x, y, count, factor)
    elif op == 2:
        _relu(mem, out, x, y, count, factor)
    elif op == 3:
        _elu(mem, out, x, y, count, factor)
    elif op == 4:
        _tanh(mem, out, x, y, count, factor)
    elif op == 5:
        _sigmoid(mem, out, x, y, count, factor)
    elif op == 6:
        _silu(mem, out, x, y, count, factor)
    elif op == 7:
        _exp(mem, out, x, y, count, factor)
    elif op == 8:
        _square(mem, out, x, y, count, factor)
    elif op == 9:
        _add(mem, out, x, y, count, factor)
    elif op == 10:
        _multiply(mem, out, x, y, count, factor)
    elif op == 11:
        _gate(mem, out, x, y, count, factor)
    elif op == 12:
        _linear_gate(mem, out, x, y, count, factor)
    else:  # softplus
        for i in range(count):
            value = float(mem[x + i])
            mem[out + i] = factor * (max(value, 0.0) + math.log1p(math.exp(-abs(value))))


@_inlined
def _place(operands, rows, view, cell):
    """Where a view's cell begins, for the first image."""
    at = cell * operands[view, RATIO]
    if operands[view, COARSE] != 1:  # divisions take long
        at //= operands[view, COARSE]
    return rows[view] + at * operands[view, COLUMN_STEP]


@_inlined
def _side_by_side(operands, view, batch):
    """Whether the cells of a row follow each other without a gap, as the images of a cell do."""
    if operands[view, RATIO] != 1 or operands[view, COARSE] != 1:
        return False
    return operands[view, COLUMN_STEP] == batch * operands[view, IMAGE_STEP]


@_inlined
def _linear(code, operands, rows, taps, table, mem, weights, batch, first, last, step, lanes):
    out, start, bias = code[5], code[7], code[8]
    begin, count = code[9], code[10]
    together = step == 1 and last - first > 1 and _side_by_side(operands, out, batch)
    together = together and (start < 0 or _side_by_side(operands, start, batch))
    inputs = np.int64(0)
    for tap in range(count):
        together = together and _side_by_side(operands, taps[begin + tap, 0], batch)
        inputs += taps[begin + tap, 1]
    images = batch * (last - first) if together else batch
    for cell in range(first, first + 1 if together else last, step):
        for tap in range(count):
            view = taps[begin + tap, 0]
            table[tap, 0] = _place(operands, rows, view, cell)
            table[tap, 1] = operands[view, IMAGE_STEP]
            table[tap, 2] = taps[begin + tap, 1]
        origin, origin_step = np.int64(-1), np.int64(0)
        if start >= 0:
            origin, origin_step = _place(operands, rows, start, cell), operands[start, IMAGE_STEP]
        to = _place(operands, rows, out, cell)
        if images == 1:
            _one_row(mem, weights, to, origin, bias, table, count, inputs, code[11], code[12],
                     code[13], code[14], lanes)  # fmt: skip
            continue
        _matmul(mem, weights, to, operands[out, IMAGE_STEP], origin, origin_step, bias, table,
                images, count, inputs, code[11], code[12], code[13], code[14],
                lanes)  # fmt: skip


@_inlined
def _map(code, operands, rows, floats, mem, batch, first, last, step):
    out, x, y, op, count = code[5], code[7], code[8], code[9], code[6]
    factor = floats[code[10]]
    out_step, x_step, y_step = (
        operands[out, IMAGE_STEP],
        operands[x, IMAGE_STEP],
        operands[y, IMAGE_STEP],
    )
    # Images in a run where nothing lies between them.
    joined = out_step == count and x_step == count and y_step == count
    together = joined and step == 1 and _side_by_side(operands, out, batch)
    together = together and _side_by_side(operands, x, batch) and _side_by_side(operands, y, batch)
    for cell in range(first, first + 1 if together else last, step):
        to = _place(operands, rows, out, cell)
        one, two = _place(operands, rows, x, cell), _place(operands, rows, y, cell)
        if together:
            _apply(op, mem, to, one, two, count * batch * (last - first), factor)
        elif joined:
            _apply(op, mem, to, one, two, count * batch, factor)
        else:
            for image in range(batch):
                _apply(op, mem, to + image * out_step, one + image * x_step,
                       two + image * y_step, count, factor)  # fmt: skip


@_jit
def _lstm(code, operands, rows, mem, batch, cell):
    at = np.empty(7, np.int64)
    step = np.empty(7, np.int64)
    for k in range(7):  # c, h, o, f, i, g, the c before
        view = code[5] if k == 0 else code[6 + k]
        at[k] = _place(operands, rows, view, cell)
        step[k] = operands[view, IMAGE_STEP]
    for _ in range(batch):
        lstm(mem, at[1], at[0], at[2], at[3], at[4], at[5], at[6], code[6])
        at += step


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


@_jit
def _normalize(code, operands, rows, floats, mem, weights, batch, cell, lanes):
    out, x, count = code[5], code[7], code[6]
    for image in range(batch):
        at = _place(operands, rows, x, cell) + image * operands[x, IMAGE_STEP]
        to = _place(operands, rows, out, cell) + image * operands[out, IMAGE_STEP]
        if count % lanes == 0:
            standardize(mem, weights, to, at, count // lanes, code[8], code[9], floats[code[10]])
            continue
        mean = _total(mem, at, count) / count
        variance = _squares(mem, at, count, mean) / count
        scale = 1.0 / math.sqrt(variance + floats[code[10]])
        for i in range(count):
            value = (mem[at + i] - mean) * scale
            mem[to + i] = value * weights[code[8] + i] + weights[code[9] + i]


@_jit
def _remember(code, operands, rows, mem, batch, row, place, lanes):
    """Key and value of a cell, where attention reads them: keys a vector of cells side by side."""
    columns, cells, heads = code[13], code[19], code[11]
    k_size, v_size = code[6] // heads, code[14] // heads
    wide = -(-v_size // lanes) * lanes
    above = place // columns < row
    keys, values = (code[15], code[16]) if above else (code[8], code[9])
    key = _place(operands, rows, keys, place % columns)
    value = _place(operands, rows, values, place % columns)
    for part in range(batch * heads):
        image, head = part // heads, part % heads
        at = key + image * operands[keys, IMAGE_STEP] + head * k_size
        to = code[17] + (part * -(-cells // lanes) + place // lanes) * k_size * lanes
        for i in range(k_size):
            mem[to + i * lanes + place % lanes] = mem[at + i]
        at = value + image * operands[values, IMAGE_STEP] + head * v_size
        to = code[18] + (part * cells + place) * wide
        for i in range(v_size):
            mem[to + i] = mem[at + i]


@_jit
def _attend(code, operands, rows, floats, mem, batch, row, cell, scores, lanes):
    out, query, heads, columns, cells = code[5], code[7], code[11], code[13], code[19]
    count = row * columns + cell + code[12]
    k_size, v_size = code[6] // heads, code[14] // heads
    wide, blocks = -(-v_size // lanes) * lanes, -(-count // lanes)
    held = -(-cells // lanes) * lanes  # behind the scores
    if count:
        _remember(code, operands, rows, mem, batch, row, count - 1, lanes)
    for image in range(batch):
        to = _place(operands, rows, out, cell) + image * operands[out, IMAGE_STEP]
        at = _place(operands, rows, query, cell) + image * operands[query, IMAGE_STEP]
        for head in range(heads):
            here = to + head * v_size
            if count == 0:
                for i in range(v_size):
                    mem[here + i] = 0.0
                continue
            part = image * heads + head
            meet(mem, scores, at + head * k_size,
                 code[17] + part * -(-cells // lanes) * k_size * lanes, k_size, blocks,
                 floats[code[10]])  # fmt: skip
            for index in range(count, blocks * lanes):
                scores[index] = -np.inf
            total = soften(scores, blocks)
            weigh(mem, scores, held, code[18] + part * cells * wide, wide, count,
                  1.0 / float(total))  # fmt: skip
            for i in range(v_size):
                mem[here + i] = scores[held + i]


@_loose
def _grow(code, operands, rows, integers, mem, weights, batch, index):
    """Weights stand with the inputs of one output side by side; a bias there, or for each image."""
    out, x, inputs, start = code[5], code[7], code[6], code[12]
    at, bias, table, size = code[8], code[9], code[10], code[11]
    first, last = integers[table + index], integers[table + size + index]
    seen = integers[table + 2 * size + index]
    for image in range(batch):
        read = rows[x] + image * operands[x, IMAGE_STEP]
        begin = np.int64(-1)
        if start >= 0:
            begin = rows[start] + image * operands[start, IMAGE_STEP]
        for unit in range(first, last):
            total = mem[begin + unit] if begin >= 0 else weights[bias + unit]
            for i in range(seen):
                total += mem[read + i] * weights[at + unit * inputs + i]
            mem[rows[out] + image * operands[out, IMAGE_STEP] + unit] = total


@_loose
def _rest(mem, weights, read, at, count, total):
    for i in range(count):
        total += mem[read + i] * weights[at + i]
    return total


@_jit
def _grow_run(code, operands, rows, table, integers, mem, weights, batch, pixel, lanes):
    """What the first pixel of a run knows is multiplied for all of its pixels together."""
    out, x, bias, start, length = code[5], code[7], code[9], code[12], code[14]
    sums, step = code[8], code[11]
    run = code[13] + 5 * (pixel // length)
    known = integers[run]
    if pixel % length == 0:
        vectors = integers[run + 2]
        panels = max(1, -(-vectors // 4))
        wide = -(-vectors // panels)
        panels = -(-vectors // max(1, wide))
        table[0, 0], table[0, 1], table[0, 2] = rows[x], operands[x, IMAGE_STEP], known
        _matmul(mem, weights, sums, step, np.int64(-1), np.int64(0), np.int64(-1), table, batch,
                np.int64(1), known, integers[run + 1], wide, panels,
                vectors - wide * (panels - 1), lanes)  # fmt: skip
    line = code[10] + 4 * pixel
    first, last, place = integers[line], integers[line + 1], integers[line + 3]
    count, width = integers[line + 2] - known, integers[run + 4]
    for image in range(batch):
        read = rows[x] + image * operands[x, IMAGE_STEP] + known
        to = rows[out] + image * operands[out, IMAGE_STEP]
        for unit in range(first, last):
            total = mem[sums + image * step + place + unit - first]
            if start >= 0:
                total += mem[rows[start] + image * operands[start, IMAGE_STEP] + unit]
            else:
                total += weights[bias + unit]
            own = integers[run + 3] + (place + unit - first) * width
            mem[to + unit] = _rest(mem, weights, read, own, count, total)


@_jit
def _map_new(code, operands, rows, integers, floats, mem, batch, index):
    """Only what became final since the dimension before; everything at the first."""
    out, x = code[5], code[7]
    first = integers[code[11] + index] if index else np.int64(0)
    last = integers[code[11] + index + 1] if index else code[6]
    if first == last:
        return
    for image in range(batch):
        _apply(code[9], mem, rows[out] + image * operands[out, IMAGE_STEP] + first,
               rows[x] + image * operands[x, IMAGE_STEP] + first,
               rows[x] + image * operands[x, IMAGE_STEP] + first, last - first,
               floats[code[10]])  # fmt: skip


@_jit
def _keep(code, operands, rows, mem, batch, cell, index):
    out, image_view = code[5], code[7]
    at, to = _place(operands, rows, image_view, cell), rows[out] + index
    for image in range(batch):
        value = mem[at + image * operands[image_view, IMAGE_STEP]]
        mem[to + image * operands[out, IMAGE_STEP]] = value


@_jit
def _pick(code, operands, rows, mem, batch, cell, index):
    out, x, size = code[5], code[7], code[6]
    for image in range(batch):
        to = _place(operands, rows, out, cell) + image * operands[out, IMAGE_STEP]
        at = rows[x] + image * operands[x, IMAGE_STEP] + index * size
        for i in range(size):
            mem[to + i] = mem[at + i]


@_jit
def _accumulate(code, operands, rows, mem, weights, batch, cell, index):
    out, image_view, count = code[5], code[7], code[6]
    for image in range(batch):
        value = mem[
            _place(operands, rows, image_view, cell) + image * operands[image_view, IMAGE_STEP]
        ]
        to = rows[out] + image * operands[out, IMAGE_STEP]
        for i in range(count):
            mem[to + i] += value * weights[code[8] + index * count + i]


@_jit
def _execute(code, begin, end, operands, rows, taps, table, floats, integers, scores, mem,
             weights, batch, row, first_column, last_column, sizes):  # fmt: skip
    """Instructions [begin, end) on the cells that begin in some columns of a row."""
    lanes, width = sizes[0], sizes[1]
    for index in range(begin, end):
        one = code[index]
        stride, period = one[1], one[2]
        first, last = first_column, last_column
        if stride > 1 or period > 1:
            if row % stride or (row // stride) % period != one[3]:
                continue
            first = -(-first_column // stride)
            last = -(-last_column // stride)
            first += (one[4] - first) % period
            if first >= last:
                continue
        op = one[0]
        if op == LINEAR:
            _linear(one, operands, rows, taps, table, mem, weights, batch, first, last, period,
                    lanes)  # fmt: skip
        elif op == MAP:
            _map(one, operands, rows, floats, mem, batch, first, last, period)
        else:
            for cell in range(first, last):
                dimension = (row * width + cell) * one[15] + one[16]
                if op == LSTM:
                    _lstm(one, operands, rows, mem, batch, cell)
                elif op == NORMALIZE:
                    _normalize(one, operands, rows, floats, mem, weights, batch, cell, lanes)
                elif op == ATTEND:
                    _attend(one, operands, rows, floats, mem, batch, row // stride, cell, scores,
                            lanes)  # fmt: skip
                elif op == ACCUMULATE:
                    _accumulate(one, operands, rows, mem, weights, batch, cell, dimension)
                elif op == GROW:
                    _grow(one, operands, rows, integers, mem, weights, batch, dimension)
                elif op == GROW_RUN:
                    _grow_run(one, operands, rows, table, integers, mem, weights, batch,
                              row * width + cell, lanes)  # fmt: skip
                elif op == MAP_NEW:
                    _map_new(one, operands, rows, integers, floats, mem, batch, dimension)
                elif op == KEEP:
                    _keep(one, operands, rows, mem, batch, cell, dimension)
                else:
                    _pick(one, operands, rows, mem, batch, cell, dimension)


@_entry
def execute(code, begin, end, operands, rows, taps, table, floats, integers, scores, mem, weights,
            batch, row, first_column, last_column, sizes):  # fmt: skip
    """Instructions [begin, end) on the cells that begin in some columns of a row."""
    _execute(code, begin, end, operands, rows, taps, table, floats, integers, scores, mem,
             weights, batch, row, first_column, last_column, sizes)  # fmt: skip


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
def _draw_mixture(mem, at, channel, head, temperature, u, x, image, row, column, chances):
    """The level of a discretized logistic mixture, by bisection on its distribution function.

    The bins' masses telescope: levels up to l have sum_k w_k sigma((x_l + h - mu_k) / s_k).
    """
    levels, channels, parts = head[1], head[2], head[3]
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
                chances[1, k], chances[2, k] = mean, inverse
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
        chances[0, k] = chance
        top = max(top, chance)
    total = 0.0
    for k in range(parts):
        chances[0, k] = math.exp(chances[0, k] - top)
        total += chances[0, k]
    low, high = np.int64(0), levels - 1
    while low < high:
        middle = (low + high) // 2
        edge = middle * (2.0 / (levels - 1)) - 1.0 + half
        mass = 0.0
        for k in range(parts):
            mass += chances[0, k] * _sigmoid_of((edge - chances[1, k]) * chances[2, k])
        if mass <= u * total:
            low = middle + 1
        else:
            high = middle
    return low


@_jit
def _draw(mem, at, channel, head, temperature, u, x, image, row, column, chances):
    kind, levels = head[0], head[1]
    if kind == MIXTURE:
        return _draw_mixture(mem, at, channel, head, temperature, u, x, image, row, column, chances)
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


@_jit
def _write_level(mem, operands, rows, images, floats, image, channel, column, level):
    for index in range(len(images)):
        view = images[index, 0]
        place = _place(operands, rows, view, column) + image * operands[view, IMAGE_STEP] + channel
        mem[place] = level * floats[images[index, 1]] + floats[images[index, 1] + 1]


@_entry
def put(operands, rows, images, floats, mem, x, row, first_column, last_column, first, last):
    """Write channels [first, last) of given pixels where the program reads them."""
    for image in range(x.shape[0]):
        for column in range(first_column, last_column):
            for channel in range(first, last):
                _write_level(mem, operands, rows, images, floats, image, channel, column,
                             x[image, channel, row, column])  # fmt: skip


@_entry
def draw_cells(operands, rows, output, head, mem, temperature, uniform, x, row, first_column,
               last_column, first, last, chances):  # fmt: skip
    """Draw channels [first, last) of some pixels of a row whose parameters stand side by side."""
    for column in range(first_column, last_column):
        for image in range(x.shape[0]):
            at = _place(operands, rows, output, column) + image * operands[output, IMAGE_STEP]
            for channel in range(first, last):
                x[image, channel, row, column] = _draw(
                    mem, at, channel, head, temperature, uniform[image, channel, row, column],
                    x, image, row, column, chances,
                )  # fmt: skip


@_entry
def draw_row(code, lists, operands, rows, taps, table, floats, integers, scores, mem, weights,
             batch, row, known, sizes, output, head, images, temperature, uniform, x,
             chances):  # fmt: skip
    """Compute, draw and take in a row of pixels, one after another.

    `lists` [groups, 4]: where the instructions of each sub-step begin and end, before and after
    the draw. The first `known` pixels are given in x.
    """
    groups, width, channels = len(lists), sizes[1], x.shape[1]
    size = channels // groups
    for column in range(width):
        for group in range(groups):
            _execute(code, lists[group, 0], lists[group, 1], operands, rows, taps, table,
                     floats, integers, scores, mem, weights, batch, row, column, column + 1,
                     sizes)  # fmt: skip
            for image in range(batch):
                at = _place(operands, rows, output, column) + image * operands[output, IMAGE_STEP]
                for channel in range(group * size, (group + 1) * size):
                    if column >= known:
                        x[image, channel, row, column] = _draw(
                            mem, at, channel, head, temperature,
                            uniform[image, channel, row, column], x, image, row, column, chances,
                        )  # fmt: skip
                    _write_level(mem, operands, rows, images, floats, image, channel, column,
                                 x[image, channel, row, column])  # fmt: skip
            _execute(code, lists[group, 2], lists[group, 3], operands, rows, taps, table,
                     floats, integers, scores, mem, weights, batch, row, column, column + 1,
                     sizes)  # fmt: skip


@_entry
def bind(operands, rows, row):
    """Where each view's line begins at an image row: the rows kept are used in rotation."""
    for view in range(len(operands)):
        line = operands[view]
        turn = (row // line[STRIDE] - line[UP]) % line[KEPT]
        rows[view] = line[BASE] + turn * line[ROW_STEP]
