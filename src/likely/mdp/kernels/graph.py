"""The graph of an MDP: predecessors, orders to sweep in, strongly connected components.

An edge runs from s to s' where some action of s reaches s' with positive probability.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from likely.mdp.kernels.engine import NATURAL, NO_ORDER, Order
from likely.mdp.model.problem import MDP

Array = npt.NDArray[Any]

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
def components(pair_ptr, indptr, indices, states):
    """Strongly connected components by Tarjan's algorithm, without recursion.

    Returns the states grouped by component and the pointer to the groups. Components come in
    reverse topological order: every successor outside a component is in an earlier group.
    """
    index = np.full(states, -1, dtype=np.int64)
    low = np.zeros(states, dtype=np.int64)
    on_stack = np.zeros(states, dtype=np.bool_)
    stack = np.empty(states, dtype=np.int64)
    path = np.empty(states, dtype=np.int64)
    edge = np.empty(states, dtype=np.int64)
    members = np.empty(states, dtype=np.int64)
    bounds = np.zeros(states + 1, dtype=np.int64)
    counter, depth, height, placed, groups = 0, 0, 0, 0, 0
    for root in range(states):
        if index[root] >= 0:
            continue
        path[0] = root
        height = 1
        index[root] = low[root] = counter
        counter += 1
        stack[depth] = root
        depth += 1
        on_stack[root] = True
        edge[root] = indptr[pair_ptr[root]]
        while height > 0:
            state = path[height - 1]
            if edge[state] < indptr[pair_ptr[state + 1]]:
                successor = indices[edge[state]]
                edge[state] += 1
                if index[successor] < 0:
                    index[successor] = low[successor] = counter
                    counter += 1
                    stack[depth] = successor
                    depth += 1
                    on_stack[successor] = True
                    edge[successor] = indptr[pair_ptr[successor]]
                    path[height] = successor
                    height += 1
                elif on_stack[successor]:
                    low[state] = min(low[state], index[successor])
                continue
            height -= 1
            if height > 0:
                parent = path[height - 1]
                low[parent] = min(low[parent], low[state])
            if low[state] == index[state]:
                while True:
                    depth -= 1
                    member = stack[depth]
                    on_stack[member] = False
                    members[placed] = member
                    placed += 1
                    if member == state:
                        break
                groups += 1
                bounds[groups] = placed
    return members, bounds[: groups + 1].copy()


def mixes_fast(mdp: MDP, within: int = 6) -> bool:
    """Whether a few steps lead almost anywhere, so that no order of states helps.

    From three states: 2,000 states (or half of all) within so many steps.
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


def outward(mdp: MDP, reward: npt.NDArray[np.float64]) -> tuple[Array, Array, int] | None:
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


def towards_goals(mdp: MDP, reward: npt.NDArray[np.float64]) -> Order:
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
