"""A world on a grid is an MDP with exact rows, and a plan tells its three errors apart."""

from __future__ import annotations

import dataclasses
import json
import types
from pathlib import Path

import numpy as np
import pytest
import toy_rail

from likely import mdp, world
from likely.errors import InvalidData, InvalidSetting
from likely.estimate import Estimate, Relation

LOG = world.collect(toy_rail.TASK, n=120, seed=0)
RAIL = world.fit(LOG, task=toy_rail.TASK)


def test_multilinear_weights_keep_affine_functions_and_come_round() -> None:
    grid = world.Grid(world.TASKS["cartpole"], (5, 4, 3, 6))
    noise = np.random.default_rng(0)
    states = grid.points.min(0) + noise.random((50, 4)) * np.ptp(grid.points, axis=0)
    corner, weight = grid.weights(states)
    np.testing.assert_allclose(weight.sum(axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose((weight[..., None] * grid.points[corner]).sum(axis=1), states)
    ring = world.Grid(world.TASKS["pendulum"], (8, 3))
    corner, weight = ring.weights(np.array([[np.pi - np.pi / 8, 0.0]]))
    angles = ring.points[corner[weight > 1e-9], 0]
    assert sorted(angles.tolist()) == pytest.approx([-np.pi, 0.75 * np.pi])
    assert world.Grid(world.TASKS["pendulum"], (8, 3)).weights(np.array([[0.0, 99.0]]))[
        1
    ].sum() == pytest.approx(1.0)  # beyond the box counts as on its edge


def test_a_world_that_moves_by_cells_is_the_mdp_by_hand() -> None:
    """The rail in steps of a cell: V of a point is that of its distance to the end."""
    process = world.to_mdp(RAIL)
    solution = mdp.solve(process, tolerance=1e-9)
    steps = np.arange(16, 0, -1)
    expected = -(1.0 - 0.9**steps) / 0.1
    np.testing.assert_allclose(solution.value[:16], expected, atol=2e-4)
    assert process.terminal.tolist() == [False] * 16 + [True, True]
    plan = world.plan(RAIL, tolerance=1e-9)
    ahead = plan.action_values(plan.grid.points[:16])  # at a point, one step ahead is one backup
    np.testing.assert_allclose(ahead, plan.solution.q_table(0.0)[:16], atol=1e-8)
    assert mdp.certify(process, solution).error <= 1e-8


@pytest.mark.parametrize(("codes", "neighbours"), [(40, 5), (None, 3), (None, 1)])
def test_a_world_on_points_of_its_log_has_exact_rows(
    codes: int | None, neighbours: int, tmp_path: Path
) -> None:
    far = world.collect(toy_rail.TASK, n=400, seed=0, hold=6.0)
    points = world.Points.of(far, toy_rail.TASK, codes, neighbours=neighbours)
    process = world.to_mdp(RAIL, points)
    rows, end = process.transition, process.states - 1
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)
    assert process.terminal[end]
    # One step to the right of the last point the episode is over.
    near = int(points.points[:, 0].argmax())
    assert points.points[near, 0] > 1.66
    assert rows[int(process.pair_ptr[near]) + 2, end] == pytest.approx(1.0)
    # What is meant: from a point the learned step, then the nearest points, equally likely.
    first = int(points.points[:, 0].argmin())
    distance = abs(points.points[:, 0] - points.points[first, 0] - toy_rail.STEP)
    row = rows[[int(process.pair_ptr[first]) + 2], :end].toarray()[0]
    assert row.sum() == pytest.approx(1.0)
    farthest = np.sort(distance)[points.neighbours - 1]
    assert distance[row > 0.0].max() == pytest.approx(farthest, abs=1e-4)
    np.testing.assert_allclose(row[row > 0.0] * points.neighbours, 1.0)
    plan = world.plan(RAIL, points)
    assert plan.solution.error <= 1e-3
    # V is the same all around a code, so a plan may stand still between two of them.
    assert world.act(toy_rail.TASK, plan, episodes=5).terminated.sum() >= 3
    plan.save(tmp_path / "plan.npz")
    again = world.Plan.load(tmp_path / "plan.npz", RAIL)
    np.testing.assert_allclose(again.solution.value, plan.solution.value, atol=1e-3)
    assert str(again.grid) == str(points)


def test_the_mass_of_ends_is_kept() -> None:
    """Trap: rows without the mass of their terminal successors are not rows."""
    task = world.TASKS["cartpole"]
    process = world.to_mdp(world.fit(world.collect("cartpole", n=60, seed=0)), (5, 5, 5, 5))
    rows = process.transition
    np.testing.assert_allclose(rows.sum(axis=1), 1.0, atol=1e-12)
    end = process.states - 1
    assert process.terminal[end]
    mass = rows[:, [end]].toarray()[:, 0]
    points = world.Grid(task, (5, 5, 5, 5)).points
    # At the limit of the angle and falling on: every action ends the episode.
    falling = np.flatnonzero((points[:, 2] > 0.2) & (points[:, 3] > 1.0))
    assert len(falling)
    for state in falling:
        pairs = slice(process.pair_ptr[state], process.pair_ptr[state + 1])
        np.testing.assert_allclose(mass[pairs], 1.0)
    value = mdp.solve(process, tolerance=1e-6).value
    np.testing.assert_allclose(value[falling], 1.0)  # one last reward
    assert value.max() > 10.0
    alive = rows[:, :end].tocsr()
    with pytest.raises(InvalidData, match="probabilities sum to"):
        mdp.MDP.from_pairs(process.pair_ptr[:-1], alive.indptr, alive.indices, alive.data,
                           process.reward, 0.99)  # fmt: skip


def test_the_quadrature_of_the_noise_keeps_means() -> None:
    noisy = world.fit(world.collect(toy_rail.NOISY, n=400, seed=1), task=toy_rail.NOISY)
    points = world.Grid(toy_rail.TASK, (41,)).points[:, 0]
    for nodes in (1, 3, 5):
        process = world.to_mdp(noisy, (41,), quadrature=nodes)
        landing = (process.transition[:, :41] @ points).reshape(-1)
        row = int(process.pair_ptr[15]) + 2  # from the middle, to the right
        centre = noisy.land(points[15:16, None], np.array([2])).centre[0, 0, 0]
        assert landing[row] == pytest.approx(centre, abs=1e-9)
        spread = process.transition[[row], :41] @ points**2 - centre**2
        assert spread[0] == pytest.approx(0.01 if nodes > 1 else 0.0025, abs=0.006)


def test_diffusion_of_the_grid_is_no_error_of_the_model() -> None:
    """Trap: the learned world is the true one, so all that V is off comes from the grid."""
    apart = [
        world.errors(world.plan(RAIL, grid), toy_rail.TASK, episodes=10, refine=(0.5,))
        for grid in ((6,), (61,))
    ]
    for measured in apart:
        assert measured.model == pytest.approx(0.0, abs=1e-9)
        assert measured.planning < 1e-3
        np.testing.assert_allclose(measured.promised, measured.earned.returns)
    assert abs(apart[0].discretisation) > 5 * abs(apart[1].discretisation) > 0.0
    coarse, fine = (value for _, value in apart[0].refinement)
    assert coarse != fine == apart[0].value
    text = str(apart[0])
    assert [line.split()[0] for line in text.splitlines() if line[0] != " "] == [
        "planning", "discretisation", "model",
    ]  # fmt: skip


class Registered(toy_rail.Rail):
    """With a limit that is known."""

    spec = types.SimpleNamespace(id="Rail-v0", max_episode_steps=500)  # type: ignore[assignment]


def test_a_cut_changes_the_returns_and_not_the_discretisation() -> None:
    """Trap: V has no time limit, and a learned world must be cut where the true one is."""
    plan = world.plan(RAIL)
    short = dataclasses.replace(
        toy_rail.TASK, environment=lambda **options: toy_rail.Rail(limit=3, **options)
    )
    cut, whole = (world.errors(plan, task, episodes=10) for task in (short, toy_rail.TASK))
    assert cut.promised.tolist() == cut.earned.returns.tolist() == [-3.0] * 10
    assert cut.model == 0.0
    assert cut.discretisation == pytest.approx(whole.discretisation)
    # Whoever cuts an episode: the environment after 500 steps, or `act` before that.
    long = dataclasses.replace(toy_rail.TASK, environment=lambda: Registered(limit=500))
    played = [world.act(long, lambda seen: np.ones(len(seen)), 2, max_steps=n) for n in (9, 900)]
    assert [p.limit for p in played] == [9, 500]
    assert [p.lengths.tolist() for p in played] == [[9, 9], [500, 500]]


def test_a_wrong_model_shows_in_the_model_error_and_not_in_the_certificate() -> None:
    halved = dataclasses.replace(LOG, next_observation=(LOG.observation + LOG.next_observation) / 2)
    wrong = world.plan(world.fit(halved, task=toy_rail.TASK))
    measured = world.errors(wrong, toy_rail.TASK, episodes=10)
    assert measured.planning < 1e-3
    assert measured.model is not None
    assert measured.model < -3.0  # it promised twice as many steps


def test_episodes_side_by_side_are_those_alone() -> None:
    plan = world.plan(RAIL)
    together = world.act(toy_rail.TASK, plan, episodes=4, seed=7)
    alone = [world.act(toy_rail.Rail(), plan, 1, 7 + i, discount=0.9) for i in range(4)]
    assert together.returns.tolist() == [float(a.returns[0]) for a in alone]
    assert together.terminated.all()
    assert together.returns.mean() > world.act(toy_rail.TASK, "random", 4, 7).returns.mean() + 5


def test_an_environment_without_pictures_is_refused_in_a_sentence() -> None:
    blind = dataclasses.replace(toy_rail.TASK, environment=lambda: toy_rail.Rail())
    with pytest.raises(InvalidSetting, match=r"rail draws no pictures: .*'render_mode'"):
        world.act(blind, episodes=1, frames=True)


def test_plans_and_worlds_are_saved_and_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    world.save_world(tmp_path / "rail", LOG, "toy_rail:TASK", "polynomial", {"degree": 1})
    model, log, config = world.load_world(tmp_path / "rail")
    assert (log.fingerprint, config["settings"]) == (LOG.fingerprint, {"degree": 1})
    plan = world.plan(model, (9,))
    plan.save(tmp_path / "plan.npz")
    again = world.Plan.load(tmp_path / "plan.npz", model)
    states = np.linspace(-2, 1.8, 30)[:, None]
    assert (again.choose(states) == plan.choose(states)).all()
    np.testing.assert_allclose(again.value(states), plan.value(states), atol=1e-3)
    with pytest.raises(InvalidData, match=r"no config\.json"):
        world.load_world(tmp_path)
    kept = Estimate.mean_of([1.0, 2.0], unit="nats", relation=Relation.EXACT, quantity="nll",
                            fingerprint="")  # fmt: skip
    first_only = {"model": {"1": kept.to_json()}}
    for damage in (
        {"held_out_nats": [1]}, {"held_out_nats": {"model": {"1": 3}}},
        {"held_out_nats": first_only}, {"version": 2},
    ):  # fmt: skip
        path = tmp_path / "rail" / "config.json"
        path.write_text(json.dumps(config | damage))
        with pytest.raises(InvalidData, match=r"config\.json: "):
            world.load_world(tmp_path / "rail")


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="expected 1 sides"):
        world.plan(RAIL, (4, 4))
    with pytest.raises(InvalidSetting, match="500 codes of 120 states"):
        world.Points.of(LOG, toy_rail.TASK, 500)
    points = world.Points.of(LOG, toy_rail.TASK, neighbours=2)
    assert [points.refined(factor).size for factor in (1.0, 0.7, 0.5)] == [120, 84, 60]
    assert np.array_equal(points.refined(0.5).points, points.points[::2])
    with pytest.raises(InvalidSetting, match="can be thinned out only: 2 times as many"):
        points.refined(2.0)
    with pytest.raises(InvalidSetting, match="too large"):
        world.to_mdp(RAIL, (20_000_000,))
    with pytest.raises(InvalidSetting, match="between 0 and 1"):
        world.plan(RAIL, discount=1.0)


def test_the_pole_is_balanced_after_fifty_random_steps() -> None:
    log = world.collect("cartpole", n=50, seed=0)
    plan = world.plan(world.fit(log))
    assert world.act("cartpole", plan, episodes=3, seed=100).returns.tolist() == [500.0] * 3
    assert world.act("cartpole", "random", episodes=3, seed=100).returns.max() < 100


def walk(pit: float, goal: float) -> world.Trajectories:
    """Steps of about 1 to the left or right on [0, 10]; beyond its ends an episode is over."""
    noise, rows = np.random.default_rng(0), []
    for number in range(300):
        place = noise.uniform(1.0, 9.0)
        for step in range(60):
            action = int(noise.integers(2))
            after = place + (1.0 if action else -1.0) + 0.05 * noise.standard_normal()
            over = not 0.0 < after < 10.0
            paid = (pit if after <= 0.0 else goal) - 0.5 * action if over else 0.0
            rows.append((place, action, paid, after, over, step == 59 and not over, number))
            place = after
            if over:
                break
    table = np.array(rows).T
    return world.Trajectories.from_arrays(
        table[0], table[1], table[2], next_observation=table[3], terminated=table[4],
        truncated=table[5], episode=table[6],
    )  # fmt: skip


@pytest.mark.parametrize(("pit", "goal"), [(0.0, 1.5), (-1.0, 1.5), (-100.0, 100.5)])
def test_a_pit_is_not_paid_like_a_goal(pit: float, goal: float) -> None:
    """Right is best everywhere: the goal pays after ceil(10 - x) steps; -0.5 for the last step."""
    log = walk(pit, goal)
    task = world.Task("walk", None, ("x",), (0.0,), (10.0,), (0, 1), discount=0.95, grid=(101,))
    plan = world.plan(world.fit(log, task=task))
    begin = np.array([[0.5], [2.5], [5.5], [8.5]])
    assert plan.choose(begin).tolist() == [1, 1, 1, 1]
    best = (goal - 0.5) * 0.95 ** (np.ceil(10.0 - begin[:, 0]) - 1)
    np.testing.assert_allclose(plan.value(begin), best, rtol=0.05)
    rewards, over = plan.model.rewards, log.terminated
    data = log.observation, log.action.astype(np.int64), log.next_observation
    np.testing.assert_allclose(rewards.expected(*data, over.astype(float)), log.reward, atol=1e-6)


def test_ends_that_pay_at_random_are_paid_their_mean() -> None:
    """With noise of their own: the steps before them stay certain."""
    log = walk(0.0, 0.0)
    noise = np.random.default_rng(1).standard_normal(len(log))
    log = dataclasses.replace(log, reward=np.where(log.terminated, 3.0 + noise, 0.0))
    task = world.Task("walk", None, ("x",), (0.0,), (10.0,), (0, 1), discount=0.95, grid=(101,))
    model = world.fit(log, task=task)
    ends = np.flatnonzero(log.terminated)
    n, drawn = len(ends), np.random.default_rng(2)
    data = log.observation, log.action.astype(np.int64), log.next_observation
    paid = model.rewards.draw(*data, log.terminated, drawn)
    assert abs(paid[~log.terminated]).max() < 1e-4
    assert paid[ends].mean() == pytest.approx(3.0, abs=5.0 * np.sqrt(2.0 / n))
    assert paid[ends].std() == pytest.approx(1.0, abs=5.0 * np.sqrt(1.0 / n))


def test_an_action_whose_every_step_ended_is_not_free() -> None:
    """What it pays elsewhere is not known: what the others pay on average is assumed."""
    noise = np.random.default_rng(0)
    place, action = noise.uniform(0.0, 10.0, 400), noise.integers(2, size=400)
    after = place + action - 0.5
    keep = (action == 0) | (after > 9.5)
    log = world.Trajectories.from_arrays(
        place, action, np.full(400, -1.0), next_observation=after, terminated=after > 9.5,
        truncated=after <= 9.5, episode=np.arange(400),
    ).rows(keep)  # fmt: skip
    task = world.Task("walk", None, ("x",), (0.0,), (10.0,), (0, 1), discount=0.9, grid=(41,))
    rewards = world.fit(log, task=task).rewards
    middle, going = np.full((2, 1), 5.0), np.zeros(2)
    expected = rewards.expected(middle, np.arange(2), middle, going)
    np.testing.assert_allclose(expected, -1.0, atol=1e-6)
