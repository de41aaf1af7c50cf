"""Certificates: recheck a value function by one backup, independently of the solvers.

Everything here is NumPy; nothing is shared with the kernels that found the value. The bounds
are those of MacQueen (1966) and Porteus (1971), widened by a proven bound on rounding.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.model.arrays import FloatArray
from likely.mdp.model.operators import Policy, policy_weights
from likely.mdp.model.problem import MDP, is_discounting
from likely.mdp.model.solution import Solution, at_most, value_array
from likely.mdp.model.world import Problem, stored

UNIT = 2.0**-53
LARGEST = float(np.finfo(np.float64).max)
BLOCK = 1 << 21  # transitions handled at once, so that a check needs little memory


@dataclasses.dataclass(frozen=True, eq=False)
class Certificate:
    """What one backup proves about a value function.

    Attributes:
        lower, upper: [S]; the optimal value lies between them (V^pi for a given policy).
        error: bound on max |value - V*|.
        policy_loss: bound on max (V* - V^greedy), the loss of acting greedily in `value`; nan
            when a policy was given.
        residual: max |T value - value|.
    """

    lower: FloatArray
    upper: FloatArray
    error: float
    policy_loss: float
    residual: float

    def __str__(self) -> str:
        return f"|V - V*| <= {at_most(self.error)}, residual {at_most(self.residual)}"

    __repr__ = __str__


def certify(
    problem: Problem,
    value: npt.ArrayLike | Solution,
    policy: Policy | None = None,
    *,
    objective: str = "max",
) -> Certificate:
    """Bounds on the optimal discounted value from one backup of `value`.

    Args:
        problem: an `MDP` or a `World`.
        value: [S] any finite numbers, from any solver; terminal states must hold 0. Or a
            `Solution`.
        policy: where given, the bounds are for the value of this policy instead (any form that
            `operators.policy_weights` takes).
        objective: "max" or "min".

    Raises:
        InvalidSetting: undiscounted MDPs, for which one backup proves nothing of this kind.
        InvalidData: a value of the wrong shape, or not finite.
    """
    mdp = stored(problem)
    if not is_discounting(mdp.discount):
        raise InvalidSetting(
            f"discount {mdp.discount}: one backup proves bounds only for a discount below 1"
        )
    if objective not in ("max", "min"):
        raise InvalidSetting(f'objective="{objective}" is unknown; expected "max" or "min"')
    v = value_array(value)
    if v.shape != (mdp.states,) or not bool(np.isfinite(v).all()):
        raise InvalidData(f"value of shape {v.shape}: expected finite numbers [{mdp.states}]")
    if bool((v[mdp.terminal] != 0.0).any()):
        raise InvalidData("value: terminal states must hold 0")
    sign = 1.0 if objective == "max" else -1.0
    weights = None
    if policy is not None:
        weights = policy_weights(mdp, policy)
    with np.errstate(over="ignore", invalid="ignore"):
        low, high, greedy_low, defect = _residuals(mdp, sign * v, sign, weights)
        lower, upper = _bounds(mdp, sign * v, low, high, defect)
        loss = math.nan
        if weights is None:
            # Greedy loses at most upper - (its own lower bound), state by state.
            attained, _ = _bounds(mdp, sign * v, greedy_low, high, defect)
            loss = _largest(upper - attained)
        if sign < 0.0:
            lower, upper = -upper, -lower
        error = _largest(np.maximum(upper - v, v - lower))
    residual = float(np.max(np.maximum(np.abs(low), np.abs(high)), initial=0.0))
    return Certificate(lower, upper, error, loss, residual)


def _largest(distance: FloatArray) -> float:
    """The largest distance, rounded up; infinite where one is not a number."""
    return float(np.max(np.nan_to_num(distance, nan=np.inf), initial=0.0)) * (1.0 + 2.0 * UNIT)


def _residuals(
    mdp: MDP, v: FloatArray, sign: float, weights: FloatArray | None
) -> tuple[FloatArray, FloatArray, FloatArray, float]:
    """Bounds [S] on T v - v, the lower bound for the greedy action, and the worst row defect."""
    low, high, greedy = np.zeros(mdp.states), np.zeros(mdp.states), np.zeros(mdp.states)
    worst = 0.0
    entries = mdp.indptr[mdp.pair_ptr]  # [S + 1] first transition of each state
    first = 0
    while first < mdp.states:
        last = int(np.searchsorted(entries, int(entries[first]) + BLOCK, side="right")) - 1
        last = min(max(last, first + 1), mdp.states)
        block = slice(first, last)
        live = np.flatnonzero(~mdp.terminal[block]) + first
        if len(live):
            q_low, q_high, defect = _pairs(mdp, v, sign, first, last)
            worst = max(worst, defect)
            start = int(mdp.pair_ptr[first])
            at = np.asarray(mdp.pair_ptr[live], dtype=np.int64) - start
            if weights is None:
                low[live] = np.maximum.reduceat(q_low, at)
                high[live] = np.maximum.reduceat(q_high, at)
                # Whatever rounds as it likes may take any pair that could be the greedy one.
                surely = np.repeat(low[live], np.diff(np.append(at, len(q_low))))
                greedy[live] = np.minimum.reduceat(np.where(q_high >= surely, q_low, np.inf), at)
            else:
                share = weights[start : start + len(q_low)]
                low[live] = np.add.reduceat(np.where(share > 0.0, share * q_low, 0.0), at)
                high[live] = np.add.reduceat(np.where(share > 0.0, share * q_high, 0.0), at)
                # Mixing rounds too: relative to the sizes that are mixed, and to how far the
                # weights are from one.
                reach = np.where(share > 0.0, np.maximum(abs(q_low), abs(q_high)), 0.0)
                size = np.add.reduceat(share * reach, at)
                off = abs(np.add.reduceat(share, at) - 1.0)
                mixed = np.add.reduceat(share > 0.0, at, dtype=np.int64)  # pairs that are taken
                off += (mixed - 1) * UNIT
                # The rounding of the mixture; weights that are meant to sum to one, or those that
                # are there.
                slack = (mixed + 2) * UNIT * size + off * abs(v[live]) + 1e-300
                slack += 2.0 * off * np.maximum(abs(low[live]), abs(high[live]))
                low[live] -= slack
                high[live] += slack
                worst = max(worst, defect + float(off.max()) * (1.0 + defect))
        first = last
    low[~(low < np.inf)], high[~(high > -np.inf)] = -np.inf, np.inf
    greedy[~(greedy < np.inf)] = -np.inf
    return low, high, greedy, worst


def _pairs(
    mdp: MDP, v: FloatArray, sign: float, first: int, last: int
) -> tuple[FloatArray, FloatArray, float]:
    """Bounds on r + discount P v - v(s) for the pairs of states first..last."""
    rows = slice(int(mdp.pair_ptr[first]), int(mdp.pair_ptr[last]))
    pointer = np.asarray(mdp.indptr[rows.start : rows.stop + 1], dtype=np.int64)
    entries = slice(int(pointer[0]), int(pointer[-1]))
    at = pointer[:-1] - pointer[0]
    counts = np.diff(pointer)
    owner = np.repeat(np.arange(first, last), np.diff(mdp.pair_ptr[first : last + 1]))
    at_state = v[owner]  # [pairs of the block]
    p = mdp.probability[entries]
    # Differences of values are exact or nearly so; r + discount P v - v would cancel.
    terms = p * (v[mdp.indices[entries]] - np.repeat(at_state, counts))
    reward = sign * mdp.reward[rows]
    drift = (1.0 - mdp.discount) * at_state
    q = reward + mdp.discount * np.add.reduceat(terms, at) - drift
    size = abs(reward) + mdp.discount * np.add.reduceat(abs(terms), at) + abs(drift)
    # How far the rows are from one here, and how far from the rows that are meant.
    defect = abs(np.add.reduceat(p, at) - 1.0) + (counts - 1) * UNIT
    defect = np.maximum(defect, mdp.row_defect)
    error = ((counts + 8) * UNIT + defect) * size + mdp.discount * defect * abs(at_state)
    error += mdp.reward_defect + 1e-300
    # Where a value overflows nothing is known.
    q_low, q_high = np.nan_to_num(q - error, nan=-np.inf, posinf=-np.inf, neginf=-np.inf), q + error
    return (
        q_low,
        np.nan_to_num(q_high, nan=np.inf, posinf=np.inf, neginf=np.inf),
        float(defect.max()),
    )


def _bounds(
    mdp: MDP, v: FloatArray, low: FloatArray, high: FloatArray, defect: float
) -> tuple[FloatArray, FloatArray]:
    """MacQueen-Porteus bounds; terminal states have residual 0, which joins the extremes."""
    least, most = float(low.min()), float(high.max())
    small = large = mdp.discount
    if defect > 0.0 and mdp.discount * (1.0 + defect) + 4.0 * UNIT < 1.0:
        # Rows as they are stored; divided by their exact sum they have the discount itself.
        large = mdp.discount * (1.0 + defect) + 4.0 * UNIT
        small = max(0.0, mdp.discount * (1.0 - defect) - 4.0 * UNIT)
    narrow, wide = small / (1.0 - small), large / (1.0 - large)
    add_low = min(least * (wide if least < 0.0 else narrow), LARGEST)
    add_high = max(most * (wide if most > 0.0 else narrow), -LARGEST)
    # What overflows is rounded towards the truth.
    lower = np.minimum(v + low + add_low, LARGEST)
    upper = np.maximum(v + high + add_high, -LARGEST)
    lower -= 8.0 * UNIT * abs(v) + 8.0 * UNIT * abs(low) + 16.0 * UNIT * abs(add_low)
    upper += 8.0 * UNIT * abs(v) + 8.0 * UNIT * abs(high) + 16.0 * UNIT * abs(add_high)
    lower = np.nan_to_num(lower, nan=-np.inf, posinf=LARGEST, neginf=-np.inf)
    upper = np.nan_to_num(upper, nan=np.inf, posinf=np.inf, neginf=-LARGEST)
    lower[mdp.terminal] = 0.0
    upper[mdp.terminal] = 0.0
    return lower, upper
