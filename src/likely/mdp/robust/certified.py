r"""Improvement of a policy that is proven, switch by switch, with probability 1 - delta.

SPIBB takes actions that look better in the estimated model, and its theorem bounds what that may
cost. Here a state leaves an action b for an action a only where counts prove that it is no loss.
With confidence sets for all rows (as in `robust_bounds`), the value of a policy pi lies between two
robust fixed points, L <= V^pi <= U, so

    Q^pi(s, a) >= min_p E[r + discount L],      Q^pi(s, b) <= max_p E[r + discount U],

and where the first is at least the second, moving the probability of b to a loses nothing: by the
policy improvement theorem (Bellman 1957; Howard 1960) the new policy is at least as good in every
state. The same sets serve every round, so the chain of improvements holds with probability 1 -
delta as a whole. High-confidence improvement with intervals on values: Thomas, Theocharous and
Ghavamzadeh 2015, https://proceedings.mlr.press/v37/thomas15.html.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidSetting
from likely.mdp.model import checks
from likely.mdp.model.arrays import FloatArray
from likely.mdp.robust.bounds import backup, confidence_sets, fixed_point
from likely.mdp.robust.counts import Counts
from likely.mdp.robust.spibb import behaviour_of

ROUNDS = 100


@dataclasses.dataclass(frozen=True, eq=False)
class CertifiedPolicy:
    """A policy that is at least as good as the behaviour policy in every state.

    Attributes:
        policy: [S, A] probabilities.
        switches: pairs whose probability was moved to a better action of their state.
        lower: [S] value that the policy earns at least.
        delta: chance that the statement is wrong.
    """

    policy: FloatArray
    switches: int
    lower: FloatArray
    delta: float

    def __str__(self) -> str:
        if not self.switches:
            return "no departure from the behaviour policy is proven: it stays as it is"
        return (
            f"{self.switches} actions left for better ones; with probability {1 - self.delta:g} no "
            "state is worth less than under the behaviour policy"
        )

    __repr__ = __str__


def certified_improvement(
    counts: Counts,
    behaviour: npt.ArrayLike,
    discount: float,
    *,
    delta: float = 0.05,
    sets: str = "intervals",
    gathered: str = "adaptive",
    tolerance: float = 1e-6,
) -> CertifiedPolicy:
    """Leave actions of the behaviour policy where counts prove that another is no worse.

    Args:
        counts: with declared successors; see `Counts`.
        behaviour: [S, A] probabilities.
        discount: below 1.
        delta: chance that the new policy is worse anywhere.
        sets: "intervals" (Clopper-Pearson) or "l1" (Weissman).
        gathered: as in `robust_bounds`.
        tolerance: of the robust values.

    Raises:
        InvalidData: a behaviour policy of the wrong shape, or no distribution.
    """
    checks.choice("sets", sets, ("intervals", "l1"))
    checks.choice("gathered", gathered, ("fixed", "adaptive"))
    if not tolerance > 0.0:
        raise InvalidSetting(f"tolerance {tolerance}: expected a positive number")
    policy = behaviour_of(counts, behaviour, discount, delta).copy()
    worst, pays = confidence_sets(counts, delta, sets, gathered)
    switches, pair = 0, (counts.state, counts.action)
    for _ in range(ROUNDS):
        ends, sides = [], []
        for side in (0, 1):
            part = fixed_point(counts, pays[side], discount, worst, side, policy[pair], tolerance)
            ends.append(part.bound)
            sides.append(backup(counts, pays[side], discount, worst, side, part.bound))
        low, high = (np.full(policy.shape, -np.inf) for _ in range(2))
        low[pair], high[pair] = sides
        best = low.argmax(axis=1)
        proven = (high <= low.max(axis=1)[:, None]) & np.isfinite(high) & (policy > 0.0)
        proven[np.arange(len(best)), best] = False
        if not proven.any():
            break
        switches += int(proven.sum())
        moved = np.where(proven, policy, 0.0)
        policy -= moved
        policy[np.arange(len(best)), best] += moved.sum(axis=1)
    return CertifiedPolicy(policy, switches, ends[0], delta)
