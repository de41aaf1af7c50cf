"""Textbook problems that are not grids of cells.

Jack's car rental and the gambler (Sutton and Barto 2018, examples 4.2 and 4.3), the stochastic
inventory (Puterman 1994, section 3.2), forest management (pymdptoolbox's example), the chain of
seven states of the lectures, and the two-arm chain on which "stop when the change is small" is
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import FloatArray
from likely.mdp.model.layout import GridLayout
from likely.mdp.model.problem import MDP

CAR_MOVES = tuple(range(-5, 6))


def _at_least(what: str, value: int, least: int) -> None:
    if value < least:
        raise InvalidSetting(f"{what} must be at least {least}, given {value}")


def _poisson(mean: float, count: int) -> FloatArray:
    """[count] probabilities of 0..count-1."""
    return np.array(
        [math.exp(k * math.log(mean) - mean - math.lgamma(k + 1)) for k in range(count)]
    )


def _rental(capacity: int, requests: float, returns: float) -> tuple[FloatArray, FloatArray]:
    """One location: P(cars tonight | cars this morning) and expected cars rented out."""
    size = capacity + 1
    asked, back = _poisson(requests, size), _poisson(returns, size)
    after = np.zeros((size, size))  # [morning, evening]
    rented = np.zeros(size)
    for morning in range(size):
        chance = asked[: morning + 1].copy()  # rented = 0..morning
        chance[-1] = 1.0 - chance[:-1].sum()  # more requests than cars: all are rented
        rented[morning] = chance @ np.arange(morning + 1)
        for out, p in enumerate(chance):
            left = morning - out
            row = back[: size - left].copy()
            row[-1] = 1.0 - row[:-1].sum()  # what does not fit goes away: folded into `capacity`
            after[morning, left:] += p * row
    return after, rented


def jacks_car_rental(capacity: int = 20, discount: float = 0.9) -> MDP:
    """Jack's car rental: two locations, cars moved overnight for 2 each, rented for 10.

    A state is (cars at the first, cars at the second location) in the evening, `capacity` at
    most. An action moves -5..5 cars from the first to the second; only cars that are there can
    move, and what exceeds the capacity goes back to the nationwide company. Requests are Poisson
    with means 3 and 4, returns with means 3 and 2; returned cars can be rented the next day.
    """
    _at_least("the capacity", capacity, 1)
    size = capacity + 1
    first, rented_first = _rental(capacity, 3.0, 3.0)
    second, rented_second = _rental(capacity, 4.0, 2.0)
    rows, reward, labels, counts = [], [], [], []
    for first_lot in range(size):
        for second_lot in range(size):
            possible = [m for m in CAR_MOVES if -second_lot <= m <= first_lot]
            for move in possible:
                a, b = min(first_lot - move, capacity), min(second_lot + move, capacity)
                rows.append(np.outer(first[a], second[b]).ravel())
                reward.append(10.0 * (rented_first[a] + rented_second[b]) - 2.0 * abs(move))
                labels.append(CAR_MOVES.index(move))
            counts.append(len(possible))
    states = size * size
    mdp = MDP.from_pairs(
        np.concatenate([[0], np.cumsum(counts)]),
        np.arange(len(rows) + 1) * states,
        np.tile(np.arange(states), len(rows)),
        np.concatenate(rows),
        reward,
        discount,
        pair_action=labels,
        state_names=[
            f"{first_lot}+{second_lot} cars"
            for first_lot in range(size)
            for second_lot in range(size)
        ],
        action_names=[f"move {move:+d}" if move else "move 0" for move in CAR_MOVES],
    )
    layout = GridLayout.of(
        np.arange(states).reshape(size, size),
        row_name="cars at the first location",
        column_name="cars at the second location",
    )
    return mdp.with_layout(layout)


def gambler(goal: int = 100, heads: float = 0.4, discount: float = 1.0) -> MDP:
    """The gambler's problem: stake 1..min(s, goal - s) on a coin; reaching `goal` pays 1.

    States are the capital 0..goal, 0 and goal terminal; action label k stakes k + 1.
    """
    _at_least("the goal", goal, 2)
    if not 0.0 <= heads <= 1.0:
        raise InvalidSetting(f"the probability of heads must lie in [0, 1], given {heads}")
    capital, stake = [], []
    for s in range(1, goal):
        for bet in range(1, min(s, goal - s) + 1):
            capital.append(s)
            stake.append(bet)
    held, bets = np.array(capital), np.array(stake)
    successor = np.stack([held - bets, held + bets], axis=1)  # [pairs, 2]
    states = np.arange(goal + 1)
    return MDP.from_pairs(
        np.searchsorted(held, np.arange(goal + 2)),
        np.arange(len(held) + 1) * 2,
        successor.ravel(),
        np.tile([1.0 - heads, heads], len(held)),
        None,
        discount,
        successor_reward=(successor == goal).astype(np.float64).ravel(),
        pair_action=bets - 1,
        terminal=(states == 0) | (states == goal),
        state_names=[f"capital {s}" for s in states],
        action_names=[f"stake {bet}" for bet in range(1, goal // 2 + 1)],
    )


def chain(
    rewards: Sequence[float] = (5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0), discount: float = 0.5
) -> MDP:
    """States in a row, moved along by "left" and "right"; a wall at either end.

    Each state pays its reward whenever an action is taken there.
    """
    count = len(rewards)
    _at_least("the number of states", count, 1)
    state = np.arange(count)
    successor = np.stack([np.maximum(state - 1, 0), np.minimum(state + 1, count - 1)], axis=1)
    mdp = MDP.from_pairs(
        np.arange(count + 1) * 2,
        np.arange(2 * count + 1),
        successor.ravel(),
        np.ones(2 * count),
        np.repeat(np.asarray(rewards, dtype=np.float64), 2),
        discount,
        pair_action=np.tile([0, 1], count),
        state_names=[f"s{i + 1}" for i in state],
        action_names=["left", "right"],
    )
    return mdp.with_layout(GridLayout.of([state], ((0, -1), (0, 1))))


def two_arms(length: int = 15, discount: float = 1.0) -> MDP:
    """Two arms of `length` steps leave the start; a fair coin picks the arm.

    Then each step goes forward or back to the start with 1/2; one end pays 1, the other nothing.
    The value of the start is 1/2 by symmetry. Iteration from 0 that stops when the change is
    small answers far less: it takes about 2^length steps to reach an end.
    """
    _at_least("the length of an arm", length, 1)
    start, count = length, 2 * length + 1  # lose = 0, start in the middle, win = last
    state = np.arange(count)
    forward = np.where(state < start, state - 1, state + 1)
    successor = np.stack([forward, np.full(count, start)], axis=1)
    successor[start] = [start - 1, start + 1]
    ends = (state == 0) | (state == count - 1)
    inner = successor[~ends]
    mdp = MDP.from_pairs(
        np.concatenate([[0], np.cumsum(~ends)]),
        np.arange(len(inner) + 1) * 2,
        inner.ravel(),
        np.full(inner.size, 0.5),
        None,
        discount,
        successor_reward=(inner == count - 1).astype(np.float64).ravel(),
        terminal=ends,
        initial=start,
        action_names=["step"],
    )
    symbols = ["L" + " " * (length - 1) + "S" + " " * (length - 1) + "W"]
    entering = np.where(ends, np.where(state == 0, 0.0, 1.0), np.nan)[None]
    return mdp.with_layout(GridLayout.of([state], symbols=symbols, entering=entering))


def forest(
    ages: int = 3,
    old_reward: float = 4.0,
    cut_reward: float = 2.0,
    fire: float = 0.1,
    discount: float = 0.9,
) -> MDP:
    """Forest management: wait or cut, while fire may burn it all down each year.

    States are the ages 0..ages-1. Waiting in the oldest age pays `old_reward`; cutting pays
    `cut_reward` in the oldest age, 1 in the others, 0 in the youngest, and the forest starts again.
    """
    _at_least("the number of ages", ages, 2)
    age = np.arange(ages)
    grown = np.minimum(age + 1, ages - 1)
    burn = np.zeros(ages, dtype=np.int64)
    reward = np.zeros((ages, 2))
    reward[-1, 0] = old_reward
    reward[1:, 1] = 1.0
    reward[-1, 1] = cut_reward
    mdp = MDP.from_pairs(
        np.arange(ages + 1) * 2,
        np.arange(2 * ages + 1) * 2,
        np.stack([burn, grown, burn, burn], axis=1).ravel(),
        np.tile([fire, 1.0 - fire, 0.5, 0.5], ages),
        reward.ravel(),
        discount,
        pair_action=np.tile([0, 1], ages),
        state_names=[f"age {a}" for a in age],
        action_names=["wait", "cut"],
    )
    return mdp.with_layout(GridLayout.of([age]))


def inventory(
    capacity: int = 3,
    demand: Sequence[float] = (0.25, 0.5, 0.25),
    price: float = 8.0,
    order_cost: float = 4.0,
    unit_cost: float = 2.0,
    holding_cost: float = 1.0,
    discount: float = 0.95,
) -> MDP:
    """Stochastic inventory control without backlogging (Puterman 1994, section 3.2).

    A state is the stock at the start of a month, an action the number of units ordered, which
    arrive at once; stock and order together are at most `capacity`. Then the demand (`demand[j]`
    is P(j units)) is met as far as the stock goes, at `price` a unit. Every order costs
    `order_cost` and `unit_cost` a unit, every unit in store `holding_cost` a month.
    """
    _at_least("the capacity", capacity, 1)
    chance = np.asarray(demand, dtype=np.float64)
    if chance.ndim != 1 or (chance < 0.0).any() or abs(chance.sum() - 1.0) > 1e-9:
        raise InvalidSetting(f"the demand must be a distribution that sums to 1, given {demand}")
    counts, labels, reward, indptr = [], [], [], [0]
    indices: list[int] = []
    probability: list[float] = []
    for stock in range(capacity + 1):
        for order in range(capacity - stock + 1):
            held = stock + order
            sold = np.minimum(np.arange(len(chance)), held)
            indices.extend(held - sold)
            probability.extend(chance)
            indptr.append(len(indices))
            paid = (order_cost if order else 0.0) + unit_cost * order + holding_cost * held
            reward.append(price * float(chance @ sold) - paid)
            labels.append(order)
        counts.append(capacity - stock + 1)
    mdp = MDP.from_pairs(
        np.concatenate([[0], np.cumsum(counts)]),
        indptr,
        np.array(indices, dtype=np.int64),
        np.array(probability),
        reward,
        discount,
        pair_action=labels,
        state_names=[f"stock {s}" for s in range(capacity + 1)],
        action_names=[f"order {a}" for a in range(capacity + 1)],
    )
    return mdp.with_layout(GridLayout.of([np.arange(capacity + 1)]))
