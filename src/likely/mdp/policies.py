"""Policies as arrays, and the textbook's sweeps whose every iterate is wanted.

The solvers in this package hurry to the answer. Here are the plain synchronous sweeps of the
lectures, one array operation each, for figures that show V_0, V_1, V_2, ... and the policies
that are greedy in them (Sutton and Barto 2018, equations 4.5 and 4.10).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from likely.errors import InvalidData
from likely.mdp.problem import MDP


def uniform_policy(mdp: MDP) -> NDArray[np.float64]:
    """[S, A] the policy that picks every action a state has with equal probability."""
    policy = np.zeros((mdp.states, mdp.actions))
    choices = np.diff(mdp.pair_ptr)
    policy[mdp.pair_state, mdp.pair_action] = np.repeat(1.0 / np.maximum(choices, 1), choices)
    return policy


def pair_weights(mdp: MDP, policy: ArrayLike) -> NDArray[np.float64]:
    """[pairs] probability with which a policy takes each pair of its state.

    Args:
        mdp: the problem.
        policy: [S] action labels, or [S, A] action probabilities.

    Raises:
        InvalidData: an action that its state does not have, or probabilities that are not a
            distribution; the state is named.
    """
    given = np.asarray(policy)
    if given.ndim == 1:
        chosen = np.asarray(mdp.pair_of(given))
        weight = np.zeros(mdp.pairs)
        weight[chosen[~mdp.terminal]] = 1.0
        return weight
    if given.shape != (mdp.states, mdp.actions):
        raise InvalidData(
            f"a policy has shape [{mdp.states}] or [{mdp.states}, {mdp.actions}], "
            f"given {list(given.shape)}"
        )
    chance = given.astype(np.float64)
    if not (chance >= 0.0).all():
        raise InvalidData("a policy's probabilities must be >= 0")
    weight = chance[mdp.pair_state, mdp.pair_action]
    total = np.bincount(mdp.pair_state, weights=weight, minlength=mdp.states)
    wrong = ~mdp.terminal & ~(np.abs(total - 1.0) <= 1e-9)
    if wrong.any():
        state = int(np.flatnonzero(wrong)[0])
        raise InvalidData(
            f"{mdp.state_name(state)}: the policy's probabilities of its actions sum to "
            f"{total[state]:.12g}, expected 1"
        )
    return weight


def q_values(mdp: MDP, value: ArrayLike) -> NDArray[np.float64]:
    """[pairs] r(s, a) + discount * sum_s' p(s' | s, a) V(s')."""
    q: NDArray[np.float64] = mdp.reward + mdp.discount * (mdp.transition @ np.asarray(value))
    return q


def best_of(mdp: MDP, q: NDArray[np.float64]) -> NDArray[np.float64]:
    """[S] largest of each state's q values; 0 in terminal states."""
    value = np.zeros(mdp.states)
    open_states = np.flatnonzero(~mdp.terminal)
    if len(open_states):
        value[open_states] = np.maximum.reduceat(q, mdp.pair_ptr[open_states])
    return value


def greedy_pairs(mdp: MDP, value: ArrayLike, tolerance: float = 1e-9) -> NDArray[np.bool_]:
    """[pairs] True for every action that is greedy in a value, ties included.

    Two actions tie when they differ by at most `tolerance` times the largest |q| (or 1).
    """
    q = q_values(mdp, value)
    slack = tolerance * max(1.0, float(np.abs(q).max(initial=0.0)))
    tied: NDArray[np.bool_] = q >= best_of(mdp, q)[mdp.pair_state] - slack
    return tied


def expectation_sweeps(mdp: MDP, policy: ArrayLike) -> Iterator[NDArray[np.float64]]:
    """V_0 = 0 and V_{k+1} = r_pi + discount P_pi V_k, for ever."""
    weight = pair_weights(mdp, policy)
    owner = np.asarray(mdp.pair_state)
    value: NDArray[np.float64] = np.zeros(mdp.states)
    while True:
        yield value
        gain = weight * q_values(mdp, value)
        value = np.bincount(owner, weights=gain, minlength=mdp.states).astype(np.float64)


def optimality_sweeps(mdp: MDP) -> Iterator[NDArray[np.float64]]:
    """V_0 = 0 and V_{k+1} = max_a (r + discount P V_k), for ever."""
    value = np.zeros(mdp.states)
    while True:
        yield value
        value = best_of(mdp, q_values(mdp, value))


def policy_iterations(
    mdp: MDP, policy: ArrayLike
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64], int]]:
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
        q = q_values(mdp, value)
        best = best_of(mdp, q)
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
