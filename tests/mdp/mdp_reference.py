"""Slow, plain solvers that share no code with the library: dense NumPy, one line an equation."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from likely.mdp.model.problem import MDP


def dense(mdp: MDP) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """[pairs, S] transition matrix and [pairs] state of each pair."""
    matrix = np.zeros((mdp.pairs, mdp.states))
    for pair in range(mdp.pairs):
        for entry in range(mdp.indptr[pair], mdp.indptr[pair + 1]):
            matrix[pair, mdp.indices[entry]] += mdp.probability[entry]
    return matrix, np.repeat(np.arange(mdp.states), np.diff(mdp.pair_ptr))


def optimal(mdp: MDP, sweeps: int = 100_000, change: float = 1e-13) -> NDArray[np.float64]:
    """Value iteration from 0 until the change is tiny (fine on the small problems here)."""
    matrix, owner = dense(mdp)
    value = np.zeros(mdp.states)
    for _ in range(sweeps):
        q = mdp.reward + mdp.discount * matrix @ value
        new = np.full(mdp.states, -np.inf)
        np.maximum.at(new, owner, q)
        new[mdp.terminal] = 0.0
        if np.abs(new - value).max() <= change:
            return new
        value = new
    return value


def q_values(mdp: MDP, value: NDArray[np.float64]) -> NDArray[np.float64]:
    """[pairs] r + discount P v."""
    return mdp.reward + mdp.discount * dense(mdp)[0] @ value


def of_policy(mdp: MDP, weights: ArrayLike) -> NDArray[np.float64]:
    """Exact value of a policy given as [pairs] probabilities, by a dense linear solve."""
    matrix, owner = dense(mdp)
    weight = np.asarray(weights, dtype=np.float64)
    choose = np.zeros((mdp.states, mdp.pairs))
    choose[owner, np.arange(mdp.pairs)] = weight
    system = np.eye(mdp.states) - mdp.discount * choose @ matrix
    return np.linalg.solve(system, choose @ mdp.reward)


def uniform(mdp: MDP) -> NDArray[np.float64]:
    """[pairs] probabilities of the policy that picks every action of a state alike."""
    return np.repeat(1.0 / np.maximum(1, np.diff(mdp.pair_ptr)), np.diff(mdp.pair_ptr))
