"""Problems without cycles: one backup of each state, successors first, is all there is to do.

A depth-first search leaves a state after all of its successors, so it makes the backup there and
then. The first cycle, a move to the state itself included, ends the search; where there are
cycles one is met early, so that looking costs little.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from likely.mdp.undiscounted.ssp_kernels import row_bounds

_exact: Any = njit(nogil=True, cache=True, error_model="numpy")


@_exact
def _backup(rows, usable, lower, upper, chosen, s, unit, loss, least, most):
    """Both bounds of a state by one backup, rounded outwards; False where one is infinite."""
    low, high, best = -np.inf, -np.inf, -1
    for pair in range(rows[0][s], rows[0][s + 1]):
        if not usable[pair]:
            continue
        below, above, _ = row_bounds(rows, pair, lower, upper, -1, unit, loss)
        if below > low:
            low, best = below, pair
        if not above < np.inf:  # or not a number
            return False
        high = max(high, above)
    lower[s], upper[s], chosen[s] = max(low, least), min(high, most), best
    return np.isfinite(low)


@_exact
def solve_acyclic(rows, open_, usable, lower, upper, chosen, unit, loss, least, most):
    """Bounds and best pairs [S] of the open states, in place, if usable pairs make no cycle there.

    `lower` and `upper` hold the values of the other states, `chosen` is -1. Returns False, and
    leaves the open states as they were, where there is a cycle or a bound is not finite.
    """
    pair_ptr, indptr, indices, _, _ = rows
    states = open_.shape[0]
    visited = np.empty(states, dtype=np.int64)
    path = np.empty(states, dtype=np.int64)
    at_pair = np.empty(states, dtype=np.int64)  # by place on the path
    at_move = np.empty(states, dtype=np.int64)
    count, fits = 0, True
    for root in range(states):
        if not open_[root] or chosen[root] != -1:
            continue
        following, height = root, 0
        while fits:
            if following >= 0:
                path[height], chosen[following] = following, -2  # on the path
                visited[count] = following
                at_pair[height] = pair_ptr[following]
                at_move[height] = indptr[pair_ptr[following]]
                count += 1
                height += 1
            state, following = path[height - 1], -1
            pair, move = at_pair[height - 1], at_move[height - 1]
            while pair < pair_ptr[state + 1]:
                stop = indptr[pair + 1]
                while move < stop and usable[pair]:
                    successor = indices[move]
                    move += 1
                    if open_[successor] and chosen[successor] < 0:
                        following = successor
                        break
                if following >= 0:
                    break
                pair, move = pair + 1, stop
            at_pair[height - 1], at_move[height - 1] = pair, move
            if following >= 0:
                fits = chosen[following] == -1
                continue
            fits = _backup(rows, usable, lower, upper, chosen, state, unit, loss, least, most)
            height -= 1
            if height == 0:
                break
        if not fits:
            break
    if not fits:
        for i in range(count):
            lower[visited[i]] = upper[visited[i]] = 0.0
            chosen[visited[i]] = -1
    return fits
