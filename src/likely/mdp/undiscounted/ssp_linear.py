"""The chain of one policy inside a block: (I - P) z = right side, by bands or by a Krylov method.

Nothing here is rigorous or has to be: what comes out is a guess that `ssp_kernels` then proves.
The strongly connected parts of the chain, successors first, are eliminated as bands, without
pivoting, which is stable for the M-matrix I - P; their widths decide beforehand whether it is
worth it. BiCGSTAB (van der Vorst 1992) is preconditioned by one
Gauss-Seidel sweep and works in portions, so that a caller may stop it.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from likely.mdp.kernels.graph import components

_kernel: Any = njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc"})


@_kernel
def greedy(rows, xy, first, last, picked, tie):
    """The best row of each state of a block, kept where nothing is better by `tie`.

    Returns how many rows changed.
    """
    row_ptr, entry_ptr, column, weight, gain = rows
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
def march(rows, xy, first, last, forward, reached, picked):
    """The rows of a pass over a block in one direction, each the best with what came before it.

    A move to a state that the pass has not reached counts as staying. `reached` [n] is work
    space. Whether every state has such a row.
    """
    row_ptr, entry_ptr, column, weight, gain = rows
    reached[:] = np.nan
    for i in range(last - first):
        s = first + i if forward else last - 1 - i
        best, at = -np.inf, -1
        for row in range(row_ptr[s], row_ptr[s + 1]):
            x, loop = gain[row], 0.0
            for k in range(entry_ptr[row], entry_ptr[row + 1]):
                inside = first <= column[k] < last
                if inside and np.isnan(reached[column[k] - first]):
                    loop += weight[k]
                elif inside:
                    x += weight[k] * reached[column[k] - first]
                else:
                    x += weight[k] * xy[column[k], 0]
            if loop < 1.0 - 1e-14 and x / (1.0 - loop) > best:
                best, at = x / (1.0 - loop), row
        if at < 0:
            return False
        reached[s - first], picked[s] = best, at
    return True


@_kernel
def leaving(rows, first, last, picked):
    """Rows of a policy that leaves the block with probability one; whether there is one."""
    row_ptr, entry_ptr, column, weight, _ = rows
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
def longer(rows, xy, steps, first, last, picked, tie):
    """Rows within `tie` of the best that take longer than `picked` by half a step.

    `steps` [n] solves the chain of `picked`. Returns how many rows changed.
    """
    row_ptr, entry_ptr, column, weight, gain = rows
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
def right_side(rows, xy, first, last, picked, out):
    """What the rows collect, and what they find outside the block."""
    _, entry_ptr, column, weight, gain = rows
    for s in range(first, last):
        total = gain[picked[s]]
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if not first <= column[k] < last:
                total += weight[k] * xy[column[k], 0]
        out[s - first] = total


@_kernel
def apply(rows, first, last, picked, z, out):
    """out = (I - P) z."""
    _, entry_ptr, column, weight, _ = rows
    for s in range(first, last):
        total, stays = 0.0, 1.0
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if column[k] == s:
                stays -= weight[k]
            elif first <= column[k] < last:
                total += weight[k] * z[column[k] - first]
        out[s - first] = stays * z[s - first] - total


@_kernel
def precondition(rows, first, last, picked, z, out):
    """One forward Gauss-Seidel sweep from 0: successors have the lower numbers."""
    _, entry_ptr, column, weight, _ = rows
    for s in range(first, last):
        total, stays = z[s - first], 1.0
        for k in range(entry_ptr[picked[s]], entry_ptr[picked[s] + 1]):
            if column[k] == s:
                stays -= weight[k]
            elif first <= column[k] < s:
                total += weight[k] * out[column[k] - first]
        out[s - first] = total / stays


@_kernel
def krylov(rows, first, last, picked, work, scalars, limit, goal):
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
        precondition(rows, first, last, picked, p, y)
        apply(rows, first, last, picked, y, v)
        against = np.dot(shadow, v)
        if against == 0.0:
            return np.inf
        alpha = rho / against
        for i in range(n):
            r[i] -= alpha * v[i]
        precondition(rows, first, last, picked, r, q)
        apply(rows, first, last, picked, q, t)
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
def chain_parts(rows, first, last, picked):
    """The chain of `picked` in its strongly connected parts, each in a narrow order.

    A policy moves to far fewer states than all actions do, so most parts are small.

    Returns the moves inside the block as CSR [n, n], numbered from 0; the states [n] sorted by
    parts, successors first; the place [n] of each state; the pointer to the parts; the half
    bandwidth of each part; and where its factors begin.
    """
    _, entry_ptr, column, weight, _ = rows
    n = last - first
    ptr = np.zeros(n + 1, dtype=np.int64)
    entries = 0
    for i in range(n):
        row = picked[first + i]
        entries += entry_ptr[row + 1] - entry_ptr[row]
    col = np.empty(entries, dtype=np.int64)
    chance = np.empty(entries)
    place = 0
    for i in range(n):
        row = picked[first + i]
        for k in range(entry_ptr[row], entry_ptr[row + 1]):
            if first <= column[k] < last:
                col[place] = column[k] - first
                chance[place] = weight[k]
                place += 1
        ptr[i + 1] = place
    col, chance = col[:place], chance[:place]
    order, part_ptr, label = components(np.arange(n + 1), ptr, col)
    parts = part_ptr.shape[0] - 1
    back_ptr = np.zeros(n + 1, dtype=np.int64)
    for i in range(n):
        for k in range(ptr[i], ptr[i + 1]):
            if label[col[k]] == label[i]:
                back_ptr[col[k] + 1] += 1
    for i in range(n):
        back_ptr[i + 1] += back_ptr[i]
    back = np.empty(back_ptr[n], dtype=np.int64)
    fill = back_ptr[:n].copy()
    for i in range(n):
        for k in range(ptr[i], ptr[i + 1]):
            if label[col[k]] == label[i]:
                back[fill[col[k]]] = i
                fill[col[k]] += 1
    position = np.empty(n, dtype=np.int64)
    band = np.zeros(parts, dtype=np.int64)
    start = np.zeros(parts + 1, dtype=np.int64)
    for part in range(parts):
        begin, end = part_ptr[part], part_ptr[part + 1]
        if end - begin == 1:
            position[order[begin]] = begin
            start[part + 1] = start[part] + 1
            continue
        # Cuthill-McKee without sorting by degree, from a state far out: breadth first over moves
        # in both directions.
        root = order[begin]
        for _ in range(3):
            for i in range(begin, end):
                position[order[i]] = -1
            order[begin], position[root] = root, begin
            head, tail = begin, begin + 1
            while head < tail:
                i = order[head]
                head += 1
                for k in range(ptr[i], ptr[i + 1]):
                    if label[col[k]] == part and position[col[k]] < 0:
                        position[col[k]] = tail
                        order[tail] = col[k]
                        tail += 1
                for k in range(back_ptr[i], back_ptr[i + 1]):
                    if position[back[k]] < 0:
                        position[back[k]] = tail
                        order[tail] = back[k]
                        tail += 1
            root = order[end - 1]
        for i in range(begin, end):
            state = order[i]
            for k in range(ptr[state], ptr[state + 1]):
                if label[col[k]] == part:
                    band[part] = max(band[part], abs(i - position[col[k]]))
        start[part + 1] = start[part] + (end - begin) * (2 * band[part] + 1)
    return ptr, col, chance, order, position, part_ptr, band, start


@_kernel
def chain_factors(flat, chain):
    """The bands of I - P in each part of a `chain_parts`, eliminated in place in `flat`."""
    ptr, col, weight, order, position, part_ptr, band, start = chain
    flat[: start[-1]] = 0.0
    for part in range(band.shape[0]):
        begin, half, n = part_ptr[part], band[part], part_ptr[part + 1] - part_ptr[part]
        factors = flat[start[part] : start[part + 1]].reshape(n, 2 * half + 1)
        for i in range(n):
            state = order[begin + i]
            factors[i, half] += 1.0
            for k in range(ptr[state], ptr[state + 1]):
                j = position[col[k]] - begin
                if 0 <= j < n:
                    factors[i, half + j - i] -= weight[k]
        for i in range(n):
            pivot = factors[i, half]
            for j in range(i + 1, min(n, i + half + 1)):
                below = factors[j, half + i - j]
                if below != 0.0:
                    below /= pivot
                    factors[j, half + i - j] = below
                    shift = i - j
                    for c in range(half + 1, 2 * half + 1):
                        factors[j, c + shift] -= below * factors[i, c]


@_kernel
def chain_solve(flat, chain, right):
    """(I - P)^-1 right, part by part from the factors."""
    ptr, col, weight, order, position, part_ptr, band, start = chain
    out = np.empty(right.shape[0])
    z = np.empty(right.shape[0])
    for part in range(band.shape[0]):
        begin, half, n = part_ptr[part], band[part], part_ptr[part + 1] - part_ptr[part]
        factors = flat[start[part] : start[part + 1]].reshape(n, 2 * half + 1)
        for i in range(n):
            state = order[begin + i]
            total = right[state]
            for k in range(ptr[state], ptr[state + 1]):
                if position[col[k]] < begin:
                    total += weight[k] * out[col[k]]
            for c in range(max(0, half - i), half):
                total -= factors[i, c] * z[i + c - half]
            z[i] = total
        for i in range(n - 1, -1, -1):
            total = z[i]
            for c in range(half + 1, min(2 * half + 1, n - i + half)):
                total -= factors[i, c] * z[i + c - half]
            z[i] = total / factors[i, half]
            out[order[begin + i]] = z[i]
    return out
