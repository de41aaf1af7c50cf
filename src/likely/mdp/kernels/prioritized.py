"""The priority queue of prioritized sweeping."""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import heapq
from typing import Any

import numpy as np
from numba import njit

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy")


@_kernel
def run(rows, value, residual, pointer, source, limit, threshold):
    """Back up states in order of Bellman error, at most `limit` of them; returns how many.

    `residual` [S] holds T v - v at the start. Predecessors of a changed state are queued with
    the bound discount * |change| on how much they can change. Entries are not updated in place:
    a state may be queued twice, the stale entry is skipped.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    states = pair_ptr.shape[0] - 1
    priority = np.abs(residual)
    heap: list[Any] = [(-priority[s], s) for s in range(states) if priority[s] > threshold]
    if len(heap) == 0:
        return 0
    heapq.heapify(heap)
    done = 0
    while len(heap) > 0 and done < limit:
        negative, state = heapq.heappop(heap)
        if -negative != priority[state]:
            continue
        priority[state] = 0.0
        first, last = pair_ptr[state], pair_ptr[state + 1]
        if first == last:
            continue
        top = -np.inf
        for pair in range(first, last):
            total = 0.0
            for k in range(indptr[pair], indptr[pair + 1]):
                total += probability[k] * value[indices[k]]
            top = max(top, reward[pair] + discount * total)
        change = abs(top - value[state])
        value[state] = top
        done += 1
        if discount * change <= threshold:
            continue
        for k in range(pointer[state], pointer[state + 1]):
            before = source[k]
            if discount * change > priority[before]:
                priority[before] = discount * change
                heapq.heappush(heap, (-priority[before], np.int64(before)))
        # A self-loop makes the state its own predecessor.
        if discount * change > priority[state]:
            priority[state] = discount * change
            heapq.heappush(heap, (-priority[state], np.int64(state)))
    return done
