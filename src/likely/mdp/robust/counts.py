"""How often each action led where: tabular data, for statements about the process behind it."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, whole
from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.mdp.model.build import initial_of
from likely.mdp.model.operators import policy_weights
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import Problem, stored


@dataclasses.dataclass(frozen=True, eq=False)
class SeenRewards:
    """Rewards of which nothing is known but what was paid and the range that they lie in.

    Attributes:
        total, squares: [m] sums over the visits of each pair, of r - least and of its square.
        least, most: the declared range.
    """

    total: FloatArray
    squares: FloatArray
    least: float
    most: float


@dataclasses.dataclass(frozen=True, eq=False)
class Counts:
    """Visits n(s, a, s') with what is known beside them.

    Row i is a state-action pair, column j its j-th possible successor.

    Attributes:
        state, action: [m] the pair of each row.
        successor: [m, k] states that the row may lead to, -1 where there are fewer.
        count: [m, k] how often it did; 0 where `successor` is -1.
        reward: [m, k] r(s, a, s'), known; where `paid` is given, the mean of what the pair paid.
        terminal: [S] where nothing is earned any more.
        initial: [S] distribution of the first state, or None.
        paid: what the pairs paid, where rewards are not known.
    """

    state: IntArray
    action: IntArray
    successor: IntArray
    count: IntArray
    reward: FloatArray
    terminal: BoolArray
    initial: FloatArray | None = None
    paid: SeenRewards | None = None

    @property
    def states(self) -> int:
        """S."""
        return len(self.terminal)

    @property
    def visits(self) -> IntArray:
        """[m] n(s, a)."""
        return np.asarray(self.count.sum(axis=1), dtype=np.int64)

    @property
    def possible(self) -> IntArray:
        """[m] successors that each row may have."""
        return np.asarray((self.successor >= 0).sum(axis=1), dtype=np.int64)

    @property
    def frequency(self) -> FloatArray:
        """[m, k] n(s, a, s') / n(s, a); even over the possible successors where n is 0."""
        n = self.visits[:, None]
        even = (self.successor >= 0) / self.possible[:, None]
        return np.where(n > 0, self.count / np.maximum(n, 1), even)

    @property
    def reward_range(self) -> tuple[float, float]:
        """The least and the largest reward that a step can pay."""
        if self.paid is not None:
            return self.paid.least, self.paid.most
        there = self.reward[self.successor >= 0]
        return float(there.min(initial=0.0)), float(there.max(initial=0.0))

    def unknown_rewards(self, least: float, most: float) -> Counts:
        """The same visits as if rewards were known only where they were paid.

        Args:
            least, most: the range that all rewards lie in, known beforehand.

        Raises:
            InvalidData: a reward outside it.
        """
        if self.paid is not None:
            raise InvalidSetting("the rewards of these counts are unknown already")
        seen = self.count > 0
        _refuse_outside(self.reward[seen], least, most)
        over = np.where(seen, self.reward - least, 0.0)
        paid = SeenRewards(
            (self.count * over).sum(axis=1), (self.count * over**2).sum(axis=1), least, most
        )
        return dataclasses.replace(self, reward=_means(self.count, paid), paid=paid)

    def __repr__(self) -> str:
        n = self.visits if len(self.state) else np.zeros(1, dtype=np.int64)
        return (
            f"Counts({n.sum()} transitions of {len(self.state)} pairs in {self.states} states, "
            f"{n.min()} to {n.max()} each)"
        )

    @classmethod
    def of_transitions(
        cls,
        state: npt.ArrayLike,
        action: npt.ArrayLike,
        next_state: npt.ArrayLike,
        *,
        reward: npt.ArrayLike,
        support: str | npt.ArrayLike,
        reward_range: tuple[float, float] | None = None,
        shape: tuple[int, int] | None = None,
        terminal: npt.ArrayLike | None = None,
        initial: npt.ArrayLike | None = None,
    ) -> Counts:
        """Count a log of numbered states and actions.

        Args:
            state, action, next_state: [N] numbers from 0.
            reward: r(s, a) [S, A] or r(s, a, s') [S, A, S], known; or [N], what each transition
                paid, where rewards are not known.
            reward_range: least and largest reward of all, with a `reward` of [N] only. It must be
                known from elsewhere.
            shape: (S, A), where neither `reward` nor `support` says it.
            support: "all" (any state may follow any), or [S, A, S] bool, the successors that are
                possible. It must be known from elsewhere, as the moves of a grid are.
            terminal: [S] bool.
            initial: [S] distribution of the first state.

        Raises:
            InvalidSetting: support="observed". What was not seen yet may still happen, so a
                confidence set on the observed successors does not contain the truth.
            InvalidData: shapes that do not fit, a transition outside the support, a state that
                goes nowhere and is not terminal, rewards that are not finite.
        """
        pay = np.asarray(reward, dtype=np.float64)
        if pay.ndim == 1:
            if reward_range is None:
                raise InvalidSetting(
                    "rewards of single transitions [N] say nothing of those that were not seen: "
                    "give their range, reward_range=(least, most), or known rewards as [S, A]"
                )
            if shape is None and isinstance(support, str):
                raise InvalidSetting("numbers of states and actions are not said: shape=(S, A)")
            states, actions = np.shape(support)[:2] if shape is None else shape
            if min(states, actions) < 1:
                raise InvalidSetting(f"numbers of states and actions {states} and {actions}: >= 1")
        elif pay.ndim not in (2, 3) or (pay.ndim == 3 and pay.shape[0] != pay.shape[2]):
            raise InvalidData(
                f"reward has shape {list(pay.shape)}, expected [S, A], [S, A, S] or [N]"
            )
        elif reward_range is not None:
            raise InvalidSetting("known rewards have no reward_range: leave it out")
        else:
            states, actions = pay.shape[:2]
        if isinstance(support, str) and support != "all":
            raise InvalidSetting(
                f'support="{support}": the successors that were observed are not those that are '
                'possible; declare them as [S, A, S] bool, or take support="all"'
            )
        allowed = (
            np.ones((states, actions, states), dtype=bool)
            if isinstance(support, str)
            else np.asarray(support, dtype=bool)
        )
        if allowed.shape != (states, actions, states):
            raise InvalidData(
                f"support has shape {list(allowed.shape)}, expected [{states}, {actions}, {states}]"
            )
        ends = np.zeros(states, dtype=bool) if terminal is None else np.asarray(terminal)
        if ends.shape != (states,) or ends.dtype != np.bool_:
            raise InvalidData(
                f"terminal has shape {list(ends.shape)} and type {ends.dtype}, expected [{states}] "
                "bool"
            )
        stuck = np.flatnonzero(~ends & ~allowed.any(axis=(1, 2)))
        if len(stuck):
            raise InvalidData(
                f"state {stuck[0]} has no possible successor; support one, or declare it terminal"
            )
        numbers = [np.asarray(a) for a in (state, action, next_state)]
        shapes = {a.shape for a in numbers}
        if len(shapes) > 1 or any(
            a.ndim != 1 or a.dtype.kind not in "iu" for a in numbers if a.size
        ):
            raise InvalidData(
                "state, action and next_state are whole numbers [N] each, given shapes "
                f"{[list(a.shape) for a in numbers]} and types {[str(a.dtype) for a in numbers]}"
            )
        rows = np.stack(numbers).astype(np.int64)
        if (rows < 0).any() or (rows.max(axis=1, initial=-1) >= [
            states, actions, states
        ]).any():  # fmt: skip
            raise InvalidData(f"numbers of states are 0..{states - 1}, of actions 0..{actions - 1}")
        table = np.zeros((states, actions, states), dtype=np.int64)
        np.add.at(table, tuple(rows), 1)
        outside = np.argwhere((table > 0) & ~allowed)
        if len(outside):
            s, a, t = outside[0]
            raise InvalidData(f"state {s}, action {a} led to {t}, which the support excludes")
        pair = np.argwhere(allowed.any(axis=2) & ~ends[:, None])
        sizes = allowed[pair[:, 0], pair[:, 1]].sum(axis=1)
        width = int(sizes.max(initial=1))
        successor = np.full((len(pair), width), -1, dtype=np.int64)
        owner, column = np.nonzero(allowed[pair[:, 0], pair[:, 1]])
        place = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        successor[owner, place] = column
        s, a, t = pair[:, :1], pair[:, 1:], np.maximum(successor, 0)
        there = successor >= 0
        count, paid = np.where(there, table[s, a, t], 0), None
        if pay.ndim == 1:
            if pay.shape != rows[0].shape:
                raise InvalidData(f"{len(pay)} rewards of {rows.shape[1]} transitions")
            least, most = map(float, reward_range or (0.0, 0.0))
            _refuse_outside(pay, least, most)
            sums = np.zeros((2, states, actions))
            np.add.at(sums, (slice(None), *rows[:2]), np.stack([pay - least, (pay - least) ** 2]))
            total, squares = sums[:, pair[:, 0], pair[:, 1]]
            paid = SeenRewards(total, squares, least, most)
            known = _means(count, paid)
        else:
            known = pay[s, a, t] if pay.ndim == 3 else np.broadcast_to(pay[s, a], t.shape)
            if not np.isfinite(known[there]).all():
                raise InvalidData("rewards must be finite wherever they can be paid")
        return cls(
            pair[:, 0], pair[:, 1], successor, count, np.where(there, known, 0.0), ends,
            initial_of(initial, states), paid,
        )  # fmt: skip


def _refuse_outside(reward: FloatArray, least: float, most: float) -> None:
    if not (math.isfinite(least) and math.isfinite(most) and least < most):
        raise InvalidSetting(
            f"a range of rewards is two numbers, the smaller first, given {least:g}, {most:g}"
        )
    wrong = reward[(reward < least) | (reward > most) | ~np.isfinite(reward)]
    if len(wrong):
        raise InvalidData(
            f"a reward of {wrong[0]:g} lies outside of the range {least:g} to {most:g}"
        )


def _means(count: IntArray, paid: SeenRewards) -> FloatArray:
    """[m, k] what each pair paid on average, the middle of the range where it was never seen."""
    n = count.sum(axis=1)
    mean = np.where(n > 0, paid.total / np.maximum(n, 1), (paid.most - paid.least) / 2)
    return np.repeat((paid.least + mean)[:, None], count.shape[1], axis=1)


def _rows_of(mdp: MDP, known_support: bool) -> tuple[IntArray, FloatArray, FloatArray]:
    """Successors [m, k], probabilities and rewards of all pairs of an MDP."""
    sizes = np.diff(mdp.indptr)
    width = int(sizes.max(initial=1)) if known_support else mdp.states
    owner = np.repeat(np.arange(mdp.pairs), sizes)
    place = np.arange(len(owner)) - mdp.indptr[owner] if known_support else mdp.indices
    successor = np.full((mdp.pairs, width), -1, dtype=np.int64)
    if not known_support:
        successor[:] = np.arange(mdp.states)
    chance, pay = np.zeros(successor.shape), np.zeros(successor.shape)
    successor[owner, place], chance[owner, place] = mdp.indices, mdp.probability
    parts = mdp.successor_reward
    if parts is None:
        pay[:] = mdp.reward[:, None]
    else:
        # Where a successor is entered by luck only, what it pays is known from the others.
        by_state = np.zeros(mdp.states)
        by_state[mdp.indices] = parts
        pay[:] = by_state[np.maximum(successor, 0)]
        pay[owner, place] = parts
    return successor, chance, pay


def draw_counts(problem: Problem, n: int, seed: int = 0, *, known_support: bool = True) -> Counts:
    """n draws of every state-action pair of a known process, as a simulator gives them.

    Args:
        problem: an MDP; its probabilities are only drawn from, its rewards are known.
        known_support: the possible successors are declared, else all states are possible.
    """
    n, seed = whole("n", n, 0), whole("seed", seed, 0)
    mdp = stored(problem)
    successor, chance, pay = _rows_of(mdp, known_support)
    noise = np.random.default_rng(seed)
    count = noise.multinomial(n, chance / chance.sum(axis=1, keepdims=True))
    return Counts(
        np.asarray(mdp.pair_state, dtype=np.int64), np.asarray(mdp.pair_action, dtype=np.int64),
        successor, count, pay, mdp.terminal, mdp.initial,
    )  # fmt: skip


def draw_trajectories(
    problem: Problem, policy: Any, episodes: int, seed: int = 0, *, steps: int = 100,
    known_support: bool = True,
) -> Counts:  # fmt: skip
    """The counts of episodes that a behaviour policy played.

    Args:
        policy: any form that `policy_weights` takes.
        steps: longest episode.
    """
    episodes, steps = whole("episodes", episodes, 0), whole("steps", steps, 0)
    seed = whole("seed", seed, 0)
    mdp = stored(problem)
    if mdp.initial is None:
        raise InvalidSetting("the process has no distribution of first states to begin episodes in")
    weights, noise = policy_weights(mdp, policy), np.random.default_rng(seed)
    successor, chance, pay = _rows_of(mdp, known_support)
    count = np.zeros(successor.shape, dtype=np.int64)
    choose = np.cumsum(weights) - np.repeat(
        np.append(0.0, np.cumsum(weights))[mdp.pair_ptr[:-1]], np.diff(mdp.pair_ptr)
    )
    land, width = np.cumsum(chance, axis=1), np.arange(np.diff(mdp.pair_ptr).max())
    state = noise.choice(mdp.states, size=episodes, p=mdp.initial)
    for _ in range(steps):
        state = state[~mdp.terminal[state]]
        if not len(state):
            break
        u = noise.random(len(state))
        first, last = mdp.pair_ptr[state], mdp.pair_ptr[state + 1] - 1
        place = first[:, None] + width
        below = (choose[np.minimum(place, last[:, None])] <= u[:, None]) & (place <= last[:, None])
        row = first + below.sum(axis=1)
        row = np.minimum(row, last)
        column = (land[row] <= noise.random(len(row))[:, None]).sum(axis=1)
        column = np.minimum(column, (chance[row] > 0).shape[1] - 1)
        # Rounding must not land where there is no successor.
        column = np.where(chance[row, column] > 0, column, chance[row].argmax(axis=1))
        np.add.at(count, (row, column), 1)
        state = successor[row, column]
    return Counts(
        np.asarray(mdp.pair_state, dtype=np.int64), np.asarray(mdp.pair_action, dtype=np.int64),
        successor, count, pay, mdp.terminal, mdp.initial,
    )  # fmt: skip
