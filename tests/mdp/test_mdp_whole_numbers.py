"""Whole numbers of every function: those of numpy are taken, anything else is one clear error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from likely import mdp
from likely.errors import InvalidSetting
from likely.mdp import worlds

MAZE = worlds.build("maze-4x3").mdp
COUNTS = mdp.draw_counts(MAZE, 20)
DISCOUNTED = MAZE.with_discount(0.9)
SEEN = mdp.POMDP.from_arrays([np.eye(2)], [np.eye(2)], [[1.0, 2.0]], 0.9, [0.5, 0.5])
TAKES: dict[str, Callable[[Any], object]] = {
    "horizon": lambda n: mdp.backward_induction(MAZE, n),
    "max_iterations": lambda n: mdp.backward_induction(MAZE, 3, max_iterations=n),
    "max_iterations of solve": lambda n: mdp.solve(DISCOUNTED, max_iterations=n),
    "max_iterations of reach": lambda n: mdp.reach(MAZE, [3], max_iterations=n),
    "max_iterations of total_reward": lambda n: mdp.total_reward(MAZE, max_iterations=n),
    "max_iterations of average_reward": lambda n: mdp.average_reward(MAZE, max_iterations=n),
    "max_iterations of robust_bounds": lambda n: mdp.robust_bounds(COUNTS, 0.9, max_iterations=n),
    "max_trials": lambda n: mdp.solve_beliefs(SEEN, 1.0, max_trials=n),
    "threads": lambda n: mdp.solve(DISCOUNTED, threads=n),
    "sweeps": lambda n: mdp.evaluate(DISCOUNTED, "uniform", "sweeps", sweeps=n),
    "keep": lambda n: mdp.evaluate(DISCOUNTED, "uniform", "sweeps", sweeps=3, keep=[n]),
    "episodes": lambda n: mdp.simulate(MAZE, "uniform", n),
    "seed": lambda n: mdp.simulate(MAZE, "uniform", 3, seed=n),
    "start": lambda n: mdp.simulate(MAZE, "uniform", 3, start=n),
    "max_steps": lambda n: mdp.simulate(MAZE, "uniform", 3, max_steps=n),
    "n": lambda n: mdp.draw_counts(MAZE, n),
    "seed of draw_counts": lambda n: mdp.draw_counts(MAZE, 3, seed=n),
    "episodes of draw_trajectories": lambda n: mdp.draw_trajectories(MAZE, "uniform", n),
    "steps": lambda n: mdp.draw_trajectories(MAZE, "uniform", 3, steps=n),
    "seed of draw_trajectories": lambda n: mdp.draw_trajectories(MAZE, "uniform", 3, seed=n),
    "threshold": lambda n: mdp.spibb(COUNTS, np.full((11, 4), 0.25), 0.9, threshold=n),
    "states": lambda n: worlds.build("garnet", size=(n, 2, 1)),
    "seed of worlds.build": lambda n: worlds.build("garnet", seed=n),
    "rows": lambda n: mdp.grid(n, 3, goals=[0], discount=0.9),
    "columns": lambda n: mdp.grid(3, n, goals=[0], discount=0.9),
}


@pytest.mark.parametrize("name", TAKES)
def test_a_whole_number_is_one_of_python_or_numpy_and_nothing_else(name: str) -> None:
    for number in (3, np.int64(3), np.int8(3), np.uint32(3)):
        TAKES[name](number)
    for wrong in (2.5, 3.0, np.float64(3.0), np.nan, True, np.True_, "3", np.array([3]), -1):
        with pytest.raises(InvalidSetting, match=name.split(" of ")[0]):
            TAKES[name](wrong)
