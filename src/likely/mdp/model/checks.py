"""Validation of Markov decision processes: each error names the state and the action."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from likely.errors import InvalidData, InvalidSetting, nearest, whole
from likely.mdp.model.arrays import Array, BoolArray, FloatArray

if TYPE_CHECKING:
    from likely.mdp.model.problem import MDP

Names = tuple[str, ...] | None
IntArray = Array


def discount(value: float) -> None:
    """Raise InvalidSetting unless the discount is in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number):
        raise InvalidSetting(f"discount {value!r}: expected a number in (0, 1]")
    if not (math.isfinite(value) and 0.0 < value <= 1.0):
        raise InvalidSetting(f"discount {value}: expected a number in (0, 1]")


def choice(name: str, value: str, valid: Iterable[str]) -> None:
    """Raise InvalidSetting, with the nearest valid word, unless the value is one of them."""
    if value not in valid:
        raise InvalidSetting(f'{name}="{value}" is unknown; {nearest(value, valid)}')


def asked(
    tolerance: float, objective: str, max_iterations: int | None, max_seconds: float | None
) -> None:
    """Raise InvalidSetting unless a solver can be asked for this: `limits`, "max" or "min"."""
    if not tolerance > 0.0:
        raise InvalidSetting(f"tolerance {tolerance}: expected a positive number")
    choice("objective", objective, ("max", "min"))
    limits(max_iterations, max_seconds)


def limits(max_iterations: int | None, max_seconds: float | None) -> None:
    """Raise InvalidSetting where a limit is below 0, at which bounds hold without a sweep."""
    if max_iterations is not None:
        whole("max_iterations", max_iterations, 0)
    if max_seconds is not None and not max_seconds >= 0.0:
        raise InvalidSetting(f"max_seconds={max_seconds}: expected a number of seconds from 0")


def where(
    pair: int, pair_ptr: IntArray, pair_action: IntArray, states: Names, actions: Names
) -> str:
    """Such as "state 3, action 1", with names where there are some."""
    state = int(np.searchsorted(pair_ptr, pair, side="right")) - 1
    action = int(pair_action[pair])
    text = f"state {state}"
    if states is not None:
        text += f" ({states[state]})"
    text += f", action {action}"
    if actions is not None and action < len(actions):
        text += f" ({actions[action]})"
    return text


def rewards(
    reward: FloatArray,
    pair_ptr: IntArray,
    pair_action: IntArray,
    states: Names,
    actions: Names,
) -> None:
    """Raise InvalidData on the first reward that is not finite."""
    # Two reductions and no temporary array: NaN and infinities both end up in the extremes.
    if not len(reward) or (math.isfinite(reward.min()) and math.isfinite(reward.max())):
        return
    pair = int(np.flatnonzero(~np.isfinite(reward))[0])
    place = where(pair, pair_ptr, pair_action, states, actions)
    raise InvalidData(
        f"{place}: reward {reward[pair]} is not finite; leave out actions that are not "
        "available (`available=` of MDP.from_arrays, an empty row of MDP.from_sparse)"
    )


def structure(
    pair_ptr: IntArray, indptr: IntArray, indices: IntArray, pair_action: IntArray | None
) -> None:
    """Raise InvalidData unless the CSR pieces fit together."""
    states, pairs = len(pair_ptr) - 1, len(indptr) - 1
    if states < 1:
        raise InvalidData("an MDP needs at least one state; pair_ptr has shape [S + 1]")
    for name, pointer, last in (("pair_ptr", pair_ptr, pairs), ("indptr", indptr, len(indices))):
        if not len(pointer):
            raise InvalidData(f"{name} is empty; expected a CSR pointer, which starts with 0")
        if pointer[0] != 0 or pointer[-1] != last:
            raise InvalidData(
                f"{name} runs from {pointer[0]} to {pointer[-1]}, expected 0 to {last}"
            )
        if len(pointer) > 1 and bool((pointer[1:] < pointer[:-1]).any()):
            raise InvalidData(f"{name} decreases; expected a CSR pointer")
    if pair_action is None:
        return
    if len(pair_action) != pairs:
        raise InvalidData(f"pair_action has length {len(pair_action)}, expected {pairs} (pairs)")
    if pairs and int(pair_action.min()) < 0:
        raise InvalidData(f"pair_action holds {pair_action.min()}; action labels start at 0")


def distinct(pair_ptr: IntArray, pair_action: IntArray, names: tuple[Names, Names]) -> None:
    """Raise InvalidData on the first state two of whose pairs have the same action label."""
    pairs = len(pair_action)
    if pairs < 2:
        return
    first = np.zeros(pairs, dtype=np.bool_)  # of its state
    starts = pair_ptr[:-1]
    first[starts[starts < pairs]] = True
    if bool((first[1:] | (pair_action[1:] > pair_action[:-1])).all()):
        return
    owner = np.repeat(np.arange(len(pair_ptr) - 1), np.diff(pair_ptr))
    order = np.lexsort((pair_action, owner))
    same = (np.diff(owner[order]) == 0) & (np.diff(pair_action[order].astype(np.int64)) == 0)
    if bool(same.any()):
        pair = int(order[1:][same].min())
        raise InvalidData(
            f"{where(pair, pair_ptr, pair_action, *names)}: more than one pair has this action "
            "label; expected labels that differ within a state, else a policy would not say which"
        )


def successors(
    pair_ptr: IntArray,
    indptr: IntArray,
    indices: IntArray,
    pair_action: IntArray,
    names: tuple[Names, Names],
) -> None:
    """Raise InvalidData on the first successor that is not a state."""
    states = len(pair_ptr) - 1
    if not len(indices) or (int(indices.min()) >= 0 and int(indices.max()) < states):
        return
    at = int(np.flatnonzero((indices < 0) | (indices >= states))[0])
    pair = int(np.searchsorted(indptr, at, side="right")) - 1
    raise InvalidData(
        f"{where(pair, pair_ptr, pair_action, *names)}: successor {indices[at]} does not exist; "
        f"states are 0..{states - 1}"
    )


def probabilities(
    pair_ptr: IntArray,
    indptr: IntArray,
    probability: FloatArray,
    pair_action: IntArray,
    names: tuple[Names, Names],
) -> None:
    """Raise InvalidData on the first probability that is negative or not finite."""
    if not len(probability):
        return
    low, high = float(probability.min()), float(probability.max())
    if low >= 0.0 and math.isfinite(high):
        return
    at = int(np.flatnonzero(~((probability >= 0.0) & np.isfinite(probability)))[0])
    pair = int(np.searchsorted(indptr, at, side="right")) - 1
    raise InvalidData(
        f"{where(pair, pair_ptr, pair_action, *names)}: probability {probability[at]}; "
        "expected a number in [0, 1]"
    )


def dangling(pair_ptr: IntArray, terminal: BoolArray, names: Names) -> None:
    """Raise InvalidData on the first state that has no action and is not terminal."""
    empty = (pair_ptr[1:] == pair_ptr[:-1]) & ~terminal
    if bool(empty.any()):
        state = int(np.flatnonzero(empty)[0])
        label = f" ({names[state]})" if names is not None else ""
        raise InvalidData(f"state {state}{label} has no action; give it one or declare it terminal")


def pairs_of_policy(mdp: MDP, policy: Array) -> IntArray:
    """[S] row of the pair that a deterministic policy [S] of action labels takes, else -1."""
    if policy.shape != (mdp.states,) or policy.dtype.kind not in "iu":
        raise InvalidData(
            f"policy of shape {policy.shape} and type {policy.dtype}; expected integer action "
            f"labels of shape [{mdp.states}]"
        )
    chosen = np.full(mdp.states, -1, dtype=np.int64)
    owner = mdp.pair_state
    rows = np.flatnonzero(mdp.pair_action == policy[owner])
    chosen[owner[rows][::-1]] = rows[::-1]
    lost = (chosen < 0) & ~mdp.terminal
    if bool(lost.any()):
        state = int(np.flatnonzero(lost)[0])
        raise InvalidData(
            f"the policy takes action {policy[state]} in {mdp.state_name(state)}, which has only "
            f"{sorted(mdp.pair_action[mdp.pair_ptr[state] : mdp.pair_ptr[state + 1]].tolist())}"
        )
    return chosen
