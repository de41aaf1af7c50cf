"""Exact evaluation of a policy, at a cost that is known before it is paid.

v = r + discount P v is solved by elimination. Where every row has one successor beside itself the
policy's graph is cycles with trees that lead into them, and following it solves the system in one
pass. Else the order of the elimination is that of an approximate minimum degree (Amestoy, Davis and
Duff 1996), whose element lists are the columns of the factors: their number is known, and the
search ends at a bound, before anything is factorised. I - discount P has dominant rows, so no
pivoting is needed and the order can be kept.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from likely.mdp.kernels.engine import PolicyRows
from likely.mdp.model.arrays import Array

DENSE = 100  # states up to which a dense solve is quickest
# Costs in transitions backed up: of a state that is followed, a state, an entry and an operation of
# the factors.
FOLLOWED, PER_STATE, PER_ENTRY, PER_OPERATION = 30.0, 300.0, 130.0, 0.3
LARGEST = 1 << 26  # numbers in a factor, whatever the allowance: a gigabyte or two

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy")


@_kernel
def follow(system, out):
    """Solve v = constants + weights v[columns] where rows have at most one other successor.

    Returns False, with `out` unfinished, where a row has more. A path is followed until it meets
    a value that is known, or itself: then the cycle is summed up once, and the path is solved
    backwards.
    """
    row_ptr, columns, weights, constants = system
    states = constants.shape[0]
    successor = np.empty(states, dtype=np.int64)
    factor = np.zeros(states)
    for i in range(states):
        successor[i] = -1
        stay = 0.0
        for k in range(row_ptr[i], row_ptr[i + 1]):
            j = np.int64(columns[k])
            if weights[k] == 0.0:
                continue
            if j == i:
                stay += weights[k]
            elif successor[i] < 0 or successor[i] == j:
                successor[i] = j
                factor[i] += weights[k]
            else:
                return False
        factor[i] /= 1.0 - stay
        out[i] = constants[i] / (1.0 - stay)
    mark = np.zeros(states, dtype=np.int64)  # the number of the path, -1 where solved
    path = np.empty(states, dtype=np.int64)
    for root in range(states):
        length, state = 0, root
        while state >= 0 and mark[state] == 0:
            mark[state] = root + 1
            path[length] = state
            length += 1
            state = successor[state]
        if state >= 0 and mark[state] == root + 1:
            # v = total + scale v around the cycle that begins at `state`.
            total, scale, at = 0.0, 1.0, length - 1
            first = at
            while path[first] != state:
                first -= 1
            for at in range(first, length):
                total += scale * out[path[at]]
                scale *= factor[path[at]]
            head = total / (1.0 - scale)
            ahead = head
            for at in range(length - 1, first, -1):
                ahead = out[path[at]] + factor[path[at]] * ahead
                out[path[at]] = ahead
                mark[path[at]] = -1
            out[state] = head
            mark[state] = -1
            length = first
        for at in range(length - 1, -1, -1):
            current = path[at]
            if successor[current] >= 0:
                out[current] += factor[current] * out[successor[current]]
            mark[current] = -1
    return True


@_kernel
def symmetric_pattern(row_ptr, columns, weights, states):
    """Lists of the neighbours of each state in either direction, itself left out."""
    pointer = np.zeros(states + 1, dtype=np.int64)
    for i in range(states):
        for k in range(row_ptr[i], row_ptr[i + 1]):
            j = np.int64(columns[k])
            if j != i and weights[k] != 0.0:
                pointer[i + 1] += 1
                pointer[j + 1] += 1
    for i in range(states):
        pointer[i + 1] += pointer[i]
    lists = np.empty(pointer[states], dtype=np.int32)
    place = pointer[:-1].copy()
    for i in range(states):
        for k in range(row_ptr[i], row_ptr[i + 1]):
            j = np.int64(columns[k])
            if j != i and weights[k] != 0.0:
                lists[place[i]] = j
                place[i] += 1
                lists[place[j]] = i
                place[j] += 1
    length = np.zeros(states, dtype=np.int64)
    seen = np.full(states, -1, dtype=np.int32)
    for i in range(states):
        at = pointer[i]
        for k in range(pointer[i], pointer[i + 1]):
            j = lists[k]
            if seen[j] != i:
                seen[j] = i
                lists[at] = j
                at += 1
        length[i] = at - pointer[i]
    return pointer, length, lists


@_kernel
def minimum_degree(pointer, length, lists, room, operations):
    """An order of elimination, and what the factors will hold.

    The lists of `symmetric_pattern` are overwritten. A state that meets a great part of all others
    is left for the end. Returns (order, fill, flops); fill is -1 where the factors would hold more
    than `room` numbers or take more than `operations`, or where to find that out takes many
    more steps than `room`.
    """
    states = pointer.shape[0] - 1
    order = np.empty(states, dtype=np.int64)
    dense = 16 + 4 * np.int64(np.sqrt(states))
    alive = np.ones(states, dtype=np.bool_)  # a variable that is not eliminated
    size = np.zeros(states, dtype=np.int64)  # of the element of an eliminated one; 0 when absorbed
    start = np.zeros(states, dtype=np.int64)
    elements = np.zeros(states, dtype=np.int64)  # a list is its elements and then its variables
    degree = length.copy()
    outside = np.zeros(states, dtype=np.int64)
    stamp = np.zeros(states, dtype=np.int64)
    tick = np.int64(0)
    last = states
    for i in range(states):
        if length[i] > dense:
            last -= 1
            order[last] = i
            alive[i] = False
    late = states - last
    tries = 4 * room + 1000
    fill, flops, steps = np.int64(late) * np.int64(states), float(late) * late * states, np.int64(0)
    if fill > room or flops > operations:
        return order, np.int64(-1), flops
    # Buckets of equal degree.
    head = np.full(states + 1, -1, dtype=np.int64)
    after = np.full(states, -1, dtype=np.int64)
    before = np.full(states, -1, dtype=np.int64)
    for i in range(states - 1, -1, -1):
        if alive[i]:
            d = degree[i]
            after[i] = head[d]
            if head[d] >= 0:
                before[head[d]] = i
            head[d] = i
    store = np.empty(max(16, min(room, 4 * lists.shape[0] + 16)), dtype=np.int32)
    used, lowest = np.int64(0), np.int64(0)
    for step in range(last):
        while head[lowest] < 0:
            lowest += 1
        p = head[lowest]
        head[lowest] = after[p]
        if after[p] >= 0:
            before[after[p]] = -1
        alive[p] = False
        order[step] = p
        # The element of p: every variable that p meets, directly or through an older element.
        tick += 1
        begin = used
        stamp[p] = tick
        most = np.int64(0)
        for k in range(pointer[p], pointer[p] + elements[p]):
            most += size[lists[k]]
        most += length[p] - elements[p]
        if used + most > store.shape[0]:
            if used + most > room:
                return order, np.int64(-1), flops
            larger = np.empty(min(room, 2 * (used + most)), dtype=np.int32)
            larger[:used] = store[:used]
            store = larger
        for k in range(pointer[p], pointer[p] + elements[p]):
            e = lists[k]
            for q in range(start[e], start[e] + size[e]):
                i = store[q]
                if stamp[i] != tick and alive[i]:
                    stamp[i] = tick
                    store[used] = i
                    used += 1
            steps += size[e]
            size[e] = 0  # absorbed
        for k in range(pointer[p] + elements[p], pointer[p] + length[p]):
            i = lists[k]
            if stamp[i] != tick and alive[i]:
                stamp[i] = tick
                store[used] = i
                used += 1
        entries = used - begin
        start[p], size[p] = begin, entries
        fill += entries
        flops += float(entries) * float(entries)
        if fill > room or flops > operations or steps > tries:
            return order, np.int64(-1), flops
        # |L_e \ L_p| for every element that a variable of L_p is in.
        for q in range(begin, used):
            i = store[q]
            for k in range(pointer[i], pointer[i] + elements[i]):
                e = lists[k]
                if size[e] > 0 and e != p:
                    if stamp[e] != tick:
                        stamp[e] = tick
                        outside[e] = size[e]
                    outside[e] -= 1
        for q in range(begin, used):
            i = store[q]
            first = pointer[i]
            steps += length[i]
            kept, around = first, np.int64(0)
            for k in range(first, first + elements[i]):
                e = lists[k]
                if size[e] > 0 and e != p:
                    if outside[e] == 0:
                        continue  # within L_p: it is absorbed
                    around += outside[e]
                    lists[kept] = e
                    kept += 1
            rest = first + elements[i]
            end = first + length[i]
            # The new element takes the place of what p, or an absorbed element, held.
            moved = kept + 1
            variables = np.int64(0)
            if moved > rest and rest < end:
                # No place before the variables: p itself is one of them and leaves one.
                hole = rest
                for k in range(rest, end):
                    if lists[k] == p:
                        hole = k
                        break
                lists[hole] = lists[rest]
                rest += 1
            for k in range(rest, end):
                j = lists[k]
                if alive[j] and stamp[j] != tick:
                    lists[moved] = j
                    moved += 1
                    variables += 1
            lists[kept] = p
            elements[i] = kept + 1 - first
            length[i] = moved - first
            d = min(degree[i] + entries - 1, around + variables + entries - 1)
            d = min(d, last - step - 2)
            d = max(d, 0)
            # To its new bucket.
            if before[i] >= 0:
                after[before[i]] = after[i]
            else:
                head[degree[i]] = after[i]
            if after[i] >= 0:
                before[after[i]] = before[i]
            degree[i] = d
            before[i] = -1
            after[i] = head[d]
            if head[d] >= 0:
                before[head[d]] = i
            head[d] = i
            lowest = min(lowest, d)
    return order, fill, flops


def evaluation(rows: PolicyRows, allowance: float = math.inf) -> tuple[Array | None, float]:
    """The value of a policy, or None where it would cost more than `allowance`; and the cost.

    Costs are counted in transitions backed up: about a nanosecond each, and the same on every
    machine, so that what is decided by them does not depend on a clock. Whatever the allowance,
    the factors may not fill the memory. The value is not finite where the system is singular up to
    rounding.
    """
    states = len(rows.constants)
    value = np.empty(states)
    if follow(rows.system, value):
        return value, FOLLOWED * states
    cost, order = analysis(rows, allowance)
    if order is None:
        return None, cost
    matrix = system(rows)
    if states <= DENSE:
        try:
            return np.linalg.solve(matrix.toarray(), rows.constants), cost
        except np.linalg.LinAlgError:
            return np.full(states, np.nan), cost
    from scipy.sparse import linalg

    # The order is kept, and the diagonal with it: the rows are dominant.
    try:
        factors = linalg.splu(
            matrix[order][:, order].tocsc(),
            permc_spec="NATURAL",
            diag_pivot_thresh=0.0,
            options={"SymmetricMode": True},
        )
    except RuntimeError:  # SuperLU's word for singular
        return np.full(states, np.nan), cost
    value[order] = factors.solve(rows.constants[order])
    value[order] += factors.solve((rows.constants - matrix @ value)[order])
    return value, cost


def analysis(rows: PolicyRows, allowance: float = math.inf) -> tuple[float, Array | None]:
    """What the factors of a policy cost and the order of their elimination.

    The order is None where they cost more than the allowance; the cost is then that of finding
    out, a third of the allowance at most.
    """
    states = len(rows.constants)
    if states <= DENSE:
        return 0.1 * float(states) ** 3, np.arange(states)
    room = int(min(allowance / PER_ENTRY, LARGEST))
    if room < states:
        return 0.0, None
    lists = symmetric_pattern(rows.row_ptr, rows.columns, rows.weights, states)
    order, fill, flops = minimum_degree(*lists, room, allowance / PER_OPERATION)
    if fill < 0:
        return 0.3 * room * PER_ENTRY, None
    return PER_STATE * states + 0.6 * PER_ENTRY * fill + PER_OPERATION * flops, order


def system(rows: PolicyRows) -> Any:
    """I - discount P of the policy as a CSR array."""
    from scipy import sparse

    states = len(rows.constants)
    size = int(rows.row_ptr[-1])
    signed = rows.row_ptr.dtype
    moves = sparse.csr_array(
        (rows.weights[:size], rows.columns[:size].view(signed), rows.row_ptr),
        shape=(states, states),
    )
    return sparse.eye_array(states, format="csr") - moves
