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
trusted. Where the copy would be too large, and where rows are generated, the same runs in place.
"""
# mypy: disallow-untyped-defs=False, disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
from numba import njit

from likely.mdp.discounted.policy_iteration import modified_policy_iteration, policy_share
from likely.mdp.discounted.task import Task
from likely.mdp.kernels import graph
from likely.mdp.kernels import order as generated_order
from likely.mdp.kernels.engine import NATURAL, Engine, GeneratedEngine, Order, StoredEngine
from likely.mdp.kernels.rows import Rows
from likely.mdp.model.arrays import Array

COPY_LIMIT = 1 << 30  # bytes of renumbered rows; beyond it, order without a copy
FEW_LEVELS = 6  # distances from the goals up to which states count as mixing fast
STILL = 1e-3  # of the change that ends a solve: a value that changes less is at rest
VISITS = 8  # sweeps of a state while the window passes over it

_exact: Any = njit(nogil=True, cache=True, error_model="numpy")


@_exact
def renumber(rows, order, rank):
    """The rows of the states in `order`, successors renumbered by `rank`."""
    pair_ptr, indptr, indices, probability, reward, discount = rows
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
    return Rows(new_pair_ptr, new_indptr, new_indices, new_probability, new_reward, discount)


def frontier(task: Task) -> Iterator[None]:
    """See the module's docstring."""
    mdp = task.mdp
    if mdp is None:
        yield from _generated(task)
        return
    goals = graph.outward(mdp, mdp.reward)
    if goals is None:
        yield from ordered(task, NATURAL)
        return
    order, distance, levels = goals
    reached = int((distance >= 0).sum())
    width = max(1, reached // (levels + 1))
    del distance, goals
    size = mdp.transitions * (mdp.indices.itemsize + 8) + mdp.pairs * (mdp.indptr.itemsize + 8)
    if size > COPY_LIMIT:
        yield from _in_place(task, graph.explicit(order), reached, width)
    else:
        yield from _copied(task, order, reached, width)


def _generated(task: Task) -> Iterator[None]:
    """The same for generated rows."""
    engine = task.engine
    assert isinstance(engine, GeneratedEngine)
    goals = generated_order.outward(engine.problem)
    if goals is None:
        yield from ordered(task, NATURAL)
        return
    order, levels, reached = goals
    if levels <= FEW_LEVELS:  # moves lead anywhere: no order helps
        yield from modified_policy_iteration(task)
        return
    yield from _in_place(task, order, reached, max(1, reached // (levels + 1)))


def _in_place(task: Task, order: Order, reached: int, width: int) -> Iterator[None]:
    """Sweeps over the rows where they are."""
    for _ in _windowed(task, task.engine, task.value, task.best, order, reached, width):
        if task.fresh:
            task.check()
        yield


def _copied(task: Task, order: Array, reached: int, width: int) -> Iterator[None]:
    """Sweeps over a copy of the rows that lies in memory in the order of the sweeps."""
    mdp = task.mdp
    assert mdp is not None
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=order.dtype)
    rows = renumber(mdp.rows, order, rank)
    del rank
    copy = dataclasses.replace(
        mdp, **rows._asdict(), terminal=mdp.terminal[order], successor_reward=None, initial=None
    )
    pieces = len(task.engine.pieces) if isinstance(task.engine, StoredEngine) else 1
    weights = copy.probability.astype(task.value.dtype, copy=False)
    engine = StoredEngine(copy, copy.reward, mdp.discount, pieces, weights)
    value = task.value[order]
    best = np.full(mdp.states, -1, dtype=engine.best_type)
    for _ in _windowed(task, engine, value, best, NATURAL, reached, width):
        if task.fresh or task.iterations % 10 == 0:  # often enough for an interrupt
            task.value[order] = value
        if task.fresh:
            task.check()
        yield


def _windowed(
    task: Task, engine: Engine, value: Array, best: Array, order: Order, reached: int, width: int
) -> Iterator[None]:
    """The march, and then windows that advance by `width`, the states of a level.

    Only the part of the order in which values still change is swept, until it is quiet. Then
    `task.fresh` asks for a check, and if that fails everything is swept again.
    """
    states = engine.states
    back = Order(order.forward, order.rank, -order.step)
    if task.iterations == 0 and not value.any():  # a start that was given is kept
        engine.march(value, best, order)
    else:
        engine.sweep(value, best, order)
    task.changed(1.0)
    if reached < states:
        engine.sweep(value, best, order)
        task.changed(1.0)
    target = 0.75 * task.target_span
    window = VISITS * width
    policy: Any = None
    places = (0, states)
    while True:
        policy = engine.policy_rows(best, order, True, policy)
        swept = policy.enter(value)
        policy.windows(swept, width, window, places)
        policy.leave(swept, value)
        done = engine.sweep(value, best, order, places, STILL * target)
        part = (places[1] - places[0]) / max(1, states)
        task.changed(part * (1.0 + VISITS * policy_share(task)))
        task.fresh = max(done.high, -done.low) <= target or task.iterations % 10 == 9
        checked = task.fresh
        yield
        if checked:
            # Bounds not met yet: one sweep back, which carries what the front left behind.
            engine.sweep(value, best, back)
            task.changed(1.0)
        if checked or done.rear < 0:
            places = (0, states)
        else:
            places = (max(0, done.front - window), min(states, done.rear + 1 + window))


def ordered(task: Task, order: Order) -> Iterator[None]:
    """Modified policy iteration with Gauss-Seidel sweeps, where no goal gives a direction.

    Sweeps over all actions go to and fro. Starts below the fixed point, so that values only rise.
    """
    engine = task.engine
    back = Order(order.forward, order.rank, -order.step)
    task.start_below()
    policy: Any = None
    while True:
        engine.sweep(task.value, task.best, back)
        low, high, *_ = engine.sweep(task.value, task.best, order)
        task.changed(2.0)
        change = max(high, -low)
        if change <= 0.75 * task.target_span or task.iterations % 10 == 9:
            task.check()
        yield
        policy = engine.policy_rows(task.best, order, True, policy)
        swept = policy.enter(task.value)
        moved = np.inf
        for visit in range(30):
            before = moved
            low, high = policy.sweep(swept)
            moved = max(high, -low)
            task.changed(policy_share(task))
            slow = visit >= 4 and moved > 0.9 * before
            if moved <= 0.02 * change or moved <= 0.25 * task.target_span or slow:
                break
        policy.leave(swept, task.value)
