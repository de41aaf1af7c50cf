r"""`to_mdp`: a learned world as a finite Markov decision process, its rows exact.

The points of a grid are the states, or points of the data. From a point g and an action, the world
lands at s'; with the multilinear weights of the corners around s' (w >= 0, sum 1), or those of the
points nearest to s',

    p(g' | g, a) = sum_j u_j (1 - e(s'_j)) w_g'(s'_j),     p(end | g, a) = sum_j u_j e(s'_j),

where s'_j, u_j are the branches of the model with the nodes of a Gauss-Hermite quadrature for its
noise, and e(s') the probability that the episode ends. One absorbing state keeps the mass of the
ends: rows that lose it are sub-stochastic, and a stopping rule on the span of T V - V then ends
after one sweep. An averager keeps T a contraction (Gordon 1995, https://doi.org/10.1016/B978-1-55860-377-6.50040-2).

Multilinear weights spread the mass over a cell even where the world is certain. So V on the grid is
not the value of the world: `plan` prints that difference by itself.
"""

from __future__ import annotations

import abc
import dataclasses
import functools
import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.model.arrays import Array, FloatArray, IntArray
from likely.mdp.model.problem import MDP
from likely.world.features import Features
from likely.world.model import Branches, TransitionModel
from likely.world.tasks import Task, sides
from likely.world.trajectories import Trajectories

BLOCK = 1 << 20  # numbers that are handled together
MOST = 20_000_000  # transitions of an MDP in memory


class Averager(abc.ABC):
    """Points in the box of a task, and every state as a mean of some of them.

    Attributes:
        task: whose box.
        counts: points a side; their product is `size`.
    """

    task: Task
    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of points."""
        return int(np.prod(self.counts))

    @property
    @abc.abstractmethod
    def points(self) -> FloatArray:
        """[size, d]."""

    @property
    @abc.abstractmethod
    def cell(self) -> FloatArray:
        """[d] how far apart points are, about."""

    @abc.abstractmethod
    def weights(self, state: FloatArray) -> tuple[IntArray, FloatArray]:
        """Points [n, m] and weights [n, m], at least 0 with sums of 1, of states [n, d]."""

    @abc.abstractmethod
    def refined(self, factor: float) -> Averager:
        """One with about `factor` times the points a side."""

    @abc.abstractmethod
    def arrays(self) -> dict[str, Array]:
        """What `averager` reads."""


@dataclasses.dataclass(frozen=True, eq=False)
class Grid(Averager):
    """Points in the box of a task; an angle's first point is also behind its last.

    Attributes:
        task: whose box.
        counts: [d] points a side.
    """

    task: Task
    counts: tuple[int, ...]

    def __str__(self) -> str:
        return f"grid {'x'.join(map(str, self.counts))}"

    @property
    def cell(self) -> FloatArray:
        sides = np.array(self.task.high) - np.array(self.task.low)
        return np.asarray(sides / np.array(self.counts))

    def refined(self, factor: float) -> Grid:
        return Grid(
            self.task, tuple(max(min(n, 3), round((n - 1) * factor) + 1) for n in self.counts)
        )

    def arrays(self) -> dict[str, Array]:
        return {"grid": np.array(self.counts)}

    @property
    def axes(self) -> list[FloatArray]:
        """Coordinates along each side."""
        return [
            np.linspace(low, high, n, endpoint=k not in self.task.angles)
            for k, (low, high, n) in enumerate(
                zip(self.task.low, self.task.high, self.counts, strict=True)
            )
        ]

    @property
    def points(self) -> FloatArray:
        """[size, d], the last variable fastest."""
        mesh = np.meshgrid(*self.axes, indexing="ij")
        return np.stack([side.ravel() for side in mesh], axis=1)

    def weights(self, state: FloatArray) -> tuple[IntArray, FloatArray]:
        """Corners [n, 2^d] and multilinear weights [n, 2^d] of states [n, d].

        States beyond the box count as on its edge.
        """
        d, n = self.task.dimensions, len(state)
        corner = np.zeros((n, 2**d), dtype=np.int64)
        weight = np.ones((n, 2**d))
        choice = np.array(list(itertools.product((0, 1), repeat=d)))  # [2^d, d]
        for k in range(d):
            low, high, count = self.task.low[k], self.task.high[k], self.counts[k]
            if k in self.task.angles:
                place = (state[:, k] - low) / (high - low) % 1.0 * count
                below = np.minimum(place.astype(np.int64), count - 1)
                above = (below + 1) % count
            else:
                place = np.clip((state[:, k] - low) / (high - low), 0.0, 1.0) * (count - 1)
                below = np.minimum(place.astype(np.int64), count - 2)
                above = below + 1
            share = place - below
            index = np.stack([below, above], axis=1)[:, choice[:, k]]  # [n, 2^d]
            weight *= np.stack([1.0 - share, share], axis=1)[:, choice[:, k]]
            corner = corner * count + index
        return corner, weight


@dataclasses.dataclass(frozen=True, eq=False)
class Points(Averager):
    """Points of the data, and the mean of those nearest to a state.

    Distances are of states scaled by the deviation of the points, as in DAC-MDP.

    Attributes:
        task: of the states.
        at: [m, d] the points.
        neighbours: how many are averaged; 1 is vector quantisation.
    """

    task: Task
    at: FloatArray
    neighbours: int = 1

    @classmethod
    def of(
        cls, log: Trajectories, task: Task, codes: int | None = None, *, neighbours: int = 5,
        seed: int = 0,
    ) -> Points:  # fmt: skip
        """Points of the states of a log.

        Args:
            log: as it was fitted.
            task: `model.task`.
            codes: as many centres of k-means, each state the nearest of them; None for all states
                before an action.
            neighbours: of those, how many are averaged.
            seed: of k-means.

        Raises:
            InvalidSetting: codes or neighbours below 1, or no more states than that.
        """
        states = task.states_of(log)[0]
        few = neighbours if codes is None else codes
        if not 1 <= few <= len(states):
            what = "neighbours" if codes is None else "codes"
            raise InvalidSetting(f"{few} {what} of {len(states)} states: expected 1 to that many")
        if codes is None:
            return cls(task, states, neighbours)
        # The state that is nearest to each centre: the mean of angles is no angle.
        features, scale, tree = cls(task, states)._nearest
        _, nearest = tree.query(centres_of(features(states) / scale, codes, seed))
        return cls(task, states[np.unique(nearest)])

    def __str__(self) -> str:
        if self.neighbours == 1:
            return f"{self.size} codes"
        return f"{self.size} states of the log, {self.neighbours} nearest"

    @property
    def counts(self) -> tuple[int, ...]:  # type: ignore[override]
        """(m,)."""
        return (len(self.at),)

    @property
    def points(self) -> FloatArray:
        return self.at

    @property
    def cell(self) -> FloatArray:
        return np.asarray(np.ptp(self.at, axis=0) / len(self.at) ** (1.0 / self.task.dimensions))

    @functools.cached_property
    def _nearest(self) -> tuple[Features, FloatArray, Any]:
        from scipy.spatial import cKDTree

        features = Features(self.task, 1)
        x = features(self.at)
        scale = np.maximum(x.std(axis=0), 1e-9)
        return features, scale, cKDTree(x / scale)

    def weights(self, state: FloatArray) -> tuple[IntArray, FloatArray]:
        features, scale, tree = self._nearest
        k = min(self.neighbours, len(self.at))
        _, nearest = tree.query(features(state) / scale, k=k)
        return np.reshape(nearest, (len(state), k)), np.full((len(state), k), 1.0 / k)

    def refined(self, factor: float) -> Points:
        """Only fewer: about every 1 / `factor`-th of the points.

        Raises:
            InvalidSetting: a factor above 1.
        """
        if factor > 1.0:
            raise InvalidSetting(f"{self} can be thinned out only: {factor:g} times as many")
        kept = np.arange(np.ceil(len(self.at) * factor)) / factor + 1e-9
        return Points(self.task, self.at[kept.astype(np.int64)], self.neighbours)

    def arrays(self) -> dict[str, Array]:
        return {"points": self.at, "neighbours": np.array(self.neighbours)}


def averager(task: Task, grid: Sequence[int] | Averager | None) -> Averager:
    """What a plan is made on: sides of a grid (None: those of the task), or itself."""
    return grid if isinstance(grid, Averager) else Grid(task, sides(task, grid))


def centres_of(points: FloatArray, count: int, seed: int) -> FloatArray:
    """[count, f] centres of k-means, at most as many as there are different points [n, f]."""
    from scipy.cluster.vq import kmeans2

    noise = np.random.default_rng(seed)
    different = len(np.unique(points, axis=0))
    return np.asarray(kmeans2(points, min(count, different), minit="++", rng=noise)[0])


def nodes(branches: Branches, grid: Averager, points: int) -> tuple[FloatArray, FloatArray]:
    """Next states [n, m, d] and weights [n, m]: branches times the nodes of a quadrature.

    Variables whose spread is below a tenth of a cell get one node, the centre.
    """
    task = grid.task
    width = grid.cell
    if points == 1 and not np.ptp(branches.centre, axis=1).any():  # branches of one centre
        return branches.centre[:, :1], np.ones((len(branches.centre), 1))
    x, w = np.polynomial.hermite_e.hermegauss(points)
    states, weights = [], []
    spreads = branches.spread if branches.spread.ndim == 3 else branches.spread[None]  # [n, m, d]
    for j in range(spreads.shape[1]):
        spread = spreads[:, j]
        offset, weight = np.zeros((len(spread), 1, task.dimensions)), np.ones(1)
        for k in np.flatnonzero((spread >= 0.1 * width).any(axis=0)) if points > 1 else ():
            shift = np.zeros((len(spread), points, task.dimensions))
            shift[:, :, k] = x * spread[:, k, None]
            offset = (offset[:, :, None] + shift[:, None]).reshape(len(spread), -1, task.dimensions)
            weight = (weight[:, None] * (w / w.sum())).ravel()
        states.append(branches.centre[:, j, None] + offset)
        weights.append(branches.weight[:, j, None] * weight)
    return np.concatenate(states, axis=1), np.concatenate(weights, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class Ahead:
    """One step ahead of n states under one action, on a grid.

    Attributes:
        corner, weight: [n, m] grid points and probabilities; they sum to 1 - ending.
        ending: [n] probability that the episode ends.
        reward: [n] expected.
    """

    corner: IntArray
    weight: FloatArray
    ending: FloatArray
    reward: FloatArray


def look_ahead(
    model: TransitionModel, grid: Averager, state: FloatArray, action: int, points: int
) -> Ahead:
    """What one action does to states [n, d]."""
    task = model.task
    after, share = nodes(model.land(state, np.int64(action)), grid, points)  # type: ignore[arg-type]
    n, m, d = after.shape
    flat = task.inside(after.reshape(-1, d))
    over = model.ends.probability(flat)  # [n m]
    before = np.repeat(state, m, axis=0)
    paid = model.rewards.expected(before, np.int64(action), flat, over)  # type: ignore[arg-type]
    corner, weight = grid.weights(flat)
    weight = (share.ravel() * (1.0 - over))[:, None] * weight
    return Ahead(
        corner.reshape(n, -1), weight.reshape(n, -1),
        (share * over.reshape(n, m)).sum(axis=1), (share * paid.reshape(n, m)).sum(axis=1),
    )  # fmt: skip


def to_mdp(
    model: TransitionModel,
    grid: Sequence[int] | Averager | None = None,
    *,
    discount: float | None = None,
    quadrature: int | None = None,
    initial: FloatArray | None = None,
) -> MDP:
    """The world on points: they are states 0..G-1, the last state, G, is the end.

    Args:
        model: from `fit`.
        grid: [d] points a side, by default those of the task; or `Points`, codes or states of the
            log.
        discount: by default that of the task.
        quadrature: Gauss-Hermite nodes for each variable whose noise a cell can see; 1 takes the
            world as certain; by default that of the task.
        initial: [n, d] first states, all as likely, for the start of the MDP.

    Returns:
        Rows that sum to one, the mass of terminal successors in state G. Points where the episode
        has ended surely are terminal themselves.

    Raises:
        InvalidSetting: sides that do not fit the task, or a grid too large for memory.
    """
    task = model.task
    lattice = averager(task, grid)
    quadrature = task.quadrature if quadrature is None else quadrature
    if quadrature < 1:
        raise InvalidSetting(f"quadrature needs at least 1 node, given {quadrature}")
    actions, size = len(task.actions), lattice.size
    trial = look_ahead(model, lattice, np.array([task.low]), 0, quadrature)
    width = trial.corner.shape[1] + 1
    if size * actions * min(width, size) > MOST:
        raise InvalidSetting(
            f"a grid of {size} points with {actions} actions and {width} successors each is too "
            "large; give fewer points, or quadrature=1"
        )
    points, dead = lattice.points, np.zeros(size, dtype=bool)
    if model.ends.rule is not None:
        dead = model.ends.over(points)
    rows, columns, chances = [], [], []
    reward = np.zeros((size, actions))
    block = max(1, BLOCK // width)
    for a in range(actions):
        for first in range(0, size, block):
            part = slice(first, min(first + block, size))
            ahead = look_ahead(model, lattice, points[part], a, quadrature)
            reward[part, a] = ahead.reward
            count = len(ahead.reward)
            corner = np.column_stack([ahead.corner, np.full(count, size)])
            weight = np.column_stack([ahead.weight, ahead.ending])
            keep = weight > 0.0
            pair = (np.arange(first, first + count) * actions + a)[:, None]
            rows.append(np.broadcast_to(pair, keep.shape)[keep])
            columns.append(corner[keep])
            chances.append(weight[keep])
    row, column, chance = (np.concatenate(parts) for parts in (rows, columns, chances))
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=size * actions)
    terminal = np.append(dead, True)
    begin = None
    if initial is not None:
        corner, weight = lattice.weights(task.inside(np.atleast_2d(initial)))
        begin = np.bincount(corner.ravel(), weight.ravel(), minlength=size + 1) / len(corner)
    return MDP.from_pairs(
        np.append(np.arange(size + 1) * actions, size * actions),
        np.concatenate([[0], np.cumsum(counts)]), column[order], chance[order], reward.ravel(),
        task.discount if discount is None else discount, terminal=terminal, initial=begin,
        action_names=[str(a) for a in task.actions],
    )  # fmt: skip
