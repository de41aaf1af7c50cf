"""`solve_beliefs`: an interval that contains V* of the first belief, narrowed where it matters.

Heuristic search value iteration (Smith and Simmons 2005, https://arxiv.org/abs/1207.1412): walk
from the first belief, by the action of the highest upper bound and the observation whose interval
is too wide by most, and improve both bounds at the beliefs on the way back. Both hold at any
moment, so a search that is stopped early has an answer.
"""

from __future__ import annotations

import copy
import dataclasses
import time

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting, whole
from likely.mdp.beliefs.bounds import Above, Below, slack
from likely.mdp.beliefs.problem import POMDP
from likely.mdp.model import checks
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
        interrupted: whether Ctrl-C ended the search; the bounds hold.
    """

    pomdp: POMDP
    below: Below
    above: Above
    lower: float
    upper: float
    status: str
    trials: int
    seconds: float
    interrupted: bool = False

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
        max_seconds, max_trials: stop early; the bounds hold nevertheless.

    Raises:
        InvalidSetting: a tolerance that is not positive, a limit below 0.
        InvalidData: rewards so large that values exceed the range of floating-point numbers.
    """
    if not tolerance > 0.0:
        raise InvalidSetting(f"the tolerance must be positive, given {tolerance}")
    checks.limits(None, max_seconds)
    if max_trials is not None:
        whole("max_trials", max_trials, 0)
    if not np.isfinite(slack(pomdp)):
        raise InvalidData(
            f"rewards up to {abs(pomdp.reward).max():.3g} at discount {pomdp.discount:g}: values "
            "exceed the range of floating-point numbers; scale the rewards"
        )
    began, trials = time.perf_counter(), 0
    below, above = Below(pomdp), Above(pomdp)
    start = pomdp.start

    def ends() -> tuple[float, float]:
        return float(below(start[None])[0]), float(above(start[None])[0])

    lower, upper = ends()
    how, interrupted = "converged", False
    while upper - lower > tolerance:
        if max_trials is not None and trials >= max_trials:
            how = "stopped at the limit of trials"
            break
        if max_seconds is not None and time.perf_counter() - began >= max_seconds:
            how = "stopped at the time limit"
            break
        # Aim at a part of the present width: walks of sensible length first.
        width = max(tolerance, 0.5 * (upper - lower))
        before = copy.copy(below), copy.copy(above)
        try:
            moved = _walk(pomdp, below, above, width, began, max_seconds)
            lower, upper = ends()
        except KeyboardInterrupt:  # perhaps in the middle of a backup
            how, interrupted, (below, above) = "interrupted", True, before
            break
        trials += 1
        if not moved and upper - lower > tolerance:
            how = "stopped where rounding limits the bounds"
            break
    seconds = time.perf_counter() - began
    width = upper - lower
    status = (
        f"{how} after {trials} trials and {seconds:.3g} s; {at_least(lower, 9)} <= V* <= "
        f"{at_most(upper, 9)} at the first belief (width {width:.2g}, "
        f"{len(below.vectors)} alpha vectors, {len(above.points)} points)"
    )
    return BeliefSolution(pomdp, below, above, lower, upper, status, trials, seconds, interrupted)


def _walk(
    pomdp: POMDP, below: Below, above: Above, width: float, began: float, max_seconds: float | None
) -> bool:
    """One walk down, and the backups on the way up; whether one of them improved a bound."""
    path, belief, moved = [], pomdp.start, False
    allowed = 0.95 * width - 2.0 * above.slack
    for _ in range(1000):
        path.append(belief)
        if max_seconds is not None and time.perf_counter() - began >= max_seconds:
            break
        values, ahead = above.action_values(belief)
        chance, after, top = ahead[int(values.argmax())]
        allowed /= pomdp.discount
        excess = chance * (top - below(after) - below.slack - allowed)
        worst = int(excess.argmax())
        if excess[worst] <= 0.0:
            break
        belief = after[worst]
    for belief in reversed(path):
        moved |= below.backup(belief)
        moved |= above.backup(belief)
    return moved
