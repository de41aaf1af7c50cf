"""Stochastic shortest paths in which staying for ever is never best: solve and prove.

The problem is max over policies of the expected undiscounted sum of rewards until the end, in a
form where every policy either ends with probability one or loses without bound (the condition
of Bertsekas and Tsitsiklis 1991). Then T has one fixed point, and

    L <= T L  implies  L <= V*,        U >= T U  implies  V* <= U.

Strongly connected components ("blocks") are solved one after the other, successors first. A state
on its own takes one backup. A larger block is swept: x <- T x, and beside it a weight y, what of
the unit mass is still in the block (the idea of sound value iteration, Quatmann and Katoen 2018).
x + u y is an upper bound as soon as u (y - P y) >= r + P x - x for every action, and x + l y a
lower one, so the ratios of two sweeps give u and l; one backup, rounded outwards, proves them.
Where sweeps are slow, policy iteration finds x and y: the chain of a policy is eliminated where
its own components are narrow, and left to a Krylov method otherwise. Nothing is factorised whose
cost is not known beforehand.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from likely.mdp.kernels import clock
from likely.mdp.model.arrays import Array, FloatArray
from likely.mdp.undiscounted import ssp_kernels as kernels
from likely.mdp.undiscounted import ssp_linear as linear

UNIT = kernels.UNIT
PORTION = 20_000_000  # transitions visited between two looks at the clock (about 0.1 s)
LAST_PORTION = 50_000_000  # the same for bounds of what is left, where a solve was stopped
PATIENCE = 60_000  # transitions swept before a block counts as slow
WIDEST = 400  # bands may cost this many operations per transition of their block ...
CORRIDOR = 4  # bandwidth of a chain whose states lie along a line
LARGEST = 40_000_000  # ... and have at most this many numbers
ENDLESS = 10  # looks, each after three times the sweeps, at a block that no proof bounds


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """Rows of K states sorted by blocks, successors first; what is missing of a row ends the path.

    Attributes:
        row_ptr: [K + 1]; every state has a row.
        entry_ptr, column, weight: CSR array [rows, K].
        gain: [rows].
        pair_of: [rows] pair of the MDP, -1 for stopping.
        block_ptr: [blocks + 1].
        level: [blocks] blocks of several states on the longest path from here, this one included.
        unit: bound on the relative rounding of a backup, and on |row sum + end - 1|.
        loss: bound on what a gain has lost before.
    """

    row_ptr: Array
    entry_ptr: Array
    column: Array
    weight: FloatArray
    gain: FloatArray
    pair_of: Array
    block_ptr: Array
    level: Array
    unit: float
    loss: float = 0.0

    @property
    def states(self) -> int:
        """Number of states K."""
        return len(self.row_ptr) - 1

    @property
    def rows(self) -> tuple[Array, Array, Array, FloatArray, FloatArray]:
        """What the kernels take as one argument."""
        return self.row_ptr, self.entry_ptr, self.column, self.weight, self.gain


@dataclasses.dataclass(eq=False)
class Solved:
    """Bounds on the optimal value [K], and how far the solve has come.

    Attributes:
        lower, upper: [K], proven at any time.
        chosen: [K] row whose backup shows `lower`; -1 where none does.
        xy: [K, 2] value and weight at work, see `ssp_kernels.sweep`.
        place: block, rounds in it, sweeps in it, sweeps at which to try policy iteration.
        local: what `ssp_kernels.work_round` keeps.
        iterations: rounds in all blocks.
        outcome: "converged", "iterations", "time" or "interrupted".
    """

    lower: FloatArray
    upper: FloatArray
    chosen: Array
    xy: FloatArray
    place: Array
    local: FloatArray
    iterations: int = 0
    outcome: str = "converged"

    @classmethod
    def start(cls, states: int, low: float, high: float) -> Solved:
        """Nothing known but that values are in [low, high]."""
        return cls(
            np.full(states, float(low)), np.full(states, float(high)),
            np.full(states, -1, dtype=np.int64),
            np.zeros((states, 2)), np.zeros(4, dtype=np.int64), np.zeros(9),
        )  # fmt: skip

    @property
    def arrays(self) -> dict[str, Array]:
        """What a checkpoint keeps."""
        names = ("lower", "upper", "chosen", "xy", "place", "local")
        return {name: getattr(self, name) for name in names}


def solve_paths(
    paths: Paths,
    tolerance: float,
    solved: Solved,
    limit: int | None = None,
    until: float = math.inf,
    keep: Callable[[Solved, bool], None] = lambda solved, last: None,
) -> None:
    """Solve and bound, in place; bounds stay as they were where nothing could be proven.

    Args:
        paths: the problem.
        tolerance: half the width of the bounds to reach in every state.
        solved: where to start from, and the result.
        limit: rounds.
        until: a time of `clock.now`.
        keep: told of progress between portions of work, and of the end.
    """
    blocks = len(paths.block_ptr) - 1
    levels = max(1, int(paths.level.max(initial=0)))
    guess, picked = np.empty(paths.states), np.full(paths.states, -1, dtype=np.int64)

    def advance(error: float, rounds: int, budget: int, patience: int = PATIENCE) -> int:
        made = kernels.advance(
            paths.rows, paths.block_ptr, paths.level, solved.xy, solved.lower, solved.upper,
            solved.chosen, guess, picked, paths.unit, paths.loss, error, levels, rounds, budget,
            patience, solved.local, solved.place,
        )  # fmt: skip
        return int(made)

    solved.outcome, looked, before, looks = "converged", -1, math.inf, 0
    try:
        while True:
            if clock.now() >= until:
                solved.outcome = "time"
                break
            left = (1 << 60) if limit is None else limit - solved.iterations
            solved.iterations += advance(tolerance, max(0, left), PORTION)
            keep(solved, False)
            if solved.place[kernels.BLOCK] >= blocks:
                break
            if limit is not None and solved.iterations >= limit:
                solved.outcome = "iterations"
                break
            if solved.place[kernels.SWEEPS] >= solved.place[kernels.PATIENT] > 0:
                block, width = int(solved.place[kernels.BLOCK]), float(solved.local[kernels.WIDTH])
                looks = looks + 1 if block == looked else 1
                stuck = looks > 1 and math.inf > width > 0.7 * before
                looked, before = block, width
                # Where ending takes more steps than rounding allows, no bound is ever finite.
                if stuck or (looks > ENDLESS and width == math.inf):
                    solved.local[kernels.MODE] = kernels.HOPELESS  # nothing helps any more
                else:
                    _policy_iteration(paths, tolerance, solved, picked, until)
                solved.place[kernels.PATIENT] *= 3
    except KeyboardInterrupt:
        solved.outcome = "interrupted"
    keep(solved, True)
    if solved.outcome in ("time", "interrupted"):  # any finite bounds for what is left
        solved.place[kernels.PATIENT] = 1 << 60
        advance(1e300, 200, LAST_PORTION, 1 << 60)


def _policy_iteration(
    paths: Paths, tolerance: float, solved: Solved, picked: Array, until: float
) -> None:
    """A better x and y for the block at work; what comes out is only a guess."""
    block = int(solved.place[kernels.BLOCK])
    first, last = int(paths.block_ptr[block]), int(paths.block_ptr[block + 1])
    chain = _Chain(paths, first, last, picked, until)
    _march(chain, solved)
    before = solved.xy[first:last].copy()
    # The greedy policy is nearly always good. Where going round is cheap and leaving dear it may
    # never leave; improved from one that leaves, policies always do.
    for leaving in (False, True):
        if leaving and not linear.leaving(paths.rows, first, last, picked):
            return
        if not leaving:
            picked[first:last] = -1
        if _improve(chain, tolerance, solved, leaving) and _lengthen(chain, solved):
            return
        solved.xy[first:last] = before


def _march(chain: _Chain, solved: Solved) -> None:
    """Raise x to the best of the policies that carry a value along a corridor, there and back.

    An improvement moves the border between two regions by a few states, so that policy iteration
    would take as many as a corridor is long.
    """
    paths, first, last, picked = chain.paths, chain.first, chain.last, chain.picked
    n = last - first
    reached, right, highest = np.empty(n), np.empty(n), np.full(n, -np.inf)
    for forward in (True, False):
        if not linear.march(paths.rows, solved.xy, first, last, forward, reached, picked):
            return
        chain.renew()
        if not chain.direct or int(chain.parts[6].max(initial=0)) > CORRIDOR:
            return
        linear.right_side(paths.rows, solved.xy, first, last, picked, right)
        value = chain.solve(right, 0.0)
        if value is None:
            return
        np.maximum(highest, value, out=highest)
    least = solved.lower[first:last] - solved.local[kernels.BELOW]
    most = solved.upper[first:last] + solved.local[kernels.ABOVE]
    solved.xy[first:last, 0] = np.clip(highest, least, most)


def _improve(chain: _Chain, tolerance: float, solved: Solved, leaving: bool) -> bool:
    """Improve x by better and better policies, from the policy of the chain if `leaving`."""
    paths, first, last, picked = chain.paths, chain.first, chain.last, chain.picked
    x, n = solved.xy[first:last, 0], last - first
    right, moved = np.empty(n), np.empty(n)
    scale = max(float(np.abs(x).max()), float(np.abs(paths.gain).max()))
    goal = max(0.2 * tolerance * float(solved.local[kernels.LEAVES]), 4.0 * UNIT * scale)
    # x belongs to the middle of the bounds outside, so it may lie beside the bounds inside.
    least = solved.lower[first:last] - solved.local[kernels.BELOW]
    most = solved.upper[first:last] + solved.local[kernels.ABOVE]
    chain.error = math.inf
    for turn in range(50 if leaving else 30):
        changed = 1
        if turn or not leaving:
            for _ in range(0 if leaving else 2):
                kernels.sweep(paths.rows, solved.xy, first, last, *solved.local[:2], True)
            changed = linear.greedy(paths.rows, solved.xy, first, last, picked, 1e-12 * scale)
        linear.right_side(paths.rows, solved.xy, first, last, picked, right)
        linear.apply(paths.rows, first, last, picked, x.copy(), moved)
        right -= moved
        previous, chain.error = chain.error, float(np.abs(right).max())
        if chain.error <= goal or (not changed and chain.error > 0.5 * previous):
            break
        if changed:
            chain.renew()
        changed = 0
        change = chain.solve(right, max(goal, (1e-6 if leaving else 0.02) * chain.error))
        if change is None:  # a policy that does not end, or no convergence
            return False
        np.clip(x + change, least, most, out=x)
        scale = max(scale, float(np.abs(x).max()))
    chain.stale = changed > 0
    chain.error += 8.0 * paths.unit * scale + paths.loss
    return True


def _lengthen(chain: _Chain, solved: Solved) -> bool:
    """y from the steps of the slowest policy among those that are about as good."""
    paths, first, last = chain.paths, chain.first, chain.last
    tie, longest = 0.0, 1.0
    steps: FloatArray = np.zeros(last - first)
    moved = np.empty(last - first)
    for _ in range(20):
        if chain.stale:
            chain.renew()
        chain.stale = True
        linear.apply(paths.rows, first, last, chain.picked, steps, moved)
        change = chain.solve(1.0 - moved, 0.3)
        if change is None or float((steps + change).min()) < 0.5:
            return False
        steps, longest = steps + change, float((steps + change).max())
        tie = 4.0 * chain.error * longest
        if not linear.longer(paths.rows, solved.xy, steps, first, last, chain.picked, tie):
            break
    solved.xy[first:last, 1] = steps / longest
    solved.local[[kernels.DELTA, kernels.TIE]] = 1.0 / longest, tie
    solved.local[kernels.MODE] = kernels.OF_POLICY
    return True


class _Chain:
    """Systems (I - P) z = right side with the chain of `picked` in one block."""

    def __init__(self, paths: Paths, first: int, last: int, picked: Array, until: float) -> None:
        self.paths, self.first, self.last, self.picked = paths, first, last, picked
        self.until = until
        entries = int(paths.entry_ptr[paths.row_ptr[last]] - paths.entry_ptr[paths.row_ptr[first]])
        self.most = WIDEST * entries  # what an elimination may cost
        self.portion = max(1, PORTION // (4 * entries))
        self.error = math.inf  # of one backup at x
        self.stale = True  # whether `picked` has changed since the last renewal
        self.parts: tuple[Array, ...] = ()
        self.direct = False  # whether the chain is eliminated
        self.factors: FloatArray = np.empty(0)

    def renew(self) -> None:
        """Take up a change of `picked`."""
        self.parts = linear.chain_parts(self.paths.rows, self.first, self.last, self.picked)
        band, sizes = self.parts[6], np.diff(self.parts[5])
        cost, size = float((sizes * band * band).sum()), int(self.parts[7][-1])
        self.direct = cost <= self.most and size <= LARGEST
        if self.direct:
            if len(self.factors) < size:
                self.factors = np.empty(size)
            linear.chain_factors(self.factors, self.parts)

    def solve(self, right: FloatArray, goal: float) -> FloatArray | None:
        """A solution with a residual of at most `goal`, None where there was none."""
        chain = (self.paths.rows, self.first, self.last, self.picked)
        if self.direct:
            out: FloatArray = linear.chain_solve(self.factors, self.parts, right)
            return out if bool(np.isfinite(out).all()) else None
        work, scalars = np.zeros((8, len(right))), np.zeros(3)
        work[1] = right
        largest = float(np.abs(work[1]).max())
        limit = 100 + 4 * int(math.sqrt(len(right)))
        for _ in range(0, limit, self.portion):
            if largest <= goal:
                return np.array(work[0])
            largest = float(linear.krylov(*chain, work, scalars, self.portion, goal))
            if not math.isfinite(largest) or clock.now() >= self.until:
                return None
        return np.array(work[0]) if largest <= goal else None
