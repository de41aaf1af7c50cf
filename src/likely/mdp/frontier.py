"""Sweeping outwards from the goals: the fast method for large problems with local moves.

In a grid, a maze or a network, value flows from few states (terminal ones, or those with the
largest reward) outwards, thousands of steps far. Sweeps in any fixed memory order move it a few
states at a time. Here

1. states are numbered by their distance to those goals (breadth first), and the rows are copied
   in that numbering, so that a sweep still reads memory from front to back;
2. one pass marches outwards, each state backed up from the states before it, with those not
   reached yet closed as if the move stayed in place: a start value of the right shape;
3. then modified policy iteration: sweeps under the greedy policy in a *window* that advances
   with the front, so that each state is swept eight times while its rows are in the cache and
   what lies behind it is final, followed by one sweep over all actions.

What is returned is checked by `Task.check` on the original rows, so nothing here has to be
trusted. Where the copy would be too large, sweeps run on the original rows in the best order.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from likely.mdp import graph
from likely.mdp.engine import NATURAL, GeneratedEngine, Order, PolicyRows, StoredEngine
from likely.mdp.task import Task

Array = npt.NDArray[Any]

COPY_LIMIT = 1 << 30  # bytes of renumbered rows; beyond it, order without a copy
VISITS = 8  # sweeps of a state while the window passes over it

_exact: Any = njit(nogil=True, cache=True, error_model="numpy")


@_exact
def renumber(pair_ptr, indptr, indices, probability, reward, order, rank):
    """The rows of the states in `order`, successors renumbered by `rank`."""
    states = order.shape[0]
    new_pair_ptr = np.empty_like(pair_ptr)
    new_indptr = np.empty_like(indptr)
    new_indices = np.empty_like(indices)
    new_probability = np.empty_like(probability)
    new_reward = np.empty_like(reward)
    new_pair_ptr[0] = 0
    new_indptr[0] = 0
    row, at = 0, 0
    for i in range(states):
        state = order[i]
        for pair in range(pair_ptr[state], pair_ptr[state + 1]):
            new_reward[row] = reward[pair]
            for k in range(indptr[pair], indptr[pair + 1]):
                new_indices[at] = rank[indices[k]]
                new_probability[at] = probability[k]
                at += 1
            row += 1
            new_indptr[row] = at
        new_pair_ptr[i + 1] = row
    return new_pair_ptr, new_indptr, new_indices, new_probability, new_reward


@_exact
def march(pair_ptr, indptr, indices, probability, reward, discount, value, best, reached):
    """One outward pass; successors not reached yet are closed as if the move stayed in place."""
    for state in range(reached):
        first, last = pair_ptr[state], pair_ptr[state + 1]
        if first == last:
            value[state] = 0.0
            continue
        top, chosen = -np.inf, np.int64(first)
        for pair in range(first, last):
            total, stay = 0.0, 0.0
            for k in range(indptr[pair], indptr[pair + 1]):
                if indices[k] >= state:
                    stay += probability[k]
                else:
                    total += probability[k] * value[indices[k]]
            q = (reward[pair] + discount * total) / (1.0 - discount * stay)
            if q > top:
                top, chosen = q, np.int64(pair)
        value[state] = top
        best[state] = chosen


def frontier(task: Task) -> Iterator[None]:
    """See the module's docstring."""
    mdp = task.mdp
    if mdp is None:
        yield from ordered(task, NATURAL)
        return
    found = graph.outward(mdp, mdp.reward)
    if found is None:
        yield from ordered(task, NATURAL)
        return
    order, distance, levels = found
    size = mdp.transitions * (mdp.indices.itemsize + 8) + mdp.pairs * (mdp.indptr.itemsize + 8)
    if size > COPY_LIMIT:
        yield from ordered(task, graph.usable_order(mdp, order, distance))
        return
    reached = int((distance >= 0).sum())
    yield from _windowed(task, order, reached, max(1, reached // (levels + 1)))


def _windowed(task: Task, order: Array, reached: int, width: int) -> Iterator[None]:
    mdp = task.mdp
    assert mdp is not None
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=order.dtype)
    rows = renumber(mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, mdp.reward, order, rank)
    del rank
    copy = dataclasses.replace(
        mdp, pair_ptr=rows[0], indptr=rows[1], indices=rows[2], probability=rows[3],
        reward=rows[4], terminal=mdp.terminal[order], successor_reward=None, initial=None,
    )  # fmt: skip
    pieces = len(task.engine.pieces) if isinstance(task.engine, StoredEngine) else 1
    engine = StoredEngine(copy, copy.reward, mdp.discount, pieces)
    value = task.value[order]
    best = np.full(mdp.states, -1, dtype=engine.best_type)
    if task.iterations == 0 and not value.any():  # a start that was given is kept
        march(*rows, mdp.discount, value, best, reached)
    else:
        engine.sweep(value, best, NATURAL)
    task.changed(1.0)
    if reached < mdp.states:
        engine.sweep(value, best, NATURAL)
        task.changed(1.0)
    share = mdp.states / max(1, mdp.pairs)
    policy: PolicyRows | None = None
    while True:
        policy = engine.policy_rows(best, NATURAL, True, policy)
        policy.windows(value, width, VISITS * width)
        low, high = engine.sweep(value, best, NATURAL)
        task.changed(1.0 + VISITS * share)
        if max(high, -low) <= 0.75 * task.target_span or task.iterations % 10 == 9:
            task.value[order] = value
            task.check()
        elif task.iterations % 10 == 0:
            task.value[order] = value  # so that an interrupt loses little
        yield
        if task.fresh:
            # Bounds not met yet: one sweep back, which carries what the front left behind.
            engine.sweep(value, best, Order(NATURAL.forward, NATURAL.rank, -1))
            task.changed(1.0)


def ordered(task: Task, order: Order) -> Iterator[None]:
    """Modified policy iteration with Gauss-Seidel sweeps in a given order, without a copy.

    Starts below the fixed point, so that values only rise.
    """
    engine = task.engine
    task.start_below()
    if isinstance(engine, GeneratedEngine):
        order = _better_direction(task, order)
    policy: Any = None
    while True:
        engine.sweep(task.value, task.best, order)
        low, high = engine.sweep(task.value, task.best, order)
        task.changed(2.0)
        change = max(high, -low)
        if change <= 0.75 * task.target_span or task.iterations % 10 == 9:
            task.check()
        yield
        if isinstance(engine, StoredEngine):
            policy = engine.policy_rows(task.best, order, True, policy)
        else:
            policy = engine.policy_rows(task.best, order, True)
        swept = policy.enter(task.value)
        moved = np.inf
        for visit in range(30):
            before = moved
            low, high = policy.sweep(swept)
            moved = max(high, -low)
            task.changed(0.25)
            slow = visit >= 4 and moved > 0.9 * before
            if moved <= 0.02 * change or moved <= 0.25 * task.target_span or slow:
                break
        policy.leave(swept, task.value)


def _better_direction(task: Task, order: Order) -> Order:
    """The direction of sweeps that removes more of the residual, tried once each way."""
    back = Order(order.forward, order.rank, -order.step)
    left = []
    for direction in (order, back):
        task.check()
        before = float(np.abs(task.top).sum())
        task.engine.sweep(task.value, task.best, direction)
        task.changed(1.0)
        task.check()
        left.append(float(np.abs(task.top).sum()) / max(before, 1e-300))
    task.fresh = False
    return order if left[0] <= left[1] else back
