"""The kernels against the plain operators: stored rows, generated rows, PyTorch, graphs."""

from __future__ import annotations

import dataclasses
import os

import numpy as np
import pytest
from mdp_examples import random_mdp
from numba import njit
from scipy.sparse import csgraph

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import (
    MDP,
    MatrixFree,
    bellman_optimality,
    certify,
    greedy,
    grid,
    row_function,
    solve,
)
from likely.mdp.discounted import frontier
from likely.mdp.kernels import graph, prioritized, threads
from likely.mdp.kernels import order as generated_order
from likely.mdp.kernels.engine import NATURAL, NO_ORDER, GeneratedEngine, Order, StoredEngine
from likely.mdp.model.operators import bellman_expectation


def engine_of(mdp: MDP, count: int = 1) -> StoredEngine:
    return StoredEngine(mdp, mdp.reward, mdp.discount, count)


def arrays(states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.empty(states), np.empty(states), np.full(states, -1, dtype=np.int32)


@pytest.mark.parametrize("count", [1, 3])
def test_fused_backup_and_residual_are_the_operator(count: int) -> None:
    mdp = random_mdp(200, 4, 5, 0.97, terminal=3)
    engine = engine_of(mdp, count)
    value = np.random.default_rng(0).standard_normal(200)
    value[:3] = 0.0
    expected = bellman_optimality(mdp, value)
    out, top, best = arrays(200)
    low, high = engine.backup(value, out, best)
    assert np.allclose(out, expected, rtol=0, atol=1e-14)
    assert (low, high) == pytest.approx(((out - value).min(), (out - value).max()), abs=1e-14)
    labels = np.where(best >= 0, mdp.pair_action[best], -1)
    assert np.array_equal(labels, greedy(mdp, value))
    floor, top, again = arrays(200)
    found = engine.residual(value, floor, top, again)
    assert np.array_equal(again, best)
    assert bool((floor <= top).all())
    assert np.abs(floor - (expected - value)).max() < 1e-13
    assert found.gap < 1e-13


def test_residual_bounds_contain_the_extended_precision_residual() -> None:
    mdp = random_mdp(100, 3, 6, 0.999, scale=1e6)
    value = 1e9 + 1e6 * np.random.default_rng(1).random(100)
    p = mdp.transition.toarray().astype(np.longdouble)
    q = mdp.reward + np.longdouble(mdp.discount) * (p @ value.astype(np.longdouble))
    exact = q.reshape(100, 3).max(axis=1) - value
    floor, top, best = arrays(100)
    engine_of(mdp).residual(value, floor, top, best)
    assert bool((floor <= exact).all())
    assert bool((exact <= top).all())
    assert (top - floor).max() < 1e-4


def test_ties_keep_the_old_action() -> None:
    mdp = MDP.from_pairs([0, 3], [0, 1, 2, 3], [0, 0, 0], [1.0] * 3, [1.0, 1.0, 1.0], 0.9)
    engine = engine_of(mdp)
    value = np.zeros(1)
    for kept in (0, 1, 2):
        floor, top, best = arrays(1)
        best[:] = kept
        engine.residual(value, floor, top, best)
        assert best[0] == kept
        engine.backup(value, np.empty(1), best)
        assert best[0] == kept


@pytest.mark.parametrize("step", [1, -1])
def test_a_sweep_is_gauss_seidel_with_loops_solved(step: int) -> None:
    mdp = random_mdp(40, 3, 4, 0.9, terminal=2)
    value = np.zeros(40)
    best = np.full(40, -1, dtype=np.int32)
    engine_of(mdp).sweep(value, best, Order(NO_ORDER, NO_ORDER, step))
    expected = np.zeros(40)
    p = mdp.transition.toarray()
    for s in range(40)[::step]:
        if mdp.terminal[s]:
            continue
        options = []
        for pair in range(mdp.pair_ptr[s], mdp.pair_ptr[s + 1]):
            row = p[pair].copy()
            loop, row[s] = row[s], 0.0
            options.append((mdp.reward[pair] + 0.9 * row @ expected) / (1 - 0.9 * loop))
        expected[s] = max(options)
    assert np.allclose(value, expected, rtol=0, atol=1e-13)


def test_prioritized_sweeping_ends_at_the_optimum() -> None:
    """Its queue is empty only when no state can change: not of others, and not by its own loop."""
    mdp = random_mdp(40, 3, 4, 0.9, terminal=2)
    indices = mdp.indices.copy()
    indices[mdp.indptr[:-1][::2]] = mdp.pair_state[::2]  # half of the pairs may stay
    alone = MDP.from_pairs([0, 1, 1], [0, 2], [0, 1], [0.9, 0.1], [1.0], 0.9, terminal=[1])
    for case in (mdp, dataclasses.replace(mdp, indices=indices), alone):
        value = np.zeros(case.states)
        lists = graph.predecessor_lists(case.pair_ptr, case.indptr, case.indices, case.states)
        residual = bellman_optimality(case, value) - value
        done = prioritized.run(case.rows, value, residual, *lists, 10**6, 1e-9)
        assert case.states < done < 10**5
        # Changes of less than the threshold are not queued, and may add up.
        assert np.abs(bellman_optimality(case, value) - value).max() < 1e-8


@pytest.mark.parametrize("folded", [False, True])
def test_policy_rows_follow_the_policy_when_it_changes(folded: bool) -> None:
    mdp = random_mdp(50, 3, 4, 0.9, seed=2, terminal=2)
    engine = engine_of(mdp)
    order = np.random.default_rng(0).permutation(50).astype(np.uint32)
    rank = np.argsort(order).astype(np.uint32)
    for sweep_order in (NATURAL, Order(order, rank)):
        rows = None
        for action in (0, 2, 1):
            policy = np.full(50, action)
            best = mdp.pair_of(policy).astype(np.int32)
            rows = engine.policy_rows(best, sweep_order, folded, rows)
            value = np.random.default_rng(action).random(50)
            value[:2] = 0.0
            inner = rows.enter(value)
            out = np.empty(50)
            rows.backup(inner.copy(), out)
            result = np.zeros(50)
            rows.leave(out, result)
            if not folded:
                expected = bellman_expectation(mdp, value, policy)
                assert np.allclose(result, expected, rtol=0, atol=1e-14)
            fixed = inner.copy()
            for _ in range(400):
                rows.sweep(fixed)
            rows.leave(fixed, result)
            assert np.allclose(bellman_expectation(mdp, result, policy), result, atol=1e-12)


def test_threads_survive_a_fork() -> None:
    pieces = threads.ranges(10, 3)
    assert pieces == [(0, 3), (3, 6), (6, 10)]
    assert threads.run(lambda a, b: b - a, pieces) == [3, 3, 4]
    child = os.fork()
    if child == 0:
        try:
            total = sum(threads.run(lambda a, b: b - a, pieces))
        finally:
            os._exit(0 if total == 10 else 1)
    assert os.waitpid(child, 0)[1] == 0


# ------------------------------------------------------------------------- generated rows
@row_function
def _walk(state, action, parameters, successors, weights):  # type: ignore[no-untyped-def]
    """A walk on 0..n-1: action 0 steps up for -1, action 1 (even states) jumps home for -3."""
    (last,) = parameters
    if action == 1 and state % 2 == 1:
        return 0, 0.0
    successors[0] = min(state + 1, last) if action == 0 else last
    weights[0] = 1.0
    return 1, -1.0 if action == 0 else -3.0


def test_generated_rows_are_the_stored_rows() -> None:
    ended = np.zeros(20, dtype=bool)
    ended[19] = True
    walk = MatrixFree(20, 2, 1, _walk, (19,), 0.9, ended)
    stored = walk.stored()
    assert np.diff(stored.pair_ptr).tolist() == [2, 1] * 9 + [2, 0]
    free, held = solve(walk, 1e-9), solve(stored, 1e-9)
    assert free.converged
    assert np.allclose(free.value, held.value, atol=2e-9)
    assert np.array_equal(free.policy, held.policy)
    assert certify(stored, free.value).error < 1e-8


@row_function
def _twice(state, action, parameters, successors, weights):  # type: ignore[no-untyped-def]
    """Two ways to the same cell, and one of probability 0."""
    (last,) = parameters
    for k in range(2):
        successors[k], weights[k] = min(state + 1, last), 0.5
    successors[2], weights[2] = 0, 0.0
    return 3, -1.0


def test_a_generated_row_may_name_a_successor_twice() -> None:
    ended = np.arange(30) == 29
    line = MatrixFree(30, 1, 3, _twice, (29,), 0.9, ended)
    stored = line.stored()
    assert np.diff(stored.indptr).tolist() == [1] * 29
    assert bool((stored.probability == 1.0).all())
    truth = -(1.0 - 0.9 ** np.arange(29, -1, -1)) / 0.1
    for problem in (line, stored):
        assert np.abs(solve(problem, 1e-9).value - truth).max() < 2e-9


@row_function
def _jumps(state, action, parameters, successors, weights):  # type: ignore[no-untyped-def]
    """Moves that lead anywhere; no end, and every pair with a reward of its own."""
    (states,) = parameters
    for k in range(4):
        successors[k] = (state * 48271 + action * 16807 + k * 69621 + k * k * 7919) % states
        weights[k] = 0.25
    return 4, np.float64((state * 31 + action * 17) % 101)


def test_generated_rows_without_goals_or_order_are_solved_too() -> None:
    free = MatrixFree(997, 3, 4, _jumps, (997,), 0.99, np.zeros(997, dtype=bool))
    solution = solve(free, 1e-7)
    assert solution.converged
    # No order helps, so a span rule has to stop it: far fewer backups than 1 / (1 - discount).
    assert solution.about["backups"] < 200
    assert certify(free.stored(), solution.value).error < 1e-4


@pytest.mark.parametrize("goal", [0, 399, 210])
def test_few_iterations_wherever_the_goal_of_a_generated_grid_lies(goal: int) -> None:
    # A wrong direction moves values by one row per sweep: hundreds of iterations.
    free = grid(20, 20, goals=[goal], discount=0.999)
    solution = solve(free, 1e-6)
    assert solution.converged
    assert solution.iterations <= 20
    certificate = certify(free.stored(), solution.value)
    assert bool((certificate.lower <= solution.upper).all())
    assert bool((solution.lower <= certificate.upper).all())


def test_large_stored_problems_are_swept_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = grid(20, 20, goals=[210], discount=0.99).stored()
    copied = solve(stored, 1e-8, "frontier")
    monkeypatch.setattr(frontier, "COPY_LIMIT", 0)
    in_place = solve(stored, 1e-8, "frontier")
    assert in_place.converged
    assert in_place.iterations <= copied.iterations + 2
    assert np.abs(in_place.value - copied.value).max() <= 2e-8


def test_distances_of_generated_rows_are_those_of_stored_rows() -> None:
    blocked = np.zeros(144, dtype=bool)
    blocked[[13, 25, 37, 40, 52, 64]] = True
    free = grid(12, 12, goals=[77], discount=0.9, slip=0.0, blocked=blocked)
    order, levels, reached = generated_order.outward(free)
    stored_order, distance, stored_levels = graph.outward(free.stored(), free.stored().reward)
    assert levels == stored_levels
    free_states = ~blocked
    assert reached == 144  # blocked cells end, so they count as goals that nothing enters
    by_level = [distance[s] for s in order.forward if free_states[s]]
    assert by_level == sorted(by_level)
    assert sorted(order.forward.tolist()) == list(range(144))
    assert len(stored_order) == 144


def test_grids_agree_in_both_forms() -> None:
    blocked = np.zeros(300, dtype=bool)
    blocked[[45, 46, 47, 100, 101]] = True
    entry = np.zeros(300)
    entry[299] = 10.0
    free = grid(15, 20, goals=[299, 150], discount=0.99, slip=0.3, blocked=blocked,
                entry_reward=entry)  # fmt: skip
    stored = free.stored()
    value = np.random.default_rng(0).random(300)
    value[stored.terminal] = 0.0
    floor, top, best = arrays(300)
    labels = np.full(300, -1, dtype=np.int8)
    engine_of(stored).residual(value, floor, top, best)
    f2, t2 = np.empty(300), np.empty(300)
    GeneratedEngine(free, 1).residual(value, f2, t2, labels)
    assert np.allclose(floor, f2, atol=1e-13)
    assert np.allclose(top, t2, atol=1e-13)
    a, b = solve(free, 1e-8), solve(stored, 1e-8)
    assert a.converged
    assert b.converged
    assert np.abs(a.value - b.value).max() <= 2e-8
    assert bool((a.lower <= b.upper).all())
    assert certify(stored, a.value).error < 1e-6


@njit
def _wrong(state, action, parameters, successors, weights):  # type: ignore[no-untyped-def]
    successors[0] = 0
    weights[0] = 0.5 if state == 3 else 1.0
    return 1, 0.0


def test_a_wrong_row_function_is_named_by_state_and_action() -> None:
    with pytest.raises(InvalidData, match="state 3, action 0"):
        MatrixFree(5, 2, 1, _wrong, (0,), 0.9, np.zeros(5, dtype=bool))
    with pytest.raises(InvalidSetting, match="needs stored rows"):
        solve(grid(3, 3, goals=[8], discount=0.9), method="topological")


# ---------------------------------------------------------------------------------- graphs
def test_components_come_sinks_first() -> None:
    mdp = random_mdp(60, 1, 2, 0.9, seed=4)
    members, bounds, component = graph.components(mdp.pair_ptr, mdp.indptr, mdp.indices)
    assert sorted(members.tolist()) == list(range(60))
    number = np.empty(60, dtype=int)
    for group in range(len(bounds) - 1):
        number[members[bounds[group] : bounds[group + 1]]] = group
    assert number.tolist() == component.tolist()
    count, label = csgraph.connected_components(mdp.transition, connection="strong")
    assert len(bounds) - 1 == count
    assert len({(a, b) for a, b in zip(number, label, strict=True)}) == count
    owner = np.repeat(mdp.pair_state, np.diff(mdp.indptr))
    assert bool((number[mdp.indices] <= number[owner]).all())


def test_distances_and_orders_on_a_grid() -> None:
    corner = grid(30, 30, goals=[899], discount=0.9).stored()
    order, distance, levels = graph.outward(corner, corner.reward)
    y, x = np.divmod(np.arange(900), 30)
    assert np.array_equal(distance, 58 - y - x)
    assert levels == 58
    assert graph.usable_order(corner, order, distance).step == -1
    centre = grid(31, 31, goals=[480], discount=0.9).stored()
    found = graph.towards_goals(centre, centre.reward)
    assert sorted(found.forward.tolist()) == list(range(961))
    assert found.forward[0] == 480
    assert np.array_equal(found.forward[found.rank], np.arange(961))
    assert not graph.mixes_fast(centre)
    assert graph.mixes_fast(random_mdp(5000, 5, 5, 0.9))
