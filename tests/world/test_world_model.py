"""One step of a world is a density: it sums to one, draws follow it, the null model is worse."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import toy_rail

from likely import world
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Relation
from likely.world.features import Features, ridge

NOISY = world.collect(toy_rail.NOISY, n=600, seed=1)
BUILDS = ["polynomial", "neighbours", "mean-change"]


def test_a_row_left_out_is_predicted_as_by_a_fit_without_it() -> None:
    noise = np.random.default_rng(0)
    x, y, share = noise.standard_normal((12, 3)), noise.standard_normal((12, 2)), noise.random(12)
    fitted = ridge(x, y, share, penalties=np.array([0.3]))
    total = share.sum()
    # The definition, with the centre of all rows: drop one row, solve the normal equations.
    design = np.column_stack([np.ones(12), x - share @ x / total])
    cost = np.diag([0.0, *[0.3 * max(1.0, total)] * 3])
    for i in range(12):
        w = np.where(np.arange(12) == i, 0.0, share)[:, None]
        beta = np.linalg.solve((design * w).T @ design + cost, (design * w).T @ y)
        np.testing.assert_allclose(fitted.left_out[i], y[i] - design[i] @ beta, rtol=1e-9)


def test_angles_are_features_that_come_round() -> None:
    features = Features(world.TASKS["pendulum"], 3)
    turned = np.array([[0.3, 1.0], [0.3 + 2 * np.pi, 1.0], [0.3 - 2 * np.pi, 1.0]])
    np.testing.assert_allclose(features(turned), features(turned[[0, 0, 0]]), atol=1e-12)
    assert features.size == math.comb(3 + 3, 3) - 1


@pytest.mark.parametrize("name", BUILDS)
def test_the_density_of_the_next_state_integrates_to_one(name: str) -> None:
    model = world.fit(NOISY, name, task=toy_rail.NOISY)
    after = np.linspace(-4.0, 4.0, 4001)[:, None]
    for state, action in ((-1.0, 2), (0.3, 0)):
        logs = model.log_prob(np.full((4001, 1), state), np.int64(action), after)
        assert np.trapezoid(np.exp(logs), after[:, 0]) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("spread", [0.3, 1.5, 4.0, 60.0])
def test_on_a_circle_the_density_integrates_to_one_and_draws_follow_it(spread: float) -> None:
    """A wide Gaussian comes round: all its turns count, as in a draw."""
    half = math.pi
    task = world.Task(
        "wheel", None, ("angle",), (-half,), (half,), (0,), angles=(0,),
        reward=lambda state, action, after: np.zeros(state.shape[:-1]),
        terminated=lambda state: np.zeros(state.shape[:-1], dtype=bool),
    )  # fmt: skip
    wheel = world.KnownModel(task, lambda state, action: state + 2.0)
    wheel.spread = np.array([[spread]])
    after = np.linspace(-half, half, 3600, endpoint=False)[:, None]
    density = np.exp(wheel.log_prob(np.ones_like(after), np.int64(0), after))
    assert density.mean() * 2 * half == pytest.approx(1.0, abs=1e-7)
    drawn = np.sort(wheel.sample(np.ones((4000, 1)), np.int64(0), seed=1).state[:, 0])
    ranks = np.interp(drawn, after[:, 0] + half / 3600, np.cumsum(density) * 2 * half / 3600)
    assert abs(ranks - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)


@pytest.mark.parametrize("name", BUILDS)
def test_draws_follow_the_density_and_their_seed(name: str) -> None:
    model = world.fit(NOISY, name, task=toy_rail.NOISY)
    states = np.full((4000, 1), -0.5)
    drawn = model.sample(states, np.int64(2), seed=3)
    assert (drawn.state == model.sample(states, np.int64(2), seed=3).state).all()
    after = np.linspace(-4.0, 4.0, 2001)[:, None]
    density = np.exp(model.log_prob(np.full((2001, 1), -0.5), np.int64(2), after))
    below = np.cumsum(density) * (after[1, 0] - after[0, 0])
    ranks = np.interp(drawn.state[:, 0], after[:, 0], below)  # uniform if the draws follow
    assert abs(np.sort(ranks) - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / math.sqrt(4000)


def test_linear_dynamics_are_learned_and_the_null_model_is_worse() -> None:
    # A pendulum: its mean change tells little.
    log = world.collect("pendulum", n=400, seed=0)
    nats = world.validate(log, steps=(1, 4))
    assert nats["model"][1].relation is Relation.EXACT
    assert nats["model"][4].relation is Relation.UPPER
    for steps in (1, 4):
        assert nats["model"][steps].value + 3.0 < nats["null"][steps].value
    rail = world.fit(NOISY, task=toy_rail.NOISY)
    landing = rail.land(np.array([[-1.0], [0.5]]), np.array([0, 2]))
    np.testing.assert_allclose(landing.centre[:, 0, 0], [-1.25, 0.75], atol=0.03)
    assert landing.spread[0, 0] == pytest.approx(0.1, rel=0.15)


def test_nats_of_several_steps_bound_the_exact_ones() -> None:
    """A random walk of noise sigma has -log N(x_h - x_0; h mean, h sigma^2) exactly."""
    log = world.collect(dataclasses.replace(toy_rail.NOISY, discount=0.9), n=200, seed=5)
    kept = log.rows(abs(log.observation[:, 0]) < 1.2)
    model = world.fit(kept, "mean-change", task=toy_rail.NOISY)
    sigma, h = float(model.land(np.zeros((1, 1)), np.array([0])).spread[0, 0]), 3
    change = [float(model.land(np.zeros((1, 1)), np.array([a])).centre[0, 0, 0]) for a in range(3)]
    exact = []
    for t in range(len(log) - h + 1):
        if log.episode[t] == log.episode[t + h - 1]:
            mean = log.observation[t, 0] + sum(change[log.action[t + k]] for k in range(h))
            z = (log.next_observation[t + h - 1, 0] - mean) / (sigma * math.sqrt(h))
            exact.append(0.5 * z * z + math.log(sigma * math.sqrt(2 * math.pi * h)))
    bound = world.held_out_nats(model, log, steps=(h,), particles=200, starts=1000)[h]
    assert bound.n == len(exact)
    assert np.mean(exact) - 0.02 < bound.value < np.mean(exact) + 0.1


def test_a_wall_does_not_bend_the_regression_of_the_rest() -> None:
    log = world.collect("mountaincar", n=1000, seed=0)
    model = world.fit(log)
    assert "exceptions" in model.about
    after = model.task.states(log.next_observation)
    landing = model.land(model.task.states(log.observation), np.asarray(log.action))
    free = after[:, 0] > -1.19
    assert abs(landing.centre[free, 0] - after[free]).max() < 1e-3
    assert landing.spread[0, 0] < 1e-4 < landing.spread[1, 0]


def test_ends_and_rewards_are_learned_where_nothing_is_declared() -> None:
    model = world.fit(world.collect(toy_rail.NOISY, n=3000, seed=2), task=toy_rail.LEARNED)
    chance = model.ends.probability(np.array([[0.0], [1.6], [1.95]]))
    assert chance[0] < 0.01
    assert chance[1] < 0.5 < chance[2]
    paid = model.sample(np.zeros((5, 1)), np.int64(1), seed=0).reward
    np.testing.assert_allclose(paid, -1.0, atol=1e-3)
    assert model.task.declared == ()


def test_a_cut_is_not_an_end() -> None:
    """Trap: with truncation taken for termination, MountainCar ends wherever it was cut."""
    log = world.collect("mountaincar", n=600, seed=0)
    assert log.truncated.sum() == 3
    task = dataclasses.replace(world.TASKS["mountaincar"], terminated=None)
    right = world.fit(log, task=task)
    assert right.ends.never
    assert right.ends.probability(log.next_observation).max() == 0.0
    wrong = world.fit(dataclasses.replace(log, terminated=log.truncated), task=task)
    assert wrong.ends.probability(log.next_observation).max() > 0.0


def test_declared_rules_that_the_data_contradicts_have_no_chance() -> None:
    model = world.fit(NOISY, task=toy_rail.NOISY)
    state = np.zeros((2, 1))
    logs = model.log_prob(state, np.int64(1), state, np.array([-1.0, 3.0]), np.zeros(2, bool))
    assert np.isfinite(logs[0])
    assert logs[1] == -np.inf


def test_what_cannot_be_fitted_is_said() -> None:
    with pytest.raises(InvalidSetting, match='did you mean "polynomial"'):
        world.fit(NOISY, "polynomal", task=toy_rail.NOISY)
    with pytest.raises(InvalidSetting, match='no setting "depth"'):
        world.fit(NOISY, task=toy_rail.NOISY, depth=3)
    with pytest.raises(InvalidData, match="action 2 was never taken"):
        world.fit(NOISY.rows(NOISY.action < 2), task=toy_rail.NOISY)
    model = world.fit(NOISY, task=toy_rail.NOISY)
    for numbers in (-1, 3):
        with pytest.raises(InvalidData, match="expected numbers from 0 to 2"):
            model.sample(np.zeros((2, 1)), np.int64(numbers))
    for wrong in ({"steps": (0,)}, {"particles": 0}, {"starts": 0}):
        with pytest.raises(InvalidSetting, match="must be at least 1, given 0"):
            world.held_out_nats(model, NOISY, **wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="names no environment"):
        world.fit(dataclasses.replace(NOISY, environment=""))
    with pytest.raises(InvalidSetting, match='the log is of "rail"'):
        world.fit(NOISY)
