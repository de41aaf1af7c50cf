"""Finite horizon: backward induction (Bellman 1957), with a policy that depends on time."""

from __future__ import annotations

import os
import time

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, whole
from likely.mdp.model import checks
from likely.mdp.model.arrays import FloatArray, IntArray
from likely.mdp.model.checkpoints import checkpoint_of
from likely.mdp.model.operators import state_action_values
from likely.mdp.model.problem import MDP
from likely.mdp.model.solution import Solution, at_most, widest
from likely.mdp.model.world import Problem, stored

UNIT = 2.0**-53
STOPPED = {
    "iterations": "stopped at the iteration limit", "time": "stopped at the time limit",
    "interrupted": "interrupted",
}  # fmt: skip


def backward_induction(
    problem: Problem,
    horizon: int,
    *,
    final_value: npt.ArrayLike | None = None,
    objective: str = "max",
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
) -> Solution:
    """The best expected discounted sum of rewards over `horizon` steps; the discount may be 1.

        V_H = final value,  V_t(s) = max_a [r(s, a) + discount sum_s' p(s' | s, a) V_t+1(s')]

    Args:
        problem: an `MDP` or a `World`.
        horizon: number of steps H >= 0.
        final_value: [S] value of ending in a state after H steps; default 0.
        objective: "max" or "min" of the sum.
        max_iterations, max_seconds: stop early (as Ctrl-C does): later times are solved then;
            for earlier ones there are wide bounds and no policy (-1).
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.

    Returns:
        A `Solution` whose value, lower and upper are [H + 1, S] (row t has H - t steps to go)
        and whose policy is [H, S]. It is exact but for rounding, which the bounds include.

    Raises:
        InvalidSetting: an unknown name, a horizon that is no whole number from 0.
        InvalidData: a final value or a checkpoint that does not fit the problem.

    Source: Bellman, "Dynamic Programming", 1957; Puterman, "Markov Decision Processes", 1994,
    section 4.5, https://doi.org/10.1002/9780470316887
    """
    mdp = stored(problem)
    horizon = whole("horizon", horizon, 0)
    checks.choice("objective", objective, ("max", "min"))
    checks.limits(max_iterations, max_seconds)
    began = time.perf_counter()
    sign = 1.0 if objective == "max" else -1.0
    last = np.zeros(mdp.states)
    if final_value is not None:
        last = np.asarray(final_value, dtype=np.float64)
        if last.shape != (mdp.states,) or not bool(np.isfinite(last).all()):
            raise InvalidData(f"final_value of shape {last.shape}: expected finite [S]")
    kept = checkpoint_of(
        checkpoint, checkpoint_seconds, mdp, "finite-horizon", objective, horizon,
        final_value=None if final_value is None else last,
    )  # fmt: skip
    value = np.zeros((horizon + 1, mdp.states))
    error = np.zeros((horizon + 1, mdp.states))
    policy = np.full((horizon, mdp.states), -1, dtype=np.int64)
    value[horizon] = last
    backup = _Backup(mdp, sign, last)
    steps = horizon  # with fewer steps to go, all is known: times `steps` to `horizon`
    shapes = {"value": value.shape, "error": error.shape, "policy": policy.shape}
    resumed = None if kept is None else kept.load(shapes)
    if resumed is not None:
        value, error, policy = (resumed.arrays[name] for name in ("value", "error", "policy"))
        steps, began = horizon - resumed.iterations, began - resumed.seconds

    def save() -> None:
        if kept is not None:
            arrays = {"value": value, "error": error, "policy": policy}
            seconds = time.perf_counter() - began
            kept.save(arrays, horizon - steps, horizon - steps, seconds, ())

    outcome = "converged"
    try:
        while steps > 0:
            if max_iterations is not None and horizon - steps >= max_iterations:
                outcome = "iterations"
                break
            if max_seconds is not None and time.perf_counter() - began >= max_seconds:
                outcome = "time"
                break
            now = steps - 1
            policy[now] = backup.step(value[steps], error[steps], value[now], error[now])
            steps = now
            if kept is not None and kept.due():
                save()
    except KeyboardInterrupt:
        outcome = "interrupted"
    save()
    backup.bound(value, error, policy, steps)
    seconds = time.perf_counter() - began
    lower, upper = value - error, value + error
    worst = widest(value[steps:], lower[steps:], upper[steps:])
    status = f"solved {horizon} steps backwards in {seconds:.3g} s; |V - V*| <= {at_most(worst)}"
    if steps:
        status = (
            f"{STOPPED[outcome]} after {horizon - steps} of {horizon} steps backwards and "
            f"{seconds:.3g} s; |V - V*| <= {at_most(worst)} from time {steps} on and "
            f"{at_most(widest(value, lower, upper))} before; the bounds hold nevertheless"
        )
    elif not np.isfinite(worst):
        outcome = "overflow"
        status += (
            "; values exceed the range of floating-point numbers, the bounds hold nevertheless"
        )
    return Solution(
        policy=policy,
        value=value,
        lower=lower,
        upper=upper,
        iterations=horizon - steps,
        outcome=outcome,
        status=status,
        trace=(),
        about={"criterion": "finite-horizon", "objective": objective, "horizon": horizon,
               "method": "backward-induction", "seconds": seconds},
        _problem=mdp,
    )  # fmt: skip


class _Backup:
    """One step backwards with a bound on its rounding; wide bounds for steps that were not made."""

    def __init__(self, mdp: MDP, sign: float, last: FloatArray) -> None:
        self.mdp, self.sign, self.last = mdp, sign, last
        self.live = np.flatnonzero(~mdp.terminal)
        self.first, self.owner = mdp.pair_ptr[self.live], mdp.pair_state
        self.terms = float(np.diff(mdp.indptr).max(initial=0)) + 4.0
        self.magnitude = mdp.discount * (1.0 + mdp.row_defect)
        self.pays = float(np.abs(mdp.reward).max(initial=0.0))  # the most in a step, about

    def step(
        self, after: FloatArray, error_after: FloatArray, value: FloatArray, error: FloatArray
    ) -> IntArray:
        """Write value and error [S] of a time from those of the next; return its policy [S]."""
        mdp, live = self.mdp, self.live
        policy = np.full(mdp.states, -1, dtype=np.int64)
        value[mdp.terminal] = self.last[mdp.terminal]
        if not len(live):
            return policy
        with np.errstate(over="ignore", invalid="ignore"):
            q = state_action_values(mdp, after)
        value[live] = self.sign * np.maximum.reduceat(self.sign * q, self.first)
        policy[live] = mdp.pair_action[self.first]
        rows = np.flatnonzero(q == value[self.owner])[::-1]
        policy[self.owner[rows]] = mdp.pair_action[rows]
        # One backup rounds by a few units of its largest term and passes on what it was given;
        # rows that miss one by the defect add to it.
        largest = float(np.abs(after).max())
        rounding = self.terms * UNIT * self.pays + self.terms * UNIT * mdp.discount * largest
        rounding += mdp.row_defect * self.pays + mdp.discount * mdp.row_defect * largest
        rounding += mdp.reward_defect + 1e-300
        error[live] = self.magnitude * float(error_after.max()) + rounding
        # Beyond the range of the numbers nothing is known.
        lost = live[~(np.abs(value[live]) + error[live] < np.inf)]
        value[lost], error[lost] = 0.0, np.inf
        return policy

    def bound(self, value: FloatArray, error: FloatArray, policy: IntArray, steps: int) -> None:
        """Fill in the times before `steps`, which were not reached, in place.

        No state gains or loses more than the largest reward a step, and what was found for the
        time after them.
        """
        terminal = self.mdp.terminal
        final = float(np.abs(self.last).max(initial=0.0))
        most = float((np.abs(value[steps]) + error[steps]).max(initial=0.0))
        pays = self.pays * (1.0 + self.mdp.row_defect) + self.mdp.reward_defect + 1e-300
        for step in range(steps - 1, -1, -1):
            most = (pays + self.magnitude * max(most, final)) * (1.0 + 1e-12)
            value[step], policy[step] = np.where(terminal, self.last, 0.0), -1
            error[step] = np.where(terminal, 0.0, most)
