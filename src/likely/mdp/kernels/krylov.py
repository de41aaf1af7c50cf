"""GMRES for the value of a policy, compiled: a step costs no calls from Python."""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

RESTART = 30

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})


@_kernel
def gmres(system, right, tolerance, restart, cycles):
    """Solve x - weights x[columns] = right from x = 0 (Saad and Schultz 1986).

    Ends where the 2-norm of the residual is at most `tolerance`, or after `cycles` of `restart`
    steps. Modified Gram-Schmidt: each pass takes one basis vector out and meets the next one.
    Returns x and the number of steps.
    """
    row_ptr, columns, weights, _ = system
    states = right.shape[0]
    x, residual = np.zeros(states), right.copy()
    basis = np.empty((restart + 1, states))
    upper = np.zeros((restart + 1, restart))
    cosine, sine, left = np.zeros(restart), np.zeros(restart), np.zeros(restart + 1)
    steps = 0
    for _ in range(cycles):
        norm = 0.0
        for i in range(states):
            norm += residual[i] * residual[i]
        norm = np.sqrt(norm)
        if not tolerance < norm < np.inf:
            break
        for i in range(states):
            basis[0, i] = residual[i] / norm
        left[:] = 0.0
        left[0] = norm
        used = 0
        for j in range(restart):
            source, w = basis[j], basis[j + 1]
            product = 0.0
            for i in range(states):
                total = source[i]
                for k in range(row_ptr[i], row_ptr[i + 1]):
                    total -= weights[k] * source[columns[k]]
                w[i] = total
                product += total * basis[0, i]
            for m in range(j + 1):
                upper[m, j] = product
                taken, following, total = basis[m], basis[m + 1], 0.0
                for i in range(states):
                    w[i] -= product * taken[i]
                    total += w[i] * following[i]
                product = total
            size = np.sqrt(max(product, 0.0))
            if size > 0.0:
                for i in range(states):
                    w[i] /= size
            for m in range(j):
                first, second = upper[m, j], upper[m + 1, j]
                upper[m, j] = cosine[m] * first + sine[m] * second
                upper[m + 1, j] = cosine[m] * second - sine[m] * first
            length = np.hypot(upper[j, j], size)
            steps += 1
            if not 0.0 < length < np.inf:
                break
            cosine[j], sine[j] = upper[j, j] / length, size / length
            upper[j, j] = length
            left[j + 1] = -sine[j] * left[j]
            left[j] *= cosine[j]
            used = j + 1
            if abs(left[j + 1]) <= tolerance or size == 0.0:
                break
        if used == 0:
            break
        for m in range(used - 1, -1, -1):
            for k in range(m + 1, used):
                left[m] -= upper[m, k] * left[k]
            left[m] /= upper[m, m]
        for m in range(used):
            for i in range(states):
                x[i] += left[m] * basis[m, i]
        for i in range(states):
            total = right[i] - x[i]
            for k in range(row_ptr[i], row_ptr[i + 1]):
                total += weights[k] * x[columns[k]]
            residual[i] = total
    return x, steps


def step_cost(states: int, entries: int) -> float:
    """Transitions backed up in the time of a step: the product and half a basis."""
    return entries + 20.0 * states + 2_000.0
