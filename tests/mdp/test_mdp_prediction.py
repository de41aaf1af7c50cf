"""Prediction: the value of a policy by every method, with bounds."""

from __future__ import annotations

import numpy as np
import pytest
from mdp_examples import random_mdp

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, bellman_expectation, certify, evaluate, worlds
from likely.mdp.solvers.prediction import METHODS
from likely.mdp.undiscounted import transient


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("discount", [0.5, 0.99])
def test_methods_agree_with_a_dense_solve(method: str, discount: float) -> None:
    mdp = random_mdp(40, 3, 4, discount, terminal=2)
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(3), 40)
    p = np.zeros((40, 40))
    r = np.zeros(40)
    for i in range(mdp.pairs):
        s, a = int(mdp.pair_state[i]), int(mdp.pair_action[i])
        p[s] += table[s, a] * mdp.transition.toarray()[i]
        r[s] += table[s, a] * mdp.reward[i]
    truth = np.linalg.solve(np.eye(40) - discount * p, r)
    found = evaluate(mdp, table, method, tolerance=1e-8)
    assert np.abs(found.value - truth).max() < 1e-7
    assert bool((found.lower <= truth + 1e-12).all())
    assert bool((truth <= found.upper + 1e-12).all())
    assert found.error <= 1e-6
    assert np.allclose(bellman_expectation(mdp, found.value, table), found.value, atol=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_the_lectures_gridworld_without_a_discount(method: str) -> None:
    mdp = worlds.build("small-gridworld").mdp.with_discount(1.0)
    found = evaluate(mdp, "uniform", method, tolerance=1e-7)
    rows = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]
    assert np.abs(found.value - np.ravel(rows)).max() < 1e-6
    assert bool((found.lower <= np.ravel(rows)).all())
    assert bool((found.upper >= np.ravel(rows)).all())
    assert found.error < 1e-5


def test_kept_sweeps_are_the_books_numbers() -> None:
    mdp = worlds.build("small-gridworld").mdp.with_discount(1.0)
    found = evaluate(mdp, "uniform", "sweeps", sweeps=10, keep=(0, 1, 2, 3, 10))
    assert sorted(found.history) == [0, 1, 2, 3, 10]
    assert found.history[2].reshape(4, 4)[0, 1] == -1.75
    assert found.history[3].reshape(4, 4)[0, 1:].tolist() == [-2.4375, -2.9375, -3.0]
    tenth = np.round(found.history[10].reshape(4, 4)[0], 3)
    assert tenth.tolist() == [0.0, -6.138, -8.352, -8.967]
    assert found.iterations == 10
    assert found.lower.min() < -22.0 < -14.0 < found.upper.max() + 14.0


def test_bounds_hold_for_any_value_of_a_policy() -> None:
    mdp = random_mdp(30, 2, 3, 0.95, terminal=1)
    policy = np.where(mdp.terminal, -1, 1)
    truth = evaluate(mdp, policy).value
    for seed in range(5):
        guess = 10 * np.random.default_rng(seed).standard_normal(30)
        guess[mdp.terminal] = 0.0
        certificate = certify(mdp, guess, policy)
        assert bool((certificate.lower <= truth).all())
        assert bool((truth <= certificate.upper).all())


def test_policies_that_are_none_are_refused() -> None:
    mdp = random_mdp(5, 2, 2, 0.9)
    with pytest.raises(InvalidData, match="probabilities sum to"):
        evaluate(mdp, np.full((5, 2), 0.4))
    with pytest.raises(InvalidData, match="negative"):
        evaluate(mdp, np.tile([1.5, -0.5], (5, 1)))
    with pytest.raises(InvalidData, match="expected integers"):
        evaluate(mdp, np.zeros(3))
    with pytest.raises(InvalidData, match='"unifrom" is unknown'):
        evaluate(mdp, "unifrom")
    with pytest.raises(InvalidSetting, match='did you mean "gmres"'):
        evaluate(mdp, "uniform", "gmress")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dense", [400, 0])
def test_an_end_that_rounding_hides_gives_infinite_bounds(
    method: str, dense: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state that stays but for 1e-17 ends after 1e17 steps, which no backup in floats shows."""
    monkeypatch.setattr(transient, "DENSE", dense)
    mdp = MDP.from_arrays(
        [[[1.0, 1e-17, 0], [0, 0.5, 0.5], [0, 0, 0]]], [1.0, 1.0, 0.0], 1.0, terminal=[2]
    )
    sweeps = 3 if method in ("sweeps", "gauss-seidel") else None
    evaluation = evaluate(mdp, "uniform", method, sweeps=sweeps)
    assert evaluation.lower[0] <= 1e17 <= evaluation.upper[0]
    assert evaluation.error == np.inf


def test_a_policy_that_never_ends_has_no_undiscounted_value() -> None:
    mdp = MDP.from_pairs([0, 2, 2], [0, 1, 2], [0, 1], [1.0, 1.0], [1.0, 1.0], 1.0, terminal=[1])
    assert evaluate(mdp, [1, -1]).value[0] == 1.0
    with pytest.raises(InvalidSetting, match="never reaches a terminal state"):
        evaluate(mdp, [0, -1])


def test_sweeps_are_refused_where_none_are_made() -> None:
    mdp = random_mdp(5, 2, 2, 0.9)
    for method in ("direct", "gmres", "bicgstab"):
        with pytest.raises(InvalidSetting, match=f'"{method}" makes no sweeps'):
            evaluate(mdp, "uniform", method, keep=(0, 1))
        with pytest.raises(InvalidSetting, match=f'"{method}" makes no sweeps'):
            evaluate(mdp, "uniform", method, sweeps=3)
    for wrong in ({"sweeps": -1}, {"sweeps": 3, "keep": [4]}, {"keep": [-1]}):
        with pytest.raises(InvalidSetting, match=r"keep|sweeps: expected a whole number from 0"):
            evaluate(mdp, "uniform", "sweeps", **wrong)
    with pytest.raises(InvalidSetting, match="tolerance nan"):
        evaluate(mdp, "uniform", "sweeps", tolerance=np.nan)


def test_a_start_that_does_not_fit_is_refused() -> None:
    mdp = random_mdp(5, 2, 2, 0.9)
    for start in (np.zeros(4), np.full(5, np.nan), np.full(5, np.inf)):
        with pytest.raises(InvalidData, match=r"expected finite numbers \[5\]"):
            evaluate(mdp, "uniform", "sweeps", start=start)
