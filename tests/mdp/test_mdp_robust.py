"""Statements from counts: right backups by a linear program, known answers, coverage, safety."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.optimize import linprog

from likely import mdp
from likely.cli import main
from likely.errors import InvalidData, InvalidSetting, LikelyError
from likely.mdp.robust.bounds import (
    entry_intervals,
    l1_radius,
    reward_intervals,
    worst_of_intervals,
    worst_of_l1,
)
from likely.mdp.robust.spibb import needed_visits

Floats = npt.NDArray[np.float64]

LAKE = mdp.load("frozen-lake", discount=0.9).mdp
# From n draws of every live pair: L by L1 balls at the start, all states possible, and known ones
# (three moves a pair; the table was made with k = 3 for all), one seed.
PUBLISHED = {100: (0.0, 0.0010), 1_000: (0.0065, 0.0225), 10_000: (0.0342, 0.0527),
             100_000: (0.0554, 0.0636), 1_000_000: (0.0642, 0.0671)}  # fmt: skip


@pytest.fixture(scope="module")
def true() -> Floats:
    """V* of the lake."""
    return mdp.solve(LAKE, tolerance=1e-10).value


def random_rows(seed: int) -> tuple[np.ndarray, np.ndarray]:
    noise = np.random.default_rng(seed)
    value, frequency = noise.standard_normal((6, 5)), noise.dirichlet(np.ones(5) / 2, 6)
    value[:2, 4], frequency[:2, 4] = np.inf, 0.0  # two rows with four successors
    return value, frequency / frequency.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_case_of_a_ball_is_that_of_a_linear_program(seed: int) -> None:
    value, frequency = random_rows(seed)
    radius = np.array([0.0, 0.2, 0.7, 1.1, 1.9, 2.0])
    worst = worst_of_l1(value, frequency, radius)
    for i in range(6):
        k = int(np.isfinite(value[i]).sum())
        v, f, eye = value[i, :k], frequency[i, :k], np.eye(k)
        # Variables q and t >= |q - f|.
        solved = linprog(
            np.concatenate([v, np.zeros(k)]),
            A_ub=np.block([[eye, -eye], [-eye, -eye], [np.zeros((1, k)), np.ones((1, k))]]),
            b_ub=np.concatenate([f, -f, [radius[i]]]),
            A_eq=np.concatenate([np.ones(k), np.zeros(k)])[None], b_eq=[1.0],
            bounds=[(0, 1)] * k + [(0, None)] * k,
        )  # fmt: skip
        assert worst[i] == pytest.approx(solved.fun, abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_worst_case_of_intervals_is_that_of_a_linear_program(seed: int) -> None:
    value, frequency = random_rows(seed)
    width = np.random.default_rng(seed + 100).random((6, 5)) * 0.4
    there = np.isfinite(value)
    low, high = np.maximum(frequency - width, 0) * there, np.minimum(frequency + width, 1) * there
    worst = worst_of_intervals(value, low, high)
    for i in range(6):
        k = int(there[i].sum())
        solved = linprog(value[i, :k], A_eq=np.ones((1, k)), b_eq=[1.0],
                         bounds=list(zip(low[i, :k], high[i, :k], strict=True)))  # fmt: skip
        assert worst[i] == pytest.approx(solved.fun, abs=1e-6)


def test_the_radius_is_that_of_weissman_and_a_sure_row_has_none() -> None:
    counts = mdp.draw_counts(LAKE, 100, known_support=False)
    expected = np.sqrt(2 * np.log((2**16 - 2) * 44 / 0.05) / 100)
    np.testing.assert_allclose(l1_radius(counts, 0.05, "fixed"), expected, rtol=1e-12)
    adaptive = l1_radius(counts, 0.05, "adaptive")
    union = np.sqrt(2 * np.log((2**16 - 2) * 44 * np.pi**2 * 100**2 / (6 * 0.05)) / 100)
    np.testing.assert_allclose(adaptive, union, rtol=1e-12)
    cliff = mdp.load("cliff", discount=0.9).mdp  # every move is sure
    sure = mdp.draw_counts(cliff, 1)
    assert (l1_radius(sure, 0.05) == 0.0).all()
    low, high = entry_intervals(sure, 0.05)
    assert (low == high).all()


@pytest.mark.parametrize("n", PUBLISHED)
def test_the_lower_bounds_of_the_lake_are_the_known_ones(n: int, true: Floats) -> None:
    for known, expected in zip((False, True), PUBLISHED[n], strict=True):
        counts = mdp.draw_counts(LAKE, n, seed=0, known_support=known)
        l1 = mdp.robust_bounds(counts, 0.9, sets="l1", gathered="fixed")
        assert l1.lower[0] == pytest.approx(expected, abs=0.0025)  # other draws
        both = mdp.robust_bounds(counts, 0.9, gathered="fixed")
        for bounds in (l1, both):
            assert (bounds.lower <= true).all()
            assert (bounds.upper >= true).all()
            assert mdp.evaluate(LAKE, bounds.policy).value[0] >= bounds.lower[0]
            assert bounds.solver_error <= 2e-6


def test_more_iterations_move_the_bounds_inwards_only() -> None:
    counts = mdp.draw_counts(LAKE, 1000)
    rough = mdp.robust_bounds(counts, 0.9, sets="l1", max_iterations=5)
    fine = mdp.robust_bounds(counts, 0.9, sets="l1", tolerance=1e-10)
    assert (rough.lower <= fine.lower + 1e-12).all()
    assert (rough.upper >= fine.upper - 1e-12).all()
    assert (fine.upper - fine.lower >= 0).all()


def test_the_bounds_cover_in_resampled_data_sets(true: Floats) -> None:
    """40 of the 200 of bench/robust.py."""
    covered = 0
    for seed in range(40):
        counts = mdp.draw_trajectories(LAKE, "uniform", 100, seed)
        bounds = mdp.robust_bounds(counts, 0.9, sets="intervals", tolerance=1e-4)
        covered += bool((bounds.lower <= true).all() and (bounds.upper >= true).all())
    assert covered >= 38


def test_the_observed_support_is_refused_and_would_be_wrong() -> None:
    """A rare successor that was not seen: sets on what was seen do not contain the truth."""
    log = {"state": [0] * 50, "action": [0] * 50, "next_state": [1] * 50,
           "reward": np.array([[[0, 1, -100.0]], [[0, 0, 0.0]], [[0, 0, 0.0]]]),
           "terminal": [False, True, True]}  # fmt: skip
    with pytest.raises(InvalidSetting, match="not those that are possible"):
        mdp.Counts.of_transitions(**log, support="observed")
    possible = np.zeros((3, 1, 3), dtype=bool)
    possible[0, 0, 1] = True
    wrong = mdp.robust_bounds(mdp.Counts.of_transitions(**log, support=possible), 0.9)
    assert wrong.lower[0] == pytest.approx(1.0)  # surely 1: the fall to state 2 is excluded
    possible[0, 0, 2] = True
    right = mdp.robust_bounds(mdp.Counts.of_transitions(**log, support=possible), 0.9)
    assert right.lower[0] < -5.0
    possible[0, 0, 1] = False
    with pytest.raises(InvalidData, match="state 0, action 0 led to 1, which the support excludes"):
        mdp.Counts.of_transitions(**log, support=possible)


def test_intervals_of_rewards_are_those_of_hoeffding_and_of_maurer_and_pontil() -> None:
    """One pair, n rewards in [-1, 3]: evenly -1 and 3, or always 2."""
    for n, values, kind in ((100, (-1.0, 3.0), "hoeffding"), (100, (2.0, 2.0), "bernstein")):
        counts = mdp.Counts.of_transitions(
            np.zeros(n, int), np.zeros(n, int), np.zeros(n, int), reward=np.tile(values, n // 2),
            reward_range=(-1.0, 3.0), support=np.ones((1, 1, 1), bool),
        )  # fmt: skip
        (low,), (high,) = reward_intervals(counts, 0.1, "fixed")
        variance = np.var(np.tile(values, n // 2), ddof=1)
        radius = {
            "hoeffding": 4 * np.sqrt(np.log(4 / 0.1) / (2 * n)),
            "bernstein": np.sqrt(2 * variance * np.log(8 / 0.1) / n)
            + 7 * 4 * np.log(8 / 0.1) / (3 * (n - 1)),
        }  # fmt: skip
        assert kind == min(radius, key=radius.__getitem__)
        middle = np.mean(values)
        assert low == pytest.approx(middle - radius[kind])
        assert high == pytest.approx(min(3.0, middle + radius[kind]))
        # One state that lasts for ever: V is the mean reward over 1 - discount.
        bounds = mdp.robust_bounds(counts, 0.5, delta=0.2, sets="l1", gathered="fixed")
        assert bounds.lower[0] == pytest.approx(2 * low, abs=1e-5)
        assert bounds.upper[0] == pytest.approx(2 * high, abs=1e-5)


def test_bounds_with_unknown_rewards_cover_in_200_resampled_data_sets() -> None:
    """Rewards are drawn, 0 or 2; taking their means for known covers in few of the data sets."""
    noise = np.random.default_rng(3)
    rows, pay = noise.dirichlet(np.ones(3), (3, 2)), noise.random((3, 2))
    true = mdp.solve(mdp.MDP.from_arrays(rows, 2 * pay, 0.5, layout="sas"), tolerance=1e-9).value
    state, action = (part.ravel() for part in np.mgrid[0:3, 0:2].repeat(200, axis=2))
    covered, plugged, every = 0, 0, np.ones((3, 2, 3), bool)
    for seed in range(200):
        noise = np.random.default_rng(seed)
        after = (rows.cumsum(axis=2)[state, action] < noise.random((len(state), 1))).sum(axis=1)
        paid = 2.0 * (noise.random(len(state)) < pay[state, action])
        counts = mdp.Counts.of_transitions(
            state, action, after, reward=paid, reward_range=(0, 2), support=every
        )
        settings = {"sets": "intervals", "gathered": "fixed", "tolerance": 1e-2}
        bounds = mdp.robust_bounds(counts, 0.5, **settings)
        covered += bool((bounds.lower <= true).all() and (true <= bounds.upper).all())
        sure = dataclasses.replace(counts, paid=None, count=counts.count * 10**6)
        wrong = mdp.robust_bounds(sure, 0.5, **settings)
        plugged += bool((wrong.lower <= true).all() and (true <= wrong.upper).all())
    assert covered >= 190
    assert plugged < 20
    assert (bounds.upper - bounds.lower).max() < 3.0  # of 4, which is known before


def test_unknown_rewards_widen_the_bounds_of_known_ones() -> None:
    known = mdp.draw_counts(LAKE, 1000)
    unknown = known.unknown_rewards(0.0, 1.0)
    narrow, wide = (mdp.robust_bounds(c, 0.9, tolerance=1e-4) for c in (known, unknown))
    assert (wide.lower <= narrow.lower + 1e-9).all()
    assert (wide.upper >= narrow.upper - 1e-9).all()
    assert wide.upper[0] < 1.0
    with pytest.raises(InvalidData, match=r"a reward of 1 lies outside of the range 0 to 0\.5"):
        known.unknown_rewards(0.0, 0.5)
    with pytest.raises(InvalidSetting, match="the smaller first"):
        known.unknown_rewards(1.0, 0.0)
    log = {"state": [0], "action": [0], "next_state": [0], "reward": [1.0], "support": "all"}
    with pytest.raises(InvalidSetting, match="give their range"):
        mdp.Counts.of_transitions(**log)
    with pytest.raises(InvalidSetting, match="shape="):
        mdp.Counts.of_transitions(**log, reward_range=(0, 1))
    assert mdp.Counts.of_transitions(**log, reward_range=(0, 1), shape=(2, 1)).states == 2


def test_counts_of_a_log_are_those_of_its_rows() -> None:
    counts = mdp.Counts.of_transitions(
        [0, 0, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1], reward=np.zeros((2, 2)), support="all"
    )
    assert counts.visits.tolist() == [2, 1, 0, 1]
    np.testing.assert_allclose(counts.frequency, [[0.5, 0.5], [0, 1], [0.5, 0.5], [1, 0]])
    drawn = mdp.draw_trajectories(LAKE, "uniform", 50, seed=1)
    assert drawn.visits.sum() > 100
    assert (drawn.count[drawn.successor < 0] == 0).all()


def test_the_command_bounds_a_world_and_a_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], true: Floats
) -> None:
    words = ["mdp", "counts", "frozen-lake", "--discount", "0.9"]
    assert main([*words, "--draws", "1000"]) == 0
    text = capsys.readouterr().out
    assert "1000 to 1000 each" in text
    assert "with probability 0.95" in text
    assert main([*words, "--all-states", "--sets", "l1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["lower"][0] <= true[0] <= record["upper"][0]
    assert main([*words, "--unknown-rewards"]) == 0
    assert "rewards are known to lie between 0 and 1" in capsys.readouterr().out
    path = tmp_path / "log.npz"
    np.savez(path, state=[0, 0], action=[0, 1], next_state=[1, 0], reward=[0.5, 1.0],
             reward_range=[0, 1], shape=[2, 2], terminal=[False, True])  # fmt: skip
    assert main(["mdp", "counts", str(path), "--discount", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["upper"] == pytest.approx([2.0, 0.0], abs=1e-6)
    np.savez(path, state=[0, 0], action=[0, 1], next_state=[1, 0], reward=np.ones((2, 2)),
             terminal=[False, True])  # fmt: skip
    assert main(["mdp", "counts", str(path), "--discount", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["visits"] == 2
    assert main(["mdp", "counts", str(path)]) == 2
    assert "give --discount" in capsys.readouterr().err
    np.savez(path, state=[0], next_state=[0], reward=np.ones((1, 1)))
    assert main(["mdp", "counts", str(path), "--discount", "0.5"]) == 2
    assert 'needs "action"' in capsys.readouterr().err


def behaviour(right: float) -> np.ndarray:
    best = np.maximum(mdp.solve(LAKE).policy, 0)
    policy = np.full((16, 4), (1 - right) / 4)
    policy[np.arange(16), best] += right
    return policy


def test_spibb_keeps_to_the_behaviour_policy_where_data_is_rare() -> None:
    base = behaviour(0.5)
    counts = mdp.draw_trajectories(LAKE, base, 50, seed=0)
    rare = np.ones((16, 4), dtype=bool)
    rare[counts.state, counts.action] = counts.visits <= 10
    live = ~LAKE.terminal
    kept = mdp.spibb(counts, base, 0.9, threshold=10).policy
    np.testing.assert_allclose(kept[rare], base[rare])
    at_most = mdp.spibb(counts, base, 0.9, threshold=10, variant="at-most").policy
    assert (at_most[rare] <= base[rare] + 1e-12).all()
    for policy in (kept, at_most):
        np.testing.assert_allclose(policy[live].sum(axis=1), 1.0)
    everything = mdp.spibb(counts, base, 0.9, threshold=10**9)
    np.testing.assert_allclose(everything.policy, base)
    assert everything.gain == 0.0
    assert mdp.spibb(counts, base, 0.9, threshold=10).gain > 0.0


def test_soft_spibb_stays_in_its_budget() -> None:
    base = behaviour(0.5)
    counts = mdp.draw_trajectories(LAKE, base, 200, seed=0)
    error = np.full((16, 4), np.inf)
    with np.errstate(divide="ignore"):
        error[counts.state, counts.action] = np.sqrt(2 * np.log(2 * 16 * 4 / 0.05) / counts.visits)
    for epsilon in (0.0, 0.2, 1.0):
        policy = mdp.soft_spibb(counts, base, 0.9, epsilon=epsilon).policy
        moved = abs(policy - base)
        spent = (np.where(moved > 1e-12, error, 0.0) * moved).sum(axis=1)
        assert (spent <= epsilon + 1e-9).all()
        np.testing.assert_allclose(policy.sum(axis=1), 1.0)
    assert moved.max() > 0.05


def test_spibb_is_safe_where_greedy_is_not_and_its_constant_is_said() -> None:
    base = behaviour(0.8)
    baseline = mdp.evaluate(LAKE, base).value[0]
    earned: dict[int, list[float]] = {0: [], 20: []}
    for seed in range(30):
        counts = mdp.draw_trajectories(LAKE, base, 100, seed)
        for threshold, values in earned.items():
            safe = mdp.spibb(counts, base, 0.9, threshold=threshold)
            values.append(float(mdp.evaluate(LAKE, safe.policy).value[0]))
    assert np.mean(np.array(earned[20]) >= 0.9 * baseline) >= 0.95
    assert np.mean(np.array(earned[0]) >= 0.9 * baseline) < 0.7
    assert needed_visits(25, 4) == 5125
    assert safe.vacuous
    assert "says nothing" in str(safe)
    large = dataclasses.replace(safe, zeta=0.01)
    assert "loses at most 0.01 with probability 0.95" in str(large)


def test_certified_improvement_departs_only_where_it_is_proven() -> None:
    """Ring of three states; one action of each pays, and enough data prove which."""
    rows = np.zeros((3, 2, 3))
    rows[np.arange(3), :, (np.arange(3) + 1) % 3] = 0.9
    rows[np.arange(3), :, np.arange(3)] += 0.1
    pay = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    ring = mdp.MDP.from_arrays(rows, pay, 0.9, layout="sas", initial=[1.0, 0.0, 0.0])
    base = np.full((3, 2), 0.5)
    old = mdp.evaluate(ring, base).value
    # With known rewards this policy is worth 5 wherever the ring leads: a few draws would do.
    few = mdp.certified_improvement(mdp.draw_counts(ring, 10).unknown_rewards(0, 1), base, 0.9)
    assert few.switches == 0
    assert "stays as it is" in str(few)
    np.testing.assert_array_equal(few.policy, base)
    counts = mdp.draw_counts(ring, 100_000).unknown_rewards(0, 1)
    for sets in ("intervals", "l1"):
        many = mdp.certified_improvement(counts, base, 0.9, sets=sets)
        assert many.policy.argmax(axis=1)[:2].tolist() == [0, 1]
        assert many.switches == 2
        np.testing.assert_array_equal(many.policy[2], [0.5, 0.5])  # neither is proven to be better
        new = mdp.evaluate(ring, many.policy).value
        assert (new >= old).all()
        assert (many.lower <= new).all()
        assert "no state is worth less" in str(many)
    with pytest.raises(InvalidSetting, match="delta"):
        mdp.certified_improvement(counts, base, 0.9, delta=0.0)


LOG: dict[str, object] = {"state": [0, 0, 1], "action": [0, 1, 0], "next_state": [1, 0, 1],
                          "reward": [[1.0, 0.0], [2.0, 0.0]], "support": "all"}  # fmt: skip
ONLY_FIRST = np.ones((2, 2, 2), dtype=bool) * np.array([True, False])[:, None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": [[np.nan, 0.0], [2.0, 0.0]]}, "rewards must be finite"),
        ({"reward": [[np.inf, 0.0], [2.0, 0.0]]}, "rewards must be finite"),
        ({"state": [0.7, 0, 1]}, "whole numbers"),
        ({"state": [0, 1]}, "whole numbers"),
        ({"terminal": [1]}, "terminal has shape"),
        ({"terminal": [0, 1]}, "terminal has shape .* int64"),
        ({"initial": [np.nan, 1.0]}, "initial distribution"),
        ({"initial": [1.0]}, "initial distribution"),
        ({"support": ONLY_FIRST, "state": [0] * 3}, "state 1 has no possible successor"),
        ({"reward": [1.0] * 3, "reward_range": (0, 1), "shape": (-1, 2)}, "states and actions -1"),
    ],
)
def test_a_log_that_means_nothing_is_refused(change: dict[str, object], message: str) -> None:
    of_log: Any = mdp.Counts.of_transitions
    with pytest.raises(LikelyError, match=message):
        of_log(**(LOG | change))


def test_settings_of_statements_are_refused_where_they_prove_nothing() -> None:
    of_log: Any = mdp.Counts.of_transitions
    support = np.ones((2, 2, 2), dtype=bool)
    support[1, 1] = False
    counts = of_log(**(LOG | {"support": support}))
    even = np.full((2, 2), 0.5)  # half of it for an action that the second state does not have
    for wrong in (even, [[np.nan, 1.0], [1.0, 0.0]]):
        for improve in (
            lambda policy: mdp.spibb(counts, policy, 0.9, threshold=1),
            lambda policy: mdp.soft_spibb(counts, policy, 0.9, epsilon=1.0),
            lambda policy: mdp.certified_improvement(counts, policy, 0.9),
        ):
            with pytest.raises(InvalidData, match="no distribution over the actions"):
                improve(wrong)
    base = [[0.5, 0.5], [1.0, 0.0]]
    for ask in (
        lambda: mdp.spibb(counts, base, 0.9, threshold=-1),
        lambda: mdp.spibb(counts, base, 0.9, threshold=1, delta=0.0),
        lambda: mdp.soft_spibb(counts, base, 0.9, epsilon=1.0, delta=2.0),
        lambda: mdp.robust_bounds(counts, 0.9, tolerance=float("nan")),
        lambda: mdp.robust_bounds(counts, 0.9, max_iterations=0),
        lambda: mdp.certified_improvement(counts, base, 0.9, tolerance=0.0),
        lambda: mdp.draw_trajectories(mdp.worlds.build("frozen-lake"), "uniform", -1),
    ):
        with pytest.raises(InvalidSetting):
            ask()


def test_where_everything_has_ended_nothing_is_earned() -> None:
    ended = mdp.MDP.from_pairs([0, 0], [0], [], [], [], 0.9, terminal=[0])
    counts = mdp.draw_counts(ended, 5)
    bounds = mdp.robust_bounds(counts, 0.9)
    assert (bounds.lower.tolist(), bounds.upper.tolist()) == ([0.0], [0.0])
    assert mdp.certified_improvement(counts, [[1.0]], 0.9).lower.tolist() == [0.0]
    assert mdp.spibb(counts, [[1.0]], 0.9, threshold=1).gain == 0.0
