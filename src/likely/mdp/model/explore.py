"""From a Python function to an MDP: dynamic programming as a general method.

A problem with optimal substructure is a function `step(state, action)` that says what may
happen. `from_step` calls it on every state that can be reached from the initial ones, numbers
the states in the order in which they are met (breadth first), and gives the sparse MDP that any
method of `likely.mdp` solves. States and actions may be any hashable Python values: a name, a
tuple of stock levels, a frozen set.

A state whose action set is empty is terminal: nothing more is earned there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.problem import MDP

State = TypeVar("State", bound=Hashable)
Action = TypeVar("Action", bound=Hashable)

MAX_STATES = 1_000_000


def from_step(
    step: Callable[[State, Action], Iterable[tuple[float, State, float]]],
    initial: Iterable[State],
    actions: Sequence[Action] | Callable[[State], Iterable[Action]],
    discount: float = 1.0,
    max_states: int = MAX_STATES,
) -> MDP:
    """Explore a function into an MDP.

    Args:
        step: `step(state, action)` gives all outcomes as (probability, next state, reward).
        initial: the states where exploration starts; uniform, they are the initial distribution.
        actions: the actions of every state as one list, or a function of the state; no actions
            make a state terminal. With one list, a state for which `step` gives no outcome for
            any action is terminal.
        discount: in (0, 1]; 1 for problems that end.
        max_states: exploration stops with an error beyond this many states.

    Returns:
        An MDP whose `state_names` and `action_names` are the text of the Python values, in the
        order in which they were met.

    Raises:
        InvalidData: probabilities that are not a distribution, with the state and the action
            named; or more than `max_states` states.

    >>> def step(position, move):
    ...     return [(1.0, position + move, -1.0)]
    >>> mdp = from_step(step, [0], lambda s: [] if s == 3 else [1])
    >>> mdp.states, [str(name) for name in mdp.state_names]
    (4, ['0', '1', '2', '3'])
    """
    of_state: Callable[[State], Iterable[Action]] | None = None
    fixed: tuple[Action, ...] = ()
    if callable(actions):
        of_state = actions
    else:
        fixed = tuple(actions)
    number: dict[State, int] = {}
    for state in initial:
        number.setdefault(state, len(number))
    if not number:
        raise InvalidSetting("exploration needs at least one initial state, given none")
    starts = len(number)
    order = list(number)
    action_number: dict[Action, int] = {action: i for i, action in enumerate(fixed)}

    pair_ptr, indptr = [0], [0]
    indices: list[int] = []
    probability: list[float] = []
    reward: list[float] = []  # of each transition
    pair_action: list[int] = []
    position = 0
    while position < len(order):
        state = order[position]
        position += 1
        for action in fixed if of_state is None else of_state(state):
            row = _outcomes(step(state, action), state, action)
            if not row:
                if of_state is None:
                    continue
                raise InvalidData(
                    f"state {state!r}, action {action!r}: step gives no outcome; expected "
                    "(probability, next state, reward) at least once"
                )
            for successor, chance, gain in row:
                if successor not in number:
                    if len(order) >= max_states:
                        raise InvalidData(
                            f"exploration met more than {max_states} states, the last after "
                            f"state {state!r}; bound the state space, or raise max_states"
                        )
                    number[successor] = len(order)
                    order.append(successor)
                indices.append(number[successor])
                probability.append(chance)
                reward.append(gain)
            indptr.append(len(indices))
            pair_action.append(action_number.setdefault(action, len(action_number)))
        pair_ptr.append(len(pair_action))
    start = np.zeros(len(order))
    start[:starts] = 1.0 / starts
    return MDP.from_pairs(
        np.array(pair_ptr),
        np.array(indptr),
        np.array(indices, dtype=np.int64),
        np.array(probability),
        None,
        discount,
        successor_reward=np.array(reward),
        pair_action=np.array(pair_action, dtype=np.int64),
        terminal=np.diff(pair_ptr) == 0,
        initial=start,
        state_names=[str(state) for state in order],
        action_names=[str(action) for action in action_number],
    )


def _outcomes(
    outcomes: Iterable[tuple[float, State, float]], state: State, action: Action
) -> list[tuple[State, float, float]]:
    """Successors with their probability and the reward on the way; some may be repeated."""
    row: list[tuple[State, float, float]] = []
    for outcome in outcomes:
        try:
            chance, successor, reward = outcome
        except (TypeError, ValueError):
            raise InvalidData(
                f"state {state!r}, action {action!r}: step gave {outcome!r}, expected "
                "(probability, next state, reward)"
            ) from None
        if not chance >= 0.0 or not math.isfinite(reward):
            raise InvalidData(
                f"state {state!r}, action {action!r}: the outcome {outcome!r} needs a "
                "probability >= 0 and a finite reward"
            )
        if chance > 0.0:
            row.append((successor, chance, float(reward)))
    total = math.fsum(chance for _, chance, _ in row)
    if row and abs(total - 1.0) > 1e-9:
        raise InvalidData(
            f"state {state!r}, action {action!r}: the probabilities sum to {total:.12g}, expected 1"
        )
    return row
