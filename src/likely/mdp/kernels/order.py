"""In which order to sweep over generated rows.

There are no lists of predecessors to search breadth first, so distances to the goals are found by
sweeps of d(s) = 1 + min d(s'), forwards and backwards in turn, until none falls. On open grids
that takes three of them.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import numpy as np

from likely.mdp.kernels.engine import NO_ORDER, Order
from likely.mdp.kernels.generated import _exact, scratch
from likely.mdp.model.matrix_free import MatrixFree

UNKNOWN = int(np.iinfo(np.int32).max)
# Sweeps after which distances are good enough: they only decide an order.
PATIENT = 40


@_exact
def reach(row, rows, distance, start, stop, step):
    """One sweep of distance = 1 + the least distance of a successor; how many fell.

    Distances that are not known yet are the largest number of their type.
    """
    parameters, slots, labels, actions, terminal, _ = rows
    successors, weights = scratch(slots)
    choices = len(labels) if len(labels) > 0 else actions
    unknown = np.int64(np.iinfo(np.int32).max)
    fallen = 0
    for state in range(start, stop, step):
        if terminal[state]:
            continue
        least = unknown
        for action in range(choices):
            count, _ = row(state, action, parameters, successors, weights)
            for k in range(count):
                far = np.int64(distance[np.uint64(successors[k])])
                least = far if far < least and weights[k] > 0.0 else least
        if least < unknown and least + 1 < distance[state]:
            distance[state] = least + 1
            fallen += 1
    return fallen


@_exact
def mark_rich(row, rows, distance):
    """Set the distance of states with a pair of the largest reward to 0, if such pairs are few."""
    parameters, slots, _, actions, terminal, _ = rows
    successors, weights = scratch(slots)
    largest, holders, pairs = -np.inf, 0, 0
    for state in range(terminal.shape[0]):
        if terminal[state]:
            continue
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if not count:
                continue
            pairs += 1
            if reward > largest:
                largest, holders = reward, 0
            holders += reward == largest
    if holders > max(1, pairs // 20):
        return
    for state in range(terminal.shape[0]):
        if terminal[state]:
            continue
        for action in range(actions):
            count, reward = row(state, action, parameters, successors, weights)
            if count and reward == largest:
                distance[state] = 0


@_exact
def by_distance(distance, levels, order):
    """Counting sort: states by distance, unknown distances last."""
    begin = np.zeros(levels + 3, dtype=np.int64)
    for state in range(distance.shape[0]):
        begin[min(distance[state], levels + 1) + 1] += 1
    for level in range(1, levels + 3):
        begin[level] += begin[level - 1]
    for state in range(distance.shape[0]):
        level = min(distance[state], levels + 1)
        order[begin[level]] = state
        begin[level] += 1


def outward(problem: MatrixFree) -> tuple[Order, int, int] | None:
    """The order outwards from the goals, the number of levels, and the reached states.

    Goals are the terminal states and, where few pairs hold the largest reward, the states of
    those too. None where there are no goals.
    """
    distance = np.where(problem.terminal, np.int32(0), np.int32(UNKNOWN))  # [S]
    mark_rich(problem.row, problem.rows, distance)
    if not bool((distance == 0).any()):
        return None
    ranges = ((0, problem.states, 1), (problem.states - 1, -1, -1))
    for attempt in range(PATIENT):
        if not reach(problem.row, problem.rows, distance, *ranges[attempt % 2]) and attempt:
            break
    known = distance < UNKNOWN
    levels = int(distance[known].max(initial=0))
    order = np.empty(problem.states, dtype=np.uint32 if problem.states < 2**32 else np.uint64)
    by_distance(distance, levels, order)
    return Order(order, NO_ORDER), levels, int(known.sum())
