"""Kernels of `ssp`: the quotient, Gauss-Seidel sweeps, and the inductive checks of both bounds.

Sweeps, weights and guesses need not be right: a bound counts only once `prove_upper` or
`prove_lower` (or `single` for a state on its own) has checked one backup of it, rounded outwards.
Blocks are strongly connected components, successors first; block states are numbered in a row.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from likely.mdp.kernels.graph import components

UNIT = 2.0**-53
SMALL_BLOCK = 30_000  # transitions
SLOW = 400.0  # sweeps that a block may need before another method is likely to be cheaper
TINY = 1e-300  # more than what underflow can take from a product ...
SMALL = 1e-280  # ... which happens below this

# Places of `state` in `work_round`, and of `place` in `advance`.
DELTA, TIE, BELOW, ABOVE, WIDTH, ROUNDED, LEAVES, MODE, LAST_WIDTH = range(9)
BLOCK, ROUNDS, SWEEPS, PATIENT = range(4)
# Values of `state[MODE]`; all but FREE keep DELTA.
FREE, KEPT, OF_POLICY, HOPELESS = 0.0, -1.0, -2.0, -3.0

_sweep: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
_exact: Any = njit(nogil=True, cache=True, error_model="numpy")


@_exact
def quotient(pair_ptr, indptr, indices, probability, reward, fixed, keep, group, groups, stops):
    """Rows of the kept pairs over groups of states, sorted by blocks, successors first.

    `group` [S] is -1 for a state whose value is `fixed`; its share goes into the reward. `stops`
    [groups] is the reward of stopping, NaN where a group may not. Returns the CSR pieces, the
    pair behind each row (-1 for stopping), the pointer to the blocks, the number of blocks of
    several states on the longest path from each block, and the new number of each group.
    """
    members = np.flatnonzero(group >= 0)
    start = np.zeros(groups + 1, dtype=np.int64)
    entries = 0
    for state in members:
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            if keep[pair]:
                start[group[state] + 1] += 1
                entries += indptr[pair + 1] - indptr[pair]
    for g in range(groups):
        if not np.isnan(stops[g]):
            start[g + 1] += 1
    for g in range(groups):
        start[g + 1] += start[g]
    count = start[groups]
    listed = np.full(count, -1, dtype=np.int64)  # pairs by group; -1 stays for stopping
    fill = start[:groups].copy()
    for state in members:
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            if keep[pair]:
                listed[fill[group[state]]] = pair
                fill[group[state]] += 1
    moves = np.empty(entries, dtype=indices.dtype)
    move_ptr = np.zeros(count + 1, dtype=np.int64)
    place = 0
    for i in range(count):
        pair = listed[i]
        if pair >= 0:
            for k in range(indptr[pair], indptr[pair + 1]):
                if group[indices[k]] >= 0:
                    moves[place] = group[indices[k]]
                    place += 1
        move_ptr[i + 1] = place
    order, block_ptr, label = components(start, move_ptr, moves[:place])
    blocks = block_ptr.shape[0] - 1
    number = np.empty(groups, dtype=np.int64)
    for i in range(groups):
        number[order[i]] = i
    # The final rows.
    row_ptr = np.zeros(groups + 1, dtype=np.int64)
    entry_ptr = np.zeros(count + 1, dtype=np.int64)
    column = np.empty(place, dtype=indices.dtype)
    weight = np.empty(place, dtype=np.float64)
    gain = np.empty(count, dtype=np.float64)
    pair_of = np.empty(count, dtype=np.int64)
    level = np.zeros(blocks, dtype=np.int64)
    row, entry = 0, 0
    for i in range(groups):
        g = order[i]
        deepest = 0
        for j in range(start[g], start[g + 1]):
            pair = listed[j]
            pair_of[row] = pair
            if pair < 0:
                gain[row] = stops[g]
            else:
                total = reward[pair]
                for k in range(indptr[pair], indptr[pair + 1]):
                    h = group[indices[k]]
                    if h < 0:
                        total += probability[k] * fixed[indices[k]]
                    else:
                        column[entry] = number[h]
                        weight[entry] = probability[k]
                        if label[h] != label[g]:
                            deepest = max(deepest, level[label[h]])
                        entry += 1
                gain[row] = total
            row += 1
            entry_ptr[row] = entry
        row_ptr[i + 1] = row
        b = label[g]
        if block_ptr[b + 1] - block_ptr[b] > 1:
            deepest += 1
        level[b] = max(level[b], deepest)
    return row_ptr, entry_ptr, column, weight, gain, pair_of, block_ptr, level, number


@_exact
def lost(product, factor):
    """What underflow may have taken from a product."""
    return TINY if abs(product) < SMALL and factor != 0.0 else 0.0


@_exact
def row_bounds(rows, row, lower, upper, s, unit, loss):
    """Both backups of a row, rounded outwards, without moves to `s`, and the chance of those."""
    _, entry_ptr, column, weight, gain = rows
    below = above = gain[row]
    size_low = size_high = abs(gain[row])
    loop = 0.0
    for k in range(entry_ptr[row], entry_ptr[row + 1]):
        following = column[k]
        if following == s:
            loop += weight[k]
            continue
        a, b = weight[k] * lower[following], weight[k] * upper[following]
        below += a - lost(a, lower[following])
        above += b + lost(b, upper[following])
        size_low += abs(a)
        size_high += abs(b)
    return below - (unit * size_low + loss), above + (unit * size_high + loss), loop


@_exact
def single(rows, lower, upper, chosen, s, unit, loss):
    """Both bounds of a state by one backup, rounded outwards; moves to itself are solved for.

    That is all there is to a state that cannot come back otherwise.
    """
    row_ptr = rows[0]
    low, high, best = -np.inf, -np.inf, row_ptr[s]
    for row in range(row_ptr[s], row_ptr[s + 1]):
        below, above, loop = row_bounds(rows, row, lower, upper, s, unit, loss)
        if loop > 0.0:
            exit = 1.0 - loop
            below = _quotient_below(below, exit, 2.0 * unit)
            above = -_quotient_below(-above, exit, 2.0 * unit)
        if below > low:
            low, best = below, row
        high = max(high, above)
    if low > lower[s] or chosen[s] < 0:
        lower[s], chosen[s] = max(lower[s], low), best
    upper[s] = min(upper[s], high)


@_exact
def _quotient_below(part, exit, unit):
    """A number below part / exit, where `exit` is known to `unit`."""
    if part == 0.0:
        return 0.0
    if part > 0.0:
        return part / (exit + unit) * (1.0 - 4.0 * UNIT)
    if exit <= unit:
        return -np.inf
    return part / (exit - unit) * (1.0 + 4.0 * UNIT)


@_exact
def guessed(rows, row, outside, guess, first, last, direction):
    """A backup of a row at `guess` inside the block, underflow counted in a direction; its terms.

    `outside` holds bounds of the states outside the block.
    """
    _, entry_ptr, column, weight, gain = rows
    total, size = gain[row], abs(gain[row])
    for k in range(entry_ptr[row], entry_ptr[row + 1]):
        following = column[k]
        value = guess[following] if first <= following < last else outside[following]
        term = weight[k] * value
        total += term + direction * lost(term, value)
        size += abs(term)
    return total, size


@_exact
def prove_upper(rows, upper, guess, first, last, unit, loss):
    """Whether T guess <= guess on first..last, every backup rounded up by `unit` of its terms."""
    for s in range(first, last):
        for row in range(rows[0][s], rows[0][s + 1]):
            total, size = guessed(rows, row, upper, guess, first, last, 1.0)
            if not total + (unit * (size + abs(guess[s])) + loss) <= guess[s]:
                return False
    return True


@_exact
def prove_lower(rows, lower, guess, picked, first, last, unit, loss):
    """Whether guess <= T guess on first..last, rounded down; `picked` are rows that show it."""
    for s in range(first, last):
        best = -np.inf
        for row in range(rows[0][s], rows[0][s + 1]):
            total, size = guessed(rows, row, lower, guess, first, last, -1.0)
            total -= unit * (size + abs(guess[s])) + loss
            if total > best:
                best = total
                picked[s] = row
        if not guess[s] <= best:
            return False
    return True


@_sweep
def sweep(rows, xy, first, last, delta, tie, forward):
    """One Gauss-Seidel sweep over a block: x to its backup, y to `delta` and what stays of it.

    `xy` [K, 2] holds the value x and the weight y, 0 outside the blocks at work. y follows the
    best row, and rows whose x is within `tie` of it where they hold more. Moves to the state
    itself are solved for. Returns the largest change of x and the largest y.
    """
    row_ptr, entry_ptr, column, weight, gain = rows
    change, top = 0.0, 0.0
    for i in range(last - first):
        s = first + i if forward else last - 1 - i
        best, held = -np.inf, 0.0
        for row in range(row_ptr[s], row_ptr[s + 1]):
            x, y, loop = gain[row], delta, 0.0
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                following = column[k]
                if following == s:
                    loop += weight[k]
                else:
                    x += weight[k] * xy[following, 0]
                    y += weight[k] * xy[following, 1]
            if loop > 0.0:
                if loop >= 1.0:
                    continue
                x /= 1.0 - loop
                y /= 1.0 - loop
            if x > best:
                held = max(held, y) if x <= best + tie else y
                best = x
            elif x >= best - tie and y > held:
                held = y
        change = max(change, abs(best - xy[s, 0]))
        top = max(top, held)
        xy[s, 0], xy[s, 1] = best, held
    return change, top


@_exact
def guess_bounds(
    rows, xy, lower, upper, first, last, unit, loss, below,
    above,
):  # fmt: skip
    """Between which u is x + above + u y an upper bound, and l for x - below + l y a lower one.

    Returns (least u, largest u, least l, largest l, the largest terms of a backup, and the
    multiple of y by which x is probably wrong).
    """
    row_ptr, entry_ptr, column, weight, gain = rows
    u_least, u_most, l_least, l_most, largest = -np.inf, np.inf, -np.inf, np.inf, 0.0
    gains, falls = 0.0, 0.0
    for s in range(first, last):
        x_high, x_low, y_here = xy[s, 0] + above, xy[s, 0] - below, xy[s, 1]
        best, best_falls, best_size = -np.inf, 0.0, 0.0
        middle, middle_falls = -np.inf, 0.0
        for row in range(row_ptr[s], row_ptr[s + 1]):
            high, low, held, mid = gain[row], gain[row], 0.0, gain[row]
            size = abs(gain[row]) + max(abs(x_high), abs(x_low))
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                following = column[k]
                if first <= following < last:
                    a = weight[k] * (xy[following, 0] + above)
                    b = weight[k] * (xy[following, 0] - below)
                    held += weight[k] * xy[following, 1]
                else:
                    a, b = weight[k] * upper[following], weight[k] * lower[following]
                high += a
                low += b
                mid += weight[k] * xy[following, 0]
                size += max(abs(a), abs(b))
            if mid > middle:
                middle, middle_falls = mid, y_here - held
            # high and low are finite unless a bound outside is not: then there is no proof.
            excess = high - x_high + unit * size + 1.01 * loss
            grows = (1.0 + unit) * held - (1.0 - unit) * y_here
            if grows < 0.0:
                u_least = max(u_least, -excess / grows)
            elif grows > 0.0:
                u_most = min(u_most, -excess / grows)
            elif excess > 0.0:
                u_most = -np.inf
            gained = low - x_low - unit * size - 1.01 * loss
            if gained > best:
                best, best_size = gained, size
                best_falls = (1.0 + unit) * y_here - (1.0 - unit) * held
        largest = max(largest, best_size)
        gains += middle - xy[s, 0]
        falls += middle_falls
        if best_falls > 0.0:
            l_most = min(l_most, best / best_falls)
        elif best_falls < 0.0:
            l_least = max(l_least, best / best_falls)
        elif best < 0.0:
            l_most = -np.inf
    wrong = gains / falls if falls > 0.0 else 0.0
    return u_least, u_most, l_least, l_most, largest, wrong


@_exact
def widths_outside(rows, xy, lower, upper, first, last):
    """How far the bounds of the successors outside a block lie below and above their x."""
    row_ptr, entry_ptr, column = rows[:3]
    below, above = 0.0, 0.0
    for k in range(entry_ptr[row_ptr[first]], entry_ptr[row_ptr[last]]):
        following = column[k]
        if not first <= following < last:
            below = max(below, xy[following, 0] - lower[following])
            above = max(above, upper[following] - xy[following, 0])
    return below, above


@_exact
def work_round(
    rows, xy, lower, upper, chosen, guess, picked, first, last, unit,
    loss, sweeps, state,
):  # fmt: skip
    """Sweeps over one block, then a guess of both bounds and their proof, then a better x.

    `state` is kept between rounds: what y gains in a sweep, so that it falls everywhere (DELTA);
    within which x rows count as equally good (TIE); what the bounds outside the block are wide
    (BELOW, ABOVE); the width of the bounds inside (WIDTH); what rounding may make of it
    (ROUNDED); the share of y that leaves in a sweep (LEAVES); MODE; the last width where rounding
    seemed to limit it (LAST_WIDTH).
    """
    delta, tie, below, above = state[DELTA], state[TIE], state[BELOW], state[ABOVE]
    change, top = 0.0, 1.0
    for _ in range(sweeps):
        change, top = sweep(rows, xy, first, last, delta, tie, True)
    decay = 1.0 - top ** (1.0 / sweeps) if 0.0 < top < 1.0 else 0.0
    scale = 1.0 / top
    for s in range(first, last):
        xy[s, 1] *= scale
    # The guess rounds on its own account, so it leaves the proof some room.
    u_least, u_most, l_least, l_most, largest, shift = guess_bounds(
        rows, xy, lower, upper, first, last, 2.5 * unit,
        loss, below, above,
    )  # fmt: skip
    most = u_least + 1e-9 * abs(u_least)
    least = l_most - 1e-9 * abs(l_most)
    if 0.0 < abs(most) < SMALL:
        most = SMALL
    if 0.0 < abs(least) < SMALL:
        least = -SMALL
    upper_fits = np.isfinite(most) and most <= u_most
    lower_fits = np.isfinite(least) and least >= l_least
    if upper_fits:
        for s in range(first, last):
            guess[s] = xy[s, 0] + above + most * xy[s, 1]
        if prove_upper(rows, upper, guess, first, last, unit, loss):
            for s in range(first, last):
                upper[s] = min(upper[s], guess[s])
    if lower_fits:
        for s in range(first, last):
            guess[s] = xy[s, 0] - below + least * xy[s, 1]
        if prove_lower(rows, lower, guess, picked, first, last, unit, loss):
            for s in range(first, last):
                if guess[s] > lower[s] or chosen[s] < 0:
                    lower[s] = max(guess[s], lower[s])
                    chosen[s] = picked[s]
    if not (lower_fits and np.isfinite(shift)):
        shift = 0.0
    elif upper_fits:
        shift = min(max(shift, least), most)
    # Rows that are worse by more than u cannot break the upper bound; but where u is still large,
    # most of them are no rivals either.
    tie = 0.0
    if np.isfinite(u_least):
        tie = min(abs(u_least) + abs(l_most), 100.0 * change + 8.0 * unit * largest)
    width = 0.0
    for s in range(first, last):
        width = max(width, upper[s] - lower[s])
        x = xy[s, 0] + shift * xy[s, 1]
        xy[s, 0] = min(max(x, lower[s] - below), upper[s] + above)
    if decay > 0.0:
        state[LEAVES] = decay
    state[TIE], state[WIDTH] = tie, width
    state[ROUNDED] = (unit * largest + loss) / max(0.3 * state[LEAVES], delta * scale, 1e-16)
    state[DELTA] = delta * scale if state[MODE] < FREE else max(1e-3 * state[LEAVES], 1e-12)


@_exact
def foreseen(width, tolerance, decay):
    """Sweeps to go where they can already be told to be many, else 0."""
    much = width / tolerance
    if not much > 1.0:
        return 0.0
    sweeps = np.log(min(much, 1e12)) / max(decay, 1e-6)
    return sweeps if sweeps > SLOW else 0.0


@_exact
def advance(
    rows, block_ptr, level, xy, lower, upper, chosen, guess,
    picked, unit, loss, tolerance, levels, rounds, budget, patience, state, place,
):  # fmt: skip
    """Solve blocks until the budget of visited transitions, or the rounds, are spent.

    A block is left when its bounds are within its share of the tolerance, or when rounding keeps
    them apart. `place` is the BLOCK, the ROUNDS and the SWEEPS in it, and after how many sweeps
    it counts as slow (PATIENT), where the kernel returns. Returns the rounds made.
    """
    row_ptr, entry_ptr = rows[:2]
    blocks = block_ptr.shape[0] - 1
    made = 0
    while place[BLOCK] < blocks and budget > 0:
        position = place[BLOCK]
        first, last = block_ptr[position], block_ptr[position + 1]
        entries = entry_ptr[row_ptr[last]] - entry_ptr[row_ptr[first]] + last - first
        if last - first == 1:
            single(rows, lower, upper, chosen, first, unit, loss)
            if np.isfinite(lower[first]) and np.isfinite(upper[first]):
                xy[first, 0] = 0.5 * (lower[first] + upper[first])
            budget -= entries
            place[BLOCK] += 1
            continue
        if made >= rounds:
            return made
        if place[ROUNDS] == 0:
            for s in range(first, last):
                xy[s, 1] = 1.0
            state[BELOW], state[ABOVE] = widths_outside(rows, xy, lower, upper, first, last)
            state[DELTA], state[TIE], state[LEAVES], state[MODE] = 1e-12, 0.0, 0.0, 0.0
            place[SWEEPS], place[PATIENT] = 0, max(48, patience // entries)
        hopeless = state[MODE] == HOPELESS
        sweeps = 1 if state[MODE] < KEPT else 6 * 2 ** min(place[ROUNDS] // 3, 4)
        work_round(
            rows, xy, lower, upper, chosen, guess, picked,
            first, last, unit, loss, sweeps, state,
        )  # fmt: skip
        made += 1
        budget -= entries * (sweeps + 4)
        place[ROUNDS] += 1
        place[SWEEPS] += sweeps
        width = state[WIDTH]
        done = width <= 2.0 * tolerance * level[position] / levels
        if not done and width <= 1.1 * (state[BELOW] + state[ABOVE]) + 16.0 * state[ROUNDED]:
            # Rounding keeps the bounds apart; they are narrowest where y is the steps to go.
            if state[MODE] == FREE:
                state[DELTA], state[LAST_WIDTH] = 0.3 * state[LEAVES], np.inf
            done = width > 0.7 * state[LAST_WIDTH]
            state[MODE], state[LAST_WIDTH] = KEPT, width
        elif state[MODE] < FREE:
            state[MODE] = FREE
        if done or hopeless:
            for s in range(first, last):
                xy[s, 1] = 0.0
                single(rows, lower, upper, chosen, s, unit, loss)
                if np.isfinite(lower[s]) and np.isfinite(upper[s]):
                    xy[s, 0] = 0.5 * (lower[s] + upper[s])
            place[BLOCK] += 1
            place[ROUNDS] = place[SWEEPS] = place[PATIENT] = 0
            continue
        early = place[ROUNDS] == 2 and entries < SMALL_BLOCK  # where elimination costs little
        if early and entries * foreseen(width, tolerance, state[LEAVES]) > 4.0 * patience:
            place[PATIENT] = place[SWEEPS]
        if place[SWEEPS] >= place[PATIENT]:
            return made
    return made


@_exact
def interval_sweep(rows, lower, upper, chosen, unit, loss):
    """One Gauss-Seidel sweep of both bounds, rounded outwards; the better bound is kept."""
    row_ptr, width = rows[0], 0.0
    for s in range(row_ptr.shape[0] - 1):
        low, high, best = -np.inf, -np.inf, chosen[s]
        for row in range(row_ptr[s], row_ptr[s + 1]):
            below, above, _ = row_bounds(rows, row, lower, upper, -1, unit, loss)
            if below > low:
                low, best = below, row
            high = max(high, above)
        if low > lower[s] or chosen[s] < 0:
            lower[s], chosen[s] = max(low, lower[s]), best
        upper[s] = min(upper[s], high)
        width = max(width, upper[s] - lower[s])
    return width


@_exact
def answers(lower, upper, chosen, pair_ptr, pair_action, terminal):
    """Values in the middle of the bounds, and the action of each state.

    Where one bound is infinite the value is the other one, and 0 where both are. A state where
    all is decided takes its first pair. Returns (value, action, number of states of infinite value,
    the first of them).
    """
    states = lower.shape[0]
    value, action = np.empty(states), np.full(states, -1, dtype=np.int64)
    endless, first = 0, -1
    for s in range(states):
        low, high = lower[s], upper[s]
        if low == high:
            value[s] = low
            if np.isinf(low):
                first = s if endless == 0 else first
                endless += 1
        elif np.isfinite(low) and np.isfinite(high):
            value[s] = 0.5 * low + 0.5 * high
        else:
            value[s] = low if np.isfinite(low) else high if np.isfinite(high) else 0.0
        if terminal[s] or pair_ptr[s] == pair_ptr[s + 1]:
            continue
        action[s] = pair_action[chosen[s] if chosen[s] >= 0 else pair_ptr[s]]
    return value, action, endless, first
