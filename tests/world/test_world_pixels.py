"""A pole before a camera: frames, the environment, and codes of a VAE as the state."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from likely import world
from likely.errors import InvalidData, InvalidSetting
from likely.mdp.worlds.gymnasium import make_environment
from likely.world.pixels import POLE, Codes, PixelPole, pole_frames

SMALL = dataclasses.replace(
    world.TASKS["cartpole-pixels"], pixels=dataclasses.replace(POLE, hidden=16, steps=20)
)
LOG = world.collect("cartpole-pixels", n=120, seed=0)
MODEL = world.fit(LOG, task=SMALL, degree=1)


def test_frames_are_mirrored_with_the_pole_and_show_the_smallest_motion() -> None:
    right, left = pole_frames([0.4, -0.4], [0.1, -0.1])
    np.testing.assert_array_equal(right, left[:, ::-1])
    assert right.shape == (POLE.height, POLE.width)
    across = np.arange(POLE.width)
    middle = (right.sum(axis=0) * across).sum() / right.sum()
    assert middle > POLE.width / 2
    # A hundredth of a pixel is seen somewhere.
    near = pole_frames([0.4, 0.4013, 0.4], [0.1, 0.1, 0.1013]).astype(int)
    assert abs(near[1] - near[0]).sum() > 0
    assert abs(near[2] - near[0]).sum() > 0


def test_the_environment_is_cartpole_and_shows_two_frames_and_the_push() -> None:
    pixels, bare = PixelPole(), make_environment("CartPole-v1")
    seen, state = pixels.reset(seed=3)[0], bare.reset(seed=3)[0]
    assert seen.dtype == np.uint8
    assert pixels.observation_space.contains(seen)
    assert seen[-1] == 1
    np.testing.assert_array_equal(seen[: POLE.size], seen[POLE.size : -1])
    actions, ended = iter((0, 1, 1, 0)), False
    while not ended:
        before, action = seen, next(actions, 1)
        seen, *rest = pixels.step(action)
        state, *expected = bare.step(action)
        assert rest[:3] == expected[:3]
        np.testing.assert_array_equal(seen[: POLE.size], before[POLE.size : -1])
        drawn = pole_frames(state[0], state[2])[0]
        np.testing.assert_array_equal(seen[POLE.size : -1].reshape(drawn.shape), drawn)
        assert seen[-1] == 2 * action
        ended = rest[1]
    assert pixels.render().shape == (120, 400, 3)
    assert world.task_of(pixels).name == "cartpole-pixels"


def test_states_are_codes_and_their_change() -> None:
    assert LOG.observation.dtype == np.uint8
    codes = MODEL.task.encode
    assert isinstance(codes, Codes)
    state = MODEL.task.states(LOG.observation)
    assert state.shape == (120, 5)
    same = ~LOG.first[1:]
    # The change of a row is the difference of its code to that of the row before.
    np.testing.assert_allclose(
        state[1:, 2:4][same], (state[1:, :2] - state[:-1, :2])[same], atol=1e-6
    )
    first = np.flatnonzero(LOG.first)
    np.testing.assert_allclose(state[first, 2:4], 0.0, atol=1e-6)
    np.testing.assert_array_equal(state[1:, 4][same], 2.0 * LOG.action[:-1][same])
    # The push of the next state is the action: that much is learned exactly.
    landed = MODEL.land(state[:5], np.int64(1)).centre[:, 0, 4]
    np.testing.assert_allclose(landed, 2.0, atol=1e-6)


def test_a_world_of_pictures_is_planned_in_saved_and_loaded(tmp_path: Path) -> None:
    plan = world.plan(MODEL, (3, 3, 3, 3, 2))
    assert world.act(SMALL, plan, episodes=2).lengths.min() > 5
    codes = MODEL.task.encode
    world.save_world(tmp_path, LOG, "cartpole-pixels", "polynomial", {"degree": 1}, codes=codes)  # type: ignore[arg-type]
    plan.save(tmp_path / "plan.npz")
    model, log, _ = world.load_world(tmp_path)
    assert log.observation.dtype == np.uint8
    np.testing.assert_allclose(
        model.task.states(log.observation), MODEL.task.states(LOG.observation), atol=1e-6
    )
    again = world.Plan.load(tmp_path / "plan.npz", model)
    np.testing.assert_array_equal(again(LOG.observation[:20]), plan(LOG.observation[:20]))


def test_what_has_no_codes_says_so() -> None:
    with pytest.raises(InvalidSetting, match="`fit` makes their codes"):
        world.TASKS["cartpole-pixels"].states(LOG.observation)
    with pytest.raises(InvalidData, match="two frames of 12x40"):
        MODEL.task.states(LOG.observation[:, :700])
