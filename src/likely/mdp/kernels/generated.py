"""Kernels over generated rows: what `kernels.py` is to stored rows.

A row is written into scratch on the stack: with a constant count of successors the compiler keeps
it in registers.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, njit, types  # type: ignore[attr-defined]
from numba.core import cgutils
from numba.extending import intrinsic

from likely.mdp.kernels.stored import UNIT

WIDEST = 1 << 16  # successors of a row that fit on a thread's stack
UNROLLED = 8  # actions up to which the loop over them is unrolled

_sweep: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
_exact: Any = njit(nogil=True, cache=True, error_model="numpy")
_inline: Any = njit(inline="always", nogil=True, error_model="numpy")


def slots(width: int) -> tuple[bool, ...]:
    """A tuple of length log2(width), rounded up."""
    return (True,) * max(1, (width - 1).bit_length())


def labels(actions: int) -> tuple[bool, ...]:
    """A tuple of length `actions`, empty where their loop is not to be unrolled."""
    return (True,) * actions if actions <= UNROLLED else ()


def _on_stack(kind: Any, machine: Any) -> Any:
    """An intrinsic: a pointer to 2^len(slots) numbers in the caller's stack frame."""

    @intrinsic
    def allocate(typing_context, slots):
        size = 2 ** len(slots)

        def build(context, builder, signature, arguments):
            return cgutils.alloca_once(builder, machine, size=size)

        return types.CPointer(kind)(slots), build

    return allocate


_integers = _on_stack(types.int64, ir.IntType(64))
_floats = _on_stack(types.float64, ir.DoubleType())


@_inline
def scratch(slots):
    """Room for the successors of a row and their probabilities."""
    size = 2 ** len(slots)
    return carray(_integers(slots), size), carray(_floats(slots), size)


@_inline
def backed_up(count, reward, state, discount, value, successors, weights):
    """reward + discount sum p v of a row, self-loops solved."""
    total, loop = 0.0, 0.0
    for k in range(count):
        if successors[k] == state:
            loop += weights[k]
        else:
            total += weights[k] * value[np.uint64(successors[k])]
    q = reward + discount * total
    if loop > 0.0:
        q /= 1.0 - discount * loop
    return q


@_exact
def validate(row, rows, width):
    """The first pair (state * actions + action) whose row is wrong, or -1."""
    parameters, slots, _, actions, terminal, _ = rows
    successors, weights = scratch(slots)
    states = terminal.shape[0]
    for state in range(states):
        if terminal[state]:
            continue
        some = False
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if count == 0:
                continue
            some = True
            good = np.isfinite(reward) and 0 <= count <= width
            total = 0.0
            for k in range(count):
                total += weights[k]
                good = good and weights[k] >= 0.0 and 0 <= successors[k] < states
            if not good or not abs(total - 1.0) <= 1e-12:
                return state * actions + action
        if not some:
            return state * actions
    return -1


@_exact
def merge(count, successors, weights):
    """Sort a row by successor, add up repeated ones, drop zeros; the new count."""
    for k in range(1, count):  # insertion sort: rows are short
        successor, weight = successors[k], weights[k]
        j = k
        while j > 0 and successors[j - 1] > successor:
            successors[j], weights[j] = successors[j - 1], weights[j - 1]
            j -= 1
        successors[j], weights[j] = successor, weight
    kept = 0
    for k in range(count):
        if weights[k] == 0.0:
            continue
        if kept > 0 and successors[kept - 1] == successors[k]:
            weights[kept - 1] += weights[k]
        else:
            successors[kept], weights[kept] = successors[k], weights[k]
            kept += 1
    return kept


@_exact
def count_all(row, rows):
    """Number of pairs and of transitions, repeated successors merged."""
    parameters, slots, _, actions, terminal, _ = rows
    successors, weights = scratch(slots)
    pairs, transitions = 0, 0
    for state in range(terminal.shape[0]):
        if terminal[state]:
            continue
        for action in range(actions):
            count, _ = row(state, action, parameters, successors, weights)
            if count:
                pairs += 1
                transitions += merge(count, successors, weights)
    return pairs, transitions


@_exact
def write_all(row, rows, pair_ptr, indptr, indices, probability, reward, label):
    """Write every row, sorted by successor, into CSR arrays of the right size."""
    parameters, slots, _, actions, terminal, _ = rows
    successors, weights = scratch(slots)
    pair, at = 0, 0
    for state in range(terminal.shape[0]):
        if not terminal[state]:
            for action in range(actions):
                count, gain = row(state, action, parameters, successors, weights)
                if not count:
                    continue
                count = merge(count, successors, weights)
                for k in range(count):
                    indices[at + k], probability[at + k] = successors[k], weights[k]
                at += count
                reward[pair] = gain
                label[pair] = action
                pair += 1
                indptr[pair] = at
        pair_ptr[state + 1] = pair


@_sweep
def sweep(row, rows, value, best, order, start, stop, step, still):
    """Gauss-Seidel backups in place, self-loops solved; see `kernels.sweep`."""
    parameters, slots, labels, actions, terminal, discount = rows
    low, high = np.inf, -np.inf
    front, rear = terminal.shape[0], -1
    successors, weights = scratch(slots)
    ordered = order.shape[0] > 0
    choices = len(labels) if len(labels) > 0 else actions
    for i in range(start, stop, step):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if terminal[state]:
            continue
        old = np.int64(best[state])
        chosen, top, kept = old, -np.inf, -np.inf
        for action in range(choices):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            chosen = chosen if chosen >= 0 else np.int64(action)
            q = backed_up(count, reward, state, discount, value, successors, weights)
            chosen = np.int64(action) if q > top else chosen
            top = q if q > top else top
            kept = q if action == old else kept
        change = top - value[state]
        value[state] = top
        best[state] = old if kept == top and old >= 0 else chosen
        low, high = min(low, change), max(high, change)
        if abs(change) > still:
            front, rear = min(front, i), max(rear, i)
    return low, high, front, rear


@_sweep
def policy_sweep(row, rows, value, best, order, start, stop, step):
    """Gauss-Seidel in place under the policy `best` of action labels."""
    parameters, slots, _, _, terminal, discount = rows
    low, high = np.inf, -np.inf
    successors, weights = scratch(slots)
    ordered = order.shape[0] > 0
    for i in range(start, stop, step):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if terminal[state]:
            continue
        count, reward = row(state, np.int64(best[state]), parameters, successors, weights)
        q = backed_up(count, reward, state, discount, value, successors, weights)
        change = q - value[state]
        value[state] = q
        low, high = min(low, change), max(high, change)
    return low, high


@_sweep
def policy_windows(row, rows, value, best, order, stride, window, start, stop):
    """Gauss-Seidel under `best` in windows that advance by `stride`; see `PolicySweeps`."""
    parameters, slots, _, _, terminal, discount = rows
    successors, weights = scratch(slots)
    ordered = order.shape[0] > 0
    for begin in range(start, stop, stride):
        for i in range(begin, min(begin + window, stop)):
            state = np.int64(order[i]) if ordered else np.int64(i)
            if terminal[state]:
                continue
            count, reward = row(state, np.int64(best[state]), parameters, successors, weights)
            value[state] = backed_up(count, reward, state, discount, value, successors, weights)


@_sweep
def policy_backup(row, rows, value, best, out, start, stop):
    """out = T_policy value; returns min and max change."""
    parameters, slots, _, _, terminal, discount = rows
    low, high = np.inf, -np.inf
    successors, weights = scratch(slots)
    for state in range(start, stop):
        total, reward = 0.0, 0.0
        if not terminal[state]:
            count, reward = row(state, np.int64(best[state]), parameters, successors, weights)
            for k in range(count):
                total += weights[k] * value[np.uint64(successors[k])]
        out[state] = reward + discount * total
        change = out[state] - value[state]
        low, high = min(low, change), max(high, change)
    return low, high


@_exact
def march(row, rows, value, best, order):
    """One outward pass that gives a start value, as `frontier.march`; sets `best`.

    Successors that the pass has not reached are closed as if the move stayed in place. Reached
    are terminal states and those whose `best` is set; all others hold -1 before.
    """
    parameters, slots, labels, actions, terminal, discount = rows
    successors, weights = scratch(slots)
    ordered = order.shape[0] > 0
    choices = len(labels) if len(labels) > 0 else actions
    for i in range(terminal.shape[0]):
        state = np.int64(order[i]) if ordered else np.int64(i)
        if terminal[state]:
            value[state] = 0.0
            continue
        chosen, top = np.int64(-1), -np.inf
        for action in range(choices):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            total, stay = 0.0, 0.0
            for k in range(count):
                successor = np.uint64(successors[k])
                if best[successor] >= 0 or terminal[successor]:
                    total += weights[k] * value[successor]
                else:
                    stay += weights[k]
            q = (reward + discount * total) / (1.0 - discount * stay)
            chosen = np.int64(action) if q > top or chosen < 0 else chosen
            top = q if q > top else top
        value[state] = top
        best[state] = chosen


@_exact
def residual(row, rows, value, floor, top, best, start, stop):
    """As `kernels.residual`, the row defects found row by row; also returns the largest."""
    parameters, slots, labels, actions, terminal, discount = rows
    low, high, gap = np.inf, -np.inf, 0.0
    kept = 1.0 - discount
    worst = 0.0
    successors, weights = scratch(slots)
    choices = len(labels) if len(labels) > 0 else actions
    for state in range(start, stop):
        if terminal[state]:
            floor[state] = 0.0
            top[state] = 0.0
            low, high = min(low, 0.0), max(high, 0.0)
            continue
        at_state = np.float64(value[state])
        drift = kept * at_state
        old = np.int64(best[state])
        chosen, chosen_d, chosen_error = np.int64(-1), -np.inf, 0.0
        old_d, old_error = -np.inf, 0.0
        ceiling = -np.inf
        for action in range(choices):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            total, size, mass = 0.0, 0.0, 0.0
            for k in range(count):
                term = weights[k] * (value[np.uint64(successors[k])] - at_state)
                total += term
                size += abs(term)
                mass += weights[k]
            d = reward + discount * total - drift
            defect = abs(mass - 1.0) + (count - 1) * UNIT
            worst = defect if defect > worst else worst
            weight = (count + 8.0) * UNIT + defect
            error = weight * (abs(reward) + discount * size + abs(drift))
            error += discount * defect * abs(at_state) + 1e-300
            bound = d + error
            bound = bound if bound == bound else np.inf  # not a number
            ceiling = bound if bound > ceiling else ceiling
            chosen = chosen if chosen >= 0 else np.int64(action)
            greater = d > chosen_d
            chosen = np.int64(action) if greater else chosen
            chosen_error = error if greater else chosen_error
            chosen_d = d if greater else chosen_d
            held = action == old
            old_d = d if held else old_d
            old_error = error if held else old_error
        if old >= 0 and old_d + old_error >= chosen_d - chosen_error:
            chosen, chosen_d, chosen_error = old, old_d, old_error
        best[state] = chosen
        least = chosen_d - chosen_error
        floor[state] = least if least == least else -np.inf
        top[state] = ceiling
        low, high = min(low, floor[state]), max(high, ceiling)
        gap = max(gap, ceiling - floor[state])
    return low, high, gap, worst
