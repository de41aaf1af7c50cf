"""Gymnasium's tables: terminated transitions, repeated successors, clear errors."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from mdp_reference import optimal

from likely.errors import InvalidData, InvalidSetting, MissingDependency
from likely.mdp import MDP, solve, worlds
from likely.mdp.worlds.gymnasium import from_table, world_from_gymnasium

pytest.importorskip("gymnasium")


@pytest.mark.parametrize(
    ("name", "ours"), [("FrozenLake-v1", "frozen-lake"), ("FrozenLake8x8-v1", "frozen-lake-8x8")]
)
def test_frozen_lake_is_our_own(name: str, ours: str) -> None:
    theirs = MDP.from_gymnasium(name, 0.99)
    own = worlds.build(ours).mdp
    assert (theirs.terminal == own.terminal).all()
    assert (theirs.indptr == own.indptr).all()
    assert (theirs.indices == own.indices).all()
    assert np.allclose(theirs.probability, own.probability, atol=1e-15)
    assert np.allclose(theirs.reward, own.reward)
    assert theirs.action_names == own.action_names


def test_no_row_repeats_a_successor() -> None:
    for name in ("FrozenLake-v1", "Taxi-v4", "CliffWalking-v1"):
        mdp = MDP.from_gymnasium(name)
        pairs = np.repeat(np.arange(mdp.pairs), np.diff(mdp.indptr))
        keys = pairs * mdp.states + mdp.indices
        assert len(np.unique(keys)) == len(keys), name


def test_taxi_ends_at_the_drop_off() -> None:
    """The best value of a state beside its goal is the +20, not 20 plus what the table goes on
    to say about the state that it names."""
    mdp = MDP.from_gymnasium("Taxi-v4", 0.99)
    assert mdp.states == 501
    assert mdp.terminal.sum() == 1
    value = optimal(mdp)
    assert value[[16, 97, 418, 479]].tolist() == [20.0, 20.0, 20.0, 20.0]
    assert value[:500].max() == 20.0
    assert value[0] == pytest.approx(-1 + 0.99 * 20)  # pick the passenger up, drop at once


def test_cliff_walking_is_minus_thirteen() -> None:
    world = world_from_gymnasium("CliffWalking-v1", 1.0)
    mdp = world.mdp
    assert mdp.states == 48
    assert mdp.terminal[47]
    assert mdp.terminal.sum() == 1
    start = mdp.indices[np.argmax(mdp.reward == -100)]
    assert start == 36
    assert optimal(mdp.with_discount(0.999999))[36] == pytest.approx(-13.0, abs=1e-3)
    assert world.layout is not None
    assert world.layout.shape == (4, 12)
    assert world.layout.symbols[3] == "S" + 10 * "." + "G"


def test_a_terminated_state_that_goes_on_leads_to_an_added_end() -> None:
    table = {
        0: {0: [(0.5, 1, 1.0, True), (0.25, 1, 2.0, True), (0.25, 0, 0.0, False)]},
        1: {0: [(1.0, 0, 100.0, False)], 1: [(1.0, 1, 0.0, False)]},
        2: {0: [(1.0, 1, 5.0, False)]},
    }
    mdp = from_table(table, 0.5, np.array([1.0, 0.0, 0.0]))
    assert mdp.states == 4
    assert mdp.terminal.tolist() == [False, False, False, True]
    assert optimal(mdp)[0] == pytest.approx((0.5 + 0.5) / (1 - 0.125))
    # Without a distribution of first states, episodes may begin in state 1, whose row goes on.
    alone = from_table({k: table[k] for k in (0, 1)}, 0.5)
    assert alone.states == 3
    assert alone.terminal.tolist() == [False, False, True]
    assert optimal(alone)[0] == optimal(mdp)[0]
    still = from_table({0: table[0], 1: {0: [(1.0, 1, 0.0, False)]}}, 0.5)
    assert still.terminal.tolist() == [False, True]


BANDIT = {0: {0: [(1.0, 0, 3.0, True)], 1: [(1.0, 0, 5.0, True)]}}
ROUND = {0: {0: [(1.0, 1, 0.0, False)]}, 1: {0: [(1.0, 0, 1.0, True)]}}


@pytest.mark.parametrize(("table", "values"), [(BANDIT, [5.0]), (ROUND, [0.9, 1.0])])
@pytest.mark.parametrize("where", ["table", "environment", "environment with a start"])
def test_a_terminated_transition_may_name_a_state_that_lives(
    table: dict, values: list[float], where: str
) -> None:
    gymnasium = pytest.importorskip("gymnasium")

    class Environment(gymnasium.Env):
        observation_space = gymnasium.spaces.Discrete(len(table))
        action_space = gymnasium.spaces.Discrete(1)
        P = table

    given = table if where == "table" else Environment()
    if where == "environment with a start":
        given.initial_state_distrib = np.eye(len(table))[0]
    mdp = MDP.from_gymnasium(given, discount=0.9)
    found = solve(mdp, 1e-9).value
    assert np.allclose(found[: len(values)], values, rtol=0.0, atol=1e-9)
    assert mdp.terminal.tolist() == [False] * len(values) + [True]


def test_an_environment_without_a_table_is_refused() -> None:
    with pytest.raises(InvalidData, match="has no transition table"):
        MDP.from_gymnasium("CartPole-v1")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="FrozenLak-v1"):
        MDP.from_gymnasium("FrozenLak-v1")


def test_a_bad_successor_is_named() -> None:
    with pytest.raises(InvalidData, match="state 0, action 0: successor 7"):
        from_table({0: {0: [(1.0, 7, 0.0, False)]}}, 0.9)


def test_without_gymnasium_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(MissingDependency, match="pip install gymnasium"):
        MDP.from_gymnasium("FrozenLake-v1")


def test_a_state_where_episodes_begin_is_not_terminal() -> None:
    """The episode ends on the way back to the start, and begins there all the same."""
    table = {0: {0: [(1.0, 1, 1.0, False)]}, 1: {0: [(1.0, 0, 3.0, True)]}}
    mdp = from_table(table, 0.5, np.array([1.0, 0.0]))
    assert mdp.terminal.tolist() == [False, False, True]
    assert optimal(mdp)[:2].tolist() == [2.5, 3.0]


def test_a_table_alone_is_enough() -> None:
    table = {0: {0: [(0.5, 0, 0.0, False), (0.5, 1, 1.0, True)]}, 1: {0: [(1.0, 1, 5.0, False)]}}
    mdp = MDP.from_gymnasium(table, discount=0.5)
    assert solve(mdp, 1e-9).value[0] == pytest.approx(0.5 / 0.75)
