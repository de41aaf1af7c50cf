"""`collect` and `act`: the true environment, to gather and to try; `simulate`: a learned one."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidSetting, nearest
from likely.estimate import Estimate, Relation
from likely.mdp.model.arrays import Array, BoolArray, FloatArray, IntArray
from likely.world.model import TransitionModel
from likely.world.tasks import Task, task_of
from likely.world.trajectories import Trajectories, numbers

# Observations [n, o] to numbers of actions [n].
Policy = Callable[[FloatArray], Any]


def collect(
    environment: Any,
    policy: str | Policy = "random",
    n: int = 1000,
    seed: int = 0,
    *,
    hold: float | None = None,
) -> Trajectories:
    """Gather n transitions of an environment; a function of (environment, policy, n, seed).

    Args:
        environment: a task, its name, or a Gymnasium environment or its name; see `task_of`.
        policy: "random", all actions equally likely, or a function of observations [1, o] that
            gives the number of an action, as a `Plan` is.
        n: transitions; the last episode is truncated where the record ends.
        hold: steps that a random action is held on average; by default that of the task. In
            MountainCar an action held for one step only never leaves the valley.

    Raises:
        MissingDependency: Gymnasium is not installed.
    """
    if n < 1:
        raise InvalidSetting(f"collect needs at least one transition, given n = {n}")
    task = task_of(environment)
    is_instance = hasattr(environment, "step") and not isinstance(environment, Task)
    instance = environment if is_instance else task.make()
    noise = np.random.default_rng(seed)
    choose = _policy(task, policy, task.hold if hold is None else hold, noise)
    rows: list[tuple[Any, ...]] = []
    episode, observation, watch = 0, instance.reset(seed=seed)[0], _Watch(task, 1)
    seen = watch.first([observation])
    for step in range(n):
        number = int(np.ravel(choose(seen))[0])
        action = _taken(task, number)
        after, reward, ended, cut, _ = instance.step(action)
        rows.append((observation, action, reward, after, bool(ended),
                     bool(cut or step == n - 1) and not ended, episode))  # fmt: skip
        observation, seen = after, watch.next([0], [after], [number])
        if ended or cut:
            episode, observation, watch = episode + 1, instance.reset()[0], _Watch(task, 1)
            seen = watch.first([observation])
            choose = _policy(task, policy, task.hold if hold is None else hold, noise)
    if not is_instance:
        instance.close()
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    name = task.environment if isinstance(task.environment, str) else task.name
    return Trajectories(
        numbers(columns[0]), columns[1], columns[2].astype(np.float64),
        numbers(columns[3]), columns[4], columns[5], columns[6].astype(np.int64),
        str(name),
    )  # fmt: skip


class _Watch:
    """What a policy is given of n episodes: observations, or the states of a memory."""

    def __init__(self, task: Task, n: int) -> None:
        self.memory = task.memory
        self.filter, self.n = None if self.memory is None else self.memory.begin(n), n

    def first(self, observations: Any) -> FloatArray:
        """Of the first observations."""
        return self._given(np.arange(self.n), observations, None)

    def next(self, rows: Any, observations: Any, action: Any) -> FloatArray:
        """Of some episodes, after actions."""
        return self._given(np.asarray(rows), observations, np.asarray(action, dtype=np.int64))

    def _given(self, rows: IntArray, observations: Any, action: IntArray | None) -> FloatArray:
        seen = np.stack([np.asarray(each, dtype=np.float64) for each in observations])
        if self.filter is None or self.memory is None:
            return seen
        return self.filter.see(rows, self.memory.task.states(seen), action)


def _taken(task: Task, number: int) -> Any:
    action = task.actions[number]
    return action if isinstance(action, int) else np.asarray(action, dtype=np.float32)


def _policy(task: Task, policy: str | Policy, hold: float, noise: np.random.Generator) -> Policy:
    if callable(policy):
        return policy
    if policy != "random":
        raise InvalidSetting(f'policy "{policy}" is unknown; {nearest(policy, ["random"])}')
    if not hold >= 1.0:
        raise InvalidSetting(f"an action is held for at least 1 step, given {hold}")
    held: list[IntArray] = []

    def choose(observation: FloatArray) -> IntArray:
        n = len(observation)
        fresh = noise.integers(len(task.actions), size=n)
        again = noise.random(n) < 1.0 / hold
        held[:] = [fresh if not held or len(held[0]) != n else np.where(again, fresh, held[0])]
        return held[0]

    return choose


@dataclasses.dataclass(frozen=True, eq=False)
class Played:
    """Episodes of a policy in an environment.

    Attributes:
        returns: [episodes] sums of rewards.
        discounted: [episodes] discounted sums.
        lengths: [episodes] steps.
        terminated: [episodes] False where an episode was cut.
        first: [episodes, o] first observations, or the states that a memory makes of them.
        limit: steps after which an episode is cut, or None where the environment does not say it.
        frames: pictures of the first episode, where they were asked for.
    """

    returns: FloatArray
    discounted: FloatArray
    lengths: IntArray
    terminated: BoolArray
    first: FloatArray
    discount: float
    limit: int | None = None
    frames: tuple[NDArray[np.uint8], ...] = ()

    def estimate(self, discounted: bool = False) -> Estimate:
        """The mean return, with its standard error."""
        values = self.discounted if discounted else self.returns
        return Estimate.mean_of(
            values.tolist(), unit="reward", relation=Relation.APPROXIMATE, fingerprint="",
            quantity=f"return, discount {self.discount:g}" if discounted else "return",
            lower_is_better=False, about=f"{len(values)} episodes",
        )  # fmt: skip

    def __str__(self) -> str:
        error = (
            self.returns.std(ddof=1) / math.sqrt(len(self.returns)) if len(self.returns) > 1 else 0
        )
        return (
            f"mean return {self.returns.mean():.6g} ± {error:.2g} over {len(self.returns)} "
            f"episodes (smallest {self.returns.min():g}, largest {self.returns.max():g}; "
            f"{int(self.terminated.sum())} terminated, mean length {self.lengths.mean():.4g})"
        )

    __repr__ = __str__


def act(
    environment: Any,
    policy: str | Policy = "random",
    episodes: int = 20,
    seed: int = 0,
    *,
    discount: float | None = None,
    max_steps: int = 10_000,
    frames: bool = False,
) -> Played:
    """Run a policy in the true environment.

    Episode i begins with the seed `seed` + i, so two policies meet the same first states. The
    episodes of a task run side by side: the policy sees their observations [n, o] at once.

    Args:
        environment: as for `collect`.
        policy: a `Plan`, "random", or a function of observations [n, o] to action numbers [n].
        discount: of the discounted return; by default that of the task.
        max_steps: an episode that is longer counts as cut.
        frames: keep pictures of the first episode (`rgb_array`).

    Raises:
        MissingDependency: Gymnasium is not installed, or for frames what it draws with.
        InvalidSetting: pictures of an environment that draws none.
    """
    if episodes < 1:
        raise InvalidSetting(f"act needs at least one episode, given {episodes}")
    task = task_of(environment)
    if frames:  # drawn into an array: no window
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    rate = task.discount if discount is None else discount
    if hasattr(environment, "step") and not isinstance(environment, Task):
        parts = [
            _side_by_side(task, [environment], policy, seed + i, rate, max_steps, frames and i == 0)
            for i in range(episodes)
        ]
        return _joined(parts)
    first = [_drawn(task)] if frames else []
    instances = [*first, *(task.make() for _ in range(episodes - len(first)))]
    played = _side_by_side(task, instances, policy, seed, rate, max_steps, frames)
    for instance in instances:
        instance.close()
    return played


def _drawn(task: Task) -> Any:
    """An environment that renders into an array."""
    try:
        return task.make(render_mode="rgb_array")
    except TypeError as error:
        raise InvalidSetting(f"{task.name} draws no pictures: {error}") from error


def _joined(parts: list[Played]) -> Played:
    def all_of(name: str) -> Array:
        return np.concatenate([getattr(part, name) for part in parts])

    return dataclasses.replace(
        parts[0], returns=all_of("returns"), discounted=all_of("discounted"),
        lengths=all_of("lengths"), terminated=all_of("terminated"), first=all_of("first"),
    )  # fmt: skip


def _side_by_side(
    task: Task, instances: list[Any], policy: str | Policy, seed: int, discount: float,
    max_steps: int, frames: bool,
) -> Played:  # fmt: skip
    n = len(instances)
    choose = _policy(task, policy, 1.0, np.random.default_rng(seed))
    watch = _Watch(task, n)
    seen = watch.first([i.reset(seed=seed + k)[0] for k, i in enumerate(instances)])
    returns, discounted, lengths = np.zeros(n), np.zeros(n), np.zeros(n, dtype=np.int64)
    first = seen.copy()
    ended, live, pictures = np.zeros(n, dtype=bool), np.arange(n), []
    for step in range(max_steps):
        numbers = np.asarray(choose(seen[live]))
        if frames and live[0] == 0:
            if (picture := instances[0].render()) is None:
                raise InvalidSetting(f"{task.name} draws no pictures: its render() gave none")
            pictures.append(np.asarray(picture, dtype=np.uint8))
        over, landed = np.zeros(len(live), dtype=bool), []
        for j, i in enumerate(live):
            after, reward, end, cut, _ = instances[i].step(_taken(task, int(numbers[j])))
            landed.append(after)
            returns[i] += reward
            discounted[i] += discount**step * reward
            lengths[i] += 1
            ended[i], over[j] = end, end or cut
        seen[live] = watch.next(live, landed, numbers)
        live = live[~over]
        if not len(live):
            break
    limit = getattr(getattr(instances[0], "spec", None), "max_episode_steps", None)
    limit = None if limit is None else min(limit, max_steps)
    return Played(returns, discounted, lengths, ended, first, discount, limit, tuple(pictures))


def simulate(
    model: TransitionModel,
    observation: Any,
    policy: str | Policy = "random",
    steps: int = 100,
    *,
    seed: int = 0,
) -> Trajectories:
    """Draw episodes from a learned world; a function of (model, observations, policy, seed).

    Args:
        model: from `fit`.
        observation: [n, o] that the episodes begin with.
        policy: as for `act`; a function of states [n, d].
        steps: at which an episode is cut.

    Returns:
        States as observations; of a world with a memory what is seen, as the network draws it.
    """
    task, noise = model.task, np.random.default_rng(seed)
    watch = None if task.memory is None else task.memory.begin(len(np.atleast_2d(observation)))
    if task.memory is None or watch is None:
        seen = state = np.array(task.states(observation))
    else:
        seen = np.array(task.memory.task.states(observation))
        state = watch.see(np.arange(len(seen)), seen)
    choose, live = _policy(task, policy, task.hold, noise), np.arange(len(seen))
    parts: list[tuple[Array, ...]] = []
    for step in range(steps):
        action = np.asarray(choose(state[live]), dtype=np.int64)
        if watch is None:
            landed = after = model.move(state[live], action, noise)
        else:
            landed = watch.draw(live, action, noise)
            after = watch.states(live)
        over = model.ends.draw(after, noise)
        paid = model.rewards.draw(state[live], action, after, over, noise)
        cut = ~over & (step == steps - 1)
        parts.append((seen[live], np.array(task.actions)[action], paid, landed, over, cut, live))
        seen[live], state[live] = landed, after
        live = live[~over]
        if not len(live):
            break
    order = np.argsort(np.concatenate([part[-1] for part in parts]), kind="stable")
    before, taken, reward, later, ended, cuts, episode = (
        np.concatenate(column)[order] for column in zip(*parts, strict=True)
    )
    return Trajectories(before, taken, reward, later, ended, cuts, episode)
