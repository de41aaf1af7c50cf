r"""Worlds that are not seen whole: a VRNN over what is seen, and its belief as the state.

Where velocities are hidden, an observation is no state, and no p(o' | o, a) tells what comes. A
`VRNN` of the package (Chung et al. 2015, https://arxiv.org/abs/1506.02216) is fitted to whole
episodes, with the actions as what is known of each step:

    p(o_1 .. o_T | o_0, a_0 .. a_T-1) = prod_t int p(o_t | z_t, h_t) p(z_t | h_t) dz_t,
    h_t a function of (o_<t, z_<t, a_<t)

That is the generative model: its nats on held-out episodes are bounds (a particle filter, then
rollouts), and `simulate` draws from it. To plan, its memory is read out as a predictive state
(Littman, Sutton and Singh 2001, NIPS 14): with p1 and p2 the medians that it predicts for the next
two observations, the mean over all actions that are held for both,

    s_t = (2 p1 - p2, p2 - p1),

what is seen without its noise, and how it changes. From there on the world is one of measured
states: a polynomial p(s' | s, a), a grid, a certificate.

What is approximate: h_t has more numbers than s_t, so s_t is a state only as far as the next two
observations tell all that matters later; the filter has one particle, the mean of q(z_t | .), where
it makes states, and `PARTICLES` in the nats; declared rules are applied to s_t, not to what is
seen. Numbers are read at 1 / 8,192 of a variable's box and nats are those of a density.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.world.tasks import Task, within_most
from likely.world.trajectories import Trajectories

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from likely.data.sequences.dataset import Sequences
    from likely.data.sequences.spec import Column
    from likely.models.sequence.vrnn import VRNN

LEVELS = 1 << 14  # of two boxes, so that what is seen beyond the box has room
WINDOW, BEFORE, BATCH, RATE = 24, 8, 32, 1e-2  # of the fit: steps, steps, windows, step size


@dataclasses.dataclass(frozen=True, eq=False)
class Memory:
    """A VRNN of what is seen in a task, and the states that it makes of a history.

    Attributes:
        task: the observed variables, without memory.
        network: p(o_1 .. o_T | o_0, actions).
    """

    task: Task
    network: VRNN

    def begin(self, n: int) -> Filter:
        """A filter over n episodes that have not begun."""
        return Filter(self, n)

    def beliefs(self, log: Trajectories) -> tuple[FloatArray, FloatArray]:
        """States [N, 2 d] before and after each row of a log, from what its episode showed so far.

        A record that begins in the middle of an episode is taken for its beginning.
        """
        seen, last = self.task.states(log.observation), self.task.states(log.next_observation)
        action = self.task.action_numbers(log.action)
        start = np.append(np.flatnonzero(log.first), len(log))
        length = np.diff(start)
        watch = self.begin(len(length))
        before, after = np.empty((2, len(log), 2 * self.task.dimensions))
        before[start[:-1]] = watch.see(np.arange(len(length)), seen[start[:-1]])
        for t in range(int(length.max())):
            rows = np.flatnonzero(length > t)
            at = start[rows] + t
            after[at] = watch.see(rows, last[at], action[at])
            on = length[rows] > t + 1
            before[at[on] + 1] = after[at[on]]
        return before, after

    def nats(
        self, log: Trajectories, at: IntArray, steps: int, particles: int, seed: int
    ) -> FloatArray:
        """Bounds on -log p(o_t+steps | o_<=t, a_<t+steps), nats of a density, [len(at)].

        Args:
            log: its episodes are filtered from their beginnings.
            at: rows t, ascending; the episode has `steps` rows from there.
            steps: 1 or more.
            particles: rollouts from each.
            seed: of filter and rollouts.
        """
        import torch

        from likely.noise import Noise

        network, noise = self.network, Noise(seed, "world", steps)
        start = np.append(np.flatnonzero(log.first), len(log))
        episode = np.searchsorted(start, at, side="right") - 1
        place = at - start[episode]
        data = _sequences(self.task, log, network.spec.columns).batch(slice(None))
        action = torch.from_numpy(self._told(self.task.action_numbers(log.action)))
        with torch.no_grad():
            whole = network.steps(torch.from_numpy(data.x), network.batch_context(data))
            state, picked, order = None, [], []
            for t in range(int(place.max()) + 1):
                state = network.state_after(whole.part(slice(None), t, t + 1), state, noise)
                rows = np.flatnonzero(place == t)
                if len(rows):
                    kept = torch.from_numpy(episode[rows])
                    picked.append(network.spread(tuple(p[kept] for p in state), particles, noise))
                    order.append(rows)
            rows = np.repeat(at[np.concatenate(order)], particles)
            state = tuple(torch.cat(part) for part in zip(*picked, strict=True))
            for k in range(steps - 1):
                uniform = noise.uniform(len(rows), network.uniforms)
                _, state = network.draw_step(state, action[rows + k], uniform)
            landed = self._integers(self.task.states(log.next_observation[rows + steps - 1]))
            last = network.steps(landed[:, None], action[rows + steps - 1][:, None])
            scores, _ = network.score_after(last, state, noise)
            logs = scores.view(-1, particles).logsumexp(1) - math.log(particles)
        nats = np.empty(len(at))
        volume = sum(math.log(column.step) for column in network.spec.columns)
        nats[np.concatenate(order)] = volume - logs.numpy()
        return nats

    def _told(self, action: IntArray | None, n: int = 0) -> NDArray[np.float32]:
        """What the network is told of a step, the action before it, [n, A]."""
        if action is None:
            return np.zeros((n, len(self.task.actions)), np.float32)
        return np.eye(len(self.task.actions), dtype=np.float32)[action]

    def _integers(self, states: FloatArray) -> Tensor:
        """Levels [n, d] of observed states [n, d]."""
        import torch

        return torch.from_numpy(_levels(self.network.spec.columns, states).astype(np.int64))

    def _numbers(self, levels: Tensor) -> FloatArray:
        """Observed states of levels [n, d]."""
        columns = self.network.spec.columns
        return np.stack([c.numbers(levels[:, k].numpy()) for k, c in enumerate(columns)], axis=1)


class Filter:
    """What is known of n episodes while they go on."""

    def __init__(self, memory: Memory, n: int) -> None:
        self.memory, self.seen = memory, np.zeros((n, memory.task.dimensions))
        self.state = memory.network.begin(n)

    def see(self, rows: IntArray, seen: FloatArray, action: IntArray | None = None) -> FloatArray:
        """Take in observed states [len(rows), d] of some episodes; their states, [len(rows), 2 d].

        Args:
            rows: which of the episodes.
            seen: of each.
            action: numbers of the actions before, [len(rows)]; None at the beginning.
        """
        import torch

        network = self.memory.network
        told = torch.from_numpy(self.memory._told(action, len(rows)))
        with torch.no_grad():
            steps = network.steps(self.memory._integers(seen)[:, None], told[:, None])
            state = tuple(part[rows] for part in self.state)
            self._keep(rows, network.state_after(steps, state, _middle()), seen)
        return self.states(rows)

    def draw(self, rows: IntArray, action: IntArray, noise: np.random.Generator) -> FloatArray:
        """Draw what is seen next in some episodes of the learned world, and go on from there."""
        import torch

        network = self.memory.network
        uniform = torch.from_numpy(noise.random((len(rows), network.uniforms)))
        told = torch.from_numpy(self.memory._told(action))
        with torch.no_grad():
            state = tuple(part[rows] for part in self.state)
            levels, state = network.draw_step(state, told, uniform)
        seen = self.memory._numbers(levels)
        self._keep(rows, state, seen)
        return seen

    def states(self, rows: IntArray) -> FloatArray:
        """(2 p1 - p2, p2 - p1) of some episodes, [len(rows), 2 d]."""
        import torch

        memory, task, network = self.memory, self.memory.task, self.memory.network
        n, actions = len(rows), len(task.actions)
        told = torch.from_numpy(memory._told(np.tile(np.arange(actions), n)))
        middle = torch.full((n * actions, network.uniforms), 0.5, dtype=torch.float64)
        seen, ahead = self.seen[rows], []
        with torch.no_grad():
            state = tuple(part[rows].repeat_interleave(actions, 0) for part in self.state)
            for _ in range(2):
                levels, state = network.draw_step(state, told, middle)
                ahead.append(memory._numbers(levels).reshape(n, actions, -1))
        change = task.difference(ahead[1], ahead[0]).mean(axis=1)
        first = seen + task.difference(ahead[0], seen[:, None]).mean(axis=1)
        return np.hstack([task.inside(first - change), change])

    def _keep(self, rows: IntArray, state: tuple[Tensor, ...], seen: FloatArray) -> None:
        self.state = tuple(
            whole.index_copy(0, _index(rows), part)
            for whole, part in zip(self.state, state, strict=True)
        )
        self.seen[rows] = seen


def _index(rows: IntArray) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.asarray(rows, dtype=np.int64))


def _middle() -> Any:
    """Noise that draws the mean of every Gaussian."""
    import torch

    from likely.noise import Noise

    class Middle(Noise):
        def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype)

    return Middle("middle")


def _columns(task: Task) -> tuple[Column, ...]:
    from likely.data.sequences.spec import Column

    columns = []
    for k, (name, low, high) in enumerate(zip(task.variables, task.low, task.high, strict=True)):
        if k in task.angles:
            columns.append(Column(name, "angle", 720, low, (high - low) / 720, (high - low) / 1440))
        else:
            step = 2.0 * (high - low) / LEVELS
            first = low - 0.5 * (high - low)
            columns.append(Column(name, "continuous", LEVELS, first, step, step / 2))
    return tuple(columns)


def _levels(columns: tuple[Column, ...], states: FloatArray) -> NDArray[np.int32]:
    levels = np.empty(states.shape, np.int32)
    for k, column in enumerate(columns):
        level = np.rint((states[:, k] - column.offset) / column.step)
        last = column.levels - 1
        levels[:, k] = level % column.levels if column.kind == "angle" else level.clip(0, last)
    return levels


def _sequences(task: Task, log: Trajectories, columns: tuple[Column, ...]) -> Sequences:
    """Episodes as sequences: T + 1 observations, the first of them given, and the actions."""
    from likely.data.sequences.dataset import Sequences
    from likely.data.sequences.spec import SequenceSpec
    from likely.data.spec import digest_of

    start = np.append(np.flatnonzero(log.first), len(log))
    first = start[:-1] + np.arange(len(start) - 1)  # rows of `values` that an episode begins with
    length = len(log) + len(first)
    later = np.setdiff1d(np.arange(length), first)
    values = np.empty((length, task.dimensions), np.int32)
    values[first] = _levels(columns, task.states(log.observation[start[:-1]]))
    values[later] = _levels(columns, task.states(log.next_observation))
    told = np.zeros((length, len(task.actions)), np.float32)
    told[later, task.action_numbers(log.action)] = 1.0
    spec = SequenceSpec(
        name=task.name, shape=(task.dimensions,), levels=max(c.levels for c in columns),
        n=len(first), split="train", digest=digest_of(values), columns=columns, steps=len(log),
        longest=int(np.diff(start).max()), covariates=tuple(f"action {a}" for a in task.actions),
    )  # fmt: skip
    return Sequences(
        spec=spec, values=values, offsets=np.append(first, length).astype(np.int64),
        lead=np.ones(len(first), np.int64), covariates=told,
    )  # fmt: skip


def fit_memory(
    log: Trajectories, task: Task, *, hidden: int = 32, latent: int = 4, updates: int = 600,
    seed: int = 0,
) -> Memory:  # fmt: skip
    """Fit the VRNN to the episodes of a log.

    Args:
        log: of at least 4 episodes; a sixth of them chooses the weights.
        task: the box of each variable closed.
        hidden: units of the recurrent state.
        latent: dimensions of z_t.
        updates: of the fit.
        seed: of the weights, the order and the noise.

    Raises:
        InvalidSetting: a task that is seen as pictures.
        InvalidData: too few episodes.
    """
    from likely.data.spec import with_validation
    from likely.models.sequence.settings import VRNNSettings
    from likely.models.sequence.vrnn import VRNN
    from likely.noise import weights_from
    from likely.settings import FitSettings
    from likely.training.loop import fit_whole

    if task.pixels is not None:
        raise InvalidSetting(f'{task.name} is seen as pictures, model "vrnn" reads numbers')
    if log.episodes < 4:
        raise InvalidData(
            f'{log.episodes} episodes are too few for model "vrnn", which is fitted to whole ones: '
            'collect more, or take model "polynomial"'
        )
    whole = _sequences(task, log, _columns(task))
    data = with_validation(whole)
    settings = VRNNSettings(
        hidden=hidden, latent=latent, step_hidden=hidden, components=2, head="logistic",
        window=WINDOW, before=BEFORE,
    )  # fmt: skip
    with weights_from(seed):
        network = VRNN(data.spec, settings)
    windows = int((-(-np.diff(data.offsets) // WINDOW)).sum())  # type: ignore[attr-defined]
    fit_whole(
        network, data,
        settings=FitSettings(
            steps=updates, batch_size=max(1, min(BATCH, windows // 2)), learning_rate=RATE,
            ema=0.99, clip=1.0, warmup=min(50, updates // 4), validation_examples=0, seed=seed,
            device="cpu",
        ),
    )  # fmt: skip
    return Memory(task, network)


def with_memory(task: Task, log: Trajectories, memory: Memory) -> Task:
    """A task whose states are those that a memory makes of what was seen so far."""
    d, rules = task.dimensions, (task.reward, task.terminated)
    reward, ended = rules
    wider = dataclasses.replace(
        task, variables=(*task.variables, *(f"change of {name}" for name in task.variables)),
        low=(*task.low, *[-1e9] * d), high=(*task.high, *[1e9] * d), encode=None, memory=memory,
        grid=(), quadrature=1,
        reward=reward and (lambda s, a, after: reward(s[..., :d], a, after[..., :d])),
        terminated=ended and (lambda s: ended(s[..., :d])),
    )  # fmt: skip
    return within_most(wider, memory.beliefs(log)[0])
