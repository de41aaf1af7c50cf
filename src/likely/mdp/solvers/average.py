"""Average reward a step: relative value iteration with bounds on the gain.

For any v, min (Tv - v) <= g* <= max (Tv - v) (Odoni 1969; Puterman 1994, theorem 8.5.5), and the
greedy policy gains at least the minimum. The iteration runs on the aperiodic chain
tau I + (1 - tau) P, which has the same gain and optimal policies. Where the gain
differs by state (a multichain problem) the bounds still hold but cannot meet, and the status
says so.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import os

import numpy as np

from likely.errors import InvalidSetting
from likely.mdp.kernels import clock
from likely.mdp.kernels.engine import StoredEngine
from likely.mdp.kernels.threads import choose
from likely.mdp.model import checks
from likely.mdp.model.arrays import Array
from likely.mdp.model.checkpoints import checkpoint_of
from likely.mdp.model.solution import Solution, TracePoint, sentence, widest
from likely.mdp.model.world import Problem, stored


def average_reward(
    problem: Problem,
    tolerance: float = 1e-6,
    *,
    objective: str = "max",
    max_iterations: int | None = None,
    max_seconds: float | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 60.0,
    tau: float = 0.1,
) -> Solution:
    """The best average reward per step in the long run, with bounds; the discount plays no part.

        g* + h(s) = max_a [r(s, a) + sum_s' p(s' | s, a) h(s')]

    Terminal states stay where they are with reward 0.

    Args:
        problem: an `MDP` or a `World`.
        tolerance: the true error |g - g*| to reach, in units of reward.
        objective: "max" or "min" of the average.
        max_iterations, max_seconds: stop early; the bounds hold nevertheless.
        checkpoint: a file that is written every `checkpoint_seconds` and at the end. If it
            exists, the solve continues from it.
        tau: weight of staying in the aperiodic chain, in (0, 1).

    Returns:
        A `Solution`: `gain` [S] holds the middle of [lower, upper], which bound the gain of every
        state; the bounds hold for any problem and meet where the gain is the same in all states
        (unichain or communicating problems). `value` is the same array as `gain`;
        `about["bias"]` [S] holds the relative values h.

    Raises:
        InvalidSetting: an unknown name, a tolerance that is not positive.
        InvalidData: a checkpoint of another problem.

    Source: Odoni, "On finding the maximal gain for Markov decision processes", 1969,
    https://doi.org/10.1287/opre.17.5.857; Puterman 1994, theorem 8.5.5.
    """
    mdp = stored(problem)
    checks.asked(tolerance, objective, max_iterations, max_seconds)
    if not 0.0 < tau < 1.0:
        raise InvalidSetting(f"tau {tau}: expected a number in (0, 1)")
    kept = checkpoint_of(checkpoint, checkpoint_seconds, mdp, "average", objective)
    began = clock.now()
    sign = 1.0 if objective == "max" else -1.0
    engine = StoredEngine(mdp, sign * mdp.reward, 1.0, choose(None, mdp.transitions))
    states = mdp.states
    value, floor, top = np.zeros(states), np.empty(states), np.empty(states)
    best: Array = np.full(states, -1, dtype=engine.best_type)
    trace: list[TracePoint] = []
    # Wherever a maximal gain differs between states the bounds can never meet.
    limit = max_iterations if max_iterations is not None else 1_000_000
    outcome, iterations = "iterations", 0
    narrowest, stale = np.inf, 0
    low, high, gap = -np.inf, np.inf, 0.0
    resumed = None if kept is None else kept.load({"value": value.shape})
    if resumed is not None:
        value[:] = resumed.arrays["value"]
        iterations, trace = resumed.iterations, resumed.trace
        began -= resumed.seconds
    try:
        while iterations < limit:
            with np.errstate(over="ignore", invalid="ignore"):
                residual = engine.residual(value, floor, top, best)
            low, high, gap = residual.low, residual.high, residual.gap
            iterations += 1
            error = 0.5 * (high - low)
            seconds = clock.now() - began
            if iterations & (iterations - 1) == 0 or error <= tolerance:
                trace.append(TracePoint(iterations, float(iterations), seconds, error))
            if error <= tolerance:
                outcome = "converged"
                break
            if not np.isfinite(error):
                outcome = "overflow"
                break
            if high - low <= 4.0 * gap:
                outcome = "rounding"
                break
            if max_seconds is not None and seconds >= max_seconds:
                outcome = "time"
                break
            stale = 0 if error < narrowest * (1.0 - 1e-9) else stale + 1
            narrowest = min(narrowest, error)
            if stale > 1000:
                outcome = "iterations"
                break
            with np.errstate(over="ignore", invalid="ignore"):
                value += (1.0 - tau) * top
                value -= value[0]
            if kept is not None and kept.due():
                kept.save({"value": value}, iterations, iterations, seconds, trace)
    except KeyboardInterrupt:
        outcome, low = "interrupted", -np.inf
    if outcome == "overflow":  # the backup of zero needs only the rewards
        value[:] = 0.0
        low = -np.inf
    if low == -np.inf:  # interrupted, or resumed at its limit
        residual = engine.residual(value, floor, top, best)
        low, high = residual.low, residual.high
    seconds = clock.now() - began
    if kept is not None:
        kept.save({"value": value}, iterations, iterations, seconds, trace)
    if sign < 0.0:
        low, high = -high, -low
    middle = 0.5 * low + 0.5 * high
    middle = middle if np.isfinite(middle) else 0.0
    gain, lower, upper = (np.full(states, end) for end in (middle, low, high))
    error = widest(gain, lower, upper)
    if outcome == "converged" and error > tolerance:
        outcome = "rounding"
    status = sentence(outcome, error, tolerance, iterations, seconds)
    status = status.replace("|V - V*|", "|gain - gain*|")
    if outcome == "iterations" and stale > 1000:
        status += "; the bounds no longer narrow: the gain probably differs between states"
    policy = np.where(best >= 0, mdp.pair_action[best], -1) if mdp.pairs else best
    return Solution(
        policy=policy,
        value=gain,
        lower=lower,
        upper=upper,
        iterations=iterations,
        outcome=outcome,
        status=status,
        trace=tuple(trace),
        about={"criterion": "average", "objective": objective, "method": "relative-value-iteration",
               "tolerance": tolerance, "seconds": seconds, "bias": sign * value},
        gain=gain,
    )  # fmt: skip
