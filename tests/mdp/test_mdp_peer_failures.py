"""Silent failures seen in other solvers, each held here as a test of ours."""

from __future__ import annotations

import numpy as np
import pytest
from mdp_examples import random_mdp

from likely.mdp import MDP, METHODS, certify, solve, total_reward, worlds


def taxi() -> MDP:
    return MDP.from_gymnasium("Taxi-v4", discount=0.99)


def lake() -> MDP:
    return worlds.build("frozen-lake").mdp.with_discount(0.99)


def test_the_value_is_near_the_optimum_and_not_only_the_policy() -> None:
    # A span stop ends with a value that is off by a constant (73 on a random problem, 170 on
    # Taxi) unless the constant is put back.
    mdp = random_mdp(2000, 5, 5, 0.99)
    solution = solve(mdp, 1e-6, "modified-policy-iteration")
    exact = solve(mdp, 1e-9, "value-iteration")
    assert solution.iterations < 30
    assert np.abs(solution.value - exact.value).max() <= 1e-6
    assert np.abs(solve(taxi(), 1e-6).value - solve(taxi(), 1e-9).value).max() <= 1e-6


@pytest.mark.parametrize("method", ["gauss-seidel", "frontier", "topological", "auto"])
def test_repeated_successors_are_merged_before_loops_are_solved(method: str) -> None:
    # As Gymnasium's tables have them: the same successor, also the state itself, several times.
    third = 1.0 / 3.0
    mdp = MDP.from_pairs(
        [0, 1, 1], [0, 3], [0, 0, 1], [third, third, third], [1.0], 0.9, terminal=[1]
    )
    assert mdp.transitions == 2
    value = solve(mdp, 1e-10, method).value[0]
    assert value == pytest.approx(1.0 / (1.0 - 0.9 * 2.0 / 3.0), abs=1e-10)


@pytest.mark.parametrize("name", ["lake", "taxi"])
def test_policy_iteration_does_not_cycle_on_ties(name: str) -> None:
    mdp = lake() if name == "lake" else taxi()
    solution = solve(mdp, 1e-9, "policy-iteration", max_iterations=100)
    assert solution.converged
    assert solution.iterations < 30
    assert solution.policy.shape == (mdp.states,)


def test_no_hidden_limit_of_sweeps() -> None:
    # A default of 250 sweeps leaves 1.3e-3 where 5e-4 was promised. Here a limit is a status.
    mdp = worlds.build("frozen-lake-8x8").mdp.with_discount(0.99)
    truth = solve(mdp, 1e-11, "policy-iteration").value
    full = solve(mdp, 5e-4, "value-iteration")
    assert full.converged
    assert full.iterations > 250
    assert np.abs(full.value - truth).max() <= 5e-4
    cut = solve(mdp, 5e-4, "value-iteration", max_iterations=250)
    assert cut.outcome == "iterations"
    assert "tolerance: 0.0005" in cut.status
    assert np.abs(cut.value - truth).max() <= cut.error


def test_float64_is_the_default_and_nine_digits_are_met() -> None:
    mdp = worlds.build("forest").mdp
    solution = solve(mdp, 1e-9)
    assert solution.value.dtype == np.float64
    assert solution.converged
    assert certify(mdp, solution.value).error < 1e-7


def test_undiscounted_lake_is_14_17_to_the_tolerance_asked() -> None:
    # Plain value iteration asked for 1e-3 gives 1.2e-2.
    found = total_reward(worlds.build("frozen-lake").mdp, 1e-3)
    assert abs(found.value[0] - 14 / 17) <= 1e-3


@pytest.mark.parametrize("method", sorted(METHODS))
def test_values_keep_all_their_digits(method: str) -> None:
    mdp = lake()
    solution = solve(mdp, 1e-10, method)
    assert abs(solution.value[0] - 0.542026) < 5e-7
    assert solution.error <= 1e-10


def test_large_dense_input_is_never_made_from_sparse() -> None:
    # One tool asks for 74.5 GiB on such a problem. 20,000 states dense would be 3.2 GB an action.
    mdp = random_mdp(20_000, 2, 3, 0.9)
    assert mdp.probability.nbytes + mdp.indices.nbytes < 2_000_000
    assert solve(mdp, 1e-6).converged
