"""Partially observed Markov decision processes: the state is hidden, beliefs are what is known.

A belief b is a distribution of the state. After action a and observation o,

    b'(s') = O(o | s', a) sum_s b(s) p(s' | s, a) / P(o | b, a),

so the belief is a Markov state of its own, and V*(b) is convex in it (Astrom 1965; Smallwood and
Sondik 1973, https://doi.org/10.1287/opre.21.5.1071).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting
from likely.files import reading
from likely.mdp.files.cassandra import read_cassandra
from likely.mdp.model.arrays import FloatArray
from likely.mdp.model.problem import is_discounting

DENSE = 400  # states up to which dense rows are faster


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class POMDP:
    """A discounted process whose state is not seen.

    Attributes:
        transition: [A] of p(s' | s, a) [S, S], SciPy CSR arrays where there are many states.
        observe: [A, S', O] p(o | s', a).
        reward: [A, S] expected reward.
        discount: below 1.
        start: [S] first belief.
        state_names, action_names, observation_names: for people.
    """

    transition: tuple[Any, ...]
    observe: FloatArray
    reward: FloatArray
    discount: float
    start: FloatArray
    state_names: tuple[str, ...] = ()
    action_names: tuple[str, ...] = ()
    observation_names: tuple[str, ...] = ()

    @property
    def states(self) -> int:
        """S."""
        return int(self.reward.shape[1])

    @property
    def actions(self) -> int:
        """A."""
        return int(self.reward.shape[0])

    @property
    def observations(self) -> int:
        """O."""
        return int(self.observe.shape[2])

    def __repr__(self) -> str:
        return (
            f"POMDP(states={self.states}, actions={self.actions}, "
            f"observations={self.observations}, discount={self.discount:g})"
        )

    @classmethod
    def from_arrays(
        cls,
        transition: npt.ArrayLike,
        observe: npt.ArrayLike,
        reward: npt.ArrayLike,
        discount: float,
        start: npt.ArrayLike,
    ) -> POMDP:
        """From dense arrays.

        Args:
            transition: [A, S, S].
            observe: [A, S', O].
            reward: [A, S].
            discount: below 1.
            start: [S].

        Raises:
            InvalidData: shapes that do not fit, rows that are no distributions.
            InvalidSetting: an undiscounted problem.
        """
        from scipy import sparse

        moves, sees, pay, first = (
            np.asarray(a, dtype=np.float64) for a in (transition, observe, reward, start)
        )
        if moves.ndim != 3 or moves.shape[1] != moves.shape[2]:
            raise InvalidData(f"transitions have shape {list(moves.shape)}, expected [A, S, S]")
        actions, states, _ = moves.shape
        expected = {"observe": (sees, (actions, states)), "reward": (pay, (actions, states)),
                    "start": (first, (states,))}  # fmt: skip
        for name, (array, shape) in expected.items():
            if array.shape[: len(shape)] != shape or array.ndim != len(shape) + (name == "observe"):
                raise InvalidData(
                    f"{name} has shape {list(array.shape)}, expected {list(shape)}..."
                )
        for name, rows in (("transitions", moves), ("observations", sees), ("start", first[None])):
            sums = rows.sum(axis=-1)
            if (rows < 0).any() or not (abs(sums - 1.0) <= 1e-5).all():
                raise InvalidData(f"{name}: a row sums to {sums.ravel()[abs(sums - 1).argmax()]:g}")
        if not np.isfinite(pay).all():
            raise InvalidData("rewards must be finite")
        if not is_discounting(discount):
            raise InvalidSetting(f"a discount below 1 is expected, given {discount}")
        moves = moves / moves.sum(axis=2, keepdims=True)
        return cls(
            tuple(moves if states <= DENSE else (sparse.csr_array(rows) for rows in moves)),
            sees / sees.sum(axis=2, keepdims=True), pay, float(discount), first / first.sum(),
        )  # fmt: skip

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> POMDP:
        """From a file in Cassandra's format (`.pomdp`).

        Raises:
            InvalidData: unreadable, or a file without observations.
        """
        model = read_cassandra(Path(path))
        if not model.observations:
            raise InvalidData(f"{path}: has no observations; `likely mdp solve` solves it")
        shape = (len(model.actions), len(model.states), len(model.states))
        rows = np.zeros(shape)
        for a, by_state in enumerate(model.rows):
            for s, row in enumerate(by_state):
                rows[a, s, list(row)] = list(row.values())
        with reading(path):
            read = cls.from_arrays(
                rows, model.observe, model.expected_rewards(), model.discount, model.start
            )
        return dataclasses.replace(
            read, state_names=model.states, action_names=model.actions,
            observation_names=model.observations,
        )  # fmt: skip

    def action_name(self, action: int) -> str:
        """Its name, or its number where actions have none."""
        return self.action_names[action] if self.action_names else str(action)

    def observation_name(self, observation: int) -> str:
        """Its name, or its number where observations have none."""
        return self.observation_names[observation] if self.observation_names else str(observation)

    def after(
        self, belief: FloatArray, action: int
    ) -> tuple[FloatArray, FloatArray, npt.NDArray[np.intp]]:
        """What can be observed after an action, o observations in ascending order.

        Returns:
            P(o | b, a), [o]; the beliefs after them, [o, S]; their numbers, [o].
        """
        joint = (belief @ self.transition[action])[:, None] * self.observe[action]  # [S', O]
        chance = joint.sum(axis=0)
        seen = chance > 1e-300
        after = np.ascontiguousarray((joint[:, seen] / chance[seen]).T)
        return chance[seen], after, seen.nonzero()[0]
