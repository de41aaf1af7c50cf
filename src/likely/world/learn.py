"""`fit`: from logged transitions to p(s', r, terminated | s, a), and its nats on held-out rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from likely.errors import InvalidData, InvalidSetting, nearest
from likely.estimate import Estimate, Relation
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.world.features import Features, ridge
from likely.world.heads import EndHead, RewardHead
from likely.world.memory import fit_memory, with_memory
from likely.world.mixture import MixtureModel
from likely.world.model import SMALLEST, Branches, TransitionModel
from likely.world.pixels import fit_codes
from likely.world.tasks import Task, task_for, with_codes, within_data
from likely.world.trajectories import Trajectories

EM_STEPS = 15


class PolynomialModel(TransitionModel):
    """s' = s + m_a + W_a f(s) + noise: a ridge regression for each action.

    The noise is a Gaussian and, where rows disagree with it, a second wide one: what happens
    rarely, as the wall of MountainCar, must not bend the regression of the rest (contaminated
    normal; Tukey 1960; fitted by EM). Its spreads are those of rows left out one by one, so few
    transitions leave a wide density.
    """

    def __init__(self, task: Task, rewards: RewardHead, ends: EndHead, data: Columns,
                 degree: int) -> None:  # fmt: skip
        super().__init__(task, rewards, ends, "")
        self.features = Features(task, degree)
        shape = (len(task.actions), self.features.size, task.dimensions)
        self.offset, self.weights = np.zeros((shape[0], shape[2])), np.zeros(shape)
        least = SMALLEST * (np.array(task.high) - np.array(task.low))
        x = self.features(data.state)
        usual = np.ones(len(x))  # the chance of each row to be no exception
        errors = self._regress(x, data, usual)
        self.rare, self.spread = 0.0, np.maximum(_size(errors), least)[None]
        for _ in range(EM_STEPS):
            narrow = np.maximum(_size(errors, usual), least)
            at = np.broadcast_to(narrow, errors.shape)
            if usual.min() == 1.0:  # where to begin: exceptions do not move the median of an action
                at = np.maximum(_medians(errors, data.action) / 0.6745, least)
            wide = np.maximum(_size(errors, 1.0 - usual + 1e-9), 3.0 * narrow)
            rare = max(1.0 - usual.mean(), 1.0 / len(x))
            logs = [
                np.log(part) - np.log(size).sum(axis=-1) - 0.5 * ((errors / size) ** 2).sum(axis=1)
                for part, size in ((1.0 - rare, at), (rare, wide))
            ]
            usual = 1.0 / (1.0 + np.exp(np.clip(logs[1] - logs[0], -700, 700)))
            if any(usual[data.action == a].sum() < 2.0 for a in range(shape[0])):
                break
            errors = self._regress(x, data, usual)
            self.rare, self.spread = float(1.0 - usual.mean()), np.stack([narrow, wide])
        if self.rare * len(x) < 2.0:  # no exceptions
            errors = self._regress(x, data, np.ones(len(x)))
            self.rare, self.spread = 0.0, np.maximum(_size(errors), least)[None]
        words = {1: "linear", 2: "quadratic", 3: "cubic"}
        self.about = (
            f"{words.get(degree, f'degree {degree}')} ridge, {self.features.size} monomials"
        )
        if self.rare:
            self.about += f", {self.rare:.1%} exceptions"

    def _regress(self, x: FloatArray, data: Columns, share: FloatArray) -> FloatArray:
        """Fit the actions; leave-one-out errors [n, d]."""
        errors = np.zeros_like(data.change)
        for a, action in enumerate(self.task.actions):
            rows = data.action == a
            if not rows.any():
                raise InvalidData(
                    f"{self.task.name}: action {action} was never taken: nothing is known of it; "
                    "collect more, or leave it out of Task.actions"
                )
            fitted = ridge(x[rows], data.change[rows], share[rows])
            self.offset[a], self.weights[a] = fitted.offset, fitted.weights
            errors[rows] = fitted.left_out
        return errors

    def land(self, state: FloatArray, action: IntArray) -> Branches:
        f = self.features(state)
        if np.ndim(action) == 0:
            change = self.offset[action] + f @ self.weights[action]
        else:
            change = np.empty_like(state)
            for a in np.unique(action):
                rows = action == a
                change[rows] = self.offset[a] + f[rows] @ self.weights[a]
        centre = self.task.inside(state + change)[:, None]
        chances = np.array([1.0 - self.rare, self.rare])[: len(self.spread)]
        shape = (len(state), len(chances))
        return Branches(
            np.broadcast_to(chances, shape),
            np.broadcast_to(centre, (*shape, state.shape[1])), self.spread,
        )  # fmt: skip


class MeanChange(TransitionModel):
    """s' = s + the mean change of the action: the null model."""

    def __init__(self, task: Task, rewards: RewardHead, ends: EndHead, data: Columns) -> None:
        super().__init__(task, rewards, ends, "mean change of each action")
        self.change = np.zeros((len(task.actions), task.dimensions))
        left = data.change.copy()
        for a in range(len(task.actions)):
            rows = data.action == a
            n = int(rows.sum())
            if n:
                self.change[a] = data.change[rows].mean(axis=0)
                left[rows] = (left[rows] - self.change[a]) * (n / max(n - 1, 1))
        size = np.array(task.high) - np.array(task.low)
        self.spread = np.maximum(_size(left), SMALLEST * size)[None]

    def land(self, state: FloatArray, action: IntArray) -> Branches:
        centre = self.task.inside(state + self.change[action])[:, None]
        return Branches(np.ones((len(state), 1)), centre, self.spread)


class Neighbours(TransitionModel):
    """s' = s + the change of one of the k nearest stored states with the same action.

    Distances are of states scaled by their standard deviation. The spread around each is that of
    the nearest neighbour's own error.
    """

    def __init__(self, task: Task, rewards: RewardHead, ends: EndHead, data: Columns,
                 neighbours: int) -> None:  # fmt: skip
        from scipy.spatial import cKDTree

        super().__init__(task, rewards, ends, f"{neighbours} nearest neighbours")
        self.features = Features(task, 1)
        points = self.features(data.state)
        self.scale = np.maximum(points.std(axis=0), 1e-9)
        self.trees, self.changes, errors = [], [], []
        for a in range(len(task.actions)):
            rows = data.action == a
            if int(rows.sum()) < 2:
                raise InvalidData(
                    f"{task.name}: action {task.actions[a]} was taken less than twice"
                )
            tree = cKDTree(points[rows] / self.scale)
            change = data.change[rows]
            _, at = tree.query(points[rows] / self.scale, k=2)
            errors.append(change - change[at[:, 1]])
            self.trees.append(tree)
            self.changes.append(change)
        self.k = min(neighbours, *(len(change) for change in self.changes))
        size = np.array(task.high) - np.array(task.low)
        spread = np.maximum(_size(np.concatenate(errors)), SMALLEST * size)
        self.spread = np.repeat(spread[None], self.k, axis=0)

    def land(self, state: FloatArray, action: IntArray) -> Branches:
        points = self.features(state) / self.scale
        action = np.broadcast_to(action, len(state))
        change = np.empty((len(state), self.k, self.task.dimensions))
        for a in np.unique(action):
            rows = action == a
            _, at = self.trees[a].query(points[rows], k=self.k)
            change[rows] = self.changes[a][at.reshape(-1, self.k)]
        centre = self.task.inside(state[:, None] + change)
        return Branches(np.full(centre.shape[:2], 1.0 / self.k), centre, self.spread)


def _medians(errors: FloatArray, action: IntArray) -> FloatArray:
    """[n, d] the median size of the errors of each row's action."""
    sizes = np.empty_like(errors)
    for a in np.unique(action):
        sizes[action == a] = np.median(abs(errors[action == a]), axis=0)
    return sizes


@dataclasses.dataclass(frozen=True)
class Columns:
    """Trajectories as a model reads them: states, action numbers, changes of the state."""

    state: FloatArray
    action: IntArray
    next_state: FloatArray
    change: FloatArray


def columns(task: Task, log: Trajectories) -> Columns:
    """The columns of a log under a task."""
    state, after = task.states_of(log)
    numbers = task.action_numbers(log.action)
    return Columns(state, numbers, after, task.difference(after, state))


def _mixture(
    task: Task, rewards: RewardHead, ends: EndHead, data: Columns, **settings: int
) -> MixtureModel:
    return MixtureModel(task, rewards, ends, data.state, data.action, data.change, **settings)


def _of_beliefs(
    task: Task, rewards: RewardHead, ends: EndHead, data: Columns, degree: int, **sizes: int
) -> PolynomialModel:
    model = PolynomialModel(task, rewards, ends, data, degree)
    assert task.memory is not None
    network = task.memory.network.settings
    model.about = (
        f"VRNN of {network.hidden} units and {network.latent} latents; of its beliefs {model.about}"
    )
    return model


def _size(errors: FloatArray, share: FloatArray | None = None) -> FloatArray:
    return np.asarray(np.sqrt(np.average(errors**2, axis=0, weights=share)))


# Name: the class, and its settings with their defaults (None: of the task).
MODELS: dict[str, tuple[Callable[..., TransitionModel], dict[str, Any]]] = {
    "polynomial": (PolynomialModel, {"degree": None}),
    "linear": (PolynomialModel, {"degree": 1}),
    "neighbours": (Neighbours, {"neighbours": 5}),
    "mixture": (_mixture, {"components": 5, "hidden": 64, "updates": 1000}),
    "vrnn": (_of_beliefs, {"degree": None, "hidden": 32, "latent": 4, "updates": 600}),
    "mean-change": (MeanChange, {}),
}


def fit(
    trajectories: Trajectories,
    model: str = "polynomial",
    *,
    task: Any = None,
    **settings: Any,
) -> TransitionModel:
    """Learn one step of the process, p(s', r, terminated | s, a).

    Args:
        trajectories: from `collect`, `Trajectories.load` or `Trajectories.from_arrays`.
        model: "polynomial" (ridge regression of s' - s for each action), "linear", "neighbours"
            (k nearest), "mixture" (a network that gives several Gaussians), "vrnn" (a recurrent
            network whose memory makes the state, where observations do not), or "mean-change", the
            null model.
        task: what is declared; a `Task`, or what `task_of` takes. By default that of the name of
            the environment in the log.
        settings: `degree` of the polynomial, `neighbours`; `components`, `hidden` and `updates` of
            the mixture; `hidden`, `latent` and `updates` of the VRNN, `degree` of what is planned
            with.

    Raises:
        InvalidSetting: an unknown name.
        InvalidData: an action without transitions, or one that the task does not list.
    """
    if model not in MODELS:
        raise InvalidSetting(f'model "{model}" is unknown; {nearest(model, MODELS)}')
    build, defaults = MODELS[model]
    for name in settings:
        if name not in defaults:
            hint = nearest(name, defaults) if defaults else "it has none"
            raise InvalidSetting(f'model "{model}" has no setting "{name}"; {hint}')
    declared = task_for(trajectories, task)
    chosen = {**defaults, **settings}
    if "degree" in chosen and chosen["degree"] is None:
        chosen["degree"] = declared.degree
    for name, value in chosen.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InvalidSetting(f"{name} must be a whole number from 1, given {value!r}")
    if declared.pixels is not None and declared.encode is None:
        declared = with_codes(declared, trajectories, fit_codes(trajectories, declared.pixels))
    if model == "vrnn" and declared.memory is None:
        seen = np.vstack(declared.states_of(trajectories))
        sizes = {name: chosen[name] for name in defaults if name != "degree"}
        memory = fit_memory(trajectories, within_data(declared, seen), **sizes)
        declared = with_memory(memory.task, trajectories, memory)
    data = columns(declared, trajectories)
    declared = within_data(declared, np.vstack([data.state, data.next_state]))
    over = trajectories.terminated
    rewards = RewardHead(
        declared, data.state, data.action, data.next_state, trajectories.reward, over
    )
    ends = EndHead(declared, data.next_state, over)
    return build(declared, rewards, ends, data, **chosen)


def held_out_nats(
    model: TransitionModel,
    trajectories: Trajectories,
    *,
    steps: Sequence[int] = (1, 5, 20),
    particles: int = 32,
    starts: int = 200,
    seed: int = 0,
) -> dict[int, Estimate]:
    """-log p(s_{t+h} | s_t, a_t .. a_{t+h-1}) on trajectories that were not fitted.

    One step is exact. Further steps are by rollouts: with h - 1 steps drawn K times, the mean of
    the K densities of the last step estimates the likelihood without bias, so its logarithm is a
    lower bound in expectation, and the negative an upper one (Burda et al. 2016, eq. 8).

    Of a world with a memory it is -log p(o_{t+h} | o_0 .. o_t, a_0 .. a_{t+h-1}), a bound for one
    step, too: its filter has particles.

    Args:
        steps: horizons h; those longer than every trajectory are left out.
        particles: K.
        starts: at most so many times t, evenly spread.

    Returns:
        Nats per state by horizon, in the units of the task's variables.

    Raises:
        InvalidSetting: a horizon, particles or starts below 1.
    """
    for name, least in (("steps", min(steps, default=1)), ("particles", particles),
                        ("starts", starts)):  # fmt: skip
        if least < 1:
            raise InvalidSetting(f"{name} must be at least 1, given {least}")
    task, log = model.task, trajectories
    data = columns(task, log) if task.memory is None else None
    left = np.zeros(len(log), dtype=np.int64)  # rows of the episode after this one
    for t in range(len(log) - 2, -1, -1):
        left[t] = left[t + 1] + 1 if log.episode[t] == log.episode[t + 1] else 0
    noise, values = np.random.default_rng(seed), {}
    for h in steps:
        at = np.flatnonzero(left >= h - 1)
        if not len(at):
            continue
        at = at[np.unique(np.linspace(0, len(at) - 1, min(starts, len(at))).round().astype(int))]
        exact = h == 1 and data is not None
        if data is None:
            assert task.memory is not None
            nats = task.memory.nats(log, at, h, particles, seed)
        else:
            nats = _landing_nats(model, data, at, h, 1 if exact else particles, noise)
        values[h] = Estimate.mean_of(
            nats.tolist(), unit="nats", quantity=f"nll-{h}-step", fingerprint=log.fingerprint,
            relation=Relation.EXACT if exact else Relation.UPPER,
            about=f"{model.about}" + ("" if exact else f", {particles} rollouts"),
        )  # fmt: skip
    return values


def _landing_nats(
    model: TransitionModel, data: Columns, at: IntArray, steps: int, particles: int,
    noise: np.random.Generator,
) -> FloatArray:  # fmt: skip
    """-log of the mean density of where rows `at` land after some steps, by rollouts."""
    state = np.repeat(data.state[at], particles, axis=0)
    for k in range(steps - 1):
        state = model.move(state, np.repeat(data.action[at + k], particles), noise)
    last = np.repeat(at + steps - 1, particles)
    logs = model.log_prob(state, data.action[last], data.next_state[last]).reshape(len(at), -1)
    top = logs.max(axis=1)
    return np.asarray(-(top + np.log(np.exp(logs - top[:, None]).mean(axis=1))))
