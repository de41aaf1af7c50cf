"""Qualitative analysis: who can reach what, and maximal end components.

An end component is a set of states with a set of their actions that can be stayed in for ever
(de Alfaro 1997). Without a discount they are what makes naive stopping rules unsound. Every
search runs over the transposed rows and looks at each transition once (`surely_reach` and
`maximal_end_components` once per round; a round after the first looks only at what changed).
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

from likely.mdp.kernels.graph import strong_components
from likely.mdp.model.arrays import Array, Mask
from likely.mdp.model.problem import MDP

_kernel: Any = njit(nogil=True, cache=True)


class Edges(NamedTuple):
    """The pairs of an MDP as edges, for set computations.

    Attributes:
        pair_ptr: [S + 1]; the pairs of state s are `pair_ptr[s]:pair_ptr[s + 1]`.
        indptr, indices: CSR successors of each pair.
        owner: [pairs] state of each pair.
        entry_ptr, entry: CSR lists [S] of the pairs that may move into each state.
    """

    pair_ptr: Array
    indptr: Array
    indices: Array
    owner: Array
    entry_ptr: Array
    entry: Array

    @classmethod
    def of(cls, mdp: MDP) -> Edges:
        """The edges of an MDP."""
        return cls.from_csr(mdp.pair_ptr, mdp.indptr, mdp.indices)

    @classmethod
    def from_csr(cls, pair_ptr: Array, indptr: Array, indices: Array) -> Edges:
        """The edges of CSR rows [pairs, S]."""
        owner, entry_ptr, entry = _transpose(pair_ptr, indptr, indices)
        return cls(pair_ptr, indptr, indices, owner, entry_ptr, entry)

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.pair_ptr) - 1

    def within(self, region: Mask, usable: Mask) -> tuple[Mask, Mask]:
        """[pairs] the usable pairs of the region, and those of them that stay in it."""
        live, closed = _within(self, region, usable)
        return live, closed

    def staying(self, region: Mask) -> Array:
        """[S] the first pair that stays in the region, -1 where there is none."""
        return np.asarray(_staying(self, region))

    def every(self, inside: Mask) -> Mask:
        """[pairs] whether every successor is inside."""
        return np.asarray(_every(self, inside))


def can_reach(edges: Edges, target: Mask, through: Mask, usable: Mask | None = None) -> Mask:
    """States from which some policy reaches `target` with positive probability.

    Only states `through` may be passed, only `usable` pairs may be taken.
    """
    return approach(edges, target, through, usable)[0]


def approach(
    edges: Edges, target: Mask, through: Mask, usable: Mask | None = None
) -> tuple[Mask, Array]:
    """See `can_reach`; with the pairs [S] of a policy that comes nearer, -1 where there is none."""
    if usable is None:
        usable = np.ones(len(edges.owner), dtype=np.bool_)
    reached, chosen = _reach(edges, target, through, usable)
    return reached, chosen


def cannot_avoid(edges: Edges, target: Mask, through: Mask) -> Mask:
    """States from which every policy reaches `target` with positive probability."""
    return np.asarray(_force(edges, target, through))


def surely_reach(edges: Edges, target: Mask, through: Mask) -> Mask:
    """States from which some policy reaches `target` with probability one."""
    return surely_approach(edges, target, through)[0]


def surely_approach(edges: Edges, target: Mask, through: Mask) -> tuple[Mask, Array]:
    """See `surely_reach`; with the pairs [S] of a policy that does, -1 where there is none."""
    inside, chosen = _surely(edges, target, target | through)
    return inside, chosen


def always_reach(edges: Edges, target: Mask, through: Mask) -> Mask:
    """States from which every policy reaches `target` with probability one."""
    avoid = ~cannot_avoid(edges, target, through)
    return ~can_reach(edges, avoid, through & ~target) | target


def maximal_end_components(edges: Edges, usable: Mask) -> tuple[Array, Mask]:
    """Maximal end components that use only the pairs `usable`.

    Returns the component number [S] (-1 where a state is in none) and the pairs inside [pairs].
    """
    component, inside = _end_components(edges, usable)
    return component, inside


@_kernel
def _transpose(pair_ptr, indptr, indices):
    """Owner of each pair; CSR lists of the pairs that enter each state."""
    states = pair_ptr.shape[0] - 1
    owner = np.empty(indptr.shape[0] - 1, dtype=indices.dtype)
    pointer = np.zeros(states + 1, dtype=indptr.dtype)
    for k in range(indices.shape[0]):
        pointer[indices[k] + 1] += 1
    for state in range(states):
        pointer[state + 1] += pointer[state]
    entry = np.empty(indices.shape[0], dtype=indices.dtype)
    for state in range(states):
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            owner[pair] = state
            for k in range(indptr[pair], indptr[pair + 1]):
                entry[pointer[indices[k]]] = pair
                pointer[indices[k]] += 1
    for state in range(states, 0, -1):
        pointer[state] = pointer[state - 1]
    pointer[0] = 0
    return owner, pointer, entry


@_kernel
def _stays(indptr, indices, pair, region):
    """Whether every successor of a pair is in the region."""
    for k in range(indptr[pair], indptr[pair + 1]):  # noqa: SIM110  numba
        if not region[indices[k]]:
            return False
    return True


@_kernel
def _every(edges, inside):
    _, indptr, indices, _, _, _ = edges
    every = np.empty(indptr.shape[0] - 1, dtype=np.bool_)
    for pair in range(every.shape[0]):
        every[pair] = _stays(indptr, indices, pair, inside)
    return every


@_kernel
def _within(edges, region, usable):
    pair_ptr, indptr, indices, _, _, _ = edges
    live = np.zeros(usable.shape[0], dtype=np.bool_)
    closed = np.zeros(usable.shape[0], dtype=np.bool_)
    for state in range(region.shape[0]):
        if not region[state]:
            continue
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            if usable[pair]:
                live[pair] = True
                closed[pair] = _stays(indptr, indices, pair, region)
    return live, closed


@_kernel
def _staying(edges, region):
    pair_ptr, indptr, indices, _, _, _ = edges
    chosen = np.full(region.shape[0], -1, dtype=np.int64)
    for state in range(region.shape[0]):
        if not region[state]:
            continue
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            if _stays(indptr, indices, pair, region):
                chosen[state] = pair
                break
    return chosen


@_kernel
def _reach(edges, target, through, usable):
    _, _, _, owner, entry_ptr, entry = edges
    states = target.shape[0]
    reached = target.copy()
    chosen = np.full(states, -1, dtype=np.int64)
    queue = np.empty(states, dtype=np.int64)
    head, tail = 0, 0
    for state in range(states):
        if target[state]:
            queue[tail] = state
            tail += 1
    while head < tail:
        state = queue[head]
        head += 1
        for e in range(entry_ptr[state], entry_ptr[state + 1]):
            pair = entry[e]
            before = owner[pair]
            if not reached[before] and through[before] and usable[pair]:
                reached[before] = True
                chosen[before] = pair
                queue[tail] = before
                tail += 1
    return reached, chosen


@_kernel
def _force(edges, target, through):
    pair_ptr, _, _, owner, entry_ptr, entry = edges
    states = target.shape[0]
    reached = target.copy()
    hit = np.zeros(owner.shape[0], dtype=np.bool_)
    left = np.empty(states, dtype=np.int64)
    queue = np.empty(states, dtype=np.int64)
    head, tail = 0, 0
    for state in range(states):
        left[state] = pair_ptr[state + 1] - pair_ptr[state]
        if target[state]:
            queue[tail] = state
            tail += 1
    while head < tail:
        state = queue[head]
        head += 1
        for e in range(entry_ptr[state], entry_ptr[state + 1]):
            pair = entry[e]
            if hit[pair]:
                continue
            hit[pair] = True
            before = owner[pair]
            left[before] -= 1
            if left[before] == 0 and through[before] and not reached[before]:
                reached[before] = True
                queue[tail] = before
                tail += 1
    return reached


@_kernel
def _surely(edges, target, inside):
    """The largest set in which `target` can be approached without ever leaving the set.

    Returns it and the pairs [S] that come nearer.
    """
    _, indptr, indices, owner, entry_ptr, entry = edges
    states = target.shape[0]
    inside = inside.copy()
    usable = np.empty(owner.shape[0], dtype=np.bool_)
    left = np.zeros(states, dtype=np.int64)  # usable pairs by state
    for pair in range(owner.shape[0]):
        usable[pair] = inside[owner[pair]] and _stays(indptr, indices, pair, inside)
        left[owner[pair]] += usable[pair]
    queue = np.empty(states, dtype=np.int64)
    depth = 0
    for state in range(states):
        if inside[state] and left[state] == 0 and not target[state]:
            inside[state] = False
            queue[depth] = state
            depth += 1
    while True:
        while depth > 0:  # states outside, and with them those that have no pair left
            depth -= 1
            state = queue[depth]
            for e in range(entry_ptr[state], entry_ptr[state + 1]):
                pair = entry[e]
                if usable[pair]:
                    usable[pair] = False
                    before = owner[pair]
                    left[before] -= 1
                    if left[before] == 0 and inside[before] and not target[before]:
                        inside[before] = False
                        queue[depth] = before
                        depth += 1
        reached, chosen = _reach(edges, target, inside, usable)
        for state in range(states):
            if inside[state] and not reached[state]:
                inside[state] = False
                queue[depth] = state
                depth += 1
        if depth == 0:
            return inside, chosen


@_kernel
def _bury(edges, stack, depth, inside, left, lost):
    """Take the entries of `depth` dead states away, and those of the states that die of that."""
    _, _, _, owner, entry_ptr, entry = edges
    while depth > 0:
        depth -= 1
        state = stack[depth]
        for e in range(entry_ptr[state], entry_ptr[state + 1]):
            pair = entry[e]
            if inside[pair]:
                inside[pair] = False
                before = owner[pair]
                lost[before] = True
                left[before] -= 1
                if left[before] == 0:
                    stack[depth] = before
                    depth += 1


@_kernel
def _end_components(edges, usable):
    """Components that leak are searched again, without the pairs that left them."""
    pair_ptr, indptr, indices, owner, _, _ = edges
    states = pair_ptr.shape[0] - 1
    inside = usable.copy()
    left = np.zeros(states, dtype=np.int64)  # pairs inside, by state; a state without is dead
    lost = np.zeros(states, dtype=np.bool_)  # whether the state has lost a pair in this round
    part = np.full(states, -1, dtype=np.int64)
    held = np.flatnonzero(usable)
    if held.shape[0] == 0:
        return part, inside
    for candidate in held:
        left[owner[candidate]] += 1
    stack = np.empty(states, dtype=np.int64)
    depth = 0
    for candidate in held:
        for k in range(indptr[candidate], indptr[candidate + 1]):
            if left[indices[k]] == 0:
                inside[candidate] = False
                lost[owner[candidate]] = True
                left[owner[candidate]] -= 1
                if left[owner[candidate]] == 0:
                    stack[depth] = owner[candidate]
                    depth += 1
                break
    _bury(edges, stack, depth, inside, left, lost)
    count = 0
    roots = np.empty(states, dtype=np.int64)
    for state in range(states):
        if left[state] > 0:
            part[state] = 0
            roots[count] = state
            count += 1
    if count == 0:
        return part, inside
    roots = roots[:count]
    label = np.full(states, -1, dtype=np.int64)
    index = np.empty(states, dtype=np.int64)
    last = 0
    while roots.shape[0] > 0:
        first = last
        _, last = strong_components(
            pair_ptr, indptr, indices, inside, roots, part, label, index, first
        )
        for r in range(roots.shape[0]):
            part[roots[r]] = label[roots[r]]
            lost[roots[r]] = False
        depth = 0
        for r in range(roots.shape[0]):
            state = roots[r]
            for pair in range(pair_ptr[state], pair_ptr[state + 1]):
                if not inside[pair]:
                    continue
                for k in range(indptr[pair], indptr[pair + 1]):
                    if part[indices[k]] != part[state]:
                        inside[pair] = False
                        lost[state] = True
                        left[state] -= 1
                        break
            if left[state] == 0:
                stack[depth] = state
                depth += 1
        _bury(edges, stack, depth, inside, left, lost)
        leaks = np.zeros(last - first, dtype=np.bool_)
        for r in range(roots.shape[0]):
            if lost[roots[r]]:
                leaks[part[roots[r]] - first] = True
        count = 0
        for r in range(roots.shape[0]):
            state = roots[r]
            if left[state] == 0:
                part[state] = -1
            elif leaks[part[state] - first]:
                roots[count] = state
                count += 1
        roots = roots[:count]
    # Number the components by their first state.
    number = np.full(last, -1, dtype=np.int64)
    components = 0
    for state in range(states):
        if part[state] >= 0:
            if number[part[state]] < 0:
                number[part[state]] = components
                components += 1
            part[state] = number[part[state]]
    return part, inside


def inward_policy(edges: Edges, inside: Mask, settled: Mask) -> Array:
    """[S] pairs `inside` that lead to the `settled` states; -1 elsewhere.

    A pair inside never leaves its component, so the states of one lead to their own.
    """
    return approach(edges, settled, np.ones_like(settled), inside)[1]
