"""Monte Carlo simulation: returns of a policy with confidence intervals.

Simulation is the independent check of dynamic programming: the mean return of many episodes
must lie about the value of the policy, and says by how much a single episode scatters. All
episodes advance together, one array operation a step.

An endless discounted episode is cut when what may still come is below `tail`; the cut is known
to bias every return by at most `tail` and the reported interval is widened by it. Without
discounting an episode ends in a terminal state; those that do not within `max_steps` are
counted, and their returns are of the steps that were played.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from likely.errors import InvalidSetting, whole
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.mdp.model.operators import Policy, policy_array, policy_weights
from likely.mdp.model.problem import MDP
from likely.mdp.model.world import Problem, stored

BLOCK = 1 << 16  # probabilities that are added up at once


@dataclasses.dataclass(frozen=True, eq=False)
class Simulation:
    """Returns of simulated episodes.

    Attributes:
        returns: [episodes] discounted sum of rewards of each.
        lengths: [episodes] steps played.
        unfinished: episodes that were cut at `max_steps` before a terminal state.
        tail: bound on what the cut of an endless discounted episode left out of each return.
        seed: that repeats it.
    """

    returns: FloatArray
    lengths: IntArray
    unfinished: int
    tail: float
    seed: int

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    @property
    def standard_error(self) -> float:
        """Standard error of the mean; 0 for a single episode."""
        if len(self.returns) < 2:
            return 0.0
        return float(self.returns.std(ddof=1) / math.sqrt(len(self.returns)))

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """A confidence interval of the mean return (Student's t), widened by `tail`."""
        from scipy import stats

        if not 0.0 < confidence < 1.0:
            raise InvalidSetting(f"a confidence lies strictly between 0 and 1: {confidence}")
        if len(self.returns) < 2:
            return -math.inf, math.inf
        quantile = float(stats.t.ppf(0.5 + confidence / 2.0, len(self.returns) - 1))
        half = quantile * self.standard_error + self.tail
        return self.mean - half, self.mean + half

    def __str__(self) -> str:
        low, high = self.interval()
        text = (
            f"mean return {self.mean:.6g}, 95 % confidence [{low:.6g}, {high:.6g}], "
            f"{len(self.returns)} episodes, {self.lengths.mean():.1f} steps on average"
        )
        if self.unfinished:
            text += f"; {self.unfinished} episodes had not ended, their returns are partial"
        return text

    def __repr__(self) -> str:
        return str(self)


def simulate(
    problem: Problem,
    policy: Policy,
    episodes: int = 1000,
    seed: int = 0,
    start: int | None = None,
    max_steps: int = 100_000,
    tail: float = 1e-6,
) -> Simulation:
    """Play episodes.

    Args:
        problem: an `MDP` or a `World`; where it has rewards of transitions, those are paid.
        policy: [S] action labels or names, one name for all states, [S, A] or [pairs] action
            probabilities, a `Solution`, or "uniform".
        episodes: how many.
        seed: of NumPy's PCG64 generator; the same seed gives the same episodes.
        start: first state; None draws it from `mdp.initial`, or uniformly from the states that
            are not terminal where the problem has no initial distribution.
        max_steps: longest episode.
        tail: largest bias of a return by cutting an endless discounted episode.

    Raises:
        InvalidData: a policy that takes an action which its state does not have, or whose
            probabilities are not a distribution.
        InvalidSetting: no whole number of episodes or steps from 1, an impossible start.
    """
    episodes, max_steps = whole("episodes", episodes, 1), whole("max_steps", max_steps, 1)
    seed = whole("seed", seed, 0)
    mdp = stored(problem)
    random = np.random.default_rng(seed)
    state = _starts(mdp, random, episodes, start)  # [episodes]
    choose = _chooser(mdp, policy)
    within = _cumulative(mdp.probability, np.asarray(mdp.indptr))
    horizon, left_out = _horizon(mdp, max_steps, tail)
    returns = np.zeros(episodes)
    lengths = np.zeros(episodes, dtype=np.int64)
    alive = np.flatnonzero(~mdp.terminal[state])
    weight = 1.0
    gains = mdp.reward if mdp.successor_reward is None else mdp.successor_reward
    if len(gains) and not horizon * float(np.abs(gains).max()) < 1e300:
        largest = float(np.abs(gains).max())
        raise InvalidSetting(
            f"simulation: rewards up to {largest:.3g} over {horizon} steps are too large to add "
            "up; scale the rewards"
        )
    for _ in range(horizon):
        if len(alive) == 0:
            break
        pair = choose(random, state[alive])
        entry = _draw(within, np.asarray(mdp.indptr), pair, random.random(len(alive)))
        if mdp.successor_reward is None:
            returns[alive] += weight * mdp.reward[pair]
        else:
            returns[alive] += weight * mdp.successor_reward[entry]
        lengths[alive] += 1
        state[alive] = mdp.indices[entry]
        alive = alive[~mdp.terminal[state[alive]]]
        weight *= mdp.discount
    cut = len(alive) > 0 and horizon == max_steps and left_out > tail
    return Simulation(
        returns,
        lengths,
        len(alive) if cut else 0,
        left_out if math.isfinite(left_out) else 0.0,
        seed,
    )


class _Chooser:
    """Draws a pair for each state under a policy."""

    def __init__(
        self,
        rows: IntArray,
        within: FloatArray | None,
        pair_ptr: IntArray,
    ) -> None:
        self.rows, self.within, self.pair_ptr = rows, within, pair_ptr

    def __call__(self, random: np.random.Generator, states: IntArray) -> IntArray:
        if self.within is None:
            return self.rows[states]
        return _draw(self.within, self.pair_ptr, states, random.random(len(states)))


def _chooser(mdp: MDP, policy: Policy) -> _Chooser:
    pair_ptr = np.asarray(mdp.pair_ptr, dtype=np.int64)
    uniform = isinstance(policy, str) and policy == "uniform"
    labels = None if uniform else policy_array(mdp, policy)
    if labels is not None and labels.ndim == 1 and labels.dtype.kind in "iu":
        return _Chooser(np.asarray(mdp.pair_of(labels), dtype=np.int64), None, pair_ptr)
    within = _cumulative(policy_weights(mdp, policy), pair_ptr)
    return _Chooser(np.zeros(0, dtype=np.int64), within, pair_ptr)


def _starts(mdp: MDP, random: np.random.Generator, episodes: int, start: int | None) -> IntArray:
    if start is not None:
        if not 0 <= whole("start", start) < mdp.states:
            raise InvalidSetting(f"the start must be a state 0..{mdp.states - 1}, given {start}")
        return np.full(episodes, start, dtype=np.int64)
    if mdp.initial is not None:
        return random.choice(mdp.states, size=episodes, p=mdp.initial).astype(np.int64)
    open_states = np.flatnonzero(~mdp.terminal)
    if len(open_states) == 0:
        return np.zeros(episodes, dtype=np.int64)
    return random.choice(open_states, size=episodes).astype(np.int64)


def _horizon(mdp: MDP, max_steps: int, tail: float) -> tuple[int, float]:
    """Steps to play and a bound on the discounted rest after them (infinite undiscounted)."""
    gains = mdp.reward if mdp.successor_reward is None else mdp.successor_reward
    largest = float(np.abs(gains).max(initial=0.0))
    if mdp.discount >= 1.0:
        return max_steps, math.inf
    if largest == 0.0:
        return max_steps, 0.0
    scale = largest / (1.0 - mdp.discount)
    share = min(1.0, tail / scale)
    if not share > 0.0:
        return max_steps, scale * mdp.discount**max_steps
    needed = max(1, math.ceil(math.log(share) / math.log(mdp.discount)))
    steps = min(max_steps, needed)
    return steps, scale * mdp.discount**steps


def _cumulative(weight: FloatArray, pointer: IntArray) -> FloatArray:
    """Running sums within each row of a CSR array, the last of each made 1.

    They are differences of one long sum, which begins again after about `BLOCK` entries: what it
    rounds off grows with its length.
    """
    within = np.empty(len(weight))
    rows, first = len(pointer) - 1, 0
    while first < rows:
        last = int(np.searchsorted(pointer, int(pointer[first]) + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), rows)
        block = slice(int(pointer[first]), int(pointer[last]))
        running = np.concatenate([[0.0], np.cumsum(weight[block])])
        before = running[pointer[first:last] - pointer[first]]
        within[block] = running[1:] - np.repeat(before, np.diff(pointer[first : last + 1]))
        first = last
    within[pointer[1:][np.diff(pointer) > 0] - 1] = 1.0
    return within


def _draw(
    within: FloatArray,
    pointer: IntArray,
    rows: IntArray,
    uniform: FloatArray,
) -> IntArray:
    """The entry of each row in which a uniform number falls: bisection, all rows at once."""
    low = pointer[rows].astype(np.int64)
    high = pointer[rows + 1].astype(np.int64) - 1
    while True:
        open_rows = low < high
        if not open_rows.any():
            return low
        middle = (low + high) // 2
        right = open_rows & (within[middle] <= uniform)
        high = np.where(open_rows & ~right, middle, high)
        low = np.where(right, middle + 1, low)
