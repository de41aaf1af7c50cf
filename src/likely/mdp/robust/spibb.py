r"""Safe policy improvement: depart from a behaviour policy where there is data for it.

SPIBB (Laroche, Trichelair and Tachet des Combes 2019, https://arxiv.org/abs/1712.06924): pairs that
were seen more than N times are free; on the others the new policy keeps the probability of the
behaviour policy (`variant="keep"`, Pi_b of the paper) or takes at most that (`"at-most"`, Pi_<=b).
In the estimated model it is the fixed point of policy iteration with that projection. With
probability 1 - delta it loses at most

    zeta = 4 Vmax / (1 - discount) sqrt(2 / N ln(2 S A 2^S / delta)) - (gain in that model).

Soft-SPIBB (Nadjahi, Laroche and Tachet des Combes 2019, https://arxiv.org/abs/1907.05079) spends a
budget in each state, sum_a e(s, a) |pi - pi_b| <= epsilon, e = sqrt(2 ln(2 S A / delta) / n); its
greedy approximation moves mass from the worst actions to the action with most gain for its error.

The guarantee is often printed beside thresholds of 5 to 100, for which it says nothing. So a
`SafePolicy` carries the constant that its own N gives, whether it is vacuous, and the N that the
bound would need. Rows that were never visited have no successor in the estimated model: value 0.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, whole
from likely.mdp.model import checks
from likely.mdp.model.arrays import BoolArray, FloatArray
from likely.mdp.model.problem import is_discounting
from likely.mdp.robust.counts import Counts


@dataclasses.dataclass(frozen=True, eq=False)
class SafePolicy:
    """A policy that departs from the behaviour policy only where the counts allow it.

    Attributes:
        policy: [S, A] probabilities.
        gain: value of the policy less that of the behaviour policy in the estimated model, at the
            first states.
        used: the N (or epsilon) that was used.
        zeta: the proven loss at most, with probability 1 - delta, for that N; nan for soft-SPIBB.
        largest: Vmax; a zeta of at least that says nothing.
        needed: visits of every free pair for L1 errors of 0.1, on which the bound rests.
        delta: chance that the bound is wrong.
    """

    policy: FloatArray
    gain: float
    used: float
    zeta: float
    largest: float
    needed: int
    delta: float

    @property
    def vacuous(self) -> bool:
        """Whether the guarantee says no more than that values are at most Vmax."""
        return not self.zeta < self.largest

    def __str__(self) -> str:
        if math.isnan(self.zeta):
            return f"soft-SPIBB, budget {self.used:g}: gain {self.gain:.4g} in the estimated model"
        bound = f"loses at most {self.zeta:.3g} with probability {1 - self.delta:g}"
        if self.vacuous:
            bound = (
                f"its bound {self.zeta:.3g} says nothing (values are at most "
                f"{self.largest:.3g}); L1 errors of 0.1 need N = {self.needed:,}"
            )
        return f"SPIBB, N = {self.used:g}: gain {self.gain:.4g} in the estimated model; {bound}"

    __repr__ = __str__


def needed_visits(states: int, actions: int, delta: float = 0.05, error: float = 0.1) -> int:
    """Visits of a pair for an L1 error, 2 / error^2 ln(2 S A 2^S / delta), rounded up.

    >>> needed_visits(25, 4)
    5125
    """
    return math.ceil(2.0 / error**2 * _log_events(states, actions, delta))


def _log_events(states: int, actions: int, delta: float) -> float:
    return math.log(2.0 * states * actions / delta) + states * math.log(2.0)


def spibb(
    counts: Counts,
    behaviour: npt.ArrayLike,
    discount: float,
    *,
    threshold: int,
    variant: str = "keep",
    delta: float = 0.05,
) -> SafePolicy:
    """The best policy that keeps to the behaviour policy on pairs seen at most `threshold` times.

    Args:
        counts: of the behaviour policy's data.
        behaviour: [S, A] probabilities.
        discount: below 1.
        threshold: N. See `SafePolicy.zeta` for what it proves.
        variant: "keep" (Pi_b) or "at-most" (Pi_<=b).
        delta: of the bound.

    Raises:
        InvalidData: a behaviour policy of the wrong shape, or no distribution.
    """
    checks.choice("variant", variant, ("keep", "at-most"))
    threshold = whole("threshold", threshold, 0)
    model = _Estimated(counts, behaviour_of(counts, behaviour, discount, delta), discount)
    free = np.zeros(model.base.shape, dtype=bool)
    free[counts.state, counts.action] = counts.visits > threshold

    def improve(q: FloatArray) -> FloatArray:
        return _keep(model.base, free, q) if variant == "keep" else _at_most(model.base, free, q)

    policy, gain = model.iterate(improve)
    largest = max(map(abs, counts.reward_range)) / (1.0 - discount)
    states, actions = model.base.shape
    root = math.inf
    if threshold > 0:
        root = math.sqrt(2.0 / threshold * _log_events(states, actions, delta))
    zeta = 4.0 * largest / (1.0 - discount) * root - gain
    needed = needed_visits(states, actions, delta)
    return SafePolicy(policy, gain, threshold, zeta, largest, needed, delta)


def soft_spibb(
    counts: Counts,
    behaviour: npt.ArrayLike,
    discount: float,
    *,
    epsilon: float,
    delta: float = 0.05,
) -> SafePolicy:
    """Approximate soft-SPIBB: a budget `epsilon` in each state for departures times their error.

    Arguments as for `spibb`.
    """
    if not epsilon >= 0.0:
        raise InvalidSetting(f"epsilon must be at least 0, given {epsilon}")
    model = _Estimated(counts, behaviour_of(counts, behaviour, discount, delta), discount)
    states, actions = model.base.shape
    error = np.full(model.base.shape, np.inf)
    with np.errstate(divide="ignore"):
        error[counts.state, counts.action] = np.sqrt(
            2.0 * math.log(2.0 * states * actions / delta) / counts.visits
        )
    policy, gain = model.iterate(lambda q: _spend(model.base, error, q, epsilon))
    largest = max(map(abs, counts.reward_range)) / (1.0 - discount)
    needed = needed_visits(states, actions, delta)
    return SafePolicy(policy, gain, epsilon, math.nan, largest, needed, delta)


def behaviour_of(
    counts: Counts, behaviour: npt.ArrayLike, discount: float, delta: float
) -> FloatArray:
    """[S, A] probabilities, once they, the discount and delta are known to be such."""
    base = np.asarray(behaviour, dtype=np.float64)
    if (
        base.ndim != 2
        or len(base) != counts.states
        or base.shape[1] <= counts.action.max(initial=0)
    ):
        raise InvalidData(
            f"the behaviour policy has shape {list(base.shape)}, expected [{counts.states}, A]"
        )
    total = np.bincount(counts.state, base[counts.state, counts.action], counts.states)
    wrong = ~(abs(total - 1.0) <= 1e-9) & (np.bincount(counts.state, minlength=counts.states) > 0)
    if wrong.any() or not (base >= 0.0).all():
        raise InvalidData("the behaviour policy is no distribution over the actions of each state")
    if not is_discounting(discount):
        raise InvalidSetting(f"a discount below 1 is expected, given {discount}")
    if not 0.0 < delta < 1.0:
        raise InvalidSetting(f"expected a delta between 0 and 1, given {delta}")
    return base


class _Estimated:
    """The process of the frequencies, dense."""

    def __init__(self, counts: Counts, base: FloatArray, discount: float) -> None:
        states, live = counts.states, np.unique(counts.state)
        self.base, self.discount, self.counts = base, discount, counts
        self.q_reward = np.zeros(base.shape)
        self.rows = np.zeros((*base.shape, states))
        seen = (counts.visits > 0)[:, None]
        chance = np.where(seen, counts.frequency, 0.0)
        self.q_reward[counts.state, counts.action] = (chance * counts.reward).sum(axis=1)
        there = counts.successor >= 0
        owner = np.broadcast_to(np.arange(len(chance))[:, None], there.shape)[there]
        np.add.at(
            self.rows,
            (counts.state[owner], counts.action[owner], counts.successor[there]),
            chance[there],
        )
        self.rows[:, :, counts.terminal] = 0.0
        even = np.zeros(states)
        even[live] = 1.0 / max(1, len(live))
        self.begin: FloatArray = even if counts.initial is None else counts.initial

    def value(self, policy: FloatArray) -> FloatArray:
        rows = np.einsum("sa,sat->st", policy, self.rows)
        reward = (policy * self.q_reward).sum(axis=1)
        return np.linalg.solve(np.eye(len(rows)) - self.discount * rows, reward)

    def iterate(self, improve: Callable[[FloatArray], FloatArray]) -> tuple[FloatArray, float]:
        """Policy iteration under a projection; the policy and its gain over the baseline."""
        policy, base = self.base, self.value(self.base)
        value = base
        for _ in range(1000):
            q = self.q_reward + self.discount * self.rows @ value
            policy = improve(q)
            after = self.value(policy)
            done = float(abs(after - value).max()) <= 1e-12 * max(1.0, float(abs(value).max()))
            value = after
            if done:
                break
        return policy, float(self.begin @ (value - base))


def _keep(base: FloatArray, free: BoolArray, q: FloatArray) -> FloatArray:
    policy = np.where(free, 0.0, base)
    best = np.where(free, q, -np.inf).argmax(axis=1)
    rows = np.flatnonzero(free.any(axis=1))
    policy[rows, best[rows]] = base[rows].sum(axis=1) - policy[rows].sum(axis=1)
    return policy


def _at_most(base: FloatArray, free: BoolArray, q: FloatArray) -> FloatArray:
    """Best actions first, each up to what it may take."""
    order = np.argsort(-q, axis=1, kind="stable")
    total = base.sum(axis=1, keepdims=True)
    room = np.take_along_axis(np.where(free, total, base), order, axis=1)
    before = np.cumsum(room, axis=1) - room
    policy = np.zeros_like(base)
    np.put_along_axis(policy, order, np.clip(total - before, 0.0, room), axis=1)
    return policy


def _spend(base: FloatArray, error: FloatArray, q: FloatArray, epsilon: float) -> FloatArray:
    policy = base.copy()
    for s in range(len(base)):
        left = epsilon
        for worse in np.argsort(q[s], kind="stable"):
            cost = error[s] + error[s, worse]
            with np.errstate(invalid="ignore", divide="ignore"):
                worth = np.where(np.isfinite(cost), (q[s] - q[s, worse]) / error[s], -np.inf)
            better = int(worth.argmax())
            if not worth[better] > 0.0 or left <= 0.0:
                continue
            moved = min(policy[s, worse], left / cost[better])
            policy[s, worse] -= moved
            policy[s, better] += moved
            left -= moved * cost[better]
    return policy
