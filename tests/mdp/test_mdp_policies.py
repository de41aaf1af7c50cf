"""The textbook's sweeps against the numbers that the textbook prints."""

from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
from mdp_reference import of_policy, optimal, uniform

from likely.mdp import MDP, worlds
from likely.mdp.model.policies import (
    expectation_sweeps,
    greedy_pairs,
    optimality_sweeps,
    policy_iterations,
)
from likely.mdp.model.world import layout_of
from likely.mdp.worlds import classic


def test_sweeps_of_the_random_policy_on_the_4x4_grid() -> None:
    world = worlds.build("small-gridworld")
    assert world.layout is not None
    sweeps = list(islice(expectation_sweeps(world.mdp, "uniform"), 11))
    grids = [world.layout.on_grid(value) for value in sweeps]
    assert (grids[0] == 0).all()
    assert grids[1].ravel()[1:15].tolist() == [-1.0] * 14
    corner = [grids[2][0, 1], grids[2][1, 0], grids[2][2, 3], grids[2][3, 2]]
    assert corner == [-1.75] * 4
    assert grids[2][1, 1] == -2.0
    assert grids[3][0].tolist() == [0, -2.4375, -2.9375, -3]
    assert grids[3][1, :2].tolist() == [-2.4375, -2.875]
    assert grids[10][0].round(3).tolist() == [0, -6.138, -8.352, -8.967]
    assert grids[10][1, 1:3].round(3).tolist() == [-7.737, -8.428]


def test_greedy_is_optimal_from_the_third_sweep() -> None:
    mdp = worlds.build("small-gridworld").mdp
    best = greedy_pairs(mdp, optimal(mdp))
    good = []
    for value in islice(expectation_sweeps(mdp, "uniform"), 5):
        good.append(bool((greedy_pairs(mdp, value) <= best).all()))
    assert good == [False, False, False, True, True]


def test_error_of_value_iteration_shrinks_by_the_discount() -> None:
    mdp = worlds.build("gridworld-5x5").mdp
    exact = optimal(mdp)
    errors = [np.abs(v - exact).max() for v in islice(optimality_sweeps(mdp), 40)]
    assert all(b <= 0.9 * a + 1e-12 for a, b in pairwise(errors))


def test_an_infinite_value_is_better_or_worse_than_every_other() -> None:
    """State 0 moves to state 1 or to state 2, which keep."""
    transition = np.zeros((2, 3, 3))
    transition[0, 0, 1] = transition[1, 0, 2] = 1.0
    transition[:, 1, 1] = transition[:, 2, 2] = 1.0
    mdp = MDP.from_arrays(transition, np.zeros((3, 2)), 0.9)
    for ends, largest, smallest in (
        ((np.inf, 0.0), [True, False], [False, True]),
        ((-np.inf, 0.0), [False, True], [True, False]),
        ((np.inf, -np.inf), [True, False], [False, True]),
        ((np.inf, np.inf), [True, True], [True, True]),
        ((-np.inf, -np.inf), [True, True], [True, True]),
    ):
        value = np.array([0.0, *ends])
        assert greedy_pairs(mdp, value)[:2].tolist() == largest
        assert greedy_pairs(mdp, value, objective="min")[:2].tolist() == smallest


def test_ties_are_all_greedy() -> None:
    mdp = worlds.build("small-gridworld").mdp
    assert greedy_pairs(mdp, np.zeros(16)).all()
    one = greedy_pairs(mdp, optimal(mdp))
    assert np.bincount(mdp.pair_state, weights=one, minlength=16).tolist() == [
        0, 1, 1, 2, 1, 2, 4, 1, 1, 4, 2, 1, 2, 1, 1, 0,
    ]  # fmt: skip


def test_policy_iteration_on_jacks_cars() -> None:
    mdp = classic.jacks_car_rental()
    layout = layout_of(mdp)
    start = np.full(mdp.states, classic.CAR_MOVES.index(0))
    rounds = list(islice(policy_iterations(mdp, start), 20))
    assert [changed for _, _, changed in rounds] == [318, 272, 79, 8, 0]
    policy, value, _ = rounds[-1]
    moved = np.array(classic.CAR_MOVES)[policy]
    assert (moved.min(), moved.max()) == (-4, 5)
    grid = layout.on_grid(value)
    assert [round(float(grid[i, i]), 4) for i in (0, 10, 20)] == [421.4141, 574.9483, 636.9896]


def test_policy_iteration_does_not_cycle_on_ties() -> None:
    mdp = worlds.build("frozen-lake-8x8").mdp
    rounds = list(islice(policy_iterations(mdp, np.zeros(64, dtype=int)), 50))
    assert len(rounds) < 30
    assert rounds[-1][2] == 0
    assert np.abs(rounds[-1][1] - optimal(mdp)).max() < 1e-9
    values = [value for _, value, _ in rounds]
    assert all((b >= a - 1e-12).all() for a, b in pairwise(values))


def test_exact_value_is_the_limit_of_the_sweeps() -> None:
    mdp = worlds.build("seven-states").mdp
    limit = list(islice(expectation_sweeps(mdp, "uniform"), 80))[-1]
    assert np.abs(limit - of_policy(mdp, uniform(mdp))).max() < 1e-12


def test_improvement_takes_the_first_best_action() -> None:
    mdp = MDP.from_pairs([0, 3], [0, 1, 2, 3], [0, 0, 0], [1, 1, 1], [0.0, 1.0, 1.0], 0.5)
    rounds = list(islice(policy_iterations(mdp, [0]), 20))
    assert [policy.tolist() for policy, _, _ in rounds] == [[0], [1]]
    assert [changed for _, _, changed in rounds] == [1, 0]
