"""What a file in Cassandra's format says, before it becomes an `MDP`: names, rows, rewards.

`likely.mdp.files.cassandra` reads the text into this; `expected_rewards` folds the reward
statements of the file over successors and observations.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from likely.mdp.model.arrays import FloatArray, IntArray


@dataclasses.dataclass
class RewardStatement:
    """`R:` for index sets; `values` is [S', O] broadcastable. None stands for all (`*`)."""

    action: int | None
    state: int | None
    next_state: int | None
    observation: int | None
    values: FloatArray


@dataclasses.dataclass
class CassandraModel:
    """What the file says: names, sparse transition rows, observations and reward statements."""

    discount: float
    sign: float
    states: tuple[str, ...]
    actions: tuple[str, ...]
    observations: tuple[str, ...]
    start: FloatArray  # [S]
    rows: list[list[dict[int, float]]]  # [A][S] -> {successor: probability}, as given
    observe: FloatArray  # [A, S', O], rows sum to 1
    rewards: list[RewardStatement]

    @property
    def fully_observed(self) -> bool:
        """True when every observation that can follow an action tells the state."""
        if not self.observations:
            return True
        return bool(((self.observe > 0.0).sum(axis=1) <= 1).all())

    def expected_rewards(self) -> FloatArray:
        """[A, S] expected reward of each action in each state."""
        action, state, _, probability = self._transitions()
        pair, shape = action * len(self.states) + state, (len(self.actions), len(self.states))
        paid, mass = (
            np.bincount(pair, weights, shape[0] * shape[1]).reshape(shape)
            for weights in (probability * self.move_rewards()[0], probability)
        )
        return paid / mass

    def owners(self) -> IntArray:
        """[transitions] the state-action pair of each transition, states first."""
        action, state, _, _ = self._transitions()
        return state * len(self.actions) + action

    def move_rewards(self) -> tuple[FloatArray, float]:
        """[transitions] reward of each move, actions first, and what rounding took at most.

        A reward that depends on the observation is averaged over it.
        """
        action, state, successor, _ = self._transitions()
        width = len(self.observations) if self._rewards_see_observations() else 1
        value = np.zeros((len(action), width))  # [transitions, O or 1]
        first = np.searchsorted(
            action * len(self.states) + state, np.arange(len(self.actions) * len(self.states) + 1)
        )
        for statement in self.rewards:
            rows = self._rows_of(statement, action, state, first)
            if statement.next_state is not None:
                rows = rows[successor[rows] == statement.next_state]
            rewards = statement.values
            picked = (
                rewards[successor[rows]] if rewards.shape[0] > 1 else rewards
            )  # [rows or 1, O or 1]
            if statement.observation is None:
                value[rows] = picked
            else:
                value[rows, statement.observation] = picked[:, 0]
        if width > 1:
            weight = self.observe[action, successor]  # [transitions, O]
            size = (weight * abs(value)).sum(axis=1)
            lost = (2 * width + 3) * 2.0**-53 * float(size.max(initial=0.0))
            return self.sign * (weight * value).sum(axis=1), lost
        return self.sign * value[:, 0], 0.0

    def _rewards_see_observations(self) -> bool:
        return any(s.observation is not None or s.values.shape[1] > 1 for s in self.rewards)

    def _rows_of(
        self,
        statement: RewardStatement,
        action: IntArray,
        state: IntArray,
        first: IntArray,
    ) -> IntArray:
        if statement.action is not None and statement.state is not None:
            pair = statement.action * len(self.states) + statement.state
            return np.arange(first[pair], first[pair + 1])
        keep = np.ones(len(action), dtype=bool)
        if statement.action is not None:
            keep &= action == statement.action
        if statement.state is not None:
            keep &= state == statement.state
        return np.flatnonzero(keep)

    def _transitions(
        self,
    ) -> tuple[IntArray, IntArray, IntArray, FloatArray]:
        entries = [
            (a, s, t, p)
            for a, by_state in enumerate(self.rows)
            for s, row in enumerate(by_state)
            for t, p in row.items()
        ]
        table = np.array(entries, dtype=np.float64).reshape(-1, 4)
        whole = table[:, :3].astype(np.int64)
        return whole[:, 0], whole[:, 1], whole[:, 2], table[:, 3]
