"""Stochastic shortest paths in which staying for ever is never best: solve and prove.

The problem is max over policies of the expected undiscounted sum of rewards until the end, in a
form where every policy either ends with probability one or loses without bound (the condition
of Bertsekas and Tsitsiklis 1991). Then T has one fixed point, and

    L <= T L  implies  L <= V*,        U >= T U  implies  V* <= U.

Policy iteration finds V; the value of its policy is L. U = V + c w is then *checked* pair by
pair, with w the largest expected number of steps over all nearly optimal policies.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from likely.mdp.transient import UNIT, bounds

Array = npt.NDArray[Any]
FloatArray = npt.NDArray[np.float64]


# Told of a policy [K], the iterations made, and whether it is the last.
Keep = Callable[[Array, int, bool], None]


def nothing(chosen: Array, iteration: int, last: bool) -> None:
    """Keep nothing."""


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """Rows [pairs, K] with sums of at most one; what is missing ends the path.

    Attributes:
        pair_ptr: [K + 1]; every state has a pair.
        rows: CSR array [pairs, K].
        reward: [pairs].
        ends: [pairs] probability that the pair ends the path.
        defect: bound on |row sum + ends - 1|.
    """

    pair_ptr: Array
    rows: Any
    reward: FloatArray
    ends: FloatArray
    defect: float

    @property
    def states(self) -> int:
        """Number of states K."""
        return len(self.pair_ptr) - 1

    @property
    def owner(self) -> Array:
        """[pairs] state of each pair."""
        return np.repeat(np.arange(self.states), np.diff(self.pair_ptr))


@dataclasses.dataclass(frozen=True, eq=False)
class Solved:
    """Bounds on the optimal value [K], the chosen pair [K], and the policy iterations made.

    `outcome` is "converged", "iterations", "time" or "interrupted".
    """

    lower: FloatArray
    upper: FloatArray
    chosen: Array
    iterations: int
    outcome: str


def ending_policy(paths: Paths) -> Array:
    """[K] pairs of a policy that ends with probability one, by breadth first search backwards."""
    chosen = np.full(paths.states, -1, dtype=np.int64)
    owner = paths.owner
    hit = paths.ends > 0.0
    while True:
        found = np.flatnonzero(hit & (chosen[owner] < 0))[::-1]
        if not len(found):
            return chosen
        chosen[owner[found]] = found
        done = (chosen >= 0).astype(np.float64)
        hit = (paths.rows @ done) > 0.0


def evaluate(paths: Paths, chosen: Array, gain: FloatArray) -> FloatArray:
    """Undiscounted value of a policy that ends: sparse LU, refined once."""
    from scipy import sparse
    from scipy.sparse import linalg

    system = (sparse.eye_array(paths.states, format="csr") - paths.rows[chosen]).tocsr()
    right = gain[chosen]
    if paths.states <= 300:
        dense = system.toarray()
        value = np.linalg.solve(dense, right)
        return np.asarray(value + np.linalg.solve(dense, right - system @ value))
    factors = linalg.splu(system.tocsc())
    value = factors.solve(right)
    return np.asarray(value + factors.solve(right - system @ value))


def improve(
    paths: Paths, gain: FloatArray, start: Array, usable: npt.NDArray[np.bool_] | None, limit: int,
    until: float = math.inf, keep: Keep = nothing,
) -> tuple[FloatArray, Array, int, str]:  # fmt: skip
    """Policy iteration: value, policy, iterations, and the outcome.

    `until` is a time of `time.perf_counter`; `keep` is told of each better policy. However it
    ends, the value is that of the policy.
    """
    chosen = start
    first = paths.pair_ptr[:-1]
    owner = paths.owner
    value = evaluate(paths, chosen, gain)
    iteration = 0
    try:
        while iteration < limit:
            iteration += 1
            q = gain + paths.rows @ value
            if usable is not None:
                q = np.where(usable, q, -np.inf)
            best = np.maximum.reduceat(q, first)
            # Ties within rounding keep the old pair: otherwise policies may cycle or never end.
            slack = 1e-11 * (np.abs(value) + float(np.abs(gain).max(initial=0.0)))
            better = best > q[chosen] + slack
            if not bool(better.any()):
                return value, chosen, iteration, "converged"
            if time.perf_counter() >= until:
                return value, chosen, iteration, "time"
            at = np.flatnonzero((q == best[owner]) & better[owner])[::-1]
            following = chosen.copy()
            following[owner[at]] = at
            improved = evaluate(paths, following, gain)
            chosen, value = following, improved
            keep(chosen, iteration, False)
            if not bool(np.isfinite(value).all()):
                break
    except KeyboardInterrupt:
        return value, chosen, iteration, "interrupted"
    return value, chosen, iteration, "iterations"


def solve_paths(
    paths: Paths, limit: int = 1000, until: float = math.inf, start: Array | None = None,
    keep: Keep = nothing,
) -> Solved:  # fmt: skip
    """Solve and bound; bounds are infinite where nothing could be proven.

    Args:
        paths: the problem.
        limit: policy iterations.
        until: a time of `time.perf_counter`.
        start: [K] pairs of a policy that ends with probability one; one is found by default.
        keep: told of each better policy, and of the last one.
    """
    start = ending_policy(paths) if start is None else start
    value, chosen, iterations, outcome = improve(
        paths, paths.reward, start, None, limit, until, keep
    )
    keep(chosen, iterations, True)
    chain = paths.rows[chosen].tocsr()
    live = np.zeros(paths.states, dtype=np.bool_)
    lower, _ = bounds(live, chain, paths.reward[chosen], value, paths.defect, paths.ends[chosen])
    upper = np.full(paths.states, np.inf)
    if outcome == "converged":
        upper = _upper(paths, value, chosen)
    return Solved(lower, upper, chosen, iterations, outcome)


def _upper(paths: Paths, value: FloatArray, chosen: Array) -> FloatArray:
    """U = value + c w with T U <= U checked pair by pair; infinite if no w was found."""
    from scipy import sparse

    owner = paths.owner
    counts = np.diff(paths.rows.indptr)
    pair_of_entry = np.repeat(np.arange(len(owner)), counts)
    spread = paths.rows.data * (value[paths.rows.indices] - value[owner[pair_of_entry]])
    # r + P v - v without cancellation; the mass that ends takes v(s) with it.
    loss = paths.ends * value[owner]
    advantage = paths.reward + np.bincount(pair_of_entry, spread, minlength=len(owner)) - loss
    size = np.abs(paths.reward) + np.abs(loss)
    size += np.bincount(pair_of_entry, np.abs(spread), minlength=len(owner))
    error = (counts + 10) * UNIT * size + (paths.defect + 4 * UNIT) * np.abs(value[owner])
    scale = float(np.abs(value).max(initial=0.0)) + float(np.abs(paths.reward).max(initial=0.0))
    moves = sparse.csr_array(paths.rows)
    for near in (1e-10, 1e-8, 1e-6, 1e-4):
        usable = advantage >= -near * scale
        usable[chosen] = True
        steps, _, _, outcome = improve(paths, np.ones(len(owner)), chosen, usable, 50)
        if outcome != "converged" or not bool((steps > 0.0).all()):
            continue
        change = moves @ steps - steps[owner]
        change += (counts + 6) * UNIT * (moves @ steps + steps[owner])
        change += paths.defect * float(steps.max())
        worst = advantage + error
        falling = change < -0.25
        if not bool((falling | (worst < 0.0)).all()):
            continue
        reach = float(np.max(worst[falling] / -change[falling], initial=0.0))
        reach = max(reach, 0.0) * (1.0 + 1e-12)
        if bool((worst[~falling] + reach * np.maximum(change[~falling], 0.0) <= 0.0).all()):
            return value + reach * steps + 4 * UNIT * (np.abs(value) + reach * steps)
    return np.full(paths.states, np.inf)
