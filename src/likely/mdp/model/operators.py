"""The Bellman operators as pure functions; a policy is an array.

    (T_pi v)(s) = sum_a pi(a|s) [r(s, a) + discount sum_s' p(s'|s, a) v(s')]      (expectation)
    (T v)(s)    = max_a [r(s, a) + discount sum_s' p(s'|s, a) v(s')]              (optimality)

Plain NumPy and SciPy: these are the definitions that the fused kernels are tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, nearest
from likely.mdp.model.arrays import Array, FloatArray
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution
from likely.mdp.model.world import Problem, stored

Policy = npt.ArrayLike | Solution


def _value(mdp: MDP, value: npt.ArrayLike) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.shape != (mdp.states,):
        raise InvalidData(f"value has shape {array.shape}, expected [{mdp.states}]")
    return array


def state_action_values(mdp: MDP, value: npt.ArrayLike) -> FloatArray:
    """q[i] = r + discount P v for each pair; [pairs]."""
    return np.asarray(mdp.reward + mdp.discount * (mdp.transition @ _value(mdp, value)))


def table_of(mdp: MDP, q: npt.ArrayLike, missing: float = np.nan) -> FloatArray:
    """[S, A] numbers of the pairs [pairs] by state and action label, `missing` elsewhere."""
    table = np.full((mdp.states, mdp.actions), missing)
    table[mdp.pair_state, mdp.pair_action] = q
    return table


def bellman_optimality(mdp: Problem, value: npt.ArrayLike) -> FloatArray:
    """T v, the best one-step look-ahead; [S]. Terminal states get 0."""
    mdp = stored(mdp)
    return _largest(mdp, state_action_values(mdp, value))


def bellman_expectation(mdp: Problem, value: npt.ArrayLike, policy: Policy) -> FloatArray:
    """T_pi v under a deterministic or stochastic policy (see `policy_weights`); [S]."""
    mdp = stored(mdp)
    q = state_action_values(mdp, value)
    weighted = policy_weights(mdp, policy) * q
    return np.bincount(mdp.pair_state, weighted, minlength=mdp.states).astype(np.float64)


def greedy(mdp: Problem, value: npt.ArrayLike) -> Array:
    """The policy that is greedy in v, [S] action labels, -1 in terminal states.

    On ties the first pair of the state is taken.
    """
    mdp = stored(mdp)
    q = state_action_values(mdp, value)
    best = _largest(mdp, q)
    rows = np.flatnonzero(q == best[mdp.pair_state])[::-1]
    policy = np.full(mdp.states, -1, dtype=np.int64)
    policy[mdp.pair_state[rows]] = mdp.pair_action[rows]
    return policy


def policy_array(mdp: MDP, policy: Policy) -> Array:
    """A policy as numbers: that of a `Solution`, and names of actions as their labels.

    Raises:
        InvalidData: a name that no action has, or a policy that depends on the step.
    """
    if isinstance(policy, Solution):
        if policy.policy.ndim != 1:
            raise InvalidData("the policy depends on the step; give one of it, solution.policy[t]")
        policy = policy.policy
    array: Array = np.asarray(policy)
    if array.dtype.kind != "U":
        return array
    label = {name: number for number, name in enumerate(mdp.action_names or ())}
    named = np.broadcast_to(array, mdp.states) if array.ndim == 0 else array
    if named.shape != (mdp.states,):
        raise InvalidData(f"{named.shape[0]} names of actions for {mdp.states} states")
    for state in np.flatnonzero(~mdp.terminal):
        if named[state] not in label:
            hint = nearest(str(named[state]), ["uniform", *label])
            raise InvalidData(f'policy "{named[state]}" is unknown; {hint}')
    return np.array([label.get(name, -1) for name in named], dtype=np.int64)


def policy_weights(mdp: MDP, policy: Policy) -> FloatArray:
    """pi(a|s) of each pair, [pairs].

    `policy` is [S] action labels or names (deterministic), one name for all states, [pairs]
    probabilities, [S, A] probabilities by action label, a `Solution`, or the word "uniform".
    Raises InvalidData where the probabilities of a state do not sum to one over its available
    actions.
    """
    if isinstance(policy, str) and policy == "uniform":
        counts = np.diff(mdp.pair_ptr)
        return np.asarray(1.0 / np.repeat(counts, counts))
    array = policy_array(mdp, policy)
    if array.ndim == 1 and array.dtype.kind in "iu":
        rows = mdp.pair_of(array)
        chosen = np.zeros(mdp.pairs)
        chosen[rows[rows >= 0]] = 1.0
        return chosen
    weights: Any = array.astype(np.float64)
    if weights.shape == (mdp.states, mdp.actions):
        weights = weights[mdp.pair_state, mdp.pair_action]
    elif weights.shape != (mdp.pairs,):
        raise InvalidData(
            f"policy has shape {array.shape}; expected integers [{mdp.states}], or probabilities "
            f"[{mdp.pairs}] (pairs) or [{mdp.states}, {mdp.actions}]"
        )
    totals = np.bincount(mdp.pair_state, weights, minlength=mdp.states)
    bad = ~(np.abs(totals - 1.0) <= 1e-9) & ~mdp.terminal
    if bool(bad.any()) or not bool((weights >= 0.0).all()):
        state = (
            int(np.flatnonzero(bad)[0])
            if bool(bad.any())
            else int(mdp.pair_state[np.flatnonzero(~(weights >= 0.0))[0]])
        )
        raise InvalidData(
            f"policy in {mdp.state_name(state)}: probabilities sum to {totals[state]:.12g} over "
            "its available actions or are negative; expected a distribution"
        )
    return np.asarray(weights)


def _largest(mdp: MDP, q: FloatArray) -> FloatArray:
    best = np.zeros(mdp.states)
    live = np.flatnonzero(~mdp.terminal)
    if len(live):
        # Terminal states have no pairs, so the starts of the others are strictly increasing.
        best[live] = np.maximum.reduceat(q, mdp.pair_ptr[live])
    return best
