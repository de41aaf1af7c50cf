"""A world of two modes: a mixture of Gaussians sees them, and no regression can."""

from __future__ import annotations

import numpy as np
import pytest

from likely import world
from likely.errors import InvalidData
from likely.estimate import Relation

TASK = world.Task(
    "slip", None, ("x",), (-2.0,), (2.0,), (0, 1),
    reward=lambda state, action, after: np.zeros(state.shape[:-1]),
    terminated=lambda state: np.zeros(state.shape[:-1], dtype=bool), discount=0.9,
)  # fmt: skip
NOISE = 0.02


def slips(n: int, seed: int) -> world.Trajectories:
    """x' = x +- (0.5 + 0.1 x), or half of the time x, where the wheel slips; four steps each."""
    noise, rows = np.random.default_rng(seed), []
    for episode in range(n // 4):
        x = noise.uniform(-1.0, 1.0)
        for _ in range(4):
            action, before = int(noise.integers(2)), x
            x += (2 * action - 1) * (0.5 + 0.1 * x) * (noise.random() < 0.5)
            x += NOISE * noise.standard_normal()
            rows.append((before, action, x, episode))
    before, actions, after, episodes = map(np.array, zip(*rows, strict=True))
    none = np.zeros(len(rows))
    return world.Trajectories.from_arrays(
        before, actions, none, terminated=none, next_observation=after, episode=episodes
    )


SETTINGS = {"components": 3, "hidden": 32, "updates": 300}
MIXTURE = world.fit(slips(600, 0), "mixture", task=TASK, **SETTINGS)


def test_it_has_the_nats_of_two_modes_which_a_regression_misses() -> None:
    held, steps = slips(400, 1), (1, 3)
    nats = {"mixture": world.held_out_nats(MIXTURE, held, steps=steps)}
    for name, settings in (("linear", {}), ("polynomial", {"degree": 5}), ("mean-change", {})):
        fitted = world.fit(slips(600, 0), name, task=TASK, **settings)
        nats[name] = world.held_out_nats(fitted, held, steps=steps)
    truth = np.log(2.0) + 0.5 * np.log(2.0 * np.pi * np.e * NOISE**2)
    assert truth - 0.1 < nats["mixture"][1].value < truth + 0.3
    assert nats["mixture"][1].relation is Relation.EXACT
    for name in ("linear", "polynomial", "mean-change"):
        assert nats[name][1].value > nats["mixture"][1].value + 1.4
        assert nats[name][3].value > nats["mixture"][3].value + 0.4


def test_it_lands_at_the_two_places_and_not_between_them() -> None:
    drawn = MIXTURE.sample(np.zeros((500, 1)), np.int64(1), seed=0).state[:, 0]
    near = [abs(drawn - place) < 0.1 for place in (0.0, 0.5)]
    assert near[0].mean() == pytest.approx(0.5, abs=0.1)
    assert (near[0] | near[1]).mean() > 0.97
    linear = world.fit(slips(600, 0), "linear", task=TASK)
    between = linear.sample(np.zeros((500, 1)), np.int64(1), seed=0).state[:, 0]
    assert (abs(between - 0.25) < 0.15).mean() > 0.3


def test_its_density_sums_to_one_and_its_floor_is_said() -> None:
    x = np.linspace(-3.0, 3.0, 6001)[:, None]
    for state, action in ((-0.5, 0), (0.7, 1)):
        logs = MIXTURE.log_prob(np.full_like(x, state), np.int64(action), x)
        assert np.exp(logs).sum() * 0.001 == pytest.approx(1.0, abs=1e-6)
    assert "spreads >= x 0.00" in MIXTURE.about
    floor = float(MIXTURE.about.rsplit(" ", 1)[1])
    assert MIXTURE.land(x, np.int64(0)).spread.min() >= floor * 0.95
    # Without noise the spreads go to the floor, and no further.
    sure = slips(60, 0)
    still = world.Trajectories.from_arrays(
        sure.observation, sure.action, sure.reward, terminated=sure.terminated,
        truncated=sure.truncated, next_observation=sure.observation,
    )  # fmt: skip
    held = world.held_out_nats(
        world.fit(still, "mixture", task=TASK, components=2, hidden=4, updates=5), still, steps=(1,)
    )[1]
    assert np.isfinite(held.value)
    with pytest.raises(InvalidData, match="too few for a network"):
        world.fit(slips(6, 0), "mixture", task=TASK)


def test_spreads_that_depend_on_the_state_keep_the_means_of_a_grid() -> None:
    process = world.to_mdp(MIXTURE, (41,))
    points = world.Grid(MIXTURE.task, (41,)).points
    landing = (process.transition[:, :41] @ points[:, 0]).reshape(-1)
    inside = slice(10, 31)
    for action in (0, 1):
        ahead = MIXTURE.land(points[inside], np.int64(action))
        mean = (ahead.weight * ahead.centre[:, :, 0]).sum(axis=1)
        rows = process.pair_ptr[:-1][inside] + action
        np.testing.assert_allclose(landing[rows], mean, atol=1e-6)


def test_a_fit_is_a_function_of_the_log() -> None:
    again = world.fit(slips(600, 0), "mixture", task=TASK, **SETTINGS)
    x = np.linspace(-1, 1, 7)[:, None]
    np.testing.assert_array_equal(
        again.land(x, np.int64(1)).centre, MIXTURE.land(x, np.int64(1)).centre
    )
