"""Fused Bellman kernels over CSR rows.

Each kernel reads the rows of states `start..stop` once, in order. It takes the maximum over
actions, the argmax and the extremes of the residual in the same pass. Kernels release the
interpreter lock and write only their own range, so `engine.py` runs them on plain threads:
there is no OpenMP runtime that a later `fork` could break.

Index arrays come as unsigned views: numba then leaves out the test for negative indices.
Kernels are compiled on first use and cached on disk.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

UNIT = 2.0**-53  # half the spacing of float64 at 1: the relative error of one operation
LARGEST = float(np.finfo(np.float64).max)
TINY = 1e-300  # a value below counts as zero: subnormal numbers cost a hundred times as much

# Sweeps only have to converge; how they round does not matter, because the bounds come from
# `residual`, which is compiled without these liberties.
# Nothing here makes an array, so arrays come in without numba's reference counts: these would
# cost a call as much as a small problem's sweep.
_OPTIONS: Any = {"nogil": True, "error_model": "numpy", "_nrt": False}
_sweep: Any = njit(cache=True, fastmath={"contract", "reassoc"}, **_OPTIONS)
_exact: Any = njit(cache=True, **_OPTIONS)
_inline: Any = njit(inline="always", nogil=True, error_model="numpy")


_ONE, _TWO, _THREE, _FOUR = (np.uint64(k) for k in (1, 2, 3, 4))


@_inline
def expectation(probability, value, indices, begin, end):
    """sum_k probability[k] value[indices[k]] over begin..end (unsigned).

    Rows of three, the rows of a slippery grid, have no loop: its entry and exit would cost more
    than the sum. Longer rows have two sums, so that a step need not wait for the one before it.
    """
    if end - begin == _THREE:
        return (
            probability[begin] * value[indices[begin]]
            + probability[begin + _ONE] * value[indices[begin + _ONE]]
            + probability[begin + _TWO] * value[indices[begin + _TWO]]
        )
    total, other = 0.0, 0.0
    k = begin
    while k + _FOUR <= end:
        total += probability[k] * value[indices[k]]
        other += probability[k + _ONE] * value[indices[k + _ONE]]
        total += probability[k + _TWO] * value[indices[k + _TWO]]
        other += probability[k + _THREE] * value[indices[k + _THREE]]
        k += _FOUR
    while k < end:
        total += probability[k] * value[indices[k]]
        k += _ONE
    return total + other


@_sweep
def backup(rows, value, out, best, start, stop):
    """One Jacobi backup out = T value; returns min and max of T value - value.

    `best` [S] gets the greedy pair; on exact ties the pair that it held before is kept. The
    maximum is kept by selection, not by branches: which action wins cannot be predicted, and a
    wrong guess costs as much as a row.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    low, high = np.inf, -np.inf
    for state in range(start, stop):
        first, last = np.uint64(pair_ptr[state]), np.uint64(pair_ptr[state + 1])
        if first == last:
            out[state] = 0.0
            low, high = min(low, 0.0), max(high, 0.0)
            continue
        old = np.int64(best[state])
        chosen, top, kept = max(old, np.int64(first)), -np.inf, -np.inf
        begin = np.uint64(indptr[first])
        for pair in range(first, last):
            end = np.uint64(indptr[pair + _ONE])
            q = reward[pair] + discount * expectation(probability, value, indices, begin, end)
            begin = end
            chosen = np.int64(pair) if q > top else chosen
            top = q if q > top else top
            kept = q if np.int64(pair) == old else kept
        out[state] = top
        best[state] = old if kept == top and old >= 0 else chosen
        change = top - value[state]
        low, high = min(low, change), max(high, change)
    return low, high


@_sweep
def sweep(rows, value, best, order, start, stop, step, still):
    """Gauss-Seidel backups in place, self-loops solved.

    States are `order[i]` (or i, when `order` is empty) for i in range(start, stop, step). Returns
    the min and max change, and the least and the largest i whose change was more than `still`.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    low, high = np.inf, -np.inf
    front, rear = pair_ptr.shape[0], -1
    ordered = order.shape[0] > 0
    for i in range(start, stop, step):
        state = np.int64(order[i]) if ordered else np.int64(i)
        first, last = pair_ptr[state], pair_ptr[state + 1]
        if first == last:
            continue
        old = np.int64(best[state])
        chosen, top, kept = max(old, np.int64(first)), -np.inf, -np.inf
        begin = np.uint64(indptr[first])
        for pair in range(np.uint64(first), np.uint64(last)):
            total, loop = 0.0, 0.0
            end = np.uint64(indptr[pair + _ONE])
            for k in range(begin, end):
                successor = np.int64(indices[k])
                weight = probability[k]
                if successor == state:
                    loop = weight
                else:
                    total += weight * value[np.uint64(successor)]
            begin = end
            q = reward[pair] + discount * total
            if loop > 0.0:
                q /= 1.0 - discount * loop
            chosen = np.int64(pair) if q > top else chosen
            top = q if q > top else top
            kept = q if np.int64(pair) == old else kept
        chosen = old if kept == top and old >= 0 else chosen
        change = top - value[state]
        value[state] = top if abs(top) > TINY else 0.0
        best[state] = chosen
        low, high = min(low, change), max(high, change)
        if abs(change) > still:
            front, rear = min(front, i), max(rear, i)
    return low, high, front, rear


@_exact
def residual(rows, defects, value, bounds, best, elimination, start, stop):
    """Rigorous bounds on T value - value, state by state, rounding included.

    For every action d = r + discount sum p (v' - v) - (1 - discount) v, which equals
    r + discount P v - v without the cancellation of two large numbers. Its rounding error is at
    most (k + 8) u (|r| + discount sum p |v' - v| + (1 - discount) |v|). Probabilities that are
    not quite those of the row that is meant, |p - p'| <= defect p', add at most defect times the
    same; taken as they are, with a sum of 1 + e, |e| <= defect, they add discount |e| |v|. What
    the reward lost when it was folded is `reward_defect`.

    top[s] >= max_a (exact d); floor[s] <= exact d of the greedy pair best[s]. The pair that
    `best` held before is kept where rounding cannot tell it from the greedy one, so that policy
    iteration does not cycle on ties. Returns min floor, max top and max (top - floor). Where a
    value overflows, the bounds of the state are infinite, and best[s] is still one of its pairs.

    `settled` [S] marks states all of whose other actions are proven not to be optimal: there
    only best[s] is backed up. `second` [S] gets the largest d of any other action. Both may be
    empty.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    defect, reward_defect = defects
    floor, top = bounds
    settled, second = elimination
    low, high, gap = np.inf, -np.inf, 0.0
    kept = 1.0 - discount
    eliminating = settled.shape[0] > 0
    for state in range(start, stop):
        first, last = pair_ptr[state], pair_ptr[state + 1]
        if first == last:
            floor[state] = 0.0
            top[state] = 0.0
            low, high = min(low, 0.0), max(high, 0.0)
            continue
        at_state = np.float64(value[state])
        drift = kept * at_state
        fixed = abs(drift)
        slack = discount * defect * abs(at_state) + reward_defect + 1e-300
        old = np.int64(best[state])
        if eliminating and settled[state]:
            first = pair_ptr.dtype.type(old)
            last = first + pair_ptr.dtype.type(1)
        chosen, chosen_d, chosen_error = np.int64(first), -np.inf, 0.0
        old_d, old_error = -np.inf, 0.0
        ceiling, runner = -np.inf, -np.inf
        begin = np.uint64(indptr[first])
        for pair in range(np.uint64(first), np.uint64(last)):
            total, size = 0.0, 0.0
            end = np.uint64(indptr[pair + _ONE])
            for k in range(begin, end):
                term = probability[k] * (value[indices[k]] - at_state)
                total += term
                size += abs(term)
            d = reward[pair] + discount * total - drift
            count = np.float64(end - begin) + 8.0
            begin = end
            weight = count * UNIT + defect
            error = weight * (abs(reward[pair]) + discount * size + fixed) + slack
            bound = d + error
            bound = bound if bound == bound else np.inf  # not a number
            # By selection, not by branches, as in `backup`.
            second_best = ceiling if bound > ceiling else bound
            runner = second_best if second_best > runner else runner
            ceiling = bound if bound > ceiling else ceiling
            greater = d > chosen_d
            chosen = np.int64(pair) if greater else chosen
            chosen_error = error if greater else chosen_error
            chosen_d = d if greater else chosen_d
            held = np.int64(pair) == old
            old_d = d if held else old_d
            old_error = error if held else old_error
        if old >= 0 and old_d + old_error >= chosen_d - chosen_error:
            chosen, chosen_d, chosen_error = old, old_d, old_error
        best[state] = chosen
        least = chosen_d - chosen_error
        floor[state] = least if least == least else -np.inf
        top[state] = ceiling
        if eliminating:
            second[state] = runner
        low, high = min(low, floor[state]), max(high, ceiling)
        gap = max(gap, ceiling - floor[state])
    return low, high, gap


@_exact
def settle_states(pair_ptr, value, floor, second, settled, shift_low, shift_high):
    """Mark states whose greedy action is proven optimal; returns how many are marked.

    Another action's q* is at most value + second + shift_high; V* is at least value + floor +
    shift_low (MacQueen 1967). A tie leaves both `second` and `floor` at the maximum, so the
    state stays open.
    """
    count = 0
    for state in range(settled.shape[0]):
        if not settled[state] and pair_ptr[state] != pair_ptr[state + 1]:
            slack = abs(value[state]) + abs(shift_low) + abs(shift_high) + abs(floor[state])
            room = second[state] + shift_high + 8.0 * UNIT * slack
            settled[state] = room < floor[state] + shift_low
        count += settled[state]
    return count


@_exact
def finish(terminal, value, floor, top, shift_low, shift_high, start, stop):
    """Turn residual bounds into value bounds, in place; returns the widest interval.

    floor becomes lower = value + floor + shift_low, top becomes upper = value + top +
    shift_high, each widened by its own rounding.
    """
    widest = 0.0
    for state in range(start, stop):
        if terminal[state]:
            floor[state] = 0.0
            top[state] = 0.0
            continue
        at_state = np.float64(value[state])
        size = 8.0 * UNIT * abs(at_state)
        # What lies beyond the largest number is rounded towards it, never away from the truth.
        lower = at_state + floor[state] + shift_low
        lower = LARGEST if lower > LARGEST else lower
        lower -= size + 8.0 * UNIT * abs(floor[state]) + 8.0 * UNIT * abs(shift_low)
        upper = at_state + top[state] + shift_high
        upper = -LARGEST if upper < -LARGEST else upper
        upper += size + 8.0 * UNIT * abs(top[state]) + 8.0 * UNIT * abs(shift_high)
        lower = lower if lower == lower else -np.inf
        upper = upper if upper == upper else np.inf
        floor[state] = lower
        top[state] = upper
        widest = max(widest, upper - lower)
    return widest


@_exact
def count_rows(pair_ptr, indptr, order, counts, start, stop):
    """counts[i + 1] = successors of the longest row of the i-th state."""
    ordered = order.shape[0] > 0
    for i in range(start, stop):
        state = np.int64(order[i]) if ordered else np.int64(i)
        longest = np.int64(0)
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            length = np.int64(indptr[pair + 1]) - np.int64(indptr[pair])
            longest = max(longest, length)
        counts[i + 1] = longest


@_exact
def count_chosen(pair_ptr, indptr, best, order, counts, start, stop):
    """counts[i + 1] = successors of the chosen pair of the i-th state."""
    ordered = order.shape[0] > 0
    for i in range(start, stop):
        state = np.int64(order[i]) if ordered else np.int64(i)
        counts[i + 1] = 0
        if pair_ptr[state] != pair_ptr[state + 1]:
            pair = np.uint64(best[state])
            counts[i + 1] = np.int64(indptr[pair + np.uint64(1)]) - np.int64(indptr[pair])


@_exact
def gather(rows, best, previous, order, rank, folded, system, start, stop):
    """Copy the chosen pairs into rows of their own: v = constants + weights v[columns].

    With `folded` self-loops are solved: weights discount p / (1 - discount p_ss). Rows and
    columns are numbered by `rank`, the inverse of `order`, so that a sweep in that order reads
    memory from front to back. Unused places of a row get weight 0. States whose pair is the one
    in `previous` are skipped; `previous` (which may be empty) is brought up to date.
    """
    row_ptr, columns, weights, constants = system
    pair_ptr, indptr, indices, probability, reward, discount = rows
    ordered = order.shape[0] > 0
    renewing = previous.shape[0] > 0
    for i in range(start, stop):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if pair_ptr[state] == pair_ptr[state + 1]:
            constants[i] = 0.0
            continue
        if renewing:
            if previous[state] == best[state]:
                continue
            previous[state] = best[state]
        pair = np.uint64(best[state])
        begin, end = indptr[pair], indptr[pair + np.uint64(1)]
        scale = 1.0
        if folded:
            for k in range(begin, end):
                if np.int64(indices[k]) == state:
                    scale = 1.0 / (1.0 - discount * probability[k])
        at = np.int64(row_ptr[i])
        for k in range(begin, end):
            successor = np.int64(indices[k])
            if folded and successor == state:
                continue
            columns[at] = rank[successor] if ordered else successor
            weights[at] = discount * probability[k] * scale
            at += 1
        for k in range(at, np.int64(row_ptr[i + 1])):
            columns[k] = i
            weights[k] = 0.0
        constants[i] = reward[pair] * scale


@_sweep
def policy_backup(system, value, out, start, stop):
    """out = constants + weights value; returns min and max change."""
    row_ptr, columns, weights, constants = system
    low, high = np.inf, -np.inf
    for i in range(start, stop):
        total = constants[i] + 0.0
        for k in range(row_ptr[i], row_ptr[i + 1]):
            total += weights[k] * value[columns[k]]
        change = total - value[i]
        out[i] = total
        low, high = min(low, change), max(high, change)
    return low, high


@_sweep
def policy_sweep(system, value, start, stop, step):
    """Gauss-Seidel on gathered rows, in place; returns min and max change."""
    row_ptr, columns, weights, constants = system
    low, high = np.inf, -np.inf
    for i in range(start, stop, step):
        total = constants[i] + 0.0
        row = np.uint64(i)
        for k in range(row_ptr[row], row_ptr[row + np.uint64(1)]):
            total += weights[k] * value[columns[k]]
        change = total - value[i]
        value[i] = total if abs(total) > TINY else 0.0
        low, high = min(low, change), max(high, change)
    return low, high


@_sweep
def q_values(rows, value, out, start, stop):
    """out[pair] = r + discount P value, for pairs start..stop."""
    _, indptr, indices, probability, reward, discount = rows
    for pair in range(start, stop):
        total = 0.0
        for k in range(indptr[pair], indptr[pair + 1]):
            total += probability[k] * value[indices[k]]
        out[pair] = reward[pair] + discount * total


@_sweep
def policy_windows(system, value, stride, window, start, stop):
    """Gauss-Seidel on gathered rows in windows that advance by `stride`; see `PolicySweeps`."""
    row_ptr, columns, weights, constants = system
    for begin in range(start, stop, stride):
        for i in range(begin, min(begin + window, stop)):
            row = np.uint64(i)
            total = constants[row] + 0.0
            for k in range(row_ptr[row], row_ptr[row + _ONE]):
                total += weights[k] * value[columns[k]]
            value[row] = total if abs(total) > TINY else 0.0


@_exact
def march(rows, terminal, value, best, order):
    """One outward pass that gives a start value; sets `best`, which holds -1 before.

    Successors that the pass has not reached are closed as if the move stayed in place. Reached
    are terminal states and those whose `best` is set.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    ordered = order.shape[0] > 0
    for i in range(terminal.shape[0]):
        state = np.int64(order[i]) if ordered else np.int64(i)
        first, last = np.uint64(pair_ptr[state]), np.uint64(pair_ptr[state + 1])
        if first == last:
            value[state] = 0.0
            continue
        top, chosen = -np.inf, np.int64(first)
        begin = np.uint64(indptr[first])
        for pair in range(first, last):
            total, stay = 0.0, 0.0
            end = np.uint64(indptr[pair + _ONE])
            for k in range(begin, end):
                successor = indices[k]
                if best[successor] >= 0 or terminal[successor]:
                    total += probability[k] * value[successor]
                else:
                    stay += probability[k]
            begin = end
            q = (reward[pair] + discount * total) / (1.0 - discount * stay)
            chosen = np.int64(pair) if q > top else chosen
            top = q if q > top else top
        value[state] = top if abs(top) > TINY else 0.0
        best[state] = chosen


@_exact
def reward_only(rows, value, best):
    """The backup of the zero vector, which needs no transitions: value = max_a r."""
    pair_ptr, _, _, _, reward, _ = rows
    for state in range(pair_ptr.shape[0] - 1):
        top = -np.inf
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            if reward[pair] > top:
                top = reward[pair]
                best[state] = np.int64(pair)
        value[state] = top if top > -np.inf else 0.0


@_sweep
def settle(rows, value, best, target, limit):
    """Gauss-Seidel to and fro in place, for problems that fit into the cache.

    A round is one sweep over all actions in each direction, then sweeps under the greedy policy
    until the change has fallen to a tenth. Ends when a full sweep changes no value by more than
    `target`, or after `limit` sweeps. Returns the sweeps over all actions, the backups of single
    pairs, and the last change.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    states = pair_ptr.shape[0] - 1
    sweeps, backups, change = 0, 0, np.inf
    while sweeps < limit and change > target:
        change = 0.0
        forward = sweeps % 2 == 0
        for i in range(states):
            state = i if forward else states - 1 - i
            first, last = pair_ptr[state], pair_ptr[state + 1]
            if first == last:
                continue
            old = np.int64(best[state])
            chosen, top = max(old, np.int64(first)), -np.inf
            for pair in range(first, last):
                total, loop = 0.0, 0.0
                for k in range(indptr[pair], indptr[pair + 1]):
                    if np.int64(indices[k]) == state:
                        loop = probability[k]
                    else:
                        total += probability[k] * value[indices[k]]
                q = reward[pair] + discount * total
                if loop > 0.0:
                    q /= 1.0 - discount * loop
                if q > top or (q == top and np.int64(pair) == old):
                    top, chosen = q, np.int64(pair)
            change = max(change, abs(top - value[state]))
            value[state] = top if abs(top) > TINY else 0.0
            best[state] = chosen
        sweeps += 1
        backups += indptr.shape[0] - 1
        if change <= target or sweeps % 2 == 1:
            continue
        for inner in range(20):
            moved = 0.0
            for i in range(states):
                state = i if inner % 2 == 0 else states - 1 - i
                if pair_ptr[state] == pair_ptr[state + 1]:
                    continue
                row = np.uint64(best[state])
                total, loop = 0.0, 0.0
                for k in range(indptr[row], indptr[row + np.uint64(1)]):
                    if np.int64(indices[k]) == state:
                        loop = probability[k]
                    else:
                        total += probability[k] * value[indices[k]]
                q = reward[row] + discount * total
                if loop > 0.0:
                    q /= 1.0 - discount * loop
                moved = max(moved, abs(q - value[state]))
                value[state] = q
            backups += states
            if moved <= 0.1 * change or moved <= 0.5 * target:
                break
    return sweeps, backups, change
