"""Topological value iteration: strongly connected components, each solved once, sinks first.

Dai and Goldsmith (2007); Storm's default order. Exact in one pass for acyclic parts.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit

from likely.errors import InvalidSetting
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import graph

SWEEPS = 50  # of a component before the driver is heard, which may stop the solve

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy")


@_kernel
def solve_components(rows, value, members, bounds, threshold, limit):
    """Gauss-Seidel inside each component until its change is at most `threshold`.

    Returns the number of state backups, and whether a component was left after `limit` sweeps.
    """
    pair_ptr, indptr, indices, probability, reward, discount = rows
    backups, left = 0, False
    for group in range(bounds.shape[0] - 1):
        first, last = bounds[group], bounds[group + 1]
        single = last - first == 1
        for sweep in range(limit):
            change = 0.0
            for i in range(first, last):
                state = members[i] if sweep % 2 == 0 else members[last - 1 - (i - first)]
                if pair_ptr[state] == pair_ptr[state + 1]:
                    continue
                top = -np.inf
                for pair in range(pair_ptr[state], pair_ptr[state + 1]):
                    total, loop = 0.0, 0.0
                    for k in range(indptr[pair], indptr[pair + 1]):
                        if indices[k] == state:
                            loop = probability[k]
                        else:
                            total += probability[k] * value[indices[k]]
                    top = max(top, (reward[pair] + discount * total) / (1.0 - discount * loop))
                change = max(change, abs(top - value[state]))
                value[state] = top
            backups += last - first
            if single or change <= threshold:
                break
            left = left or sweep == limit - 1
    return backups, left


def topological(task: Task) -> Iterator[None]:
    """One pass over the components to a local threshold; tightened until the bounds hold."""
    mdp = task.mdp
    if mdp is None:
        raise InvalidSetting('method="topological" needs stored rows; use problem.stored()')
    members, bounds, _ = graph.components(mdp.pair_ptr, mdp.indptr, mdp.indices)
    threshold = 0.25 * task.target_span
    while True:
        work, left = solve_components(mdp.rows, task.value, members, bounds, threshold, SWEEPS)
        task.changed(work / max(1, mdp.states))
        task.check()
        yield
        if not left:
            threshold *= 0.25
