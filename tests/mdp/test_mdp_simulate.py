"""Simulated returns agree with dynamic programming, repeat by seed, and admit their cuts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mdp_reference import of_policy, optimal, q_values, uniform

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP, worlds
from likely.mdp.check.simulation import _cumulative, _draw, simulate


def greedy(mdp: MDP, value: np.ndarray) -> np.ndarray:
    q = q_values(mdp, value)
    policy = np.zeros(mdp.states, dtype=np.int64)
    for s in np.flatnonzero(~mdp.terminal):
        rows = slice(mdp.pair_ptr[s], mdp.pair_ptr[s + 1])
        policy[s] = mdp.pair_action[rows][np.argmax(q[rows])]
    return policy


@pytest.mark.parametrize("name", ["frozen-lake", "maze-4x3", "gridworld-5x5", "forest"])
def test_the_mean_return_is_the_value(name: str) -> None:
    """Within 4.5 standard errors (fixed seed; a right simulator fails once in 10^5 seeds)."""
    mdp = worlds.build(name).mdp
    value = optimal(mdp)
    played = simulate(mdp, greedy(mdp, value), episodes=20_000, seed=5, start=0)
    assert abs(played.mean - value[0]) <= 4.5 * played.standard_error + played.tail + 1e-9
    assert played.unfinished == 0


def test_a_stochastic_policy() -> None:
    mdp = worlds.build("small-gridworld").mdp
    policy = np.full((16, 4), 0.25)
    played = simulate(mdp, policy, episodes=20_000, seed=1, start=1)
    assert of_policy(mdp, uniform(mdp))[1] == pytest.approx(-14)
    assert abs(played.mean + 14.0) <= 4.5 * played.standard_error
    assert (played.returns == -played.lengths).all()


def test_rewards_of_transitions_are_paid_not_their_mean() -> None:
    mdp = worlds.build("frozen-lake", 1.0).mdp
    played = simulate(mdp, np.zeros(16, dtype=int), episodes=500, seed=0)
    assert set(np.unique(played.returns)) <= {0.0, 1.0}


def test_seeds_repeat_and_differ() -> None:
    mdp = worlds.build("frozen-lake").mdp
    one, again, other = (simulate(mdp, np.zeros(16, dtype=int), 200, seed=s) for s in (3, 3, 4))
    assert (one.returns == again.returns).all()
    assert (one.lengths == again.lengths).all()
    assert (one.lengths != other.lengths).any()


def test_drawn_frequencies_match_the_rows() -> None:
    mdp = MDP.from_pairs(
        [0, 1, 1, 1, 1], [0, 3], [1, 2, 3], [0.2, 0.5, 0.3], None, 1.0,
        successor_reward=[1.0, 2.0, 3.0], terminal=[1, 2, 3],
    )  # fmt: skip
    played = simulate(mdp, [0, 0, 0, 0], episodes=40_000, seed=2, start=0)
    frequency = np.bincount(played.returns.astype(int), minlength=4)[1:] / 40_000
    assert np.abs(frequency - [0.2, 0.5, 0.3]).max() < 4.5 * 0.5 / np.sqrt(40_000)
    assert (played.lengths == 1).all()


def test_the_cut_of_an_endless_episode_is_bounded() -> None:
    mdp = worlds.build("seven-states").mdp
    coarse = simulate(mdp, np.ones(7, dtype=int), episodes=3, seed=0, start=6, tail=1.0)
    assert coarse.tail <= 1.0
    assert 20.0 - coarse.tail <= coarse.mean <= 20.0  # 10 / (1 - 1/2)
    low, high = coarse.interval()
    assert low <= 20.0 <= high


def test_episodes_that_do_not_end_are_counted() -> None:
    """Always up from the second column ends at the wall and never in a corner."""
    mdp = worlds.build("small-gridworld").mdp
    up = np.zeros(16, dtype=int)
    endless = simulate(mdp, up, episodes=7, seed=0, start=5, max_steps=50)
    assert endless.unfinished == 7
    assert "7 episodes had not ended" in str(endless)
    assert simulate(mdp, up, episodes=7, seed=0, start=4, max_steps=50).unfinished == 0


def test_intervals_cover() -> None:
    """The 90 % interval misses in about 10 % of runs: at most 30 of 150 (p < 1e-4)."""
    mdp = worlds.build("frozen-lake", 1.0).mdp
    value = of_policy(mdp, uniform(mdp))[0]
    policy = np.full((16, 4), 0.25)
    missed = 0
    for seed in range(150):
        low, high = simulate(mdp, policy, 2000, seed=seed, start=0).interval(0.9)
        missed += not low <= value <= high
    assert 2 <= missed <= 30


def test_starts_follow_the_initial_distribution() -> None:
    mdp = MDP.from_pairs(
        [0, 1, 2, 2], [0, 1, 2], [2, 2], [1, 1], [1.0, 5.0], 1.0, terminal=[2],
        initial=[0.25, 0.75, 0.0],
    )  # fmt: skip
    played = simulate(mdp, [0, 0, 0], episodes=10_000, seed=0)
    assert np.mean(played.returns == 5.0) == pytest.approx(0.75, abs=0.02)


def test_mistakes_are_refused() -> None:
    mdp = worlds.build("gambler").mdp
    with pytest.raises(InvalidData, match="capital 1"):
        simulate(mdp, np.full(101, 40))
    with pytest.raises(InvalidData, match="shape"):
        simulate(mdp, np.zeros((3, 3)))
    with pytest.raises(InvalidData, match=r"capital 1: .* sum to"):
        simulate(mdp, np.full((101, 50), 0.1))
    with pytest.raises(InvalidSetting, match="episodes: expected a whole number from 1"):
        simulate(mdp, np.zeros(101), episodes=0)
    with pytest.raises(InvalidSetting, match=r"a state 0\.\.100, given 300"):
        simulate(mdp, np.zeros(101, dtype=int), start=300)


def test_no_uniform_number_falls_behind_the_last_successor() -> None:
    """Ten times 0.1 adds up to less than one; a draw between must not leave the row."""
    within = _cumulative(np.full(20, 0.1), np.array([0, 10, 20]))
    assert within[[9, 19]].tolist() == [1.0, 1.0]
    last = np.nextafter(1.0, 0.0)
    drawn = _draw(within, np.array([0, 10, 20]), np.array([0, 1, 0]), np.array([last, last, 0.0]))
    assert drawn.tolist() == [9, 19, 0]


def test_probabilities_far_into_a_large_problem_are_as_exact_as_at_its_beginning() -> None:
    """Rows of a few successors and one that is longer than what is added up at once."""
    random = np.random.default_rng(0)
    lengths = random.integers(0, 6, 300_000)
    lengths[1000] = 200_000
    pointer = np.concatenate([[0], np.cumsum(lengths)])
    weight = random.random(pointer[-1]) + 1e-3
    total = np.add.reduceat(weight, pointer[:-1][lengths > 0])
    weight /= np.repeat(total, lengths[lengths > 0])
    within = _cumulative(weight, pointer)
    for row in (*range(1000), *range(1001, 2000), *range(299_000, 300_000)):
        block = slice(pointer[row], pointer[row + 1])
        sums = [math.fsum(weight[block][: k + 1]) for k in range(lengths[row])]
        assert within[block] == pytest.approx(sums, abs=2e-11), row
    assert within[pointer[1001] - 1] == 1.0


def test_the_word_uniform_is_a_policy() -> None:
    mdp = worlds.build("seven-states").mdp
    word = simulate(mdp, "uniform", 300, seed=9, start=3)
    array = simulate(mdp, np.full((7, 2), 0.5), 300, seed=9, start=3)
    assert (word.returns == array.returns).all()
