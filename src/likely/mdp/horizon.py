"""Finite horizon: backward induction (Bellman 1957), with a policy that depends on time."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt

from likely.errors import InvalidData, InvalidSetting
from likely.mdp.operators import state_action_values
from likely.mdp.problem import MDP
from likely.mdp.solution import Solution

__all__ = ["backward_induction"]

UNIT = 2.0**-53


def backward_induction(
    mdp: MDP,
    horizon: int,
    *,
    final_value: npt.ArrayLike | None = None,
    objective: str = "max",
) -> Solution:
    """The best expected sum of discounted rewards over `horizon` steps.

    Args:
        horizon: number of steps H >= 0.
        final_value: [S] value of ending in a state after H steps; default 0.
        objective: "max" or "min".

    Returns:
        A `Solution` whose value is [H + 1, S] (row t is the value with H - t steps to go) and
        whose policy is [H, S]. The result is exact but for rounding, which the bounds include.
        The discount may be 1.
    """
    if horizon < 0:
        raise InvalidSetting(f"horizon {horizon}: expected a number of steps >= 0")
    if objective not in ("max", "min"):
        raise InvalidSetting(f'objective="{objective}" is unknown; expected "max" or "min"')
    began = time.perf_counter()
    sign = 1.0 if objective == "max" else -1.0
    last = np.zeros(mdp.states)
    if final_value is not None:
        last = np.asarray(final_value, dtype=np.float64)
        if last.shape != (mdp.states,) or not bool(np.isfinite(last).all()):
            raise InvalidData(f"final_value of shape {last.shape}: expected finite [S]")
    value = np.zeros((horizon + 1, mdp.states))
    error = np.zeros((horizon + 1, mdp.states))
    policy = np.full((horizon, mdp.states), -1, dtype=np.int64)
    value[horizon] = last
    live = np.flatnonzero(~mdp.terminal)
    first = mdp.pair_ptr[live]
    owner = mdp.pair_state
    terms = float(np.diff(mdp.indptr).max(initial=0)) + 4.0
    magnitude = mdp.discount * (1.0 + mdp.row_defect)
    for step in range(horizon - 1, -1, -1):
        q = state_action_values(mdp, value[step + 1])
        value[step, mdp.terminal] = last[mdp.terminal]
        if not len(live):
            continue
        best = sign * np.maximum.reduceat(sign * q, first)
        value[step, live] = best
        rows = np.flatnonzero(q == value[step][owner])[::-1]
        policy[step, owner[rows]] = mdp.pair_action[rows]
        # One backup rounds by a few units of its largest term and passes on what it was given;
        # rows that miss one by the defect add to it.
        largest = float(np.abs(value[step + 1]).max())
        rounding = terms * UNIT * (float(np.abs(mdp.reward).max()) + mdp.discount * largest)
        rounding += mdp.discount * mdp.row_defect * largest
        error[step, live] = magnitude * float(error[step + 1].max()) + rounding
    seconds = time.perf_counter() - began
    worst = float(error.max(initial=0.0))
    return Solution(
        policy=policy,
        value=value,
        lower=value - error,
        upper=value + error,
        iterations=horizon,
        outcome="converged",
        status=f"solved {horizon} steps backwards in {seconds:.3g} s; |V - V*| <= {worst:.3g}",
        trace=(),
        about={"criterion": "finite-horizon", "objective": objective, "horizon": horizon,
               "method": "backward-induction", "seconds": seconds},
        _problem=mdp,
    )  # fmt: skip
