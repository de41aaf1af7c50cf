"""What is declared about a controlled process, as opposed to learned from its transitions.

A learned world is p(s', r, terminated | s, a). People often know parts of it: that an angle comes
round, what a step costs, when an episode is over. What a `Task` declares is taken as it is; what it
leaves at None is learned. A declared rule may be wrong, and then no number of transitions helps:
the report of a plan says which parts were declared.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.mdp.model.arrays import BoolArray, FloatArray, IntArray
from likely.mdp.worlds.gymnasium import make_environment
from likely.world.hidden import HiddenPole
from likely.world.pixels import POLE, Codes, PixelPole, Pixels
from likely.world.trajectories import Trajectories, numbers

if TYPE_CHECKING:
    from likely.world.memory import Memory


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """A controlled process as far as it is known beforehand.

    Attributes:
        name: for people and for files.
        environment: a Gymnasium name, or a function that makes an environment; None where there is
            only a log.
        variables: [d] names of the variables of the state.
        low, high: [d] the box that is planned in; states beyond it count as on its edge.
        actions: [A] what `environment.step` takes, by the number of the action.
        angles: variables that come round; their box is one full turn.
        encode: observations [n, o] to states [n, d]; None where they are the same.
        reward: states [n, d], action numbers [n], next states [n, d] to rewards [n]; None: learned.
        terminated: next states [n, d] to bool [n]; None: learned.
        discount: of the plan, below 1.
        grid: [d] points a variable of the planning grid.
        degree: of the polynomial model.
        hold: steps that a random action is held on average when transitions are collected.
        pixels: how observations hold pictures; `fit` then makes `encode` and the box from the log.
        quadrature: nodes for the noise of each variable; see `to_mdp`.
        end_degree: of the monomials that learned ends may use.
        memory: makes states of what an episode has shown so far; `fit` of a "vrnn" gives it.
    """

    name: str
    environment: str | Callable[[], Any] | None
    variables: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    actions: tuple[Any, ...]
    angles: tuple[int, ...] = ()
    encode: Callable[[FloatArray], FloatArray] | None = None
    reward: Callable[[FloatArray, IntArray, FloatArray], FloatArray] | None = None
    terminated: Callable[[FloatArray], BoolArray] | None = None
    discount: float = 0.99
    grid: tuple[int, ...] = ()
    degree: int = 2
    hold: float = 1.0
    pixels: Pixels | None = None
    quadrature: int = 3
    end_degree: int = 2
    memory: Memory | None = None

    def __post_init__(self) -> None:
        sizes = {len(self.variables), len(self.low), len(self.high)}
        if len(sizes) > 1 or (self.grid and len(self.grid) != self.dimensions):
            raise InvalidSetting(
                f"{self.name}: {self.dimensions} variables, but {len(self.low)} lows, "
                f"{len(self.high)} highs and {len(self.grid)} sides of the grid; these must agree"
            )
        for name, low, high in zip(self.variables, self.low, self.high, strict=True):
            if not (np.isfinite([low, high]).all() and low < high):
                raise InvalidSetting(f"{self.name}: the box of {name} is [{low}, {high}]")
        if not all(0 <= k < self.dimensions for k in self.angles):
            raise InvalidSetting(
                f"{self.name}: angles {self.angles}; expected numbers of variables, 0 to "
                f"{self.dimensions - 1}"
            )
        if len(self.actions) < 1:
            raise InvalidSetting(f"{self.name}: a task needs at least one action")

    @property
    def dimensions(self) -> int:
        """Variables of the state, d."""
        return len(self.variables)

    @property
    def declared(self) -> tuple[str, ...]:
        """Which parts of the world are taken from the task and not learned."""
        return tuple(n for n in ("reward", "terminated") if getattr(self, n) is not None)

    def undeclared(self) -> Task:
        """The same task with rewards and ends to be learned."""
        return dataclasses.replace(self, reward=None, terminated=None)

    def make(self, **options: Any) -> Any:
        """An environment; `options` as `render_mode` go to `gymnasium.make`."""
        if self.environment is None:
            raise InvalidSetting(f"{self.name} has no environment: it is only a log")
        if callable(self.environment):
            return self.environment(**options)
        return make_environment(self.environment, **options)

    def states(self, observation: Any) -> FloatArray:
        """States [n, d] of observations [n, o]; of a task with a memory they are states already."""
        if self.pixels is not None and self.encode is None:
            raise InvalidSetting(f"{self.name} is seen as pictures: `fit` makes their codes first")
        rows = np.atleast_2d(numbers(observation))
        states = rows if self.encode is None else np.asarray(self.encode(rows), dtype=np.float64)
        if states.ndim != 2 or states.shape[1] != self.dimensions:
            hint = "" if self.memory is None else "; a memory makes them: act in plan.model.task"
            raise InvalidData(
                f"{self.name}: observations {list(rows.shape)} give states {list(states.shape)}, "
                f"expected {self.dimensions} columns: {', '.join(self.variables)}{hint}"
            )
        if not np.isfinite(states).all():
            row = int(np.argmin(np.isfinite(states).all(axis=1)))
            raise InvalidData(f"{self.name}: the state of observation {row} is not finite")
        return states

    def states_of(self, log: Trajectories) -> tuple[FloatArray, FloatArray]:
        """States before and after each row of a log, [N, d] each."""
        if self.memory is not None:
            return self.memory.beliefs(log)
        return self.states(log.observation), self.states(log.next_observation)

    def action_numbers(self, action: Any) -> IntArray:
        """[n] numbers of the actions of a log.

        Raises:
            InvalidData: an action that the task does not list; names it.
        """
        listed = np.asarray(self.actions, dtype=np.float64).reshape(len(self.actions), -1)
        taken = np.asarray(action, dtype=np.float64)
        taken = taken.reshape(len(taken), -1)
        if taken.shape[1] != listed.shape[1]:
            raise InvalidData(
                f"{self.name}: actions have {taken.shape[1]} numbers, expected {listed.shape[1]}"
            )
        distance = np.abs(taken[:, None] - listed[None]).max(axis=2)
        number = distance.argmin(axis=1)
        off = distance[np.arange(len(taken)), number]
        if len(off) and not off.max() <= 1e-5:  # nor where it is no number
            row = int(off.argmax())
            raise InvalidData(
                f"{self.name}: row {row} has the action {taken[row].tolist()}, none of the "
                f"{len(self.actions)} that are planned with; list it in Task.actions, or round the "
                "log to those"
            )
        return np.asarray(number, dtype=np.int64)

    def difference(self, after: FloatArray, before: FloatArray) -> FloatArray:
        """after - before, [..., d]; angles the shorter way round."""
        change = np.asarray(after - before)
        for k in self.angles:
            turn = self.high[k] - self.low[k]
            change[..., k] = (change[..., k] + turn / 2) % turn - turn / 2
        return change

    def inside(self, state: FloatArray) -> FloatArray:
        """States with their angles brought into the box; [..., d]."""
        if not self.angles:
            return state
        state = state.copy()
        for k in self.angles:
            turn = self.high[k] - self.low[k]
            state[..., k] = (state[..., k] - self.low[k]) % turn + self.low[k]
        return state


def _pole_fell(state: FloatArray) -> BoolArray:
    return np.asarray((abs(state[..., 0]) > 2.4) | (abs(state[..., 2]) > 12.0 * np.pi / 180.0))


def _one(state: FloatArray, action: IntArray, next_state: FloatArray) -> FloatArray:
    return np.ones(state.shape[:-1])


def _minus_one(state: FloatArray, action: IntArray, next_state: FloatArray) -> FloatArray:
    return -np.ones(state.shape[:-1])


def _at_flag(state: FloatArray) -> BoolArray:
    return np.asarray((state[..., 0] >= 0.5) & (state[..., 1] >= 0.0))


TORQUES = (-2.0, -1.0, 0.0, 1.0, 2.0)


def _pendulum_cost(state: FloatArray, action: IntArray, next_state: FloatArray) -> FloatArray:
    torque = np.asarray(TORQUES)[action]
    upright = (state[..., 0] + np.pi) % (2.0 * np.pi) - np.pi
    return np.asarray(-(upright**2) - 0.1 * state[..., 1] ** 2 - 0.001 * torque**2)


def _angle_first(observation: FloatArray) -> FloatArray:
    """Cosine, sine and speed to angle and speed."""
    angle = np.arctan2(observation[:, 1], observation[:, 0])
    return np.column_stack([angle, observation[:, 2]])


def _two_angles(observation: FloatArray) -> FloatArray:
    first = np.arctan2(observation[:, 1], observation[:, 0])
    second = np.arctan2(observation[:, 3], observation[:, 2])
    return np.column_stack([first, second, observation[:, 4:]])


def _tip_is_high(state: FloatArray) -> BoolArray:
    return np.asarray(-np.cos(state[..., 0]) - np.cos(state[..., 0] + state[..., 1]) > 1.0)


def _until_high(state: FloatArray, action: IntArray, next_state: FloatArray) -> FloatArray:
    return np.asarray(np.where(_tip_is_high(next_state), 0.0, -1.0))


# Rewards and ends of episodes as Gymnasium documents them.
TASKS: dict[str, Task] = {
    "cartpole": Task(
        "cartpole", "CartPole-v1",
        ("position", "velocity", "angle", "angular velocity"),
        (-2.4, -3.0, -0.2094, -3.5), (2.4, 3.0, 0.2094, 3.5),
        (0, 1), reward=_one, terminated=_pole_fell, grid=(11, 11, 11, 15), degree=3,
    ),
    "mountaincar": Task(
        "mountaincar", "MountainCar-v0", ("position", "velocity"),
        (-1.2, -0.07), (0.6, 0.07),
        (0, 1, 2), reward=_minus_one, terminated=_at_flag, grid=(91, 61), degree=5, hold=8.0,
    ),
    "pendulum": Task(
        "pendulum", "Pendulum-v1", ("angle", "speed"),
        (-np.pi, -8.0), (np.pi, 8.0),
        tuple((torque,) for torque in TORQUES),
        angles=(0,), encode=_angle_first, reward=_pendulum_cost,
        terminated=lambda state: np.zeros(state.shape[:-1], dtype=bool),
        discount=0.98, grid=(61, 61), degree=3, hold=1.0,
    ),
    "acrobot": Task(
        "acrobot", "Acrobot-v1", ("angle 1", "angle 2", "speed 1", "speed 2"),
        (-np.pi, -np.pi, -4.0 * np.pi, -9.0 * np.pi), (np.pi, np.pi, 4.0 * np.pi, 9.0 * np.pi),
        (0, 1, 2), angles=(0, 1), encode=_two_angles, reward=_until_high, terminated=_tip_is_high,
        grid=(15, 15, 15, 15), degree=4, hold=4.0, quadrature=1,
    ),
    "cartpole-hidden": Task(
        "cartpole-hidden", HiddenPole, ("position", "angle"), (-2.4, -0.2094), (2.4, 0.2094),
        (0, 1), reward=_one, grid=(41, 41), degree=3, end_degree=3,
    ),
    "cartpole-pixels": Task(
        "cartpole-pixels", PixelPole, ("code 1", "code 2", "change 1", "change 2", "push"),
        (-1e9, -1e9, -1e9, -1e9, 0.0), (1e9, 1e9, 1e9, 1e9, 2.0),
        (0, 1), reward=_one, grid=(11, 11, 11, 11, 2), degree=3, pixels=POLE, quadrature=1,
        end_degree=3,
    ),
}  # fmt: skip


def task_of(environment: Any, discount: float = 0.99) -> Task:
    """The task of a name, of an environment, or itself.

    Args:
        environment: a `Task`; a name of `TASKS`; "module:name" of a task of yours; a Gymnasium name
            ("module:Name-v0" of one that a module registers) or environment with a box of
            observations and a discrete set of actions, about which nothing is declared then but
            the box, where it is finite.
        discount: where the task says none.

    Raises:
        InvalidSetting: an unknown name, or spaces that are not of this kind.
    """
    if isinstance(environment, Task):
        return environment
    if isinstance(environment, str):
        if environment in TASKS:
            return TASKS[environment]
        for task in TASKS.values():
            if task.environment == environment:
                return task
        if ":" in environment and "-v" not in environment:
            return _imported(environment)
        if "-v" not in environment:
            raise InvalidSetting(
                f'unknown task "{environment}"; {nearest(environment, TASKS)}; or a Gymnasium name '
                "as CartPole-v1, or module:name of a likely.world.Task"
            )
    instance = make_environment(environment) if isinstance(environment, str) else environment
    spec = getattr(instance, "spec", None)
    name = getattr(spec, "id", None) or type(instance).__name__
    if not isinstance(environment, str) and name in {
        *TASKS,
        *(t.environment for t in TASKS.values()),
    }:
        return task_of(name)
    observed, taken = instance.observation_space, instance.action_space
    if getattr(observed, "shape", None) is None or len(observed.shape) != 1:
        raise InvalidSetting(
            f"{name} observes {observed}; expected a flat box of numbers: declare a Task whose "
            "`encode` makes states of them"
        )
    if not hasattr(taken, "n"):
        raise InvalidSetting(
            f"{name} takes {taken}; a plan chooses among a few actions: declare them in a Task"
        )
    variables = tuple(f"s{k}" for k in range(observed.shape[0]))
    # A box without an end is planned in where the data is; see `fit`.
    low, high = (np.asarray(e, dtype=np.float64) for e in (observed.low, observed.high))
    low, high = np.where(low < -1e6, -1e6, low), np.where(high > 1e6, 1e6, high)
    first = int(getattr(taken, "start", 0))
    made = environment if isinstance(environment, str) else lambda **_: instance
    return Task(
        str(name), made, variables, tuple(low.tolist()), tuple(high.tolist()),
        tuple(range(first, first + int(taken.n))), discount=discount,
    )  # fmt: skip


def task_for(log: Any, task: Any = None) -> Task:
    """The task that is given, else that of the environment which a log names.

    Raises:
        InvalidSetting: neither is known; asks for `task`.
    """
    if task is not None:
        return task_of(task)
    if not log.environment:
        raise InvalidSetting("the log names no environment: give task=likely.world.Task(...)")
    try:
        return task_of(log.environment)
    except InvalidSetting:
        raise InvalidSetting(
            f'the log is of "{log.environment}", which is none of the tasks here: give task='
        ) from None


def _imported(name: str) -> Task:
    module, _, attribute = name.partition(":")
    try:
        value = getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise InvalidSetting(
            f'"{name}" cannot be imported: {error}; the folder that holds it must be on PYTHONPATH'
        ) from None
    except AttributeError as error:
        raise InvalidSetting(f'"{name}" cannot be imported: {error}') from None
    if not isinstance(value, Task):
        raise InvalidSetting(f'"{name}" is {type(value).__name__}, expected a likely.world.Task')
    return value


def within_data(task: Task, states: FloatArray) -> Task:
    """The task with open sides of its box closed where the data ends, a tenth wider."""
    low, high = np.array(task.low), np.array(task.high)
    open_low, open_high = low <= -1e6, high >= 1e6
    if not (open_low.any() or open_high.any()):
        return task
    least, most = states.min(axis=0), states.max(axis=0)
    margin = 0.1 * np.maximum(most - least, 1e-6)
    low = np.where(open_low, least - margin, low)
    high = np.where(open_high, most + margin, high)
    return dataclasses.replace(task, low=tuple(low.tolist()), high=tuple(high.tolist()))


def with_codes(task: Task, log: Any, codes: Codes) -> Task:
    """A task whose states are codes of pictures."""
    states = codes(np.concatenate([log.observation, log.next_observation[-1:]]))
    return within_most(dataclasses.replace(task, encode=codes), states)


def within_most(task: Task, states: FloatArray) -> Task:
    """The task with open sides of its box closed where most states [n, d] are.

    A twentieth is added to their middle 99 %: a few far ones would make cells wide.
    """
    low, high = np.array(task.low), np.array(task.high)
    least, most = np.quantile(states, (0.005, 0.995), axis=0)
    margin = 0.05 * (most - least)
    low, high = (
        np.where(low <= -1e6, least - margin, low),
        np.where(high >= 1e6, most + margin, high),
    )
    return dataclasses.replace(task, low=tuple(low.tolist()), high=tuple(high.tolist()))


def sides(task: Task, grid: Sequence[int] | None = None) -> tuple[int, ...]:
    """Points a side of the planning grid: those asked for, those of the task, or about 20,000."""
    if grid is not None:
        counts = tuple(int(side) for side in grid)
    elif task.grid:
        counts = task.grid
    else:
        counts = (max(3, min(101, round(20_000 ** (1.0 / task.dimensions)))),) * task.dimensions
    if len(counts) != task.dimensions or min(counts) < 2:
        raise InvalidSetting(
            f"grid {'x'.join(map(str, counts))}: expected {task.dimensions} sides of at least 2, "
            f"one for each of {', '.join(task.variables)}"
        )
    return counts
