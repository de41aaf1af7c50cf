r"""Bounds on V* from counts: with probability 1 - delta, L <= V* <= U in every state.

Each row p(. | s, a) lies in a confidence set P(s, a) around its frequencies, all rows at once with
probability 1 - delta. The robust operators

    T_L V(s) = max_a min_{p in P(s, a)} sum_s' p(s') (r + discount V(s')),     T_U with max max

are monotone and T(V + c) = T V + discount c, so the bounds of MacQueen and Porteus hold for their
fixed points as for those of the Bellman operator. The fixed point of T_L is at most V*, and the
policy that attains it earns at least as much in every process of the set (Iyengar 2005; Nilim and
El Ghaoui 2005, https://doi.org/10.1287/opre.1050.0216).

Sets, with n visits, k *possible* successors, m rows (all visited the same way):

- "l1": P(|p - f|_1 >= e) <= (2^k - 2) exp(-n e^2 / 2) (Weissman et al. 2003, HPL-2003-97), so
  e = sqrt(2 ln((2^k - 2) m / delta) / n);
- "intervals": Clopper and Pearson 1934 for each entry, delta / (m k) each;
- "both": half of delta for each; U is the better one in each state, L that of the better policy.

Rewards are known, or known only where they were paid and to lie in a declared range of width R.
Then d = delta / 2 is for the mean rewards of the pairs, and the smaller of two radii counts, d / 2
for each; v is the sample variance:

- Hoeffding 1963: |mean - r| <= R sqrt(ln(4 m / d) / (2 n));
- empirical Bernstein (Maurer and Pontil 2009, theorem 4, https://arxiv.org/abs/0907.3740):
  |mean - r| <= sqrt(2 v ln(8 m / d) / n) + 7 R ln(8 m / d) / (3 (n - 1)), of order 1 / n for a
  reward that never varied.

The number of visits is itself random where a policy gathered the data: `gathered="adaptive"` takes
the union over n, with delta_n = 6 delta / (pi^2 n^2), and is the default.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from likely.errors import InvalidSetting, whole
from likely.mdp.model import checks
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.mdp.model.problem import is_discounting
from likely.mdp.model.solution import at_most
from likely.mdp.robust.counts import Counts

UNIT = 2.0**-53
SETS = ("l1", "intervals", "both")
Worst = Callable[[FloatArray], FloatArray]


@dataclasses.dataclass(frozen=True, eq=False)
class RobustBounds:
    """What counts prove about a process.

    Attributes:
        lower, upper: [S] L and U: L <= V* <= U everywhere with probability 1 - delta.
        policy: [S] actions that earn at least L with the same probability, -1 in terminal states.
        delta: chance that the statement is wrong.
        sets: "l1", "intervals" or "both".
        solver_error: how far `lower` may be below the robust optimum, and `upper` above, for lack
            of iterations; both are proven bounds whatever it is.
        iterations: robust backups.
    """

    lower: FloatArray
    upper: FloatArray
    policy: IntArray
    delta: float
    sets: str
    solver_error: float
    iterations: int

    def __str__(self) -> str:
        return (
            f"L <= V* <= U in every state with probability {1 - self.delta:g} "
            f"(sets: {self.sets}, widest interval "
            f"{at_most(float((self.upper - self.lower).max()))}, "
            f"solver error {at_most(self.solver_error, 2)})"
        )

    __repr__ = __str__


def l1_radius(counts: Counts, delta: float, gathered: str = "adaptive") -> FloatArray:
    """[m] radii of the L1 balls, all right at once with probability 1 - delta; at most 2."""
    n, k = counts.visits, counts.possible
    share = _share(n, delta / max(1, len(n)), gathered)
    # ln(2^k - 2) without overflow; a row with one possible successor is known.
    logs = np.where(
        k > 1, k * math.log(2.0) + np.log1p(-(2.0 ** (1.0 - np.maximum(k, 2)))), -np.inf
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        radius = np.sqrt(np.maximum(2.0 * (logs - np.log(share)), 0.0) / n)
    return np.where(k == 1, 0.0, np.where(n == 0, 2.0, np.minimum(radius, 2.0)))


def entry_intervals(
    counts: Counts, delta: float, gathered: str = "adaptive"
) -> tuple[FloatArray, FloatArray]:
    """[m, k] ends of the Clopper-Pearson intervals; all right with probability 1 - delta."""
    from scipy.stats import beta

    n, k = counts.visits[:, None], counts.possible[:, None]
    share = _share(counts.visits, delta / max(1, len(n)), gathered)[:, None] / (2.0 * k)
    x = counts.count
    with np.errstate(invalid="ignore"):
        low = np.where(x > 0, beta.ppf(share, x, n - x + 1), 0.0)
        high = np.where(x < n, beta.ppf(1.0 - share, x + 1, n - x), 1.0)
    there = counts.successor >= 0
    low, high = np.where(there & (k > 1), low, 0.0), np.where(there & (k > 1), high, 0.0)
    sure = there & (k == 1)
    return np.where(sure, 1.0, low), np.where(sure, 1.0, high)


def reward_intervals(
    counts: Counts, delta: float, gathered: str = "adaptive"
) -> tuple[FloatArray, FloatArray]:
    """[m] ends of intervals for the mean rewards of the pairs, with `Counts.paid`.

    All right with probability 1 - delta; the whole range where a pair was never seen.
    """
    paid, n = counts.paid, np.maximum(counts.visits, 1)
    assert paid is not None
    width, share = paid.most - paid.least, _share(n, delta / max(1, len(n)), gathered)
    mean = paid.total / n
    spare = np.maximum(n - 1, 1)
    variance = np.maximum(paid.squares - paid.total * mean, 0.0) / spare
    hoeffding = width * np.sqrt(np.log(4.0 / share) / (2.0 * n))
    bernstein = np.sqrt(2.0 * variance * np.log(8.0 / share) / n)
    bernstein += 7.0 * width * np.log(8.0 / share) / (3.0 * spare)
    radius = np.where(n > 1, np.minimum(hoeffding, bernstein), hoeffding)
    seen = counts.visits > 0
    low = np.where(seen, np.maximum(mean - radius, 0.0), 0.0)
    high = np.where(seen, np.minimum(mean + radius, width), width)
    return paid.least + low, paid.least + high


def _share(n: IntArray, delta: float, gathered: str) -> FloatArray:
    if gathered == "adaptive":
        return np.asarray(6.0 * delta / (math.pi * np.maximum(n, 1)) ** 2)
    return np.full(len(n), delta)


def worst_of_l1(value: FloatArray, frequency: FloatArray, radius: FloatArray) -> FloatArray:
    """[m] min of sum_j q_j value_j over |q - frequency|_1 <= radius, q a distribution.

    Half of the radius moves from the highest values to the lowest one.

    Args:
        value: [m, k], infinite where there is no successor.
        frequency: [m, k], 0 there.
        radius: [m].
    """
    order = np.argsort(value, axis=1, kind="stable")
    v = np.take_along_axis(value, order, axis=1)
    p = np.take_along_axis(frequency, order, axis=1)
    moved = np.minimum(0.5 * radius, 1.0 - p[:, 0])
    above = np.cumsum(p[:, ::-1], axis=1)[:, ::-1] - p  # mass of still higher values
    q = p - np.clip(moved[:, None] - above, 0.0, p)
    q[:, 0] = p[:, 0] + moved
    return np.asarray(np.where(q > 0.0, q * np.where(np.isfinite(v), v, 0.0), 0.0).sum(axis=1))


def worst_of_intervals(value: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """[m] min of sum_j q_j value_j over low <= q <= high, q a distribution.

    What the lower ends leave goes to the lowest values first. Shapes as in `worst_of_l1`.
    """
    order = np.argsort(value, axis=1, kind="stable")
    v = np.take_along_axis(value, order, axis=1)
    least = np.take_along_axis(low, order, axis=1)
    room = np.take_along_axis(high, order, axis=1) - least
    rest = 1.0 - least.sum(axis=1)
    before = np.cumsum(room, axis=1) - room
    q = least + np.clip(rest[:, None] - before, 0.0, room)
    return np.asarray(np.where(q > 0.0, q * np.where(np.isfinite(v), v, 0.0), 0.0).sum(axis=1))


def robust_bounds(
    counts: Counts,
    discount: float,
    *,
    delta: float = 0.05,
    sets: str = "both",
    gathered: str = "adaptive",
    tolerance: float = 1e-6,
    max_iterations: int = 100_000,
) -> RobustBounds:
    """L <= V* <= U in every state with probability 1 - delta, and a policy that earns L.

    Args:
        counts: with declared successors, and with known rewards or their declared range; see
            `Counts`.
        discount: below 1.
        delta: chance that any of the rows lies outside its set, or any mean reward outside its
            interval.
        sets: "l1" (Weissman), "intervals" (Clopper-Pearson), or "both".
        gathered: "fixed" where the number of draws of each pair was fixed beforehand, "adaptive"
            where a policy decided.
        tolerance: of the robust values, in units of reward.

    Raises:
        InvalidSetting: an unknown name, a discount, delta, tolerance or number of iterations out
            of range.
    """
    checks.choice("sets", sets, SETS)
    checks.choice("gathered", gathered, ("fixed", "adaptive"))
    if not is_discounting(discount) or not 0.0 < delta < 1.0:
        raise InvalidSetting(
            f"expected a discount and a delta between 0 and 1, given {discount} and {delta}"
        )
    if not tolerance > 0.0:
        raise InvalidSetting(f"tolerance {tolerance}: expected a positive number")
    max_iterations = whole("max_iterations", max_iterations, 1)
    parts = [sets] if sets != "both" else ["l1", "intervals"]
    solved = [
        _bounds_of(counts, discount, delta / len(parts), name, gathered, tolerance, max_iterations)
        for name in parts
    ]
    if len(solved) == 1:
        return solved[0]
    first, second = solved
    # Both policies earn their bound; the one that is taken is that of the better mean bound.
    begin = np.ones(counts.states) if counts.initial is None else counts.initial
    best = max(solved, key=lambda part: float(begin @ part.lower))
    return RobustBounds(
        best.lower, np.minimum(first.upper, second.upper), best.policy, delta, sets,
        max(first.solver_error, second.solver_error), first.iterations + second.iterations,
    )  # fmt: skip


def _bounds_of(
    counts: Counts, discount: float, delta: float, sets: str, gathered: str, tolerance: float,
    max_iterations: int,
) -> RobustBounds:  # fmt: skip
    worst, pays = confidence_sets(counts, delta, sets, gathered)
    low, high = (
        fixed_point(counts, pays[side], discount, worst, side, None, tolerance, max_iterations)
        for side in (0, 1)
    )
    policy = np.full(counts.states, -1, dtype=np.int64)
    backed = np.full(counts.states, -np.inf)
    np.maximum.at(backed, counts.state, low.pairs)
    best = np.flatnonzero(low.pairs == backed[counts.state])[::-1]
    policy[counts.state[best]] = counts.action[best]
    return RobustBounds(
        low.bound, high.bound, policy, delta, sets, max(low.error, high.error),
        low.iterations + high.iterations,
    )  # fmt: skip


def confidence_sets(
    counts: Counts, delta: float, sets: str, gathered: str
) -> tuple[Worst, tuple[FloatArray, FloatArray]]:
    """The worst case over the rows, values [m, k] to expectations [m], and rewards [m, 1 or k].

    All of them are right at once with probability 1 - delta; "l1" or "intervals".
    """
    pays = counts.reward, counts.reward
    if counts.paid is not None:
        delta /= 2.0
        least, most = reward_intervals(counts, delta, gathered)
        pays = least[:, None], most[:, None]
    if sets == "l1":
        radius, frequency = l1_radius(counts, delta, gathered), counts.frequency
        return lambda value: worst_of_l1(value, frequency, radius), pays
    low, high = entry_intervals(counts, delta, gathered)
    return lambda value: worst_of_intervals(value, low, high), pays


@dataclasses.dataclass(frozen=True, eq=False)
class FixedPoint:
    """A proven bound on a value [S], its last backup by pair [m], its distance, the backups."""

    bound: FloatArray
    pairs: FloatArray
    error: float
    iterations: int


def backup(
    counts: Counts, pay: FloatArray, discount: float, worst: Worst, side: int, value: FloatArray
) -> FloatArray:
    """[m] r + discount E[V] of each pair, the worst (side 0) or the best (side 1) of its set."""
    sign = 1.0 - 2.0 * side  # max = -min of the negative
    earned = sign * (pay + discount * value[np.maximum(counts.successor, 0)])
    return sign * worst(np.where(counts.successor >= 0, earned, np.inf))


def fixed_point(
    counts: Counts, pay: FloatArray, discount: float, worst: Worst, side: int,
    weights: FloatArray | None, tolerance: float, max_iterations: int = 100_000,
) -> FixedPoint:  # fmt: skip
    """Iterate a robust operator until its bound is known to the tolerance.

    Args:
        pay: [m, k] or [m, 1] rewards.
        side: 0 for the lower bound, 1 for the upper one.
        weights: [m] a policy's probabilities; None for the best action.
    """
    if not len(counts.state):  # all states are terminal
        return FixedPoint(np.zeros(counts.states), np.zeros(0), 0.0, 0)
    starts = np.flatnonzero(np.append(True, np.diff(counts.state) != 0))[: len(counts.state)]
    live = counts.state[starts]
    size, value = 1.0 - discount, np.zeros(counts.states)
    for iteration in range(1, max_iterations + 1):
        pairs = backup(counts, pay, discount, worst, side, value)
        backed = np.zeros(counts.states)
        if weights is None:
            backed[live] = np.maximum.reduceat(pairs, starts)
        else:
            backed[live] = np.add.reduceat(weights * pairs, starts)
        change = backed - value
        # Terminal states stay 0, so 0 joins the extremes.
        least, most = min(0.0, float(change.min())), max(0.0, float(change.max()))
        if discount * (most - least) / size <= tolerance or iteration == max_iterations:
            break
        value = backed
    slack = (counts.successor.shape[1] + 8) * UNIT * (np.abs(pay).max() + np.abs(backed).max())
    slack = 4.0 * slack / size
    bound = backed + (
        discount * least / size - slack if side == 0 else discount * most / size + slack
    )
    bound[counts.terminal] = 0.0
    return FixedPoint(bound, pairs, discount * (most - least) / size + 2.0 * slack, iteration)
