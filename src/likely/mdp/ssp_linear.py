"""The chain of one policy inside a block: (I - P) z = right side, by a band or by a Krylov method.

Nothing here is rigorous or has to be: what comes out is a guess that `ssp_kernels` then proves.
A band is eliminated without pivoting, which is stable for the M-matrix I - P; its width decides
beforehand whether it is worth it. BiCGSTAB (van der Vorst 1992) is preconditioned by one
Gauss-Seidel sweep and works in portions, so that a caller may stop it.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})


@_kernel
def greedy(row_ptr, entry_ptr, column, weight, gain, xy, first, last, picked, tie):
    """The best row of each state of a block, kept where nothing is better by `tie`.

    Returns how many rows changed.
    """
    changed = 0
    for s in range(first, last):
        best, at, kept = -np.inf, picked[s], -np.inf
        for row in range(row_ptr[s], row_ptr[s + 1]):
            x, loop = gain[row], 0.0
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                if column[k] == s:
                    loop += weight[k]
                else:
                    x += weight[k] * xy[column[k], 0]
            if loop >= 1.0:
                continue
            x /= 1.0 - loop
            if row == picked[s]:
                kept = x
            if x > best:
                best, at = x, row
        if best > kept + tie:
            picked[s] = at
            changed += 1
    return changed


@_kernel
def leaving(row_ptr, entry_ptr, column, weight, first, last, picked):
    """Rows of a policy that leaves the block with probability one; whether there is one."""
    picked[first:last] = -1
    left = last - first
    while left > 0:
        before = left
        for s in range(first, last):
            if picked[s] >= 0:
                continue
            for row in range(row_ptr[s], row_ptr[s + 1]):
                total, leads = 0.0, False
                for k in range(entry_ptr[row], entry_ptr[row + 1]):
                    total += weight[k]
                    outside = not first <= column[k] < last
                    leads = leads or outside or (column[k] != s and picked[column[k]] >= 0)
                if leads or total < 1.0 - 1e-14:
                    picked[s] = row
                    left -= 1
                    break
        if left == before:
            return False
    return True


@_kernel
def longer(row_ptr, entry_ptr, column, weight, gain, xy, steps, first, last, picked, tie):
    """Rows within `tie` of the best that take longer than `picked` by half a step.

    `steps` [n] solves the chain of `picked`. Returns how many rows changed.
    """
    changed = 0
    for s in range(first, last):
        best = -np.inf
        for row in range(row_ptr[s], row_ptr[s + 1]):
            x = gain[row]
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                x += weight[k] * xy[column[k], 0]
            best = max(best, x)
        most, at = steps[s - first] + 0.25, picked[s]
        for row in range(row_ptr[s], row_ptr[s + 1]):
            x, w = gain[row], 1.0
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                x += weight[k] * xy[column[k], 0]
                if first <= column[k] < last:
                    w += weight[k] * steps[column[k] - first]
            if x >= best - tie and w > most:
                most, at = w, row
        if at != picked[s]:
            picked[s] = at
            changed += 1
    return changed


@_kernel
def right_side(entry_ptr, column, weight, gain, xy, first, last, picked, out):
    """What the rows collect, and what they find outside the block."""
    for s in range(first, last):
        total = gain[picked[s]]
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if not first <= column[k] < last:
                total += weight[k] * xy[column[k], 0]
        out[s - first] = total


@_kernel
def apply(entry_ptr, column, weight, first, last, picked, z, out):
    """out = (I - P) z."""
    for s in range(first, last):
        total, stays = 0.0, 1.0
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if column[k] == s:
                stays -= weight[k]
            elif first <= column[k] < last:
                total += weight[k] * z[column[k] - first]
        out[s - first] = stays * z[s - first] - total


@_kernel
def precondition(entry_ptr, column, weight, first, last, picked, z, out):
    """One forward Gauss-Seidel sweep from 0: successors have the lower numbers."""
    for s in range(first, last):
        total, stays = z[s - first], 1.0
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if column[k] == s:
                stays -= weight[k]
            elif first <= column[k] < s:
                total += weight[k] * out[column[k] - first]
        out[s - first] = total / stays


@_kernel
def krylov(entry_ptr, column, weight, first, last, picked, work, scalars, limit, goal):
    """Iterations of BiCGSTAB on `work` [8, n]: solution, residual, shadow, p, v, t, two more.

    `scalars` is (rho, alpha, omega), zeros to begin with; the residual must be right then.
    Returns the largest residual; infinite where the method broke down.
    """
    n = last - first
    z, r, shadow, p, v, t, y, q = (
        work[0], work[1], work[2], work[3], work[4], work[5], work[6], work[7],
    )  # fmt: skip
    if scalars[0] == 0.0:
        scalars[:] = 1.0
        for i in range(n):
            shadow[i] = r[i]
            p[i] = v[i] = 0.0
    largest = np.abs(r).max()
    for _ in range(limit):
        if largest <= goal:
            break
        rho = np.dot(shadow, r)
        if rho == 0.0 or not np.isfinite(rho):
            return np.inf
        beta = rho / scalars[0] * scalars[1] / scalars[2]
        for i in range(n):
            p[i] = r[i] + beta * (p[i] - scalars[2] * v[i])
        precondition(entry_ptr, column, weight, first, last, picked, p, y)
        apply(entry_ptr, column, weight, first, last, picked, y, v)
        against = np.dot(shadow, v)
        if against == 0.0:
            return np.inf
        alpha = rho / against
        for i in range(n):
            r[i] -= alpha * v[i]
        precondition(entry_ptr, column, weight, first, last, picked, r, q)
        apply(entry_ptr, column, weight, first, last, picked, q, t)
        size = np.dot(t, t)
        omega = np.dot(t, r) / size if size > 0.0 else 0.0
        largest = 0.0
        for i in range(n):
            z[i] += alpha * y[i] + omega * q[i]
            r[i] -= omega * t[i]
            largest = max(largest, abs(r[i]))
        scalars[0], scalars[1], scalars[2] = rho, alpha, omega
        if omega == 0.0 and largest > goal:
            return np.inf
    return largest


@_kernel
def narrow_order(row_ptr, entry_ptr, column, first, last):
    """Cuthill-McKee without sorting by degree: place [n] of each state, and the half bandwidth.

    Breadth first over moves in both directions, of all rows, from a state far out.
    """
    n = last - first
    pointer = np.zeros(n + 1, dtype=np.int64)
    for s in range(first, last):
        for k in range(entry_ptr[row_ptr[s]], entry_ptr[row_ptr[s + 1]]):
            if first <= column[k] < last and column[k] != s:
                pointer[s - first + 1] += 1
                pointer[column[k] - first + 1] += 1
    for i in range(n):
        pointer[i + 1] += pointer[i]
    near = np.empty(pointer[n], dtype=np.int64)
    fill = pointer[:n].copy()
    for s in range(first, last):
        for k in range(entry_ptr[row_ptr[s]], entry_ptr[row_ptr[s + 1]]):
            if first <= column[k] < last and column[k] != s:
                i, j = s - first, column[k] - first
                near[fill[i]] = j
                near[fill[j]] = i
                fill[i] += 1
                fill[j] += 1
    place = np.empty(n, dtype=np.int64)
    queue = np.empty(n, dtype=np.int64)
    root = 0
    for _ in range(3):
        place[:] = -1
        queue[0] = root
        place[root] = 0
        head, tail = 0, 1
        while head < tail:
            i = queue[head]
            head += 1
            for k in range(pointer[i], pointer[i + 1]):
                if place[near[k]] < 0:
                    place[near[k]] = tail
                    queue[tail] = near[k]
                    tail += 1
        root = queue[n - 1]
    band = 0
    for i in range(n):
        for k in range(pointer[i], pointer[i + 1]):
            band = max(band, abs(place[i] - place[near[k]]))
    return place, band


@_kernel
def band_factors(entry_ptr, column, weight, first, last, picked, place, band, factors):
    """`factors` [n, 2 band + 1]: the band of I - P, eliminated in place."""
    n = last - first
    factors[:, :] = 0.0
    for s in range(first, last):
        i = place[s - first]
        factors[i, band] += 1.0
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if first <= column[k] < last:
                factors[i, band + place[column[k] - first] - i] -= weight[k]
    for i in range(n):
        pivot = factors[i, band]
        for j in range(i + 1, min(n, i + band + 1)):
            below = factors[j, band + i - j]
            if below != 0.0:
                below /= pivot
                factors[j, band + i - j] = below
                shift = i - j
                for c in range(band + 1, 2 * band + 1):
                    factors[j, c + shift] -= below * factors[i, c]


@_kernel
def band_solve(factors, place, band, right, out):
    """out = (I - P)^-1 right, from the factors."""
    n = place.shape[0]
    z = np.empty(n)
    for i in range(n):
        z[place[i]] = right[i]
    for i in range(n):
        total = z[i]
        for c in range(max(0, band - i), band):
            total -= factors[i, c] * z[i + c - band]
        z[i] = total
    for i in range(n - 1, -1, -1):
        total = z[i]
        for c in range(band + 1, min(2 * band + 1, n - i + band)):
            total -= factors[i, c] * z[i + c - band]
        z[i] = total / factors[i, band]
    for i in range(n):
        out[i] = z[place[i]]
