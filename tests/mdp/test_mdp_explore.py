"""Exploring a step function, and the two examples of dynamic programming as a method."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from mdp_reference import optimal

from likely.errors import InvalidData, InvalidSetting
from likely.mdp import MDP
from likely.mdp.model.explore import from_step


def test_states_may_be_anything_hashable() -> None:
    def step(state: frozenset[str], action: str) -> Iterator[tuple[float, frozenset[str], float]]:
        yield 1.0, state | {action}, -1.0

    def actions(state: frozenset[str]) -> list[str]:
        return [a for a in "abc" if a not in state]

    mdp = MDP.from_step(step, [frozenset()], actions)
    assert mdp.states == 8
    assert mdp.terminal.sum() == 1
    assert optimal(mdp)[0] == -3.0
    assert mdp.action_names == ("a", "b", "c")


def test_repeated_successors_merge_with_their_mean_reward() -> None:
    mdp = from_step(
        lambda s, a: [(0.25, 1, 4.0), (0.25, 1, 0.0), (0.5, 2, 1.0)] if s == 0 else [],
        [0],
        ["go"],
        discount=0.9,
    )
    assert mdp.probability.tolist() == [0.5, 0.5]
    assert mdp.successor_reward is not None
    assert mdp.successor_reward.tolist() == [2.0, 1.0]
    assert mdp.reward.tolist() == [1.5]
    assert mdp.terminal.tolist() == [False, True, True]


def test_initial_states_are_uniform_and_come_first() -> None:
    mdp = from_step(
        lambda s, a: [(1.0, "end", 0.0)], ["x", "y"], lambda s: [] if s == "end" else [0]
    )
    assert mdp.state_names == ("x", "y", "end")
    assert mdp.initial is not None
    assert mdp.initial.tolist() == [0.5, 0.5, 0.0]


def test_actions_may_differ_by_state() -> None:
    mdp = from_step(lambda s, a: [(1.0, s + a, 0.0)], [0], lambda s: range(1, 4 - s))
    assert [int(n) for n in mdp.pair_ptr] == [0, 3, 5, 6, 6]
    assert mdp.pair_action.tolist() == [0, 1, 2, 0, 1, 0]


def test_a_bad_distribution_names_state_and_action() -> None:
    with pytest.raises(InvalidData, match=r"state 'here', action 'go': .* sum to 0\.9"):
        from_step(lambda s, a: [(0.9, "there", 0.0)], ["here"], ["go"])
    with pytest.raises(InvalidData, match="probability >= 0"):
        from_step(lambda s, a: [(-0.5, 1, 0.0), (1.5, 2, 0.0)], [0], ["go"])
    with pytest.raises(InvalidData, match="finite reward"):
        from_step(lambda s, a: [(1.0, 1, float("nan"))], [0], ["go"])
    with pytest.raises(InvalidData, match=r"expected \(probability, next state, reward\)"):
        from_step(lambda s, a: [(1.0, 1)], [0], ["go"])
    with pytest.raises(InvalidData, match="gives no outcome"):
        from_step(lambda s, a: [], [0], lambda s: ["go"])


def test_endless_exploration_stops_with_advice() -> None:
    with pytest.raises(InvalidData, match="more than 50 states"):
        from_step(lambda s, a: [(1.0, s + 1, 0.0)], [0], ["up"], max_states=50)
    with pytest.raises(InvalidSetting, match="at least one initial state"):
        from_step(lambda s, a: [(1.0, s, 0.0)], [], ["up"])
