"""Small problems that several MDP tests share."""

from __future__ import annotations

import numpy as np

from likely.mdp import MDP


def random_mdp(
    states: int, actions: int, successors: int, discount: float, seed: int = 0, terminal: int = 0,
    scale: float = 1.0,
) -> MDP:  # fmt: skip
    """Random rows, rewards in [0, scale); the first `terminal` states are terminal."""
    rng = np.random.default_rng(seed)
    pairs = states * actions
    return MDP.from_pairs(
        np.arange(0, pairs + 1, actions),
        np.arange(0, pairs * successors + 1, successors),
        rng.integers(0, states, pairs * successors),
        rng.dirichlet(np.ones(successors), pairs).ravel(),
        scale * rng.random(pairs),
        discount,
        terminal=list(range(terminal)),
    )


def two_arms(steps: int) -> MDP:
    """A fair coin picks an arm; each step goes on or back to the start; one end wins.

    The value is 1/2, and value iteration from 0 seems to have converged long before.
    States: 0 start, 1..n one arm, n+1..2n the other, 2n+1 win, 2n+2 lose.
    """
    win, lose = 2 * steps + 1, 2 * steps + 2
    dense = np.zeros((1, 2 * steps + 3, 2 * steps + 3))
    dense[0, 0, [1, steps + 1]] = 0.5
    for first, end in ((1, win), (steps + 1, lose)):
        for i in range(steps):
            here = first + i
            following = here + 1 if i + 1 < steps else end
            dense[0, here, following] = 0.5
            dense[0, here, 0] += 0.5
    dense[0, win, win] = dense[0, lose, lose] = 1.0
    return MDP.from_arrays(dense, np.zeros(2 * steps + 3), 1.0, terminal=[win, lose])


# The tiger behind one of two doors, discount 0.75: V* of the first belief is 1.933439.
TIGER = """discount: 0.75
values: reward
states: left right
actions: listen open-left open-right
observations: hear-left hear-right
start: uniform
T: * : * uniform
T: listen identity
O: * : * uniform
O: listen
0.85 0.15
0.15 0.85
R: listen : * : * : * -1
R: open-left : left : * : * -100
R: open-left : right : * : * 10
R: open-right : left : * : * 10
R: open-right : right : * : * -100
"""
