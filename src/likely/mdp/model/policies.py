"""The textbook's sweeps, whose every iterate is wanted, and all that is greedy in a value.

The solvers in this package hurry to the answer. Here are the plain synchronous sweeps of the
lectures, one array operation each, for figures that show V_0, V_1, V_2, ... and the policies
that are greedy in them (Sutton and Barto 2018, equations 4.5 and 4.10).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.mdp.model.operators import (
    bellman_expectation,
    bellman_optimality,
    policy_weights,
    state_action_values,
)
from likely.mdp.model.problem import MDP


def greedy_pairs(
    mdp: MDP, value: ArrayLike, tolerance: float = 1e-9, objective: str = "max"
) -> BoolArray:
    """[pairs] True for every action that is greedy in a value ("max" or "min"), ties included.

    Two actions tie when they differ by at most `tolerance` times the largest finite |q| (or 1);
    infinite ones only with their like.
    """
    if objective == "min":
        mdp, value = mdp.negated(), -np.asarray(value, dtype=np.float64)
    q = state_action_values(mdp, value)
    slack = tolerance * max(1.0, float(np.abs(q[np.isfinite(q)]).max(initial=0.0)))
    tied: BoolArray = q >= bellman_optimality(mdp, value)[mdp.pair_state] - slack
    return tied


def expectation_sweeps(mdp: MDP, policy: ArrayLike) -> Iterator[FloatArray]:
    """V_0 = 0 and V_{k+1} = r_pi + discount P_pi V_k, for ever; [S] each."""
    weights = policy_weights(mdp, policy)
    value: FloatArray = np.zeros(mdp.states)
    while True:
        yield value
        value = bellman_expectation(mdp, value, weights)


def optimality_sweeps(mdp: MDP) -> Iterator[FloatArray]:
    """V_0 = 0 and V_{k+1} = max_a (r + discount P V_k), for ever; [S] each."""
    value: FloatArray = np.zeros(mdp.states)
    while True:
        yield value
        value = bellman_optimality(mdp, value)


def policy_iterations(mdp: MDP, policy: ArrayLike) -> Iterator[tuple[IntArray, FloatArray, int]]:
    """Howard's policy iteration, one round at a time: (policy, its value, states it changes).

    Each round solves (I - discount P_pi) V = r_pi directly and then, in every state where some
    action is better by more than rounding, takes the first best one; elsewhere the old action
    stays, so ties do not cycle. The last round changes no state.

    Args:
        mdp: the problem; with discount 1 every policy met must end.
        policy: [S] action labels to start from.
    """
    from scipy import sparse
    from scipy.sparse.linalg import spsolve

    pair = np.array(mdp.pair_of(np.asarray(policy)), dtype=np.int64)
    open_states = np.flatnonzero(~mdp.terminal)
    rows = mdp.transition
    owner = np.asarray(mdp.pair_state)
    changed = 1
    while changed:
        value = np.zeros(mdp.states)
        system = (
            sparse.eye_array(len(open_states), format="csr")
            - mdp.discount * (rows[pair[open_states]][:, open_states])
        )
        value[open_states] = spsolve(system.tocsc(), mdp.reward[pair[open_states]])
        q = state_action_values(mdp, value)
        best = bellman_optimality(mdp, value)
        slack = 1e-9 * max(1.0, float(np.abs(q).max(initial=0.0)))
        better = open_states[best[open_states] > q[pair[open_states]] + slack]
        labels = np.zeros(mdp.states, dtype=np.int64)
        labels[open_states] = mdp.pair_action[pair[open_states]]
        changed = len(better)
        first = np.flatnonzero(q == best[owner])[::-1]
        best_pair = np.zeros(mdp.states, dtype=np.int64)
        best_pair[owner[first]] = first  # the lowest row of each state is written last
        pair[better] = best_pair[better]
        yield labels, value, changed
