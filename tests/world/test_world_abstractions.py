"""Neighbours, codes and clones of a log; the examples of one's own environment and log."""

from __future__ import annotations

import dataclasses
import runpy
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import toy_rail

from likely import mdp, world
from likely.errors import InvalidData, InvalidSetting

EXAMPLES = Path(__file__).parents[2] / "examples"
LOG = world.collect(toy_rail.TASK, n=400, seed=0, hold=6.0)


def test_neighbours_reach_the_end_and_pay_for_distance() -> None:
    plan = world.neighbours_plan(LOG, task=toy_rail.TASK, neighbours=3, smoothing=3)
    assert plan.mdp.states == len(LOG)
    np.testing.assert_array_equal(plan.mdp.terminal, LOG.terminated)
    assert mdp.certify(plan.mdp, plan.solution).error <= 1e-3
    played = world.act(toy_rail.TASK, plan, episodes=5)
    assert played.terminated.all()
    assert played.returns.min() >= -13.0  # at most 2.9 in steps of 0.25, one more
    careful = world.neighbours_plan(LOG, task=toy_rail.TASK, penalty=10.0)
    assert (careful.solution.value <= plan.solution.value + 1e-3).mean() > 0.9


def test_the_mean_of_the_nearest_is_by_definition() -> None:
    """Against a loop over all distances."""
    few = LOG.rows(slice(0, 60))
    plan = world.neighbours_plan(few, task=toy_rail.TASK, neighbours=2, penalty=0.5)
    begin, after = few.observation[:, 0], few.next_observation[:, 0]
    deviation = (begin / 2.0).std()  # of the box scaled to [-1, 1]
    rows = plan.mdp.transition.toarray()
    for state in (3, 17, 41):
        for a in range(3):
            taken = np.flatnonzero(few.action == a)
            distance = abs(begin[taken] - after[state]) / 2.0 / deviation
            near = taken[np.argsort(distance, kind="stable")[:2]]
            pair = int(plan.mdp.pair_ptr[state]) + a
            paid = few.reward[near] - 0.5 * np.sort(distance)[:2]
            assert plan.mdp.reward[pair] == pytest.approx(paid.mean())
            assert rows[pair].sum() == pytest.approx(1.0)


def test_what_was_never_done_is_no_better_than_the_end_where_each_step_pays() -> None:
    """The least reward is the best there is: 1 for ever, where episodes end."""
    paying = dataclasses.replace(LOG, reward=np.ones_like(LOG.reward))
    assert paying.terminated.any()
    plan = world.codes_plan(paying, task=toy_rail.TASK, codes=16)
    assert plan.solution.value[16] == 0.0


def test_codes_count_and_fear_what_was_never_done() -> None:
    plan = world.codes_plan(LOG, task=toy_rail.TASK, codes=16)
    assert plan.mdp.terminal.tolist() == [False] * 17 + [True]
    worst = float(LOG.reward.min()) / (1 - 0.9)
    assert plan.solution.value[16] == pytest.approx(worst, abs=1e-2)
    assert (plan.solution.value >= worst - 1e-2).all()
    assert world.act(toy_rail.TASK, plan, episodes=5).terminated.all()
    again = world.codes_plan(LOG, task=toy_rail.TASK, codes=16)
    np.testing.assert_array_equal(plan.solution.value, again.solution.value)


def test_kernels_keep_the_mass_of_ends() -> None:
    plan = world.kernel_plan(LOG, task=toy_rail.TASK, states=20, width=0.1)
    np.testing.assert_allclose(plan.mdp.transition.sum(axis=1), 1.0)
    assert plan.mdp.terminal.tolist() == [False] * 20 + [True]
    mass = plan.mdp.transition[:, [20]].toarray()[:, 0]
    best = int(plan.solution.value[:20].argmax())
    assert mass[int(plan.mdp.pair_ptr[best]) + 2] > 0.2  # to the right, from nearest to the end
    never = dataclasses.replace(LOG, terminated=np.zeros(len(LOG), dtype=bool))
    endless = world.kernel_plan(never, task=toy_rail.TASK, states=20, width=0.1)
    assert endless.mdp.transition[:, [20]].sum() == 0.0
    np.testing.assert_allclose(endless.solution.value[:20], -10.0, atol=1e-2)  # -1 for ever
    assert world.act(toy_rail.TASK, plan, episodes=5).terminated.all()


def test_a_clone_does_what_was_done() -> None:
    right = world.collect(toy_rail.TASK, lambda seen: np.array([2]), n=60, seed=0)
    mixed = dataclasses.replace(
        LOG, action=np.where(LOG.observation[:, 0] > 0.0, 0, 2).astype(np.int64)
    )
    policy = world.clone(mixed, task=toy_rail.TASK)
    assert policy([[-1.0], [1.0]]).tolist() == [2, 0]
    assert world.clone(right, task=toy_rail.TASK)([[0.3]]).tolist() == [2]
    with pytest.raises(InvalidData, match="action 0 was never taken"):
        world.neighbours_plan(right, task=toy_rail.TASK)
    with pytest.raises(InvalidSetting, match="names no environment"):
        world.codes_plan(dataclasses.replace(LOG, environment=""))


def test_the_example_of_an_environment(capsys: pytest.CaptureFixture[str]) -> None:
    gain = runpy.run_path(str(EXAMPLES / "own_world.py"))["main"]()
    assert gain > 10.0
    assert "discretisation" in capsys.readouterr().out


def test_the_example_of_a_log_leaves_the_current_directory_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(sys, "argv", ["own_log.py"])
    runpy.run_path(str(EXAMPLES / "own_log.py"), run_name="__main__")
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]
    (written,) = tmp_path.glob("temporary/*/tank.csv")
    assert f"wrote a stand-in, {written}" in capsys.readouterr().out


def test_the_example_of_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = runpy.run_path(str(EXAMPLES / "own_log.py"))["main"](tmp_path / "tank.csv")
    assert plan.choose(np.array([[0.5], [9.0]])).tolist() == [1, 0]
    said = capsys.readouterr().out
    assert "level 0.5: pump" in said
    assert f"wrote a stand-in, {tmp_path / 'tank.csv'}" in said
    for name in ("own_world", "own_log"):
        assert len((EXAMPLES / f"{name}.py").read_text().splitlines()) <= 60


@pytest.mark.filterwarnings("error")
def test_a_log_of_few_different_states_has_as_many_codes() -> None:
    """On squares of a board the plans of codes are exact: the goal is so many steps away."""
    noise = np.random.default_rng(0)
    place, action = noise.integers(5, size=400), noise.integers(2, size=400)
    after = np.clip(place + 2 * action - 1, 0, 5)
    log = world.Trajectories.from_arrays(
        place, action, -np.ones(400), next_observation=after, terminated=after == 5,
        truncated=after < 5, episode=np.arange(400),
    )  # fmt: skip
    task = world.Task("board", None, ("x",), (0.0,), (5.0,), (0, 1), discount=0.9)
    steps = 5 - np.arange(5)
    for plan in (world.codes_plan(log, task=task), world.kernel_plan(log, task=task, width=0.01)):
        assert plan.choose(np.arange(5.0)[:, None]).tolist() == [1] * 5
        assert plan.mdp.states <= 5 + 2
        worth = np.sort(plan.solution.value)[-6:]
        np.testing.assert_allclose(worth, [*-(1 - 0.9**steps) / 0.1, 0.0], atol=1e-3)
    points = world.Points.of(log, task, codes=200)
    assert points.size == 5
