"""The chain of a policy and its long run, against closed forms and long products."""

from __future__ import annotations

import re

import numpy as np
import pytest

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, average_reward, stationary_distribution, transition_matrix
from likely.mdp.solvers import stationary
from likely.mdp.undiscounted import transient


def chain_of(matrix: np.ndarray, reward: np.ndarray | None = None) -> MDP:
    """A problem with one action."""
    states = len(matrix)
    gain = np.zeros((states, 1)) if reward is None else reward[:, None]
    return MDP.from_arrays(matrix[None], gain, discount=0.9)


def birth_and_death(states: int, up: float) -> np.ndarray:
    matrix = np.zeros((states, states))
    for state in range(states):
        matrix[state, min(state + 1, states - 1)] += up
        matrix[state, max(state - 1, 0)] += 1 - up
    return matrix


@pytest.mark.parametrize("dense", [400, 2])
def test_birth_and_death_is_geometric(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In detailed balance, d(s + 1) / d(s) = up / down."""
    monkeypatch.setattr(stationary, "DENSE", dense)
    share = stationary_distribution(chain_of(birth_and_death(30, 0.3)), "uniform")
    exact = (0.3 / 0.7) ** np.arange(30)
    # Elimination has every entry to its own precision, the factors to that of the whole.
    np.testing.assert_allclose(
        share, exact / exact.sum(), rtol=1e-13 if dense == 400 else 0, atol=1e-14
    )


@pytest.mark.parametrize("dense", [400, 2])
def test_a_random_chain_repeats_and_gives_the_average_reward(
    dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stationary, "DENSE", dense)
    generator = np.random.default_rng(0)
    matrix, reward = generator.dirichlet(np.ones(12), 12), generator.normal(size=12)
    problem = chain_of(matrix, reward)
    share = stationary_distribution(problem, "uniform")
    np.testing.assert_allclose(share @ matrix, share, atol=1e-15)
    solution = average_reward(problem, tolerance=1e-10)
    np.testing.assert_allclose(solution.value, share @ reward, atol=1e-9)


def test_periods_and_closed_classes_and_ends() -> None:
    """0 goes to a cycle of two (1, 2) with 1/4, to 3 with 1/2, and stays with 1/4; 3 stays."""
    matrix = np.array([[0.25, 0.25, 0, 0.5], [0, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    problem = chain_of(matrix)
    with pytest.raises(InvalidSetting, match="2 closed classes"):
        stationary_distribution(problem, "uniform")
    share = stationary_distribution(problem, "uniform", start=0)
    np.testing.assert_allclose(share, [0, 1 / 6, 1 / 6, 2 / 3], atol=1e-15)
    mixed = stationary_distribution(problem, "uniform", start=[0.5, 0.5, 0, 0])
    np.testing.assert_allclose(mixed, [0, 1 / 3, 1 / 3, 1 / 3], atol=1e-15)
    for start in ([1.0, 0.0], [0.5, 0.6, -0.1, 0.0], 4, [np.nan] * 4):
        with pytest.raises(InvalidData, match=re.escape("start must be one of 4 states")):
            stationary_distribution(problem, "uniform", start=start)


def test_where_a_chain_ends_is_told_by_chances_that_rounding_hides_beside_one() -> None:
    """0 stays but for 3e-17 to 2 and 1e-17 to 1; 1 goes on to 0, 2 or 3 alike; 2 and 3 stay."""
    matrix = np.array([
        [1.0, 1e-17, 3e-17, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 1, 0], [0, 0, 0, 1],
    ])  # fmt: skip
    share = stationary_distribution(chain_of(matrix), "uniform", start=0)
    # From 1: a third each. With a for the chance to end in 2 from 0, a = 3/4 + (1 + a) / 12.
    np.testing.assert_allclose(share, [0, 0, 10 / 11, 1 / 11], rtol=1e-14)


def test_a_large_chain_that_rounding_holds_in_place_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stationary, "DENSE", 0)
    monkeypatch.setattr(transient, "DENSE", 0)
    matrix = np.array([[1.0, 1e-17, 3e-17], [0, 1, 0], [0, 0, 1]])
    with pytest.raises(InvalidData, match="lost in rounding"):
        stationary_distribution(chain_of(matrix), "uniform", start=0)


def test_rows_of_a_policy_sum_to_one_and_an_episode_ends() -> None:
    problem = MDP.from_grid("S.#\n..G\n")
    chain = transition_matrix(problem, "uniform")
    np.testing.assert_allclose(chain.sum(1), 1.0, rtol=1e-15)
    share = stationary_distribution(problem, "uniform")
    assert share[problem.terminal].sum() == pytest.approx(1.0, abs=1e-15)
