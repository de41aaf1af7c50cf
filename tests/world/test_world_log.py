"""Logs of transitions: ends and cuts are two things, files give back what was written."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import toy_rail

from likely import world
from likely.errors import InvalidData, InvalidSetting


def log(**changes: Any) -> world.Trajectories:
    fields: dict[str, Any] = {
        "observation": [[0.0], [1.0], [2.0], [0.5], [1.5]],
        "action": [0, 1, 1, 0, 1],
        "reward": [-1.0, -1.0, 5.0, -1.0, -1.0],
        "terminated": [False, False, True, False, False],
        "truncated": [False, False, False, False, True],
        "next_observation": [[1.0], [2.0], [3.0], [1.5], [2.5]],
    }
    return world.Trajectories.from_arrays(**(fields | changes))


def test_episodes_are_counted_by_their_ends_and_cuts() -> None:
    kept = log()
    assert (len(kept), kept.episodes) == (5, 2)
    assert kept.first.tolist() == [True, False, False, True, False]
    assert kept.returns.tolist() == [3.0, -2.0]
    assert (kept.terminated & kept.truncated).sum() == 0


def test_a_log_that_only_says_done_is_refused() -> None:
    with pytest.raises(InvalidData, match="time limit"):
        log(truncated=None)
    # The episodes say where a record was cut without an end.
    kept = log(truncated=None, episode=["a", "a", "a", "b", "b"])
    assert kept.truncated.tolist() == [False] * 4 + [True]


def test_the_unknown_successor_of_a_cut_is_dropped_and_of_an_end_is_demanded() -> None:
    kept = log(next_observation=None, terminated=[False] * 5,
               truncated=[False, False, True, False, True])  # fmt: skip
    assert kept.next_observation[:, 0].tolist() == [1.0, 2.0, 1.5]
    assert kept.truncated.tolist() == [False, True, True]
    with pytest.raises(InvalidData, match="row 2 is terminated"):
        log(next_observation=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"reward": [1.0]}, r"reward has shape \[1\]"),
        ({"observation": [[0.0], [np.nan], [0.0], [0.0], [0.0]]}, "observation: row 1"),
        ({"next_observation": [[0.0, 1.0]] * 5}, "next_observation has shape"),
        ({"episode": [0]}, "episode has 1 rows"),
        ({"episode": [0] * 5}, "row 2 is terminated, and the next one is of the same episode"),
        (
            {"terminated": [0] * 5, "truncated": [1, 0, 0, 0, 0], "episode": [0] * 5},
            "row 0 is truncated, and the next one is of the same episode",
        ),
        ({"action": [0, 1, np.nan, 0, 1]}, "action: row 2 is not finite"),
        ({"action": ["left"] * 5}, "expected actions as numbers"),
        ({"observation": [["low"]] * 5}, "expected observations as numbers"),
        ({"terminated": ["False"] * 5}, "terminated: expected true or false in each row"),
        ({"truncated": [np.nan] * 5}, "truncated: expected true or false in each row"),
        (
            {"observation": [], "action": [], "reward": [], "terminated": [], "truncated": []},
            "the log has no transition",
        ),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidData, match=message):
        log(**changes)


def test_a_task_refuses_what_is_no_state_and_no_action_of_its() -> None:
    with pytest.raises(InvalidData, match=r"row 1 has the action \[nan\]"):
        toy_rail.TASK.action_numbers([0.0, np.nan])
    with pytest.raises(InvalidData, match="the state of observation 1 is not finite"):
        toy_rail.TASK.states([[0.0], [np.inf]])
    with pytest.raises(InvalidSetting, match="expected numbers of variables, 0 to 0"):
        dataclasses.replace(toy_rail.TASK, angles=(1,))


@pytest.mark.parametrize("name", ["log.npz", "log.hdf5"])
def test_files_give_back_what_was_written(name: str, tmp_path: Path) -> None:
    if name.endswith("hdf5"):
        pytest.importorskip("h5py")
    written = world.collect(toy_rail.NOISY, n=70, seed=2)
    written.save(tmp_path / name)
    read = world.Trajectories.load(tmp_path / name)
    assert read.fingerprint == written.fingerprint
    assert read.environment == "rail"


def test_files_of_others_are_read_by_their_plurals_and_done_is_explained(tmp_path: Path) -> None:
    kept = log()
    np.savez(
        tmp_path / "other.npz", observations=kept.observation, actions=kept.action,
        rewards=kept.reward, terminals=kept.terminated, timeouts=kept.truncated,
        next_observations=kept.next_observation,
    )  # fmt: skip
    assert world.Trajectories.load(tmp_path / "other.npz").fingerprint == kept.fingerprint
    np.savez(tmp_path / "done.npz", obs=kept.observation, actions=kept.action,
             rewards=kept.reward, done=kept.terminated)  # fmt: skip
    with pytest.raises(InvalidData, match="does not say whether an episode ended or was cut"):
        world.Trajectories.load(tmp_path / "done.npz")
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(InvalidData, match="broken"):
        world.Trajectories.load(tmp_path / "broken.npz")
    with pytest.raises(InvalidSetting, match=r"\.npz or \.hdf5"):
        kept.save(tmp_path / "log.csv")


def test_collecting_is_a_function_of_the_seed_and_keeps_the_flags_apart() -> None:
    first, again, other = (world.collect("mountaincar", n=450, seed=s) for s in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    # The time limit of 200 steps cuts, it does not end.
    assert np.flatnonzero(first.truncated).tolist() == [199, 399, 449]
    assert not first.terminated.any()
    ended = world.collect("cartpole", n=100, seed=0)
    assert ended.terminated.sum() >= 3
    assert (abs(ended.next_observation[ended.terminated, 2]) > 0.2094).all()


def test_actions_are_held_and_listed() -> None:
    held = world.collect(toy_rail.TASK, n=400, seed=0, hold=8.0).action
    assert 0.05 < (np.diff(held) != 0).mean() < 0.13  # 2/3 of one in eight
    kept = log(action=[0, 1, 7, 0, 1])
    with pytest.raises(InvalidData, match=r"row 2 has the action \[7.0\]"):
        world.fit(kept, task=toy_rail.TASK)
    with pytest.raises(InvalidSetting, match='did you mean "cartpole"'):
        world.collect("cartpol")
