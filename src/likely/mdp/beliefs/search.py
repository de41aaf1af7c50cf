"""`solve_beliefs`: an interval that contains V* of the first belief, narrowed where it matters.

Heuristic search value iteration (Smith and Simmons 2005, https://arxiv.org/abs/1207.1412): walk
from the first belief, by the action of the highest upper bound and the observation whose interval
is too wide by most, and improve both bounds at the beliefs on the way back. Both hold at any
moment, so a search that is stopped early has an answer.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.beliefs.bounds import Above, Below
from likely.mdp.beliefs.problem import POMDP
from likely.mdp.model.solution import at_least, at_most


@dataclasses.dataclass(frozen=True, eq=False)
class BeliefSolution:
    """Bounds on the value of beliefs, and a policy that earns at least the lower one.

    Attributes:
        pomdp: the problem.
        below, above: functions of beliefs [n, S] that bound V* from below and above, [n].
        lower, upper: at the first belief.
        status: a sentence.
        trials: walks from the first belief.
        seconds: wall-clock time.
    """

    pomdp: POMDP
    below: Below
    above: Above
    lower: float
    upper: float
    status: str
    trials: int
    seconds: float

    def choose(self, belief: npt.ArrayLike) -> int:
        """The action at a belief [S]; following it earns at least `below` of the belief.

        The action is that of the best alpha vector.
        """
        b = np.asarray(belief, dtype=np.float64)
        if b.shape != (self.pomdp.states,) or abs(b.sum() - 1.0) > 1e-9 or (b < 0).any():
            raise InvalidData(f"expected a distribution over {self.pomdp.states} states")
        return self.below.best_action(b)

    def __str__(self) -> str:
        return self.status

    __repr__ = __str__


def solve_beliefs(
    pomdp: POMDP,
    tolerance: float = 1e-3,
    *,
    max_seconds: float | None = 60.0,
    max_trials: int | None = None,
) -> BeliefSolution:
    """Bounds on the best discounted value of the first belief.

    Args:
        pomdp: the problem.
        tolerance: width upper - lower to reach, in units of reward.
        max_seconds, max_trials: stop early; the bounds hold nevertheless, up to rounding.

    Raises:
        InvalidSetting: a tolerance that is not positive.
    """
    if not tolerance > 0.0:
        raise InvalidSetting(f"the tolerance must be positive, given {tolerance}")
    began, trials = time.perf_counter(), 0
    below, above = Below(pomdp), Above(pomdp)
    start = pomdp.start

    def ends() -> tuple[float, float]:
        return float(below(start[None])[0]), float(above(start[None])[0])

    lower, upper = ends()
    how = "converged"
    while upper - lower > tolerance:
        if max_trials is not None and trials >= max_trials:
            how = "stopped at the limit of trials"
            break
        if max_seconds is not None and time.perf_counter() - began >= max_seconds:
            how = "stopped at the time limit"
            break
        # Aim at a part of the present width: walks of sensible length first.
        _walk(pomdp, below, above, max(tolerance, 0.5 * (upper - lower)), began, max_seconds)
        trials += 1
        lower, upper = ends()
    seconds = time.perf_counter() - began
    width = upper - lower
    status = (
        f"{how} after {trials} trials and {seconds:.3g} s; {at_least(lower, 9)} <= V* <= "
        f"{at_most(upper, 9)} at the first belief (width {width:.2g}, "
        f"{len(below.vectors)} alpha vectors, {len(above.points)} points)"
    )
    return BeliefSolution(pomdp, below, above, lower, upper, status, trials, seconds)


def _walk(
    pomdp: POMDP, below: Below, above: Above, width: float, began: float, max_seconds: float | None
) -> None:
    """One walk down, and the backups on the way up."""
    path, belief, allowed = [], pomdp.start, 0.95 * width
    for _ in range(1000):
        path.append(belief)
        if max_seconds is not None and time.perf_counter() - began >= max_seconds:
            break
        values, ahead = above.action_values(belief)
        chance, after, top = ahead[int(values.argmax())]
        allowed /= pomdp.discount
        excess = chance * (top - below(after) - allowed)
        worst = int(excess.argmax())
        if excess[worst] <= 0.0:
            break
        belief = after[worst]
    for belief in reversed(path):
        below.backup(belief)
        above.backup(belief)
