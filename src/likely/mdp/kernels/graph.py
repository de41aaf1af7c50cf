"""The graph of an MDP: predecessors, orders to sweep in, strongly connected components.

An edge runs from s to s' where some action of s reaches s' with positive probability.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from likely.mdp.kernels.engine import NATURAL, NO_ORDER, Order
from likely.mdp.model.arrays import Array, FloatArray
from likely.mdp.model.problem import MDP

_kernel: Any = njit(nogil=True, cache=True)


@_kernel
def predecessor_lists(pair_ptr, indptr, indices, states):
    """CSR lists of the states that can move into each state (self-loops left out)."""
    pointer = np.zeros(states + 1, dtype=np.int64)
    for state in range(states):
        for k in range(indptr[pair_ptr[state]], indptr[pair_ptr[state + 1]]):
            if indices[k] != state:
                pointer[indices[k] + 1] += 1
    for state in range(states):
        pointer[state + 1] += pointer[state]
    source = np.empty(pointer[states], dtype=indices.dtype)
    for state in range(states):
        for k in range(indptr[pair_ptr[state]], indptr[pair_ptr[state + 1]]):
            successor = indices[k]
            if successor != state:
                source[pointer[successor]] = state
                pointer[successor] += 1
    for state in range(states, 0, -1):
        pointer[state] = pointer[state - 1]
    pointer[0] = 0
    return pointer, source


@_kernel
def breadth_first(pointer, source, seeds):
    """States by distance to the seeds along `source` lists; unreached states come last.

    Returns the order [S], the distance [S] (-1 where unreached) and the number of levels.
    """
    states = pointer.shape[0] - 1
    order = np.empty(states, dtype=source.dtype)
    distance = np.full(states, -1, dtype=source.dtype)
    tail = 0
    for seed in seeds:
        if distance[seed] < 0:
            distance[seed] = 0
            order[tail] = seed
            tail += 1
    head = 0
    levels = 0
    while head < tail:
        state = order[head]
        head += 1
        levels = distance[state]
        for k in range(pointer[state], pointer[state + 1]):
            before = source[k]
            if distance[before] < 0:
                distance[before] = distance[state] + 1
                order[tail] = before
                tail += 1
    for state in range(states):
        if distance[state] < 0:
            order[tail] = state
            tail += 1
    return order, distance, levels


@_kernel
def agreement(pair_ptr, indptr, indices, distance, stride):
    """Of sampled moves to a nearer state: how many go to a lower and to a higher number."""
    lower, higher = 0, 0
    for state in range(0, pair_ptr.shape[0] - 1, stride):
        for k in range(indptr[pair_ptr[state]], indptr[pair_ptr[state + 1]]):
            successor = indices[k]
            if distance[successor] >= 0 and distance[successor] < distance[state]:
                if successor < state:
                    lower += 1
                else:
                    higher += 1
    return lower, higher


@_kernel
def spread(pair_ptr, indptr, indices, seed, limit):
    """Steps until `limit` states are reachable from `seed`; a large number where they never are."""
    seen = {np.int64(seed)}
    frontier = [np.int64(seed)]
    steps = 0
    while len(frontier) > 0:
        following = [np.int64(-1)]
        following.pop()
        for state in frontier:
            for k in range(indptr[pair_ptr[state]], indptr[pair_ptr[state + 1]]):
                successor = np.int64(indices[k])
                if successor not in seen:
                    seen.add(successor)
                    following.append(successor)
            if len(seen) >= limit:
                return steps + 1
        frontier = following
        steps += 1
    return 1 << 30


@_kernel
def strong_components(pair_ptr, indptr, indices, usable, roots, part, label, index, first):
    """Tarjan's algorithm without recursion, within each part of the states `roots`.

    Edges are the moves of `usable` pairs between states of one `part` [S]. Each component of a
    root gets a `label` [S], from `first` on, successors before predecessors. `index` [S] is a
    workspace. Returns the roots in the order in which the search left them (most successors
    before their predecessors), and the first label that was not given.
    """
    states = pair_ptr.shape[0] - 1
    count = roots.shape[0]
    for r in range(count):
        index[roots[r]] = -1
        label[roots[r]] = -1
    low = np.empty(states, dtype=np.int64)
    at_pair = np.empty(states, dtype=np.int64)
    at_edge = np.empty(states, dtype=np.int64)
    stack = np.empty(count, dtype=np.int64)
    path = np.empty(count, dtype=np.int64)
    finished = np.empty(count, dtype=np.int64)
    counter, depth, done, last = 0, 0, 0, first
    for r in range(count):
        if index[roots[r]] >= 0:
            continue
        path[0] = roots[r]
        height = 1
        fresh = True
        while height > 0:
            state = path[height - 1]
            if fresh:
                index[state] = low[state] = counter
                counter += 1
                stack[depth] = state
                depth += 1
                at_pair[state] = pair_ptr[state]
                at_edge[state] = indptr[pair_ptr[state]]
                fresh = False
            pair, edge, lowest = at_pair[state], at_edge[state], low[state]
            end, mine = pair_ptr[state + 1], part[state]
            following = -1
            while pair < end:
                stop = indptr[pair + 1]
                if usable[pair]:
                    while edge < stop:
                        successor = indices[edge]
                        edge += 1
                        if part[successor] == mine:
                            if index[successor] < 0:
                                following = successor
                                break
                            if label[successor] < 0:  # not yet in a component: on the stack
                                lowest = min(lowest, index[successor])
                    if following >= 0:
                        break
                edge = stop
                pair += 1
            at_pair[state], at_edge[state], low[state] = pair, edge, lowest
            if following >= 0:
                path[height] = following
                height += 1
                fresh = True
                continue
            height -= 1
            finished[done] = state
            done += 1
            if height > 0:
                parent = path[height - 1]
                low[parent] = min(low[parent], lowest)
            if lowest == index[state]:
                while True:
                    depth -= 1
                    member = stack[depth]
                    label[member] = last
                    if member == state:
                        break
                last += 1
    return finished, last


@_kernel
def grouped(states, label, groups):
    """States sorted by label, otherwise as they come, and the pointer to the groups."""
    pointer = np.zeros(groups + 1, dtype=np.int64)
    for state in states:
        pointer[label[state] + 1] += 1
    for group in range(groups):
        pointer[group + 1] += pointer[group]
    members = np.empty(states.shape[0], dtype=np.int64)
    fill = pointer[:groups].copy()
    for state in states:
        members[fill[label[state]]] = state
        fill[label[state]] += 1
    return members, pointer


@_kernel
def components(pair_ptr, indptr, indices):
    """Strongly connected components of all moves.

    Returns the states grouped by component, the pointer to the groups, and the component of each
    state. Components come in reverse topological order: every successor outside a component is
    in an earlier group.
    """
    states = pair_ptr.shape[0] - 1
    label = np.empty(states, dtype=np.int64)
    finished, groups = strong_components(
        pair_ptr, indptr, indices, np.ones(indptr.shape[0] - 1, dtype=np.bool_),
        np.arange(states), np.zeros(states, dtype=np.int64), label,
        np.empty(states, dtype=np.int64), 0,
    )  # fmt: skip
    members, pointer = grouped(finished, label, groups)
    return members, pointer, label


def mixes_fast(mdp: MDP, within: int = 6) -> bool:
    """Whether a few steps lead almost anywhere, so that no order of states helps.

    From three states: 2,000 states (or half of all) within that many steps.
    """
    return reach(mdp)[0] <= within


def reach(mdp: MDP) -> tuple[int, float]:
    """Steps from a state to 2,000 states (or half of all), and the new ones at each step.

    The median of three states.
    """
    limit = min(2000, max(2, mdp.states // 2))
    seeds = [mdp.states // 4, mdp.states // 2, (3 * mdp.states) // 4]
    steps = sorted(spread(mdp.pair_ptr, mdp.indptr, mdp.indices, seed, limit) for seed in seeds)[1]
    return int(steps), limit / max(1, steps)


def outward(mdp: MDP, reward: FloatArray) -> tuple[Array, Array, int] | None:
    """States by distance to the goals: order [S], distance [S] (-1 unreached), levels.

    Goals are the terminal states that something enters and, where few pairs hold the largest
    reward, the states of those too. None where there are no goals.
    """
    pointer, source = predecessor_lists(mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.states)
    seeds = np.flatnonzero(mdp.terminal & (np.diff(pointer) > 0))
    if mdp.pairs:
        at = np.flatnonzero(reward == reward.max())
        if len(at) <= max(1, mdp.pairs // 20):
            rich = np.searchsorted(mdp.pair_ptr, at, side="right") - 1
            seeds = np.union1d(seeds, rich)
    if not len(seeds):
        return None
    order, distance, levels = breadth_first(pointer, source, seeds)
    return order, distance, int(levels)


def towards_goals(mdp: MDP, reward: FloatArray) -> Order:
    """An order in which information flows from the goals outwards; natural without goals."""
    goals = outward(mdp, reward)
    if goals is None:
        return NATURAL
    return usable_order(mdp, goals[0], goals[1])


def usable_order(mdp: MDP, order: Array, distance: Array) -> Order:
    """`order`, or the natural order or its reverse where they agree with `distance`."""
    lower, higher = agreement(
        mdp.pair_ptr, mdp.indptr, mdp.indices, distance, max(1, mdp.states // 20_000)
    )
    if lower + higher == 0 or lower >= 0.95 * (lower + higher):
        return NATURAL
    if higher >= 0.95 * (lower + higher):
        return Order(NO_ORDER, NO_ORDER, -1)
    return explicit(order)


def explicit(order: Array) -> Order:
    """An array of states as an `Order`."""
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=order.dtype)
    unsigned = np.uint32 if order.dtype == np.int32 else np.uint64
    return Order(order.view(unsigned), rank.view(unsigned))
