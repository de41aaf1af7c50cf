r"""`to_mdp`: a learned world as a finite Markov decision process, its rows exact.

The points of a grid are the states. From a point g and an action, the world lands at s'; with the
multilinear weights of the corners around s' (w >= 0, sum 1),

    p(g' | g, a) = sum_j u_j (1 - e(s'_j)) w_g'(s'_j),     p(end | g, a) = sum_j u_j e(s'_j),

where s'_j, u_j are the branches of the model with the nodes of a Gauss-Hermite quadrature for its
noise, and e(s') the probability that the episode ends. One absorbing state keeps the mass of the
ends: rows that lose it are sub-stochastic, and a stopping rule on the span of T V - V then ends
after one sweep. An averager keeps T a contraction (Gordon 1995, https://doi.org/10.1016/B978-1-55860-377-6.50040-2).

Multilinear weights spread the mass over a cell even where the world is certain. So V on the grid is
not the value of the world: `plan` prints that difference by itself.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from likely.errors import InvalidSetting
from likely.mdp.model.problem import MDP
from likely.world.model import Branches, TransitionModel
from likely.world.tasks import Task, sides

__all__ = ["Grid", "look_ahead", "to_mdp"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BLOCK = 1 << 20  # numbers that are handled together
MOST = 20_000_000  # transitions of an MDP in memory


@dataclasses.dataclass(frozen=True, eq=False)
class Grid:
    """Points in the box of a task; an angle's first point is also behind its last.

    Attributes:
        task: whose box.
        counts: [d] points a side.
    """

    task: Task
    counts: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of points."""
        return int(np.prod(self.counts))

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


def nodes(branches: Branches, grid: Grid, points: int) -> tuple[FloatArray, FloatArray]:
    """Next states [n, m, d] and weights [n, m]: branches times the nodes of a quadrature.

    Variables whose spread is below a tenth of a cell get one node, the centre.
    """
    task = grid.task
    width = (np.array(task.high) - np.array(task.low)) / np.array(grid.counts)
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
    model: TransitionModel, grid: Grid, state: FloatArray, action: int, points: int
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
    grid: Sequence[int] | None = None,
    *,
    discount: float | None = None,
    quadrature: int | None = None,
    initial: FloatArray | None = None,
) -> MDP:
    """The world on a grid: its points are states 0..G-1, the last state, G, is the end.

    Args:
        model: from `fit`.
        grid: [d] points a side; by default those of the task.
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
    lattice = Grid(task, sides(task, grid))
    quadrature = task.quadrature if quadrature is None else quadrature
    if quadrature < 1:
        raise InvalidSetting(f"quadrature needs at least 1 node, given {quadrature}")
    actions, size = len(task.actions), lattice.size
    trial = look_ahead(model, lattice, np.array([task.low]), 0, quadrature)
    width = trial.corner.shape[1] + 1
    if size * actions * min(width, size) > MOST:
        raise InvalidSetting(
            f"a grid of {size} points with {actions} actions and {width} successors each is too "
            f"large; give fewer points, or quadrature=1 ({2**task.dimensions} successors)"
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
