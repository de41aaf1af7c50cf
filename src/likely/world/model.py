r"""p(s', r, terminated | s, a): the generative model of one step, and what every kind of it shares.

    p(s', r, e | s, a) = p(s' | s, a)  p(e | s')  p(r | s, a, s', e)

Only p(s' | s, a) differs between the kinds: a `TransitionModel` leaf says where s' may land, as a
mixture of Gaussians with a spread for each branch and variable. From that follow the density,
sampling from given noise, and the branches that a plan sums over. What the task declares of p(r)
and p(e) is a point mass: its log-probability is 0, or minus infinity where the data disagrees.
"""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable

import numpy as np

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.world.heads import EndHead, RewardHead
from likely.world.tasks import Task

# A spread is at least this part of the box: observations are float32.
SMALLEST = 1e-6
# Drawn states stay within so many boxes of the box.
FAR = 10.0
# Rows that are evaluated together.
BLOCK = 4096


@dataclasses.dataclass(frozen=True)
class Branches:
    """Where a step may land: a mixture of Gaussians.

    Attributes:
        weight: [n, m], rows sum to one.
        centre: [n, m, d].
        spread: [m, d] standard deviations, or [n, m, d] where they depend on the state.
    """

    weight: FloatArray
    centre: FloatArray
    spread: FloatArray


@dataclasses.dataclass(frozen=True)
class Step:
    """A drawn step: next states [n, d], rewards [n], terminated [n]."""

    state: FloatArray
    reward: FloatArray
    terminated: BoolArray


class TransitionModel(abc.ABC):
    """One step of a controlled process as a density.

    Attributes:
        task: what was declared.
        rewards: p(r | s, a, s', e).
        ends: p(e | s').
        about: settings that a reader needs, as "cubic, ridge 1e-6".
    """

    kind = "explicit, tractable"

    def __init__(self, task: Task, rewards: RewardHead, ends: EndHead, about: str) -> None:
        self.task, self.rewards, self.ends, self.about = task, rewards, ends, about

    @abc.abstractmethod
    def land(self, state: FloatArray, action: IntArray) -> Branches:
        """p(s' | s, a) of states [n, d] and action numbers [n], or one action for all."""

    def log_prob(
        self,
        state: FloatArray,
        action: IntArray,
        next_state: FloatArray,
        reward: FloatArray | None = None,
        terminated: BoolArray | None = None,
    ) -> FloatArray:
        """log p(s', r, e | s, a) in nats, [n]; of s' alone where r and e are not given.

        A density in the units of the state's variables; models of one task compare, no others.
        """
        state, next_state = _table(state, self.task), _table(next_state, self.task)
        action = _numbers(action, self.task, len(state))
        total = np.concatenate([
            self._landing(state[rows], action[rows], next_state[rows])
            for rows in _blocks(len(state))
        ])  # fmt: skip
        if terminated is not None:
            total += self.ends.log_prob(next_state, terminated)
        if reward is not None:
            over = self.ends.over(next_state) if terminated is None else terminated
            total += self.rewards.log_prob(state, action, next_state, reward, over)
        return total

    def _landing(self, state: FloatArray, action: IntArray, next_state: FloatArray) -> FloatArray:
        branches = self.land(state, action)
        distance = self.task.difference(next_state[:, None, :], branches.centre)
        each = _log_normal(distance, branches.spread)  # [n, m, d]
        for k in self.task.angles:
            turn = self.task.high[k] - self.task.low[k]
            each[..., k] = _log_wrapped(distance[..., k], branches.spread[..., k], turn)
        logs = np.log(branches.weight) + each.sum(axis=2)  # [n, m]
        top = logs.max(axis=1)
        return np.asarray(top + np.log(np.exp(logs - top[:, None]).sum(axis=1)))

    def sample(self, state: FloatArray, action: IntArray, *, seed: int = 0) -> Step:
        """Draw a step from each state [n, d]; a function of (model, states, actions, seed)."""
        return self.draw(state, action, np.random.default_rng(seed))

    def draw(self, state: FloatArray, action: IntArray, noise: np.random.Generator) -> Step:
        """Draw a step from each state [n, d] with a generator's noise."""
        state = _table(state, self.task)
        action = _numbers(action, self.task, len(state))
        after = self.move(state, action, noise)
        over = self.ends.draw(after, noise)
        return Step(after, self.rewards.draw(state, action, after, over, noise), over)

    def move(self, state: FloatArray, action: IntArray, noise: np.random.Generator) -> FloatArray:
        """Draw next states [n, d] alone, at most `FAR` boxes from the box."""
        branches = self.land(state, action)
        rows, picked = np.arange(len(state)), np.zeros(len(state), dtype=np.int64)
        if branches.weight.shape[1] > 1:
            below = np.cumsum(branches.weight, axis=1) < noise.random((len(state), 1))
            picked = np.minimum(below.sum(axis=1), branches.weight.shape[1] - 1)
        spread = np.broadcast_to(branches.spread, branches.centre.shape)[rows, picked]
        wide = noise.standard_normal(state.shape) * spread
        # A polynomial far from its data has no limit, but numbers have.
        low, high = np.array(self.task.low), np.array(self.task.high)
        far = FAR * (high - low)
        after = self.task.inside(branches.centre[rows, picked] + wide)
        return np.asarray(np.clip(after, low - far, high + far))


def _log_normal(distance: FloatArray, spread: FloatArray) -> FloatArray:
    """log N(distance; 0, spread^2)."""
    return -0.5 * (distance / spread) ** 2 - np.log(spread) - 0.5 * math.log(2 * math.pi)


def _log_wrapped(distance: FloatArray, spread: FloatArray, turn: float) -> FloatArray:
    """The same on a circle: the sum over all turns. A spread of one is uniform to 1e-8."""
    spread = np.minimum(spread, turn)[..., None]
    logs = _log_normal(distance[..., None] + turn * np.arange(-8, 9), spread)
    top = logs.max(axis=-1)
    return np.asarray(top + np.log(np.exp(logs - top[..., None]).sum(axis=-1)))


def _numbers(action: IntArray, task: Task, n: int) -> IntArray:
    numbers = np.broadcast_to(np.asarray(action, dtype=np.int64), n)
    if n and not 0 <= numbers.min() <= numbers.max() < len(task.actions):
        raise InvalidData(
            f"{task.name}: actions {numbers.min()} to {numbers.max()}, expected numbers from 0 to "
            f"{len(task.actions) - 1}"
        )
    return numbers


def _table(state: FloatArray, task: Task) -> FloatArray:
    table = np.atleast_2d(np.asarray(state, dtype=np.float64))
    if table.ndim != 2 or table.shape[1] != task.dimensions:
        raise InvalidData(f"states of shape {list(table.shape)}, expected [n, {task.dimensions}]")
    return table


def _blocks(n: int) -> list[slice]:
    return [slice(start, start + BLOCK) for start in range(0, max(n, 1), BLOCK)]


class KnownModel(TransitionModel):
    """A world whose dynamics are declared, too: s' = step(s, a), nothing learned.

    Its plan is grid dynamic programming in the true world, the reference that learned plans stand
    beside; its model error is 0 where the declaration is right.
    """

    def __init__(self, task: Task, step: Callable[[FloatArray, IntArray], FloatArray]) -> None:
        """A world of a task that declares reward and ends.

        Args:
            step: states [n, d] and action numbers, [n] or one for all, to next states [n, d].
        """
        nothing = np.zeros((0, task.dimensions))
        none, never = np.zeros(0), np.zeros(0, dtype=bool)
        if task.reward is None or task.terminated is None:
            raise InvalidSetting(f"{task.name}: a known world declares reward and terminated, too")
        rewards = RewardHead(task, nothing, none.astype(np.int64), nothing, none, never)
        super().__init__(task, rewards, EndHead(task, nothing, never), "known")
        self.step = step
        self.spread = SMALLEST * (np.array(task.high) - np.array(task.low))[None]

    def land(self, state: FloatArray, action: IntArray) -> Branches:
        centre = self.task.inside(np.asarray(self.step(state, action)))[:, None]
        return Branches(np.ones((len(state), 1)), centre, self.spread)
