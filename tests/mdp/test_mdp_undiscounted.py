"""Undiscounted criteria: sound where the plain difference stop is wrong."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mdp_examples import random_mdp, two_arms
from scipy import sparse
from scipy.sparse import csgraph

from likely.errors import InvalidSetting
from likely.mdp import (
    MDP,
    answer,
    average_reward,
    backward_induction,
    bellman_optimality,
    evaluate,
    grid,
    reach,
    solve,
    total_reward,
    worlds,
)
from likely.mdp.files.benchmarks import read_benchmark
from likely.mdp.undiscounted import ssp, ssp_kernels, ssp_linear
from likely.mdp.undiscounted.end_components import Edges, maximal_end_components

data = pytest.mark.skipif("LIKELY_DATA" not in os.environ, reason="LIKELY_DATA is unset")


@pytest.mark.parametrize("steps", [5, 15, 20])
def test_two_arms_are_one_half(steps: int) -> None:
    mdp = two_arms(steps)
    win = 2 * steps + 1
    solution = reach(mdp, [win], 1e-6)
    assert solution.converged
    assert abs(solution.value[0] - 0.5) <= 1e-6
    assert solution.lower[0] <= 0.5 <= solution.upper[0]


def test_the_plain_stop_is_wrong_on_the_two_arms() -> None:
    # The trap that the test above avoids: the change falls below 1e-6 at a value of 1e-6.
    mdp = two_arms(20)
    paying = MDP.from_pairs(
        mdp.pair_ptr, mdp.indptr, mdp.indices, mdp.probability, None, 1.0,
        successor_reward=(mdp.indices == 41).astype(float), terminal=mdp.terminal,
    )  # fmt: skip
    value, change, sweeps = np.zeros(mdp.states), 1.0, 0
    while change >= 1e-6 or sweeps < 2:
        following = bellman_optimality(paying, value)
        change, value, sweeps = np.abs(following - value)[0], following, sweeps + 1
        if sweeps > 19 and change < 1e-6:
            break
    assert value[0] < 1e-5
    assert total_reward(paying).value[0] == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("sweeps", [1, 7, 100])
def test_interval_iteration_may_stop_anywhere(sweeps: int) -> None:
    mdp = two_arms(6)
    solution = reach(mdp, [13], 1e-9, max_iterations=sweeps)
    assert solution.about["method"] == "interval-iteration"
    assert solution.iterations == sweeps
    assert solution.outcome == "iterations"
    assert solution.lower[0] <= 0.5 <= solution.upper[0]
    full = reach(mdp, [13], 1e-6, max_iterations=10**6)
    assert full.converged
    assert abs(full.value[0] - 0.5) <= 1e-6


def test_end_components_do_not_hold_the_upper_bound_up() -> None:
    # States 0 and 1 may go round for ever; leaving 0 wins with 0.3. Without collapse the
    # upper bound of interval iteration stays at 1.
    mdp = MDP.from_pairs(
        [0, 2, 3, 3, 3], [0, 1, 3, 4], [1, 2, 3, 0], [1.0, 0.3, 0.7, 1.0], np.zeros(3), 1.0,
        terminal=[2, 3],
    )  # fmt: skip
    component, inside = maximal_end_components(Edges.of(mdp), np.ones(3, dtype=bool))
    assert component.tolist() == [0, 0, -1, -1]
    assert inside.tolist() == [True, False, True]
    for limit in (None, 50):
        solution = reach(mdp, [2], 1e-9, max_iterations=limit)
        assert solution.converged
        assert np.abs(solution.value[:2] - 0.3).max() <= 1e-9
        assert solution.policy[0] == 1  # the policy leaves, though staying looks as good
    lowest = reach(mdp, [2], 1e-9, objective="min")
    assert lowest.value[:2].tolist() == [0.0, 0.0]


def test_a_sure_policy_makes_progress() -> None:
    # State 0 may stay or go to the goal: both have probability one to reach it later.
    mdp = MDP.from_pairs([0, 2, 2], [0, 1, 2], [0, 1], [1.0, 1.0], np.zeros(2), 1.0, terminal=[1])
    solution = reach(mdp, [1])
    assert solution.value[0] == 1.0
    assert solution.policy[0] == 1


def test_total_reward_until_a_target_is_infinite_where_it_may_be_missed() -> None:
    # 0: (a) to goal, cost 1; (b) to the trap. 1 trap. 2 goal. 3: must enter the trap half the time.
    mdp = MDP.from_pairs(
        [0, 2, 3, 3, 4], [0, 1, 2, 3, 5], [2, 1, 1, 1, 2], [1, 1, 1, 0.5, 0.5],
        [1.0, 1.0, 0.0, 1.0], 1.0, terminal=[2],
    )  # fmt: skip
    least = total_reward(mdp, objective="min", target=[2])
    assert least.value[1:].tolist() == [np.inf, 0.0, np.inf]
    assert least.lower[0] <= 1.0 <= least.upper[0]
    assert least.error == pytest.approx(0.0, abs=1e-12)
    most = total_reward(mdp, objective="max", target=[2])
    assert most.value.tolist() == [np.inf, np.inf, 0.0, np.inf]


def test_cycles_that_pay_are_refused_and_cycles_that_cost_are_left() -> None:
    def loop(reward: float) -> MDP:
        return MDP.from_pairs([0, 2, 2], [0, 1, 2], [0, 1], [1.0, 1.0], [reward, 5.0], 1.0,
                              terminal=[1])  # fmt: skip

    assert total_reward(loop(-1.0)).value[0] == pytest.approx(5.0)
    assert total_reward(loop(0.0)).value[0] == pytest.approx(5.0)
    with pytest.raises(InvalidSetting, match="pays without end"):
        total_reward(loop(1.0))
    # A free loop may be stayed in for ever when everything else costs.
    costly = loop(0.0).with_reward([0.0, -5.0])
    assert total_reward(costly).value[0] == 0.0
    until = total_reward(costly, objective="max", target=[1])
    assert until.value[0] == np.inf  # some policy never arrives: undefined, as in PRISM


def test_shortest_paths_of_the_small_gridworld() -> None:
    mdp = worlds.build("small-gridworld").mdp
    solution = total_reward(mdp, 1e-9)
    distance = np.array([[0, 1, 2, 3], [1, 2, 3, 2], [2, 3, 2, 1], [3, 2, 1, 0]])
    assert np.abs(solution.value.reshape(4, 4) + distance).max() < 1e-9


def test_frozen_lake_without_a_discount() -> None:
    small = total_reward(worlds.build("frozen-lake").mdp, 1e-9)
    assert small.value[0] == pytest.approx(14 / 17, abs=1e-9)
    large = total_reward(worlds.build("frozen-lake-8x8").mdp, 1e-9)
    assert large.value[0] == pytest.approx(1.0, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000), states=st.integers(3, 12), actions=st.integers(1, 3),
    objective=st.sampled_from(["max", "min"]),
)  # fmt: skip
def test_random_reachability_is_the_best_policy(
    seed: int, states: int, actions: int, objective: str
) -> None:
    mdp = random_mdp(states, actions, 2, 1.0, seed=seed, terminal=2)
    solution = reach(mdp, [0], 1e-9, objective=objective)
    assert solution.converged
    sign = 1.0 if objective == "max" else -1.0
    value = solution.value
    q = mdp.transition @ value
    live = ~mdp.terminal
    best = sign * np.maximum.reduceat(sign * q, mdp.pair_ptr[:-1][live])
    assert np.abs(best - value[live]).max() < 1e-8  # a fixed point ...
    chain = np.eye(states)
    rows = mdp.pair_of(solution.policy)
    chain[live] = mdp.transition.toarray()[rows[live]]
    # ... that its own policy attains: the chain after 2^30 steps.
    for _ in range(30):
        chain = chain @ chain
        chain /= chain.sum(axis=1, keepdims=True)
    assert np.abs(chain[:, 0] - value).max() < 1e-6


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), states=st.integers(3, 30))
def test_random_totals_contain_a_high_discount_limit(seed: int, states: int) -> None:
    # Every state may fall into a terminal state, so all policies end.
    rng = np.random.default_rng(seed)
    base = random_mdp(states, 2, 3, 1.0, seed=seed)
    dense = base.transition.toarray() * 0.9
    dense[:, 0] += 0.1
    gain = rng.standard_normal(base.pairs)
    mdp = MDP.from_arrays(
        dense.reshape(states, 2, states), gain.reshape(states, 2), 1.0, layout="sas", terminal=[0]
    )
    solution = total_reward(mdp, 1e-9)
    assert solution.converged, solution.status
    close = solve(mdp.with_discount(1 - 1e-9), 1e-7, "policy-iteration")
    assert np.abs(close.value - solution.value).max() < 1e-5
    found = evaluate(mdp, solution.policy)
    assert bool((found.lower <= solution.upper).all())
    assert bool((found.upper >= solution.lower - 1e-9).all())


def test_average_reward_of_known_chains() -> None:
    # Stay for 1 a step, or go round a loop of two for 0 + 3: the loop gains 1.5.
    mdp = MDP.from_pairs([0, 2, 3], [0, 1, 2, 3], [0, 1, 0], [1.0, 1.0, 1.0], [1.0, 0.0, 3.0], 1.0)
    best = average_reward(mdp, 1e-9)
    assert best.converged
    assert best.gain is not None
    assert np.abs(best.gain - 1.5).max() <= 1e-9
    assert best.lower[0] <= 1.5 <= best.upper[0]
    worst = average_reward(mdp, 1e-9, objective="min")
    assert np.abs(worst.gain - 1.0).max() <= 1e-9
    # Two separate loops: bounds hold for both gains but cannot meet, and the status says why.
    apart = MDP.from_pairs([0, 1, 2], [0, 1, 2], [0, 1], [1.0, 1.0], [1.0, 2.0], 1.0)
    split = average_reward(apart, 1e-9, max_iterations=3000)
    assert split.lower[0] <= 1.0
    assert split.upper[0] >= 2.0
    assert "differs between states" in split.status


def test_average_reward_is_the_limit_of_discounting() -> None:
    mdp = random_mdp(30, 3, 4, 0.9999, seed=3)
    gain = average_reward(mdp, 1e-8).gain
    scaled = (1 - mdp.discount) * solve(mdp, 1e-5).value
    assert gain is not None
    assert np.abs(scaled - gain).max() < 1e-2


def test_backward_induction_matches_exhaustive_recursion() -> None:
    mdp = random_mdp(4, 2, 2, 1.0, seed=5, terminal=1)
    solution = backward_induction(mdp, 6)
    assert solution.value.shape == (7, 4)
    assert solution.policy.shape == (6, 4)

    def best(state: int, left: int) -> float:
        if left == 0 or mdp.terminal[state]:
            return 0.0
        options = []
        for pair in range(mdp.pair_ptr[state], mdp.pair_ptr[state + 1]):
            total = mdp.reward[pair]
            for k in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
                total += mdp.probability[k] * best(int(mdp.indices[k]), left - 1)
            options.append(total)
        return max(options)

    for t in range(7):
        for state in range(4):
            exact = best(state, 6 - t)
            assert solution.lower[t, state] <= exact + 1e-15
            assert exact - 1e-15 <= solution.upper[t, state]
    assert solution.error < 1e-12


def test_the_best_action_may_depend_on_the_time_left() -> None:
    # Invest (pays 3 one step later, in state 1) or take 1 now: with one step left, take it.
    mdp = MDP.from_pairs([0, 2, 3], [0, 1, 2, 3], [0, 1, 0], [1.0, 1.0, 1.0], [1.0, 0.0, 3.0], 1.0)
    solution = backward_induction(mdp, 4)
    assert solution.policy[:, 0].tolist() == [1, 0, 1, 0] or solution.policy[3, 0] == 0
    assert solution.policy[2, 0] == 1
    assert solution.value[0, 0] == 6.0


def test_mass_that_ends_needs_no_exit_but_a_trap_costs_without_end() -> None:
    trap = MDP.from_pairs([0, 1, 1], [0, 1], [0], [1.0], [-1.0], 1.0, terminal=[1])
    assert total_reward(trap).value.tolist() == [-np.inf, 0.0]
    maze = grid(2, 2, goals=[3], discount=1.0, slip=0.2).stored()
    assert total_reward(maze).converged


@data
@pytest.mark.data
def test_all_published_reference_values() -> None:
    folder = Path(os.environ["LIKELY_DATA"]) / "mdp"
    entries = json.loads((folder / "reference_values.json").read_text())
    models, matched = {}, 0
    for entry in entries:
        if entry["file"] not in models:
            models = {entry["file"]: read_benchmark(folder / entry["file"])}
        model = models[entry["file"]]
        asked = model.property(entry["property"])
        mdp, question = model.question(asked)
        solution = answer(mdp, question, 1e-6)
        state = int(np.argmax(mdp.initial))
        assert asked.reference is not None
        room = 1e-9 * max(1.0, abs(asked.reference))
        inside = solution.lower[state] - room <= asked.reference <= solution.upper[state] + room
        width = solution.upper[state] - solution.lower[state]
        matched += inside and width <= 2e-6 * max(1.0, abs(asked.reference))
    assert len(entries) == 96
    assert matched == 96


@pytest.mark.parametrize("how", ["time", "interrupted"])
def test_a_total_reward_stopped_early_has_bounds_that_hold(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    maze = worlds.build("slippery-grid", size=(12, 12)).mdp.with_discount(1.0)
    truth = total_reward(maze, 1e-8)
    assert truth.converged
    if how == "time":
        stopped = total_reward(maze, 1e-8, max_seconds=1e-9)
    else:
        calls = []
        advance = ssp_kernels.advance

        def second_is_interrupted(*given: Any) -> Any:
            calls.append(1)
            if len(calls) == 2:
                raise KeyboardInterrupt
            return advance(*given)

        monkeypatch.setattr(ssp, "PORTION", 1)
        monkeypatch.setattr(ssp_kernels, "advance", second_is_interrupted)
        stopped = total_reward(maze, 1e-8)
    assert stopped.outcome == how
    assert bool(np.isfinite(stopped.lower).all())
    assert bool((stopped.lower <= truth.upper).all())
    assert bool((truth.lower <= stopped.upper).all())


@pytest.mark.parametrize("seed", range(8))
def test_a_policy_chain_is_eliminated_part_by_part(seed: int) -> None:
    """(I - P) z = right, whatever the components of the chain; rows before and after are apart."""
    rng = np.random.default_rng(seed)
    n, before, after = 40, 3, 2
    states = n + before + after
    dense = rng.random((states, states)) * (rng.random((states, states)) < (0.02, 0.05)[seed % 2])
    dense += np.diag(rng.random(states) < 0.2)
    dense /= np.maximum(dense.sum(axis=1, keepdims=True), 1e-9) * (1.0 + 0.1 * rng.random())
    rows = sparse.csr_array(dense)
    first, last = before, before + n
    picked = np.arange(states)
    pointers = np.arange(states + 1), rows.indptr.astype(np.int64)
    problem = (*pointers, rows.indices, rows.data, np.zeros(states))
    parts = ssp_linear.chain_parts(problem, first, last, picked)
    block = dense[first:last, first:last]
    count, _ = csgraph.connected_components(block > 0.0, connection="strong")
    assert len(parts[5]) - 1 == count
    factors = np.full(int(parts[7][-1]) + 5, np.nan)
    ssp_linear.chain_factors(factors, parts)
    right = rng.standard_normal(n)
    z = ssp_linear.chain_solve(factors, parts, right)
    assert np.allclose(z, np.linalg.solve(np.eye(n) - block, right), rtol=1e-9, atol=1e-12)


def corridor(states: int, reward: npt.NDArray[np.float64]) -> MDP:
    """Two ends, moves of one place that slip back one time in ten, a reward for each move."""
    place, inner = np.arange(states), states - 2
    moves = np.stack([np.maximum(place - 1, 0), np.minimum(place + 1, states - 1)], axis=1)
    return MDP.from_pairs(
        np.concatenate([[0], 2 * np.arange(inner + 1), [2 * inner]]),
        np.arange(0, 4 * inner + 1, 2),
        np.stack([moves, moves[:, ::-1]], axis=1)[1:-1].ravel(),
        np.tile([0.9, 0.1], 2 * inner), np.repeat(reward[1:-1], 2), 1.0,
        terminal=(place == 0) | (place == states - 1),
    )  # fmt: skip


def test_a_corridor_takes_as_many_rounds_as_a_short_one() -> None:
    """Both ways out are compared at once, not the border between them moved state by state."""
    rounds = {}
    for states in (400, 12_000):
        solution = total_reward(corridor(states, -np.random.default_rng(0).random(states)), 1e-5)
        assert solution.converged
        rounds[states] = solution.iterations
    assert rounds[12_000] < 3 * rounds[400] + 10


def test_where_a_bound_is_infinite_the_error_is_and_the_value_is_not() -> None:
    """A corridor with slips, stopped before anything is known of its lower bounds."""
    mdp = corridor(4000, -np.ones(4000))
    stopped = total_reward(mdp, 1e-9, max_seconds=1e-9)
    assert np.isinf(stopped.lower).any()
    assert stopped.error == math.inf
    assert np.isfinite(stopped.value).all()
    assert (stopped.lower <= stopped.value).all()
    assert (stopped.value <= stopped.upper).all()


def test_a_sum_that_ends_too_rarely_to_be_bounded_is_given_up() -> None:
    """Two states hand over to each other but for 1e-17: 4e17 steps, more than rounding can tell.

    Without a limit the sweeps went on for ever.
    """
    mdp = MDP.from_pairs(
        [0, 1, 2, 2], [0, 3, 5], [0, 1, 2, 0, 1], [0.5, 0.5, 1e-17, 0.5, 0.5], [-1.0, -1.0], 1.0,
        terminal=[2],
    )  # fmt: skip
    solution = total_reward(mdp, max_seconds=60.0)
    assert solution.outcome == "rounding"
    assert solution.lower[0] == -np.inf
    assert solution.upper[0] < -1e5
